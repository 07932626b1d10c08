# SPDX-License-Identifier: Apache-2.0
"""Unpack an archive that nobody has to trust."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path, PurePosixPath

from hgdeploy.bundle.names import PADDLE_PARAMS, PADDLE_PROGRAMS
from hgdeploy.bundle.staging import staged_folder
from hgdeploy.errors import DownloadError
from hgdeploy.system.files import writing
from hgdeploy.zoo.fetch.http import CHUNK

# The largest official model (829 M parameters) has one file of 3.3 GB.
MAX_MEMBER_BYTES = 8 << 30
MAX_TOTAL_BYTES = 10 << 30
MAX_MEMBERS = 64


def unpack_bundle(archive: Path, output_dir: Path) -> Path:
    """Unpack a model archive: a plain tar with a model and its parameters, as PaddleClas ships.

    All files must lie in one folder, or at the top; that folder's name is left out. The archive is
    checked and written aside first, so a refused one leaves nothing behind.

    Args:
        archive: an uncompressed tar file.
        output_dir: the folder to make; in one that exists, only files of the same names change.

    Returns:
        `output_dir`.

    Raises:
        DownloadError: no tar; a member that is no plain file, lies outside, is too large or comes
            twice; too many members; or no model with its parameters inside.
        OutputError: the folder cannot be written.
    """
    with staged_folder(output_dir) as folder:
        try:
            # "r:" reads plain tar only: decompressing could turn a few bytes into any number.
            with tarfile.open(archive, "r:") as tar:
                members = _checked_members(tar, archive)
                for name, member in members.items():
                    _extract(tar, member, folder / name, archive)
        except (tarfile.TarError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DownloadError(
                f"{archive}: is no whole, uncompressed tar file: {reason}"
            ) from error
        except OSError as error:
            raise DownloadError(f"{archive}: cannot be read: {error.strerror or error}") from error
        if not members.keys() & set(PADDLE_PROGRAMS) or PADDLE_PARAMS not in members:
            raise DownloadError(
                f"{archive}: holds no {' or '.join(PADDLE_PROGRAMS)} with {PADDLE_PARAMS}; "
                f"it holds {', '.join(sorted(members)) or 'nothing'}"
            )
    return output_dir


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, archive: Path) -> None:
    source = tar.extractfile(member)
    left = member.size
    with writing(target), target.open("xb") as file:
        while left:
            chunk = source.read(min(CHUNK, left)) if source else b""
            if not chunk:
                raise DownloadError(f"{archive}: ends inside {member.name!r}")
            file.write(chunk)
            left -= len(chunk)


def _checked_members(tar: tarfile.TarFile, archive: Path) -> dict[str, tarfile.TarInfo]:
    """The plain files by name, after every rule has been applied to every header."""
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
            raise DownloadError(f"{archive}: {member.name!r} is no plain file (a link or a device)")
        total += member.size
        if not 0 <= member.size <= MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
            raise DownloadError(f"{archive}: {member.name!r} of {member.size} bytes is too large")
        # Two spellings of one name are one file where case does not count.
        if path.name.casefold() in {name.casefold() for name in members}:
            raise DownloadError(f"{archive}: {path.name!r} comes twice")
        members[path.name] = member
        folders.add(path.parent)
    if len(folders) > 1 or any(len(folder.parts) > 1 for folder in folders):
        raise DownloadError(f"{archive}: has files in several folders, expected one")
    return members


def _safe_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    # A backslash or a colon means a place of its own on Windows.
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00-\x1f]", member.name):
        raise DownloadError(f"{archive}: {member.name!r} lies outside the archive")
    if not path.name and not member.isdir():
        raise DownloadError(f"{archive}: a member has no name")
    return path
