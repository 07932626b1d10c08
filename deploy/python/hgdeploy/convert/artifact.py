# SPDX-License-Identifier: Apache-2.0
"""Write an artifact and its sidecar: both appear, whole, or nothing changes.

The sidecar of `inference.onnx` is `inference.onnx.meta.json`: what the artifact was made from and
with, its precision, its tensors, and the verdict of the comparison it passed.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.bundle.model_files import model_files
from hgdeploy.bundle.sidecar import recorded_sources, sidecar_path
from hgdeploy.errors import BundleError, OutputError
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.files import updating_folder, write_text, writing
from hgdeploy.system.libraries import installed_version


def write_artifact(target: Path, write: Callable[[Path], None], facts: Mapping[str, Any]) -> Path:
    """Write a file and its sidecar, so that both appear, whole, or neither does.

    Args:
        target: the artifact's final path; its folder is made where it does not exist.
        write: writes, and checks, the artifact at the path it is given: a file of the final name
            in an empty folder. Other files that it leaves there (external data) are kept too.
        facts: the sidecar's content, JSON-ready. It is read after `write` has returned, which may
            still complete it. The artifact's `sha256` is added, and those of the other files as
            `files`.

    Returns:
        `target`.

    Raises:
        OutputError: a file or folder cannot be written.
        BundleError: `write` left no file, or an empty one.
    """
    if target.is_dir():
        raise OutputError(f"{target} cannot be written: it is a folder, expected a file path")
    # The artifact itself comes after its other files, and the sidecar that describes it last.
    last = (target.name, sidecar_path(target).name)
    with updating_folder(target.parent, last) as folder, writing(target):
        aside = folder / target.name
        write(aside)
        if not aside.is_file() or not aside.stat().st_size:
            raise BundleError(f"{target} would be empty: the conversion gave no model")
        content = {**facts, "sha256": file_sha256(aside)}
        others = sorted(path for path in folder.iterdir() if path != aside)
        if others:
            content["files"] = _digests(others)
        write_text(sidecar_path(aside), _text_of(content))
    return target


@contextlib.contextmanager
def described(aside: Path, facts: Mapping[str, Any]) -> Iterator[None]:
    """Put a sidecar beside an artifact that is being written, for an engine that reads it.

    Args:
        aside: the artifact.
        facts: the sidecar's content so far.
    """
    sidecar = write_text(sidecar_path(aside), _text_of(facts))
    try:
        yield
    finally:
        sidecar.unlink()


def _text_of(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def source_facts(source: Path) -> dict[str, dict[str, str]]:
    """Return what a sidecar says about the model that an artifact is made from.

    Args:
        source: the model, such as `inference.onnx`.

    Returns:
        `source`, the SHA-256 of each file of the model by name; and, where these were made from
        others, `origin`, those of the whole chain before them, so that an artifact is known to be
        stale though a file in the middle is gone.
    """
    files = model_files(source)
    origin: dict[str, str] = {}
    for path in files:
        origin |= recorded_sources(path)
    digests = _digests(files)
    return {"source": digests, "origin": origin} if origin else {"source": digests}


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in paths}


def converter_versions(*distributions: str) -> dict[str, str]:
    """Return the sidecar's `converter`: the versions of HGDeploy and of installed libraries."""
    found = {name: installed_version(name) for name in distributions}
    return {"hgdeploy": __version__} | {k: v for k, v in found.items() if v is not None}
