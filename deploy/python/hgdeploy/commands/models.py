# SPDX-License-Identifier: Apache-2.0
"""The zoo: `hgdeploy models`, `models download` and `export`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from hgdeploy.commands.common import Verbs
from hgdeploy.errors import EXIT_OK, ConfigError


def add_models(verbs: Verbs) -> None:
    """Add `hgdeploy models` and `models download`."""
    parser = verbs.add_parser("models", help="list the zoo, or download a model")
    parser.set_defaults(run=_models)
    actions = parser.add_subparsers(metavar="ACTION")
    download = actions.add_parser("download", help="fetch a model and make it a bundle")
    download.add_argument("name", metavar="NAME", help="a model of the zoo")
    download.add_argument(
        "--output", type=Path, default=Path("deploy/models"), help="parent folder (deploy/models)"
    )
    download.add_argument("--url", help="base URL of a mirror, instead of the official one")
    download.set_defaults(run=_download)


def _models(_: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy import zoo
    from hgdeploy.text_table import aligned

    def shown(value: object) -> str:
        return "-" if value is None else str(value)

    head = ("model", "params M", "GMAC", "top-1", "top-5", "preprocessing", "archive", "weights")
    rows: list[tuple[str, ...]] = [head]
    for name in zoo.names():
        info = zoo.info(name)
        figures = (info.params_m, info.macs_g, info.top1, info.top5)
        package = f"package {info.package.name}=={info.package.version}" if info.package else None
        sources = (info.inference_url or package, info.weights_url or package)
        rows.append((name, *map(shown, figures), info.describe_preprocess(), *map(shown, sources)))
    out.write(aligned(rows))
    return EXIT_OK


def _download(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.zoo.bundles import download_model

    bundle = download_model(arguments.name, arguments.output, base_url=arguments.url, progress=True)
    out.write(f"{bundle}\n")
    return EXIT_OK


def add_export(verbs: Verbs) -> None:
    """Add `hgdeploy export`."""
    parser = verbs.add_parser("export", help="write a bundle from a zoo model and its weights")
    parser.add_argument("name", metavar="NAME", help="a model of the zoo; see hgdeploy models")
    parser.add_argument("--weights", required=True, help=".pdparams or .pth file, or 'none'")
    parser.add_argument("--output", type=Path, required=True, help="the bundle's folder")
    parser.add_argument(
        "--num-classes", type=int, default=1000, help="classes of the weights (1000)"
    )
    parser.add_argument("--labels", type=Path, help="label file, one 'ID NAME' a line")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.transforms.postprocess_config import read_labels
    from hgdeploy.zoo.export import bundle_from_weights

    labels = None
    if arguments.labels is not None:
        named = read_labels(arguments.labels)
        if set(named) != set(range(arguments.num_classes)):
            raise ConfigError(
                f"--labels {arguments.labels} names {len(named)} classes, expected ids 0 to "
                f"{arguments.num_classes - 1}; check --num-classes"
            )
        labels = [named[i] for i in range(arguments.num_classes)]
    bundle = bundle_from_weights(
        arguments.name,
        None if arguments.weights == "none" else Path(arguments.weights),
        arguments.output,
        num_classes=arguments.num_classes,
        labels=labels,
    )
    out.write(f"{bundle}\n")
    return EXIT_OK
