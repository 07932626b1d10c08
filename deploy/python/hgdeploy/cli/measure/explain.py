# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy explain`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.cli.terminal import Verbs
from hgdeploy.engines import ENGINES
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EXIT_OK, ConfigError, nearest
from hgdeploy.paddleclas.config import PredictConfig, load_config
from hgdeploy.transforms.operators import Op
from hgdeploy.validation.explain import Side, explain


def add_explain(verbs: Verbs) -> None:
    """Add `hgdeploy explain`."""
    parser = verbs.add_parser("explain", help="tell which stage makes two runs differ on an image")
    parser.add_argument("image", type=Path, help="an image file")
    for side in ("a", "b"):
        parser.add_argument(
            side, metavar=side.upper(), help="a PaddleClas config, or BUNDLE[@ENGINE[:PRECISION]]"
        )
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace, out: TextIO) -> int:
    sides = parse_side(arguments.a), parse_side(arguments.b)
    out.write(explain(arguments.image, *sides).text())
    return EXIT_OK


def parse_side(text: str) -> Side:
    """Read a run: a PaddleClas config (`.yaml`), or `BUNDLE[@ENGINE[:PRECISION]]`.

    Raises:
        ConfigError: neither, or it does not say how to preprocess.
        BundleError: the bundle cannot be opened.
    """
    if Path(text).suffix in (".yaml", ".yml"):
        config = load_config(Path(text), ("Global.infer_imgs=.",))
        return _side_of_config(text, config)
    folder, _, runner = text.partition("@")
    engine, _, precision = runner.partition(":")
    engine = engine or "paddle"
    if engine not in ENGINES:
        raise ConfigError(f"{text!r}: unknown engine, {nearest(engine, ENGINES)}")
    bundle = open_bundle(folder)
    options = EngineOptions(precision=precision or "fp32")  # checks the name
    return Side(text, _own_ops(bundle), bundle, engine, options.precision)


def _side_of_config(text: str, config: PredictConfig) -> Side:
    bundle = open_bundle(config.bundle)
    ops = config.preprocess if config.preprocess is not None else _own_ops(bundle)
    return Side(text, ops, bundle, config.engine, config.options.precision)


def _own_ops(bundle: ModelBundle) -> tuple[Op, ...]:
    if bundle.preprocess is None:
        raise ConfigError(f"{bundle.root} has no inference.yml; name a config with PreProcess")
    return bundle.preprocess
