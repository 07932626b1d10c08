# SPDX-License-Identifier: Apache-2.0
"""What the Ray workers of test_ray_folder.py do on top: some images kill the process reading them.

The name of the image says when: `kills_once.jpg` at the first reading, `kills_always.jpg` at each.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def install() -> None:
    """Watch what this process opens."""
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
