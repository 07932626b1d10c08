# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy train-report`: a training's epochs as a table, and its curve as a picture."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.terminal import Verbs, aligned
from hgdeploy.errors import EXIT_OK


def add_train_report(verbs: Verbs) -> None:
    """Add `hgdeploy train-report`."""
    parser = verbs.add_parser("train-report", help="show the epochs of a training, and its curve")
    parser.add_argument(
        "training", type=Path, help="the folder of a training, such as output/PPHGNet_tiny"
    )
    parser.add_argument("--curve", type=Path, help="draw the curve into this .png")
    parser.set_defaults(run=_report)


def _report(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.results.outputs import check_suffix
    from hgdeploy.system.files import replacing
    from hgdeploy.training.journal import read_journal
    from hgdeploy.training.report import curve_png, epochs_of, rows_of

    if arguments.curve is not None:
        check_suffix("--curve", arguments.curve, (".png",))
    events = read_journal(arguments.training)
    out.write(aligned(rows_of(epochs_of(events))))
    if arguments.curve is not None:
        picture = curve_png(events, str(arguments.training))
        with replacing(arguments.curve) as stream:
            stream.write(picture)
    return EXIT_OK
