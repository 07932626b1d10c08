# SPDX-License-Identifier: Apache-2.0
"""Write a model's folder aside and publish it whole, so that a failure leaves nothing behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hgdeploy.bundle.names import PADDLE_PROGRAMS
from hgdeploy.errors import OutputError


@contextmanager
def staged_folder(final: Path) -> Iterator[Path]:
    """Give an empty folder beside `final` to fill, and publish it when the block ends well.

    A `final` that is not there appears in one step. In one that is there, each file that the block
    wrote replaces its predecessor in one step, and all other files stay.

    Args:
        final: the folder to make or to update.

    Yields:
        A folder on the same file system. It is removed when the block fails.

    Raises:
        OutputError: `final` cannot be written, or holds a model in the other of Paddle's formats.
    """
    try:
        if final.exists() and not final.is_dir():
            raise OutputError(f"{final} is a file, expected a folder or nothing")
        final.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
    except OSError as error:
        raise _cannot_write(final, error) from error
    try:
        # mkdtemp's folder is private to this user; the published one follows the umask.
        folder = scratch / "content"
        folder.mkdir()
        yield folder
        try:
            _publish(folder, final)
        except OSError as error:
            raise _cannot_write(final, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(folder: Path, final: Path) -> None:
    if not final.exists():
        folder.rename(final)
        return
    ours = {path.name for path in folder.iterdir()}
    # One format a folder: two would share one parameters file, and one would be stale.
    for name in PADDLE_PROGRAMS:
        if ours.intersection(PADDLE_PROGRAMS) and name not in ours and (final / name).exists():
            raise OutputError(
                f"{final} already holds {name}, a model in another format: "
                "choose another folder, or remove that model"
            )
    for path in sorted(folder.iterdir()):
        path.replace(final / path.name)


def _cannot_write(path: Path, error: OSError) -> OutputError:
    return OutputError(f"cannot write {path}: {error.strerror or error}")
