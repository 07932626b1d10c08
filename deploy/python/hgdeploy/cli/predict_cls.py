# SPDX-License-Identifier: Apache-2.0
"""`predict_cls.py`, with PaddleClas's arguments."""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.predict import run_job
from hgdeploy.cli.predict_job import config_job
from hgdeploy.cli.terminal import Command, Parser, say


def predict_cls_command(argv: Sequence[str] | None) -> Command:
    """Parse the command line of `predict_cls.py`, which is PaddleClas's own."""
    parser = Parser(
        prog="predict_cls.py", description="Classify images, with PaddleClas's arguments."
    )
    parser.add_argument("-c", "--config", type=Path, help="PaddleClas YAML; see deploy/configs/")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="Section.key=value"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print what will be done")
    return functools.partial(_predict_cls, parser.parse_args(argv))


def _predict_cls(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.paddleclas.config import load_config

    config = load_config(arguments.config, arguments.override)
    if arguments.verbose:
        say(str(config))
    return run_job(config_job(config, arguments.config), out)
