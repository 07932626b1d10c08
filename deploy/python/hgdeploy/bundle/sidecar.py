# SPDX-License-Identifier: Apache-2.0
"""Sidecars: what an artifact was made from, and whether that still lies beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.bundle.names import PADDLE_PARAMS
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.documents import read_json
from hgdeploy.system.files import write_text


def sidecar_path(artifact: Path) -> Path:
    """Return where the sidecar of `artifact` lies: `NAME.meta.json` beside it."""
    return artifact.with_name(f"{artifact.name}.meta.json")


def read_sidecar(artifact: Path) -> dict[str, Any] | None:
    """Return what an artifact's sidecar says; None where there is none that can be read."""
    try:
        facts = read_json(sidecar_path(artifact))
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def changed_source(artifact: Path) -> Path | None:
    """Return a file that an artifact was made from and that has changed since; None if all is well.

    A source that is not there any more is no change, nor is an artifact without a sidecar: a model
    may be deployed alone. Sources that are artifacts themselves are followed to their own.
    """
    source = (read_sidecar(artifact) or {}).get("source")
    for name, digest in source.items() if isinstance(source, dict) else ():
        path = artifact.with_name(name)
        if not path.is_file():
            continue
        if file_sha256(path) != digest:
            return path
        older = changed_source(path)
        if older is not None:
            return older
    return None


SIDECAR_FILE = "inference.meta.json"


def write_sidecar(folder: Path, facts: dict[str, Any]) -> Path:
    """Write `inference.meta.json`: the facts, and the digest of every other file in the folder.

    Args:
        folder: the bundle's folder, complete but for this file.
        facts: how the bundle was made; JSON-ready.

    Returns:
        Path of the file.

    Raises:
        OutputError: it cannot be written.
    """
    files = {
        path.name: file_sha256(path)
        for path in folder.iterdir()
        if path.is_file() and path.name != SIDECAR_FILE
    }
    content = {"hgdeploy": __version__, **facts, "files": files}
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    return write_text(folder / SIDECAR_FILE, text)


def is_intact(folder: Path, name: str) -> bool:
    """Tell whether a folder holds the bundle of a model with every file as its sidecar states."""
    try:
        facts = read_json(folder / SIDECAR_FILE)
        files = facts["files"]
        return (
            facts["model"] == name
            and PADDLE_PARAMS in files
            and all(file_sha256(folder / file) == digest for file, digest in files.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
