# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy export`, and `deploy/python/export_model.py`: PaddleClas's `tools/export_model.py`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.terminal import Verbs, refuse_without_effect, say, warn
from hgdeploy.cli.tools.common import (
    add_config_arguments,
    imagenet_labels,
    loaded_config,
    weights_of,
)
from hgdeploy.errors import EXIT_OK, BundleError, ConfigError
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import MANY, whole

if TYPE_CHECKING:
    from hgdeploy.paddleclas.training.config import TrainingConfig
    from hgdeploy.transforms.postprocess import Output


def add_export(verbs: Verbs) -> None:
    """Add `hgdeploy export`."""
    parser = verbs.add_parser("export", help="write a bundle from a zoo model and its weights")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a model of the zoo; see hgdeploy models"
    )
    parser.add_argument("--weights", help=".pdparams or .pth file, or 'none'")
    parser.add_argument("--output", type=Path, help="the bundle's folder")
    parser.add_argument("--num-classes", type=int, help="classes of the weights (1000)")
    parser.add_argument("--labels", type=Path, help="label file with one 'ID NAME' per line")
    add_config_arguments(parser)
    parser.set_defaults(run=_export)


def declare_export_model(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of PaddleClas's `tools/export_model.py`, and `run`."""
    add_config_arguments(parser)
    parser.set_defaults(run=_export_config)


_NAMED = ("name", "weights", "output", "num_classes", "labels")


def _export(arguments: argparse.Namespace, out: TextIO) -> int:
    if arguments.config is not None:
        if arguments.name is not None:
            raise ConfigError("NAME has no effect with -c; the config's Arch.name is exported")
        refuse_without_effect(arguments, _NAMED[1:], "with -c; the config says it, or -o")
        return _export_config(arguments, out)
    if arguments.override:
        raise ConfigError("-o has no effect without -c")
    missing = [name for name in _NAMED[:3] if getattr(arguments, name) is None]
    if missing:
        raise ConfigError(
            f"{' and '.join(missing)} must be given, or a training config with -c (see hgdeploy "
            "export --help)"
        )
    return _export_named(arguments, out)


def _export_named(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.transforms.postprocess_config import read_labels
    from hgdeploy.zoo.export import bundle_from_weights

    classes = 1000 if arguments.num_classes is None else arguments.num_classes
    check("--num-classes", classes, whole(1, MANY))
    labels = None
    if arguments.labels is not None:
        named = read_labels(arguments.labels)
        if set(named) != set(range(classes)):
            raise ConfigError(
                f"--labels {arguments.labels} names {len(named)} classes, expected ids 0 to "
                f"{classes - 1}; check --num-classes"
            )
        labels = [named[i] for i in range(classes)]
    bundle = bundle_from_weights(
        arguments.name,
        None if arguments.weights == "none" else Path(arguments.weights),
        arguments.output,
        num_classes=classes,
        labels=labels,
        on_progress=say,
    )
    out.write(f"{bundle}\n")
    return EXIT_OK


def _export_config(arguments: argparse.Namespace, out: TextIO) -> int:
    """Export what PaddleClas's training config describes."""
    from hgdeploy.paddleclas.answers import write_logged
    from hgdeploy.paddleclas.training.tasks import read_transforms
    from hgdeploy.zoo.export import ExportOptions, export_bundle

    config = loaded_config(arguments)
    options = ExportOptions(
        config.num_classes, config.ending, config.size, read_transforms(config), _output(config)
    )
    folder = config.save_inference_dir
    export_bundle(config.arch, weights_of(config), folder, options, say)
    saved = folder / "inference"
    write_logged(
        out, f'Export succeeded! The inference model exported has been saved in "{saved}".'
    )
    return EXIT_OK


def _output(config: TrainingConfig) -> Output | None:
    """Return what the config makes of the scores; None where it does not say, or not rightly.

    PaddleClas reads that for an export only if it is asked for with `export_for_fd`.
    """
    from hgdeploy.paddleclas.training.tasks import read_output
    from hgdeploy.transforms.postprocess import MultiLabelThreshOutput

    if config.raw.get("Infer") is None:
        return MultiLabelThreshOutput() if config.multilabel else None
    try:
        return read_output(config, imagenet_labels(), warn).output
    except (BundleError, ConfigError) as error:
        if config.described:
            raise
        warn(f"inference.yml will have no names of classes: {error}")
        return None
