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

SIDECAR_FILE = "inference.meta.json"


def sidecar_path(artifact: Path) -> Path:
    """Return where the sidecar of `artifact` lies: `NAME.meta.json` beside it."""
    return artifact.with_name(f"{artifact.name}.meta.json")


def read_sidecar(artifact: Path) -> dict[str, Any] | None:
    """Return what an artifact's sidecar says; None where there is none that can be read."""
    return _facts(sidecar_path(artifact))


def read_bundle_sidecar(folder: Path) -> dict[str, Any] | None:
    """Return what a bundle's `inference.meta.json` says; None where there is none to be read."""
    return _facts(folder / SIDECAR_FILE)


def _facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = read_json(path)
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def recorded_sources(artifact: Path) -> dict[str, str]:
    """Return the digest of every file that an artifact was made from, directly or not, by name."""
    facts = read_sidecar(artifact) or {}
    return {**digests_in(facts.get("origin")), **digests_in(facts.get("source"))}


def digests_in(value: object) -> dict[str, str]:
    """Return the digests by file name in a part of a sidecar, of files that lie beside it."""
    pairs = value.items() if isinstance(value, dict) else ()
    texts = {n: d for n, d in pairs if isinstance(n, str) and isinstance(d, str)}
    return {n: d for n, d in texts.items() if n and "\0" not in n and Path(n).name == n}


def changed_source(artifact: Path) -> Path | None:
    """Return a file that an artifact was made from and that has changed since; None if all is well.

    A source that is not there any more is no change, nor is an artifact without a sidecar: a model
    may be deployed alone. Sources that are artifacts themselves are followed to their own, which
    the artifact's sidecar names too: so the chain holds where a file in its middle is gone.
    """
    waiting, seen = [artifact], {artifact}
    while waiting:
        for name, digest in recorded_sources(waiting.pop()).items():
            path = artifact.with_name(name)
            if not path.is_file():
                continue
            if file_sha256(path) != digest:
                return path
            if path not in seen:
                seen.add(path)
                waiting.append(path)
    return None


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
