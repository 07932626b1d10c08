# SPDX-License-Identifier: Apache-2.0
"""Read weight files without executing them, and load them into a layer without surprises.

`.pdparams` and PyTorch files are pickles, and a pickle may name any function to call. The
unpicklers here know the few globals that arrays need and refuse everything else by name.
"""

from __future__ import annotations

import collections
import importlib
import math
import pickle
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import WeightsError
from hgdeploy.system.libraries import import_library
from hgdeploy.zoo import registry

Weights = dict[str, NDArray[Any]]

_ZIP_MAGIC = b"PK\x03\x04"
_TORCH_MAGIC = 0x1950A86A20F9469CFC6C
_TORCH_PROTOCOL = 1001
_TORCH_LEGACY_START = pickle.dumps(_TORCH_MAGIC, protocol=2)
_NAMES_KEY = "StructuredToParameterName@@"
_BIG_KEY = "UnpackBigParamInfor@@"


def read_weights(path: Path) -> Weights:
    """Read a weights file of either kind, by its content; the suffix plays no part.

    PyTorch's names become Paddle's: `running_mean` is `_mean`, `running_var` is `_variance`,
    `num_batches_tracked` has no counterpart; and matrices are transposed, because a PyTorch linear
    layer keeps its weight as (out, in) and Paddle's as (in, out).

    Args:
        path: a `.pdparams` file, or a PyTorch state dict.

    Returns:
        Parameter name to array, in the file's order.

    Raises:
        WeightsError: the file is missing, no weights file, damaged, or asks for code to run.
    """
    start = _first_bytes(path)
    if start.startswith((_ZIP_MAGIC, _TORCH_LEGACY_START)):
        return _as_paddle(read_torch(path))
    return read_pdparams(path)


def read_pdparams(path: Path) -> Weights:
    """Read Paddle's `.pdparams`: a pickle of parameter name to array, or to (name, array).

    Args:
        path: the file. Arrays that Paddle split because of their size are put together again.

    Returns:
        Parameter name to array, in the file's order.

    Raises:
        WeightsError: the file is missing, no pickle, damaged, asks for code to run, or holds
            something other than arrays.
    """
    start = _first_bytes(path)
    if not start.startswith(b"\x80"):
        raise WeightsError(f"{path}: is no weights file (it starts with {start!r})")
    with _open(path) as file:
        content = _unpickle(_ArrayUnpickler(file, path), path)
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path}: holds a {type(content).__name__}, expected a dict of parameters"
        )
    content.pop(_NAMES_KEY, None)
    parts = content.pop(_BIG_KEY, {})
    weights = {_checked_name(key, path): _array(key, value, path) for key, value in content.items()}
    return _joined(weights, parts, path)


def read_torch(path: Path) -> Weights:
    """Read a PyTorch state dict, in the legacy format or the zip format of PyTorch 1.6 and later.

    Args:
        path: the file. Its names and layouts are left as they are.

    Returns:
        Parameter name to array, in the file's order.

    Raises:
        WeightsError: the file is missing, in neither format, damaged, asks for code to run, or
            holds something other than tensors (such as a training checkpoint).
    """
    start = _first_bytes(path)
    if start.startswith(_ZIP_MAGIC):
        state, storages = _read_torch_zip(path)
    elif start.startswith(_TORCH_LEGACY_START):
        state, storages = _read_torch_legacy(path)
    else:
        raise WeightsError(f"{path}: is no PyTorch file (it starts with {start!r})")
    if not isinstance(state, dict):
        raise WeightsError(f"{path}: holds a {type(state).__name__}, expected a state dict")
    weights: Weights = {}
    for key, value in state.items():
        if not isinstance(value, _TorchTensor):
            raise WeightsError(
                f"{path}: {key!r} holds a {type(value).__name__}, not a tensor; "
                "save the model's state dict alone"
            )
        weights[_checked_name(key, path)] = value.resolve(storages, f"{path}: {key!r}")
    return weights


def load_into(layer: Any, weights: Mapping[str, NDArray[Any]], source: Path | str) -> None:
    """Put weights into a layer; every name and every shape must match.

    Half precision and bfloat16 are widened to the layer's float32, which changes no value.

    Args:
        layer: a `paddle.nn.Layer`.
        weights: parameter name to array.
        source: where the weights come from, for the error message.

    Raises:
        WeightsError: names or shapes differ, or a weight is NaN or infinite.
    """
    state = layer.state_dict()
    expected = {name: tuple(tensor.shape) for name, tensor in state.items()}
    problem = _misfit(expected, weights)
    if problem:
        hint = _class_count_hint(expected, weights) or _architecture_hint(weights)
        raise WeightsError(f"{source}: does not fit {type(layer).__name__}: {problem}{hint}")
    ready: Weights = {}
    for name, tensor in state.items():
        integer = "int" in str(tensor.dtype)
        ready[name] = _converted(weights[name], integer, f"{source}: {name!r}")
    layer.set_state_dict(ready)


