# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy export-mobile`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.terminal import Verbs, opened_bundle, say, warn
from hgdeploy.errors import EXIT_OK


def add_export_mobile(verbs: Verbs) -> None:
    """Add `hgdeploy export-mobile`."""
    parser = verbs.add_parser("export-mobile", help="write a folder for Android and iOS")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument("--to", required=True, help="ncnn, mnn or paddle-lite")
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--precision",
        help="what the weights are stored in: fp16 (default), fp32, int8 (mnn; needs --images)",
    )
    parser.add_argument("--images", help="real images to measure the agreement on")
    parser.set_defaults(run=_export_mobile)


def _export_mobile(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.convert.mobile.export import MobileOptions, export_mobile
    from hgdeploy.images.find import find_images

    options = MobileOptions(
        arguments.to,
        arguments.precision,
        find_images(arguments.images, warn) if arguments.images else (),
    )
    bundle = opened_bundle(arguments.bundle)
    out.write(f"{export_mobile(bundle, arguments.folder, options, warn, say)}\n")
    return EXIT_OK
