# SPDX-License-Identifier: Apache-2.0
"""A hook for the Ray workers of test_ray.py: some images kill the process that reads them.

The image's name says when: `kills_once.jpg` at the first read, `kills_always.jpg` at every read.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def install() -> None:
    """Watch which files this process opens."""
    sys.addaudithook(_watch)


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event != "open" or not str(arguments[0]).endswith((".kills_once.jpg", ".kills_always.jpg")):
        return
    path = Path(str(arguments[0]))
    marker = path.with_suffix(".deaths")
    if path.name.endswith("kills_once.jpg") and marker.exists():
        return
    with marker.open("a") as file:
        file.write(f"{os.getpid()}\n")
    os.kill(os.getpid(), signal.SIGKILL)