def _misfit(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, NDArray[Any]]) -> str:
    """What differs, in one line; empty where nothing does."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    shapes = [
        f"{name} {list(found[name].shape)} (expected {list(shape)})"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape", shapes))
    return "; ".join(
        f"{len(items)} {kind}: {', '.join(items[:3])}{', ...' if len(items) > 3 else ''}"
        for kind, items in kinds
        if items
    )


def _class_count_hint(
    expected: Mapping[str, tuple[int, ...]], found: Mapping[str, NDArray[Any]]
) -> str:
    """Advice where only the last layer differs, so that the number of classes is to blame."""
    differing = {name for name in expected if name in found and found[name].shape != expected[name]}
    last_layer = list(expected)[-2:]
    if expected.keys() != found.keys() or not differing or not differing <= set(last_layer):
        return ""
    bias = last_layer[-1]
    if found[bias].ndim != 1:
        return ""
    return (
        f"; the weights have {found[bias].size} classes and the model was built for "
        f"{expected[bias][0]}: set num_classes to {found[bias].size}"
    )


def _architecture_hint(found: Mapping[str, NDArray[Any]]) -> str:
    """Advice where the weights are those of another architecture of the zoo."""
    paddle = import_library("paddle", "cpu")
    shapes = {name: array.shape for name, array in found.items()}
    for name in registry.architectures():
        # Lazily built layers have shapes but no values, so even a large one costs milliseconds.
        with paddle.LazyGuard():
            state = registry.build(name).state_dict()
        if {key: tuple(tensor.shape) for key, tensor in state.items()} == shapes:
            return f"; these are the weights of {name}"
    return ""


def _converted(array: NDArray[Any], integer: bool, where: str) -> NDArray[Any]:
    """The array in the layer's own number type: float32, or an integer type as it is."""
    if integer:
        if array.dtype.kind not in "iu":
            raise WeightsError(f"{where} has dtype {array.dtype}, expected integers")
        return array
    if array.dtype == np.uint16:
        # numpy has no bfloat16; Paddle saves its bits, which are the upper half of a float32.
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind != "f":
        raise WeightsError(f"{where} has dtype {array.dtype}, expected floating point")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise WeightsError(f"{where} has {bad} values that are NaN or infinite")
    return array


def _first_bytes(path: Path) -> bytes:
    with _open(path) as file:
        start = file.read(len(_TORCH_LEGACY_START))
    if not start:
        raise WeightsError(f"{path}: is empty")
    return start


