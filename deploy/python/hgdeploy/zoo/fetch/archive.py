# SPDX-License-Identifier: Apache-2.0
"""Unpack model archives without trusting them.

An archive may only place plain files of bounded size in its own folder.
"""

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
            # "r:" reads plain tar only: decompressing could turn a few bytes into any number.
            with tarfile.open(archive, "r:") as tar:
                members = _checked_members(tar, archive)
                for name, member in members.items():
                    _extract(tar, member, folder / name, archive)
        except (tarfile.TarError, EOFError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise DownloadError(
                f"{archive}: is not a complete, uncompressed tar file: {reason}"
            ) from error
        except OSError as error:
            raise DownloadError(f"{archive}: cannot be read: {error.strerror or error}") from error
        if not members.keys() & set(PADDLE_PROGRAMS) or PADDLE_PARAMS not in members:
            raise DownloadError(
                f"{archive}: does not contain {' or '.join(PADDLE_PROGRAMS)} with {PADDLE_PARAMS}; "
                f"it contains {', '.join(sorted(members)) or 'nothing'}"
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
                f"{archive}: {member.name!r} is not a plain file (a link or a device)"
            )
        total += member.size
        if not 0 <= member.size <= MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
            raise DownloadError(f"{archive}: {member.name!r} of {member.size} bytes is too large")
        # Some file systems ignore case: two spellings of a name would be one file there.
        if path.name.casefold() in {name.casefold() for name in members}:
            raise DownloadError(f"{archive}: {path.name!r} occurs twice")
        members[path.name] = member
        folders.add(path.parent)
    if len(folders) > 1 or any(len(folder.parts) > 1 for folder in folders):
        raise DownloadError(f"{archive}: has files in several folders, expected one")
    return members


def _safe_path(member: tarfile.TarInfo, archive: Path) -> PurePosixPath:
    path = PurePosixPath(member.name)
    # On Windows, a backslash or a colon may lead to another place.
    if path.is_absolute() or ".." in path.parts or re.search(r"[\\:\x00-\x1f]", member.name):
        raise DownloadError(f"{archive}: {member.name!r} lies outside the archive")
    if not path.name and not member.isdir():
        raise DownloadError(f"{archive}: a member has no name")
    return path
