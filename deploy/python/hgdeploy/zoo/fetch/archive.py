# SPDX-License-Identifier: Apache-2.0
"""Unpack model archives without trusting them.

An archive may only place plain files of bounded size in its own folder.
"""

from __future__ import annotations

import io
import re
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

from hgdeploy.bundle.names import PADDLE_PARAMS, PADDLE_PROGRAMS
from hgdeploy.bundle.staging import staged_folder
from hgdeploy.errors import DownloadError
from hgdeploy.system.checks import cut
from hgdeploy.system.files import writing
from hgdeploy.zoo.fetch.connection import shown
from hgdeploy.zoo.fetch.http import CHUNK, MAX_BYTES

MAX_MEMBER_BYTES = 8 << 30
MAX_TOTAL_BYTES = MAX_BYTES
MAX_MEMBERS = 64
# tar's extended headers have any length, and any number may come before one file.
_MAX_HEADER_BYTES = 1 << 20


def unpack_bundle(archive: Path, output_dir: Path) -> Path:
    """Unpack a model archive: a plain tar with a model and its parameters, as PaddleClas ships it.

    All files must lie in one folder, whose name is left out, or at the top. The archive is checked
    and unpacked elsewhere first, so one that is refused leaves nothing behind.

    Args:
        archive: an uncompressed tar file.
        output_dir: the folder to make; if it exists, only files of the same names change.

    Returns:
        `output_dir`.

    Raises:
        DownloadError: it is not a tar file; a member is not a plain file, lies outside, is too
            large or occurs twice; there are too many members; or a model with its parameters is
            missing.
        OutputError: the folder cannot be written.
    """
    with staged_folder(output_dir) as folder:
        try:
            members = _read_headers(archive)
            with archive.open("rb") as file:
                for name, member in members.items():
                    file.seek(member.offset_data)
                    _extract(file, member, folder / name, archive)
        except (tarfile.TarError, ArithmeticError, EOFError, ValueError) as error:
            raise DownloadError(
                f"{archive}: is not a complete, uncompressed tar file: {shown(error)}"
            ) from error
        except OSError as error:
            raise DownloadError(f"{archive}: cannot be read: {error.strerror or error}") from error
        if not members.keys() & set(PADDLE_PROGRAMS) or PADDLE_PARAMS not in members:
            raise DownloadError(
                f"{archive}: does not contain {' or '.join(PADDLE_PROGRAMS)} with {PADDLE_PARAMS}; "
                f"it contains {shown(', '.join(sorted(members))) or 'nothing'}"
            )
    return output_dir


class _Headers(io.FileIO):
    """An archive of which only so much may be read as its headers take."""

    left = _MAX_HEADER_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        """Read some bytes of a header."""
        if size is None or size < 0:  # a header of a negative size
            size = self.left + 1
        self.left -= size
        if self.left < 0:
            raise tarfile.ReadError(f"its headers take more than {_MAX_HEADER_BYTES:,} bytes")
        return super().read(size)


def _read_headers(archive: Path) -> dict[str, tarfile.TarInfo]:
    # "r:" reads plain tar only: decompressing could turn a few bytes into any number.
    try:
        with _Headers(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            return _checked_members(tar, archive)
    except RecursionError:
        raise tarfile.ReadError("too many extended headers follow one another") from None


def _extract(source: IO[bytes], member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    left = member.size
    with writing(target), target.open("xb") as file:
        while left:
            chunk = source.read(min(CHUNK, left))
            if not chunk:
                raise DownloadError(f"{archive}: ends inside {cut(member.name)}")
            file.write(chunk)
            left -= len(chunk)


def _checked_members(tar: tarfile.TarFile, archive: Path) -> dict[str, tarfile.TarInfo]:
    """Return the plain files by name, after applying every rule to every header."""
    members: dict[str, tarfile.TarInfo] = {}
    folders: set[PurePosixPath] = set()
    total = 0
    for count, member in enumerate(tar, start=1):
        path = _safe_path(member, archive)
        if count > MAX_MEMBERS:
            raise DownloadError(f"{archive}: has more than {MAX_MEMBERS} members")
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DownloadError(
                f"{archive}: {cut(member.name)} is not a plain file (a link or a device)"
            )
        total += member.size
        if not 0 <= member.size <= MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
            raise DownloadError(
                f"{archive}: {cut(member.name)} of {member.size} bytes is too large"
            )
        # Some file systems ignore case: two spellings of a name would be one file there.
        if path.name.casefold() in {name.casefold() for name in members}:
            raise DownloadError(f"{archive}: {cut(path.name)} occurs twice")
        members[path.name] = member
        folders.add(path.parent)
    if len(folders) > 1 or any(len(folder.parts) > 1 for folder in folders):
        raise DownloadError(f"{archive}: has files in several folders, expected one")
    return members


def _safe_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    # On Windows, a backslash or a colon may lead to another place.
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:]", member.name):
        raise DownloadError(f"{archive}: {cut(member.name)} lies outside the archive")
    if not member.name.isprintable():
        raise DownloadError(f"{archive}: {cut(member.name)} is no name for a file")
    if not path.name and not member.isdir():
        raise DownloadError(f"{archive}: a member has no name")
    return path
