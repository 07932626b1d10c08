# SPDX-License-Identifier: Apache-2.0
"""Real photographs for tests and measurements, from a Debian package: fetched once, then kept.

The package `gcompris-qt-data` has the pictures of a children's game. Those named below are
photographs under free licences (public domain, CC0, CC BY, CC BY-SA, GPL; its `copyright` file has
each one's author). They lie in Qt resource files, which are unpacked here. Nothing is installed.
"""

from __future__ import annotations

import functools
import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

_PACKAGE = "gcompris-qt-data"
_ACTIVITIES = (
    "categorization",
    "erase",
    "explore_farm_animals",
    "explore_monuments",
    "explore_world_animals",
    "explore_world_music",
)
_LABELLED = "categorization"
_DRAWN = ("alphabets", "numbers")  # folders of drawings
_SUFFIXES = (".webp", ".jpg", ".jpeg", ".png")
_LEAST = 100
_REPO = Path(__file__).parents[2]


def photographs() -> list[Path]:
    """Return at least 100 photographs, sorted by path; skip the test if they are unavailable."""
    return sorted(path for path in _folder().rglob("*") if path.suffix in _SUFFIXES)


def labelled_photographs() -> list[tuple[Path, str]]:
    """Return the photographs that have a class: fishes, monuments, tools, renewable or others.

    The classes are the game's, not ImageNet's.
    """
    folder = _folder() / _LABELLED
    return [(path, path.parent.name) for path in photographs() if folder in path.parents]


@functools.cache
def _folder() -> Path:
    cache = Path(os.environ.get("HGDEPLOY_TEST_CACHE") or _REPO / ".cache" / "tests")
    folder = cache / "photographs"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        work = Path(scratch)
        resources = _fetched(work) / "usr" / "share" / "gcompris-qt" / "rcc"
        count = sum(
            _unpack(resources / f"{activity}.rcc", work / "new" / activity)
            for activity in _ACTIVITIES
        )
        if count < _LEAST:
            pytest.skip(f"this version of {_PACKAGE} has only {count} of the photographs")
        (work / "new").rename(folder)
    return folder


def _fetched(work: Path) -> Path:
    """Download and unpack the package without root, an installation or the system's lists."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            pytest.skip(f"photographs come from a Debian package, and there is no {tool} here")
    own = []
    for key in ("Dir::State::Lists", "Dir::Cache"):
        place = work / key.replace("::", "-")
        (place / "partial").mkdir(parents=True)
        own += ["-o", f"{key}={place}"]
    try:
        if not _run(["apt-get", "download", _PACKAGE], work):
            _run(["apt-get", *own, "update"], work)
            _run(["apt-get", *own, "download", _PACKAGE], work)
        archive = next(work.glob("*.deb"), None)
        if archive is None or not _run(["dpkg-deb", "-x", archive.name, "package"], work):
            pytest.skip(f"the package {_PACKAGE} cannot be fetched here")
    except subprocess.TimeoutExpired:
        pytest.skip(f"the package {_PACKAGE} (44 MB) could not be fetched in time")
    return work / "package"


def _run(command: list[str], folder: Path) -> bool:
    """Run a command; return whether it succeeded."""
    result = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    return result.returncode == 0


def _unpack(resource: Path, target: Path) -> int:
    """Write the photographs of one Qt resource file; return how many there are."""
    if not resource.is_file():
        return 0
    count = 0
    for name, data in _entries(resource.read_bytes()):
        path = Path(name)
        if path.suffix not in _SUFFIXES or path.parent.name in _DRAWN:
            continue
        folder = target / path.parent.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(data)
        count += 1
    return count


def _entries(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Path and contents of each file in a Qt resource file (big endian).

    The header says where a tree of nodes, the contents and the names begin. A node has the offset
    of its name and flags; a folder's node then has the count and the first index of its children,
    a file's node a language and the offset of its contents. The tree begins with the root.
    """
    magic, version, tree, contents, names = struct.unpack_from(">4s4I", data)
    if magic != b"qres":
        raise ValueError("this is no Qt resource file")
    size = 14 if version < 2 else 22
    nodes = [(0, "")]
    while nodes:
        index, parent = nodes.pop()
        place = tree + index * size
        name_offset, flags = struct.unpack_from(">IH", data, place)
        (length,) = struct.unpack_from(">H", data, names + name_offset)
        start = names + name_offset + 6  # after the length and a hash
        own = data[start : start + 2 * length].decode("utf-16-be") if index else ""
        if flags & 2:
            count, first = struct.unpack_from(">II", data, place + 6)
            nodes += [(child, f"{parent}/{own}") for child in range(first, first + count)]
            continue
        (offset,) = struct.unpack_from(">I", data, place + 10)
        (length,) = struct.unpack_from(">I", data, contents + offset)
        start = contents + offset + 4
        packed = data[start : start + length]
        yield f"{parent}/{own}", zlib.decompress(packed[4:]) if flags & 1 else packed
