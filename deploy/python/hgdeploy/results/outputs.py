# SPDX-License-Identifier: Apache-2.0
"""The files that a command writes: each is a file of its own, none is read, one writer at a time.

Two paths are one file where they lead to the same place: by a link, a second name on the disk, a
relative path, or another case of the letters where the file system takes both for the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hgdeploy.errors import ConfigError, OutputError, nearest
from hgdeploy.system.files import check_replaceable
from hgdeploy.system.locks import claim
from hgdeploy.system.progress import OnLine, nothing

Inputs = Iterable[tuple[str, str | os.PathLike[str]]]
"""What a command reads: what each file is called in an error, and its path."""


def check_suffix(option: str, path: Path, suffixes: Collection[str]) -> str:
    """Return an output's suffix in lower case.

    Args:
        option: the option that names the output, for the error.
        path: the output.
        suffixes: the suffixes that it may have.

    Raises:
        ConfigError: it has another one.
    """
    suffix = path.suffix.lower()
    if suffix not in suffixes:
        raise ConfigError(f"{option} {path}: unknown suffix, {nearest(path.suffix, suffixes)}")
    return suffix


def check_apart(outputs: Mapping[str, Sequence[Path]], inputs: Inputs = ()) -> None:
    """Refuse outputs that are one file, or that are what the command reads.

    Args:
        outputs: the files that each option has written, the one that it names first.
        inputs: what is read; not looked at where no output is there yet.

    Raises:
        ConfigError: two are one file; the message names both.
    """
    written: dict[tuple[object, ...], tuple[str, Path]] = {}
    for option, paths in outputs.items():
        for path in paths:
            other, same = written.setdefault(_identity(path), (option, path))
            if same is not path:
                raise ConfigError(
                    f"{option} {path}: {other} writes this file ({same}); name another"
                )
    there = {identity: entry for identity, entry in written.items() if len(identity) == 2}
    for what, place in inputs if there else ():
        try:
            status = Path(place).stat()
        except (OSError, ValueError):  # it cannot be read, which is said when it is
            continue
        if (status.st_dev, status.st_ino) in there:
            option, path = there[status.st_dev, status.st_ino]
            raise ConfigError(
                f"{option} {path}: this file is {what} ({os.fspath(place)}) and would be "
                "overwritten; name another"
            )


def _identity(path: Path) -> tuple[object, ...]:
    """Return what is equal for two paths of one file: two numbers for a file that is there."""
    real = Path(os.path.realpath(path))
    with contextlib.suppress(OSError, ValueError):
        status = real.stat()
        return status.st_dev, status.st_ino
    name = real.name.casefold()  # this file system may take both cases for the same
    with contextlib.suppress(OSError, ValueError):
        status = real.parent.stat()
        return status.st_dev, status.st_ino, name
    return str(real.parent), name, ""


@contextlib.contextmanager
def claiming(paths: Sequence[Path], on_warning: OnLine = nothing) -> Iterator[None]:
    """Hold the right to write these files, all of them or none.

    Args:
        paths: the files; links are followed.
        on_warning: called with a line where a second process cannot be kept from writing one.

    Raises:
        OutputError: one cannot be written, or another process is writing it.
    """
    with contextlib.ExitStack() as claims:
        for path in paths:
            check_replaceable(path)
        for path in paths:
            busy = f"{path}: another process is writing it; wait for it, or name another file"
            real = Path(os.path.realpath(path))
            claims.enter_context(claim(real, OutputError(busy), on_warning))
        yield
