# SPDX-License-Identifier: Apache-2.0
"""Read PyTorch's weight files without PyTorch."""

from __future__ import annotations

import collections
import math
import pickle
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import WeightsError
from hgdeploy.zoo.weights.pickles import (
    TORCH_LEGACY_START,
    ZIP_MAGIC,
    Weights,
    checked_name,
    first_bytes,
    open_file,
    refusal,
    unpickle,
)

_TORCH_PROTOCOL = 1001
# Storage classes of PyTorch, and what their elements are on disk.
_STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_torch(path: Path) -> Weights:
    """Read a PyTorch state dict, in the legacy format or in the zip format since PyTorch 1.6.

    Args:
        path: the file. Its names and layouts stay as they are.

    Returns:
        Parameter name to array, in the file's order.

    Raises:
        WeightsError: the file is missing, damaged, in neither format, asks for code to run, or
            contains something other than tensors (such as a training checkpoint).
    """
    start = first_bytes(path)
    if start.startswith(ZIP_MAGIC):
        state, storages = _read_torch_zip(path)
    elif start.startswith(TORCH_LEGACY_START):
        state, storages = _read_torch_legacy(path)
    else:
        raise WeightsError(f"{path}: is not a PyTorch file (it starts with {start!r})")
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: contains a {type(state).__name__}, expected a state dict")
    weights: Weights = {}
    for key, value in state.items():
        if not isinstance(value, _TorchTensor):
            raise WeightsError(
                f"{path}: {key!r} is a {type(value).__name__}, expected a tensor; "
                "save the model's state dict alone"
            )
        weights[checked_name(key, path)] = value.resolve(storages, f"{path}: {key!r}")
    return weights


@dataclass(frozen=True)
class _TorchStorage:
    """A sequence of numbers that tensors view: its element type, key in the file and length."""

    kind: str
    key: str
    size: int

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(_STORAGES[self.kind])


@dataclass(frozen=True)
class _TorchTensor:
    """A view of a storage whose numbers come later in the file."""

    storage: _TorchStorage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def resolve(self, storages: Mapping[str, NDArray[Any]], where: str) -> NDArray[Any]:
        """Copy the tensor out, after checking that it lies inside its storage."""
        data = storages.get(self.storage.key)
        sane = (
            data is not None
            and len(self.shape) == len(self.strides)
            and all(
                isinstance(n, int) and n >= 0 for n in (self.offset, *self.shape, *self.strides)
            )
            # A stride of 0 could blow up one number to any size; weights have no such views.
            and math.prod(self.shape) <= data.size
        )
        if not sane or data is None:
            raise WeightsError(f"{where} does not lie inside its storage: the file is damaged")
        pairs = zip(self.shape, self.strides, strict=True)
        last = self.offset + sum((size - 1) * stride for size, stride in pairs)
        if math.prod(self.shape) and last >= data.size:
            raise WeightsError(f"{where} does not lie inside its storage: the file is damaged")
        strides = [stride * data.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(data[self.offset :], self.shape, strides)
        return np.array(view, order="C")


def _rebuild_tensor(
    storage: object, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: object
) -> _TorchTensor:
    """Replace `torch._utils._rebuild_tensor_v2`: return a description, not a tensor."""
    if not isinstance(storage, _TorchStorage):
        raise TypeError(f"a tensor of a {type(storage).__name__}")
    return _TorchTensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: object, *_: object) -> object:
    """Replace `torch._utils._rebuild_parameter`: return the tensor inside."""
    return data


class _TorchUnpickler(pickle.Unpickler):
    """An unpickler that describes tensors, and can build dicts and tuples, and nothing else."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file)
        self._path = path
        self.storages: dict[str, _TorchStorage] = {}

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
            ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _STORAGES:
            return name
        raise refusal(self._path, module, name)

    def persistent_load(self, pid: Any) -> _TorchStorage:
        tag, kind, key, _, size, *view = pid
        if tag != "storage" or view not in ([], [None]):
            raise ValueError(f"an unknown reference {pid!r}")
        storage = _TorchStorage(kind, str(key), int(size))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} is described in two ways")
        return storage


def _read_torch_legacy(path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Read the legacy format: magic, protocol, machine, state, storage keys, storages' numbers."""
    storages: dict[str, NDArray[Any]] = {}
    with open_file(path) as file:
        _, protocol, machine = (unpickle(_TorchUnpickler(file, path), path) for _ in range(3))
        if protocol != _TORCH_PROTOCOL or not isinstance(machine, dict):
            raise WeightsError(
                f"{path}: has PyTorch's file protocol {protocol!r}, expected {_TORCH_PROTOCOL}"
            )
        if machine.get("little_endian") is not True:
            raise WeightsError(
                f"{path}: was written on a big-endian machine, which is not supported"
            )
        unpickler = _TorchUnpickler(file, path)
        state = unpickle(unpickler, path)
        for key in unpickle(_TorchUnpickler(file, path), path):
            storage = unpickler.storages.get(str(key))
            size = int.from_bytes(file.read(8), "little")
            if storage is None or size != storage.size:
                raise WeightsError(
                    f"{path}: is damaged: storage {key} does not have the stated size"
                )
            storages[storage.key] = _numbers(file, storage, path)
    return state, storages


def _read_torch_zip(path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Read the zip format: ROOT/data.pkl is the state, ROOT/data/KEY a storage's numbers."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            state_name = next((name for name in members if name.endswith("/data.pkl")), None)
            if state_name is None:
                raise WeightsError(
                    f"{path}: is a zip file, but not a PyTorch file (it has no data.pkl)"
                )
            # PyTorch never compresses; a compressed member could expand to fill the memory.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
                raise WeightsError(f"{path}: has compressed members, which PyTorch does not write")
            root = state_name.removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in members and archive.read(order) != b"little":
                raise WeightsError(
                    f"{path}: was written on a big-endian machine, which is not supported"
                )
            with archive.open(state_name) as file:
                unpickler = _TorchUnpickler(file, path)
                state = unpickle(unpickler, path)
            storages = {}
            for key, storage in unpickler.storages.items():
                with archive.open(f"{root}data/{key}") as file:
                    storages[key] = _numbers(file, storage, path)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
        raise WeightsError(f"{path}: is truncated or damaged: {error}") from error
    return state, storages


def _numbers(file: IO[bytes], storage: _TorchStorage, path: Path) -> NDArray[Any]:
    """Read the numbers of a storage, in this machine's byte order."""
    wanted = storage.size * storage.dtype.itemsize
    if wanted > path.stat().st_size:
        raise WeightsError(f"{path}: is truncated inside storage {storage.key}")
    data = file.read(wanted)
    if len(data) != wanted:
        raise WeightsError(f"{path}: is truncated inside storage {storage.key}")
    array = np.frombuffer(data, storage.dtype)
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))


def paddle_from_torch(weights: Weights) -> Weights:
    """Return weights of PyTorch with Paddle's names and layouts; see `read_weights`."""
    renamed: Weights = {}
    for name, array in weights.items():
        prefix, _, last = name.rpartition(".")
        if last == "num_batches_tracked":
            continue
        last = {"running_mean": "_mean", "running_var": "_variance"}.get(last, last)
        transposed = array.T if last == "weight" and array.ndim == 2 else array
        renamed[f"{prefix}.{last}" if prefix else last] = np.ascontiguousarray(transposed)
    return renamed
