# SPDX-License-Identifier: Apache-2.0
"""The models that PaddleClas's package knows by name: their facts, and their place in its cache."""

from __future__ import annotations

import difflib
import functools
import importlib.resources
import tempfile
import threading
from pathlib import Path
from typing import Any

from hgdeploy.bundle.names import PADDLE_PARAMS, PADDLE_PROGRAMS
from hgdeploy.errors import ConfigError, DownloadError, OutputError
from hgdeploy.system.checks import check, cut
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.documents import read_yaml
from hgdeploy.system.files import put_in_place, writing
from hgdeploy.system.kinds import text
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.postprocess_config import LABEL_KEYS
from hgdeploy.zoo.fetch.archive import unpack_bundle
from hgdeploy.zoo.fetch.connection import shown
from hgdeploy.zoo.fetch.http import MAX_BYTES, OnBytes, download_file, mirrored
from hgdeploy.zoo.models import MODELS, OFFICIAL_URL

# Where PaddleClas's archives of PULC models lie, and the part that a mirror's address replaces.
_PULC_SERVER = "https://paddleclas.bj.bcebos.com"
_PULC_URL = f"{_PULC_SERVER}/models/PULC/inference"
SHITU = "PP-ShiTuV2"
_NEAREST = 5
_MOST_IMAGE_BYTES = 512 << 20
_one_download = threading.Lock()


@functools.cache
def _facts() -> dict[str, Any]:
    with importlib.resources.as_file(importlib.resources.files(__package__)) as folder:
        return read_yaml(folder / "models.yaml", "list of models", texts=LABEL_KEYS)


def series() -> dict[str, tuple[str, ...]]:
    """Return the ImageNet models by series, as PaddleClas lists them."""
    return {name: tuple(models) for name, models in _facts()["series"].items()}


def pulc() -> dict[str, dict[str, Any]]:
    """Return the PULC models: their sections `PreProcess` and `PostProcess`."""
    models: dict[str, dict[str, Any]] = _facts()["pulc"]
    return models


def usual_feed() -> dict[str, Any]:
    """Return the section `PreProcess` of PaddleClas's `inference_cls.yaml`."""
    feed: dict[str, Any] = _facts()["feeds"]["crop"]
    return feed


def known_name(name: object) -> str:
    """Return the name of a model that can be downloaded: PaddleClas's, or the zoo's like it.

    Raises:
        ConfigError: there is none of that name; the message has the nearest ones.
    """
    known = check("model_name", name, text)
    if known.startswith(SHITU.removesuffix("V2")):
        raise ConfigError(
            f"model_name {known} belongs to PP-ShiTu (detection and retrieval), which HGDeploy "
            "does not do"
        )
    names = [*(model for models in series().values() for model in models), *pulc()]
    names += [model for model, info in MODELS.items() if info.inference_url and model not in names]
    if known not in names:
        near = ", ".join(_similar(known, names))
        raise ConfigError(
            f"unknown model_name {cut(known)}, the nearest of {len(names)} names: {near}; for a "
            "model of your own, give inference_model_dir"
        )
    return known


def _similar(name: str, names: list[str]) -> list[str]:
    def unlikeness(other: str) -> float:
        return -difflib.SequenceMatcher(None, other.lower(), name.lower()).ratio()

    return sorted(names, key=unlikeness)[:_NEAREST]


def cache() -> Path:
    """Return the folder in which PaddleClas's package keeps what it downloads.

    Raises:
        OutputError: there is no home folder.
    """
    try:
        return Path.home() / ".paddleclas"
    except RuntimeError:
        raise OutputError("there is no home folder for .paddleclas; set HOME") from None


def fetched_model(
    name: str, on_progress: OnLine = nothing, on_bytes: OnBytes | None = None
) -> Path:
    """Return the folder of a model in PaddleClas's cache; download it if it is not there.

    Args:
        name: one that `known_name` knows.
        on_progress: called with a line about the download.
        on_bytes: see `download_file`.

    Raises:
        DownloadError: the transfer fails, or what arrived is not what was expected.
        OutputError: the folder cannot be written.
    """
    if name in pulc():
        kind, official, url = "PULC", _PULC_SERVER, f"{_PULC_URL}/{name}_infer.tar"
    else:
        kind, official, url = "IMN", OFFICIAL_URL, f"{OFFICIAL_URL}/inference/{name}_infer.tar"
        if name in MODELS:  # whose archive may have a longer name
            url = MODELS[name].inference_url or url
    folder = cache() / "inference_model" / kind / name
    address = mirrored(url, official)
    with _one_download:  # another thread may have begun it
        if _is_complete(folder):
            return folder
        archive = folder / f"{name}_infer.tar"
        on_progress(f"download {shown(address)} to {archive}")
        most = MODELS[name].max_file_bytes if name in MODELS else MAX_BYTES
        download_file(address, archive, max_bytes=most, on_bytes=on_bytes, on_warning=on_progress)
        try:
            unpack_bundle(archive, folder)
        except DownloadError:
            archive.unlink(missing_ok=True)  # it would be refused again
            raise
        archive.unlink(missing_ok=True)
    return folder


def _is_complete(folder: Path) -> bool:
    programs = [folder / name for name in PADDLE_PROGRAMS]
    return (folder / PADDLE_PARAMS).is_file() and any(map(Path.is_file, programs))


def is_address(source: object) -> bool:
    """Return whether an input is the address of an image in the web."""
    return isinstance(source, str) and source.lower().startswith(("http://", "https://"))


def fetched_image(address: str, on_progress: OnLine = nothing) -> str:
    """Download an image into PaddleClas's cache, and return its path.

    Each picture has a name of its own there, so that several may be classified at once.

    Raises:
        DownloadError: the transfer fails.
        OutputError: the folder cannot be written.
    """
    folder = cache() / "images"
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=folder, prefix=".")
    with scratch as place:
        aside = Path(place) / "image"
        download_file(address, aside, max_bytes=_MOST_IMAGE_BYTES, on_warning=on_progress)
        image = folder / f"{file_sha256(aside)[:16]}{_suffix(address)}"
        put_in_place(aside, image)
    on_progress(
        f"Image to be predicted from Internet: {shown(address)}, has been saved to: {image}"
    )
    return str(image)


def _suffix(address: str) -> str:
    """Return the suffix of an address's path, for what looks at the file afterwards."""
    suffix = Path(address.partition("?")[0].partition("#")[0]).suffix
    return suffix if suffix[1:].isalnum() and suffix.isascii() and len(suffix) < 6 else ".jpg"
