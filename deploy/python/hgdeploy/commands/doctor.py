# SPDX-License-Identifier: Apache-2.0
"""What this machine can run: `hgdeploy doctor`."""

from __future__ import annotations

import argparse
from typing import TextIO

from hgdeploy.commands.common import Verbs
from hgdeploy.errors import EXIT_OK


def add_doctor(verbs: Verbs) -> None:
    """Add `hgdeploy doctor`."""
    parser = verbs.add_parser("doctor", help="tell what this machine can run, and why not more")
    parser.set_defaults(run=_doctor)


def _doctor(_: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.doctor import report

    out.write(report())
    return EXIT_OK