def _open(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error


def _unpickle(unpickler: pickle.Unpickler, path: Path) -> Any:
    """Load one pickle; whatever a damaged or hostile one provokes becomes a WeightsError."""
    try:
        return unpickler.load()
    except WeightsError:
        raise
    # A pickle is a program: it may raise nearly anything, from EOFError to a numpy TypeError.
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise WeightsError(f"{path}: is truncated or damaged: {reason}") from error


def _refuse(path: Path, module: str, name: str) -> WeightsError:
    return WeightsError(
        f"{path}: refused, because it asks for {module}.{name}, which no weights file needs"
    )


def _latin1(text: str, encoding: str) -> bytes:
    """Stand-in for `_codecs.encode`: protocol 2 writes an array's bytes as latin-1 text."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that can build dicts, tuples and numpy arrays, and nothing else."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        # latin1: Python 2 pickles keep an array's bytes in a str.
        super().__init__(file, encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("builtins", "tuple"): tuple,
            ("__builtin__", "tuple"): tuple,
            ("_codecs", "encode"): _latin1,
        }
        if (module, name) in known:
            return known[module, name]
        # numpy 2 renamed `core`; a file of either version must load under either.
        package, _, leaf = module.rpartition(".")
        if package in ("numpy.core", "numpy._core") and (leaf, name) in (
            ("multiarray", "_reconstruct"),
            ("numeric", "_frombuffer"),
        ):
            return _numpy_function(leaf, name)
        raise _refuse(self._path, module, name)


def _numpy_function(leaf: str, name: str) -> Callable[..., Any]:
    core = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    function: Callable[..., Any] = getattr(importlib.import_module(f"{core}.{leaf}"), name)
    return function


def _checked_name(key: object, path: Path) -> str:
    if not isinstance(key, str):
        raise WeightsError(f"{path}: the key {key!r} is no parameter name")
    return key


def _array(key: object, value: object, path: Path) -> NDArray[Any]:
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if not isinstance(value, np.ndarray):
        raise WeightsError(f"{path}: {key!r} holds a {type(value).__name__}, expected an array")
    if value.dtype.kind not in "fiub":
        raise WeightsError(f"{path}: {key!r} has dtype {value.dtype}, expected numbers")
    return value


def _joined(weights: Weights, parts: object, path: Path) -> Weights:
    """Put together the arrays that Paddle split to stay under a pickle's 4 GB."""
    try:
        for name, plan in dict(parts).items():  # type: ignore[call-overload]
            slices = [weights.pop(key) for key in plan["slices"]]
            weights[name] = np.concatenate(slices).reshape(plan["OriginShape"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: the list of split parameters is damaged: {error}") from error
    return weights


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


@dataclass(frozen=True)
class _TorchStorage:
    """A run of numbers that tensors view: its element type, its key in the file, its length."""

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
            # A stride of 0 could blow one number up to any size; weights have no such views.
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
    """Stand-in for `torch._utils._rebuild_tensor_v2`: a description, not a tensor."""
    if not isinstance(storage, _TorchStorage):
        raise TypeError(f"a tensor of a {type(storage).__name__}")
    return _TorchTensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: object, *_: object) -> object:
    """Stand-in for `torch._utils._rebuild_parameter`: the tensor inside."""
    return data


class _TorchUnpickler(pickle.Unpickler):
    """An unpickler that describes tensors, and builds nothing else but dicts and tuples."""

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
        raise _refuse(self._path, module, name)

    def persistent_load(self, pid: Any) -> _TorchStorage:
        tag, kind, key, _, size, *view = pid
        if tag != "storage" or view not in ([], [None]):
            raise ValueError(f"an unknown reference {pid!r}")
        storage = _TorchStorage(kind, str(key), int(size))
        if self.storages.setdefault(storage.key, storage) != storage:
            raise ValueError(f"storage {storage.key} is described in two ways")
        return storage


def _read_torch_legacy(path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Legacy format: magic, protocol, machine, state, storage keys, then each storage's numbers."""
    storages: dict[str, NDArray[Any]] = {}
    with _open(path) as file:
        _, protocol, machine = (_unpickle(_TorchUnpickler(file, path), path) for _ in range(3))
        if protocol != _TORCH_PROTOCOL or not isinstance(machine, dict):
            raise WeightsError(f"{path}: is of PyTorch's file protocol {protocol!r}, expected 1001")
        if machine.get("little_endian") is not True:
            raise WeightsError(f"{path}: was written on a big-endian machine, which is not read")
        unpickler = _TorchUnpickler(file, path)
        state = _unpickle(unpickler, path)
        for key in _unpickle(_TorchUnpickler(file, path), path):
            storage = unpickler.storages.get(str(key))
            size = int.from_bytes(file.read(8), "little")
            if storage is None or size != storage.size:
                raise WeightsError(
                    f"{path}: is damaged: storage {key} has another size than stated"
                )
            storages[storage.key] = _numbers(file, storage, path)
    return state, storages


def _read_torch_zip(path: Path) -> tuple[Any, dict[str, NDArray[Any]]]:
    """Zip format: ROOT/data.pkl is the state, ROOT/data/KEY the numbers of a storage."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename: member for member in archive.infolist()}
            state_name = next((name for name in members if name.endswith("/data.pkl")), None)
            if state_name is None:
                raise WeightsError(f"{path}: is a zip file but no PyTorch file (no data.pkl)")
            # PyTorch never compresses; a compressed member could expand to fill the memory.
            if any(member.compress_type != zipfile.ZIP_STORED for member in members.values()):
                raise WeightsError(f"{path}: has compressed members, which PyTorch does not write")
            root = state_name.removesuffix("data.pkl")
            order = f"{root}byteorder"
            if order in members and archive.read(order) != b"little":
                raise WeightsError(f"{path}: was written big-endian, which is not read")
            with archive.open(state_name) as file:
                unpickler = _TorchUnpickler(file, path)
                state = _unpickle(unpickler, path)
            storages = {}
            for key, storage in unpickler.storages.items():
                with archive.open(f"{root}data/{key}") as file:
                    storages[key] = _numbers(file, storage, path)
    except (zipfile.BadZipFile, KeyError, OSError, EOFError) as error:
        raise WeightsError(f"{path}: is truncated or damaged: {error}") from error
    return state, storages


def _numbers(file: IO[bytes], storage: _TorchStorage, path: Path) -> NDArray[Any]:
    wanted = storage.size * storage.dtype.itemsize
    if wanted > path.stat().st_size:
        raise WeightsError(f"{path}: is truncated inside storage {storage.key}")
    data = file.read(wanted)
    if len(data) != wanted:
        raise WeightsError(f"{path}: is truncated inside storage {storage.key}")
    array = np.frombuffer(data, storage.dtype)
    return array if sys.byteorder == "little" else array.astype(array.dtype.newbyteorder("="))


def _as_paddle(weights: Weights) -> Weights:
    """PyTorch's names and layouts as Paddle's; see `read_weights`."""
    renamed: Weights = {}
    for name, array in weights.items():
        prefix, _, last = name.rpartition(".")
        if last == "num_batches_tracked":
            continue
        last = {"running_mean": "_mean", "running_var": "_variance"}.get(last, last)
        turned = array.T if last == "weight" and array.ndim == 2 else array
        renamed[f"{prefix}.{last}" if prefix else last] = np.ascontiguousarray(turned)
    return renamed
