# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy explain`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.progress import told_if_slow
from hgdeploy.cli.terminal import Verbs, opened_bundle, warn
from hgdeploy.errors import EXIT_OK, ConfigError
from hgdeploy.system.progress import OnLine, once

if TYPE_CHECKING:
    from hgdeploy.bundle.model_bundle import ModelBundle
    from hgdeploy.paddleclas.config import PredictConfig
    from hgdeploy.transforms.operators import Op
    from hgdeploy.validation.explain import Side


def add_explain(verbs: Verbs) -> None:
    """Add `hgdeploy explain`."""
    parser = verbs.add_parser(
        "explain", help="find the stage where two runs of an image begin to differ"
    )
    parser.add_argument("image", type=Path, help="an image file")
    for side in ("a", "b"):
        parser.add_argument(
            side,
            metavar=side.upper(),
            help="a PaddleClas config, or BUNDLE[@ENGINE[:PRECISION][@DEVICE]] or BUNDLE@auto",
        )
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.validation.explain import explain

    tell = once(warn)  # both sides may have the same bundle, and the same engine
    sides = parse_side(arguments.a, tell), parse_side(arguments.b, tell)
    with told_if_slow(f"comparing {arguments.a} with {arguments.b}"):
        found = explain(arguments.image, *sides, tell)
    out.write(found.text())
    return EXIT_OK


def parse_side(text: str, on_warning: OnLine = warn) -> Side:
    """Read one side: a PaddleClas config (`.yaml`), or `BUNDLE[@ENGINE[:PRECISION][@DEVICE]]`.

    Raises:
        ConfigError: it is neither, or it does not say how to preprocess.
        BundleError: the bundle cannot be opened.
    """
    from hgdeploy.engines.auto.choose import Asked, choose, name_auto
    from hgdeploy.engines.run import parse_run
    from hgdeploy.paddleclas.config import load_config
    from hgdeploy.validation.explain import Side

    if Path(text).suffix in (".yaml", ".yml"):
        config = load_config(Path(text), ("Global.infer_imgs=.",))
        return _side_of_config(text, config, on_warning)
    folder, _, run = text.partition("@")
    bundle = opened_bundle(folder, on_warning)
    try:
        named = name_auto(bundle.root, run, on_warning)
        chosen = parse_run(named) if run else choose(bundle.root, Asked(), on_warning).run
        return Side(text, _own_ops(bundle), bundle, chosen)
    except ConfigError as error:
        raise ConfigError(f"{text!r}: {error}") from None


def _side_of_config(text: str, config: PredictConfig, on_warning: OnLine) -> Side:
    from hgdeploy.engines.run import Run
    from hgdeploy.validation.explain import Side

    bundle = opened_bundle(config.bundle, on_warning)
    ops = config.preprocess if config.preprocess is not None else _own_ops(bundle)
    run = Run(config.engine, config.options.precision, config.options.device)
    # A single image, whatever batch the config asks for.
    return Side(text, ops, bundle, run, dataclasses.replace(config.options, max_batch=1))


def _own_ops(bundle: ModelBundle) -> tuple[Op, ...]:
    try:
        return bundle.own_preprocess()
    except ConfigError as error:
        raise ConfigError(f"{error}; name a config with PreProcess") from None
