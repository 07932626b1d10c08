# SPDX-License-Identifier: Apache-2.0
"""Write a model's folder whole, and never two of Paddle's formats into one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hgdeploy.bundle.names import PADDLE_PROGRAMS
from hgdeploy.errors import OutputError
from hgdeploy.system.files import updating_folder


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Fill a model's folder as `updating_folder` does.

    Args:
        final: the folder to make or to update.

    Yields:
        An empty folder to fill.

    Raises:
        OutputError: `final` cannot be written, or holds a model in the other of Paddle's formats.
    """
    with updating_folder(final) as folder:
        yield folder
        _check_one_format({path.name for path in folder.iterdir()}, final)


def _check_one_format(ours: set[str], final: Path) -> None:
    """Refuse a second format: both would share one parameters file, and one would be stale."""
    for name in PADDLE_PROGRAMS:
        if ours.intersection(PADDLE_PROGRAMS) and name not in ours and (final / name).exists():
            raise OutputError(
                f"{final} already holds {name}, a model in another format: "
                "choose another folder, or remove that model"
            )
