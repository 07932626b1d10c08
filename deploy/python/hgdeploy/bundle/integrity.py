# SPDX-License-Identifier: Apache-2.0
"""Whether the files of a bundle are still those that its sidecars describe."""

from __future__ import annotations

from pathlib import Path

from hgdeploy.bundle.model_files import model_files
from hgdeploy.bundle.names import DESCRIBED, DESCRIPTION, PADDLE_PROGRAMS
from hgdeploy.bundle.sidecar import (
    SIDECAR_FILE,
    changed_source,
    digests_in,
    read_bundle_sidecar,
    read_sidecar,
    sidecar_path,
)
from hgdeploy.errors import BundleError
from hgdeploy.system.digests import file_sha256


def check_artifact(artifact: Path) -> None:
    """Refuse a model whose files, or what it was made from, have changed since.

    Raises:
        BundleError: so it is; the message names the file.
    """
    check_unaltered(artifact)
    changed = changed_source(artifact)
    if changed is not None:
        raise BundleError(
            f"{artifact} is stale: {changed.name} has changed since it was made; make it "
            "again with hgdeploy convert, quantize or build, or delete it"
        )


def check_unaltered(artifact: Path) -> None:
    """Refuse a model of which a file is not what a sidecar says: damaged, or another in its place.

    What a file was when it was made stands in the artifact's own sidecar, and in the bundle's
    `inference.meta.json` where it came with the bundle.

    Raises:
        BundleError: so it is; the message names the file and the sidecar.
    """
    own, came = read_sidecar(artifact) or {}, _came_with(artifact.parent)
    described = {artifact.name: own.get("sha256"), **digests_in(own.get("files"))}
    expected = [(*pair, sidecar_path(artifact)) for pair in digests_in(described).items()]
    if artifact.name in came:
        names = [path.name for path in model_files(artifact) if path.name in came]
        expected += [(name, came[name], artifact.with_name(SIDECAR_FILE)) for name in names]
    for name, digest, sidecar in expected:
        path = artifact.with_name(name)
        if path.is_file() and file_sha256(path) != digest:
            needed = artifact.suffix in DESCRIBED and sidecar == sidecar_path(artifact)
            meant = "" if needed else f", or delete {sidecar.name} if the change is meant"
            raise BundleError(
                f"{path} has changed since it was made: it is not the file that {sidecar.name} "
                f"describes; copy or make it again{meant}"
            )


def bundle_notes(folder: Path) -> tuple[str, ...]:
    """Return what the user of a bundle should know about its files, one line each."""
    notes = []
    if description_changed(folder):
        notes.append(
            f"{folder / DESCRIPTION} has changed since the bundle was made ({SIDECAR_FILE} has its "
            "digest); it is used as it is now"
        )
    programs = [name for name in PADDLE_PROGRAMS if (folder / name).is_file()]
    if len(programs) > 1:
        notes.append(
            f"{folder} has {' and '.join(programs)}: {programs[0]} is the model; delete it if "
            "the other is"
        )
    return tuple(notes)


def description_changed(folder: Path) -> bool:
    """Tell whether a bundle's description is another than the one that came with the bundle."""
    description, made = folder / DESCRIPTION, _came_with(folder).get(DESCRIPTION)
    return made is not None and description.is_file() and file_sha256(description) != made


def _came_with(folder: Path) -> dict[str, str]:
    """Return the digests of the files that came with a bundle."""
    return digests_in((read_bundle_sidecar(folder) or {}).get("files"))
