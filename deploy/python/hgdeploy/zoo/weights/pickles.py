# SPDX-License-Identifier: Apache-2.0
"""What the readers of pickled weights share.

`.pdparams` and PyTorch files are pickles, and a pickle may name any function to call. The
unpicklers know the few globals that arrays need, and refuse everything else by name.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

from hgdeploy.errors import WeightsError

Weights = dict[str, NDArray[Any]]
ZIP_MAGIC = b"PK\x03\x04"
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
TORCH_LEGACY_START = pickle.dumps(_TORCH_MAGIC, protocol=2)


def first_bytes(path: Path) -> bytes:
    """Return the first bytes of a file, as many as identify its format.

    Raises:
        WeightsError: the file cannot be read or is empty.
    """
    with open_file(path) as file:
        start = file.read(len(TORCH_LEGACY_START))
    if not start:
        raise WeightsError(f"{path}: is empty")
    return start


def open_file(path: Path) -> IO[bytes]:
    """Open a weights file.

    Raises:
        WeightsError: the file cannot be read.
    """
    if path.is_fifo():  # opening it would wait for a writer without end
        raise WeightsError(f"{path}: cannot be read: it is a pipe, expected a file")
    try:
        return path.open("rb")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def unpickle(unpickler: pickle.Unpickler, path: Path) -> Any:
    """Load one pickle.

    Raises:
        WeightsError: loading failed, with whatever error a damaged or hostile pickle has provoked.
    """
    try:
        return unpickler.load()
    except WeightsError:
        raise
    # A pickle is a program: it may raise nearly anything, from EOFError to a numpy TypeError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{path}: is truncated or damaged: {reason}") from error


def refusal(path: Path, module: str, name: str) -> WeightsError:
    """Return the error for a pickle that asks for a global which weights do not need."""
    return WeightsError(
        f"{path}: refused, because it asks for {module}.{name}, which no weights file needs"
    )


def checked_name(key: object, path: Path) -> str:
    """Return `key` as the name of a parameter.

    Raises:
        WeightsError: the key is not text.
    """
    if not isinstance(key, str):
        raise WeightsError(f"{path}: the key {key!r} is not a parameter name")
    return key
