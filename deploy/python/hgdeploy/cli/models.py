# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy models`, `hgdeploy models show` and `hgdeploy models download`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.progress import download_progress
from hgdeploy.cli.streams import tell
from hgdeploy.cli.terminal import Verbs, aligned
from hgdeploy.errors import EXIT_OK


def add_models(verbs: Verbs) -> None:
    """Add `hgdeploy models`, `hgdeploy models show` and `hgdeploy models download`."""
    parser = verbs.add_parser("models", help="list the zoo, show or download a model")
    parser.set_defaults(run=_models)
    actions = parser.add_subparsers(metavar="ACTION")
    show = actions.add_parser("show", help="all about one model: figures, and its files' addresses")
    show.add_argument("name", metavar="NAME", help="a model of the zoo")
    show.set_defaults(run=_show)
    download = actions.add_parser("download", help="download a model and make a bundle of it")
    download.add_argument("name", metavar="NAME", help="a model of the zoo")
    download.add_argument(
        "--output", type=Path, default=Path("deploy/models"), help="parent folder (deploy/models)"
    )
    download.add_argument("--url", help="base URL of a mirror, instead of the official one")
    download.set_defaults(run=_download)


def _models(_: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy import zoo

    head = ("model", "params M", "GMAC", "top-1", "top-5", "preprocessing", "weights")
    rows: list[tuple[str, ...]] = [head]
    for name in zoo.names():
        info = zoo.info(name)
        figures = map(_cell, (info.params_m, info.macs_g, info.top1, info.top5))
        source = "official" if info.inference_url else "package" if info.package else "-"
        rows.append((name, *figures, info.describe_preprocess(), source))
    out.write(aligned(rows))
    return EXIT_OK


def _show(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy import zoo

    info = zoo.info(arguments.name)
    package = f"package {info.package.name}=={info.package.version}" if info.package else None
    facts = {
        "model": info.name,
        "network": info.architecture,
        "input": f"{info.input_size} x {info.input_size}",
        "params M": info.params_m,
        "GMAC": info.macs_g,
        "top-1": info.top1,
        "top-5": info.top5,
        "V100 ms": info.v100_ms,
        "preprocessing": info.describe_preprocess(),
        "archive": info.inference_url or package,
        "weights": info.weights_url or package,
    }
    out.write(aligned([(key, _cell(value)) for key, value in facts.items()]))
    return EXIT_OK


def _cell(value: object) -> str:
    return "-" if value is None else str(value)


def _download(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.zoo.bundles import download_model

    with download_progress() as on_bytes:
        bundle = download_model(
            arguments.name,
            arguments.output,
            base_url=arguments.url,
            on_progress=tell,
            on_bytes=on_bytes,
        )
    out.write(f"{bundle}\n")
    return EXIT_OK
