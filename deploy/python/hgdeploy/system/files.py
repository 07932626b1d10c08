# SPDX-License-Identifier: Apache-2.0
"""Written whole: what is written is there complete and on disk, or all is as it was before.

`replacing` writes one file, `updating_folder` several that belong together, and `replacing_folder`
a folder in the place of another. All write aside, under a hidden name on the same file system, and
remove that again when they fail; the system's errors become one OutputError that names the path.

A process that is killed may leave its hidden `.NAME.*`: a file, or a folder, which goes with the
next update of the same folder. Several files take their names one after the other: killed in that
instant, a process leaves some of them old and others new.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import io
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from hgdeploy.errors import OutputError

_WINDOWS = os.name == "nt"


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn the system's errors into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{path} cannot be written: {error.strerror or error}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write a file aside; it takes its name once the block has ended well.

    A link stays one, and the file that it names is replaced. A pipe or a device cannot be replaced:
    it takes the bytes as they come.

    Args:
        path: the file; its folder exists.

    Yields:
        The stream to write to.

    Raises:
        OutputError: it cannot be written; what was there is as it was.
    """
    with writing(path):
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
            return
        final = Path(os.path.realpath(path))
        aside = final.with_name(_aside_name(final.name, secrets.token_hex(4)))
        try:
            # The raw file is closed first: a buffer that cannot be flushed is then dropped.
            with aside.open("xb", buffering=0) as raw:
                buffered = io.BufferedWriter(raw)
                yield buffered
                buffered.flush()
            if final.exists():
                with contextlib.suppress(OSError):  # some file systems know no permissions
                    shutil.copymode(final, aside)
            put_in_place(aside, final)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def write_text(path: Path, text: str) -> Path:
    """Write a file of UTF-8 text as `replacing` does, and return its path."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))
    return path


def put_in_place(aside: Path, path: Path) -> None:
    """Give a finished file, written aside on the same file system, its name.

    Raises:
        OutputError: it cannot have it; what was there is as it was.
    """
    with writing(path):
        _sync(aside)
        aside.replace(path)
        _sync(path.absolute().parent)


@contextlib.contextmanager
def updating_folder(folder: Path, last: Sequence[str] = ()) -> Iterator[Path]:
    """Fill a folder aside; its files take their names in `folder`, all or none.

    A `folder` that is not there appears in one step. In one that is there, each file takes the
    place of its predecessor, and all other files stay.

    Args:
        folder: the folder to make or to update.
        last: names of files that come last, in this order: those that describe the others.

    Yields:
        An empty folder. What is in it when the block ends well is published.

    Raises:
        OutputError: it cannot be written; what was there is as it was.
    """
    with _aside(folder, folder if folder.is_dir() else folder.parent) as scratch:
        made = scratch / "new"
        yield made
        if not folder.is_dir():
            _publish([(made, folder)], scratch / "old")
            return
        names = sorted(path.name for path in made.iterdir())
        names.sort(key=lambda name: last.index(name) if name in last else -1)
        _publish([(made / name, folder / name) for name in names], scratch / "old")


@contextlib.contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
    """Fill a folder aside; it takes the place of `folder`, with all that was in that.

    Args:
        folder: the folder to make or to replace.

    Yields:
        An empty folder.

    Raises:
        OutputError: it cannot be written; what was there is as it was.
    """
    with _aside(folder, folder.parent) as scratch:
        yield scratch / "new"
        _publish([(scratch / "new", folder)], scratch / "old")


def check_replaceable(path: Path) -> None:
    """Refuse, before any work is done, what `replacing` could not write; nothing is changed.

    Raises:
        OutputError: the folder is missing or closed, or something else has that name.
    """
    folder = Path(os.path.realpath(path)).parent  # a link's file is what is replaced
    with writing(path), tempfile.TemporaryFile(dir=folder):
        if path.exists() and not path.is_file():
            raise OutputError(f"{path} cannot be written: it is not a regular file")


def remove_leftovers(*paths: Path) -> None:
    """Remove what killed processes left of writing these files; only for who alone may write them.

    Raises:
        OutputError: one cannot be removed.
    """
    for path in paths:
        with writing(path):
            for aside in path.parent.glob(_aside_name(glob.escape(path.name), "?" * 8)):
                aside.unlink(missing_ok=True)


def to_disk(handle: int) -> None:
    """Have what an open file has taken on disk, as far as its file system can do that.

    Raises:
        OSError: the disk failed to take it.
    """
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise


def user_cache() -> Path | None:
    """Return this user's folder of what can be made again, which may not exist; None if unknown.

    It is `hgdeploy` in `XDG_CACHE_HOME`, else in `~/.cache`, or on Windows in `LOCALAPPDATA`.
    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    named = Path(os.environ.get("LOCALAPPDATA" if _WINDOWS else "XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "hgdeploy"
    except RuntimeError:  # a user without a home
        return None


def _aside_name(name: str, random: str) -> str:
    return f".{name}.{random}.tmp"


@contextlib.contextmanager
def _aside(folder: Path, where: Path) -> Iterator[Path]:
    """Yield a hidden folder in `where`, with an empty one named `new` in it; it goes at the end."""
    from hgdeploy.system.locks import holding  # which is itself made of `writing`

    with writing(folder):
        if folder.exists() and not folder.is_dir():
            raise OutputError(f"{folder} cannot be written: it is a file, expected a folder")
        where.mkdir(parents=True, exist_ok=True)
        name = folder.absolute().name
        _remove_abandoned(name, where)
        with (
            tempfile.TemporaryDirectory(
                prefix=f".{name}.", dir=where, ignore_cleanup_errors=True
            ) as scratch,
            holding(Path(scratch)),
        ):
            # The hidden folder is private to this user; the one in it follows the umask.
            made = Path(scratch) / "new"
            made.mkdir()
            yield made.parent


def remove_abandoned(folder: Path) -> None:
    """Remove the hidden folders that killed processes have left of updating `folder`.

    Those that a process still fills stay, as does all on a file system without locks.
    """
    _remove_abandoned(folder.absolute().name, folder)


def _remove_abandoned(name: str, where: Path) -> None:
    from hgdeploy.system.locks import holding  # which is itself made of `writing`

    for scratch in where.glob(f".{glob.escape(name)}.????????"):
        # Who fills one holds it before there is anything in it.
        with contextlib.suppress(OSError), holding(scratch) as held:
            if held and _is_abandoned(scratch, where):
                shutil.rmtree(scratch, ignore_errors=True)


def _is_abandoned(scratch: Path, where: Path) -> bool:
    """Tell whether a folder that nobody holds is one of ours, without the only copy of anything."""
    found = {path.name for path in scratch.iterdir()}
    if scratch.is_symlink() or not found or found - {"new", "old"}:
        return False
    kept = (scratch / "old").iterdir() if "old" in found else ()
    return all(os.path.lexists(where / path.name) for path in kept)


def _publish(moves: Sequence[tuple[Path, Path]], old: Path) -> None:
    """Move each path to its place; where one cannot go there, all places are as they were."""
    for new, _ in moves:
        for path in new.rglob("*"):
            _sync(path)
        _sync(new)
    old.mkdir()
    with contextlib.ExitStack() as undo:
        for new, final in moves:
            if final.is_dir() and not new.is_dir():
                raise OutputError(f"{final} cannot be written: it is a folder, expected a file")
            kept, replaces = old / final.name, os.path.lexists(final)
            undo.callback(_put_back, kept, final, replaces)
            if replaces:
                _keep(final, kept)
            new.replace(final)
        for folder in {final.absolute().parent for _, final in moves}:
            _sync(folder)
        undo.pop_all()


def _keep(path: Path, kept: Path) -> None:
    """Keep what is to be replaced: by a second name, so that the first one never lacks a file."""
    try:
        kept.hardlink_to(path)
    except OSError:  # a folder, or a file system without hard links
        path.rename(kept)


def _put_back(kept: Path, path: Path, replaced: bool) -> None:
    if not replaced:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    elif os.path.lexists(kept):
        kept.replace(path)


def _sync(path: Path) -> None:
    """Have what lies at a path on disk; Windows does that for files only."""
    if _WINDOWS and path.is_dir():
        return
    handle = os.open(path, os.O_RDWR if _WINDOWS else os.O_RDONLY)
    try:
        to_disk(handle)
    finally:
        os.close(handle)
