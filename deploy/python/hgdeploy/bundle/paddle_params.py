# SPDX-License-Identifier: Apache-2.0
"""Check that a Paddle parameters file is whole, and that it is the one of its program.

Paddle 3.3.1 and paddle2onnx 2.1.0 both take a `.pdiparams` that ends inside its last tensor, and
compute with whatever memory holds where the missing bytes belong: the answers are wrong and no one
says so. They take that of another model too, where the shapes happen to run. The file is a plain
sequence of tensors, in the order of their names, which each state their shape and length; the
program states the names and shapes. Walking over both shows whether they belong together.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hgdeploy.bundle.paddle_program import FLOATS, DeclaredParam, declared_params
from hgdeploy.errors import BundleError

# Bytes an element takes; the keys are framework.proto's VarType.Type, part of the file format:
# bool, int16, int32, int64, fp16, fp32, fp64, uint8, int8, bf16, complex64, complex128.
_ITEM_BYTES = {0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16}


_DTYPE_FIELD, _DIMS_FIELD = 1, 2


_MAX_DESCRIPTION_BYTES = 1 << 16


@dataclass(frozen=True)
class StoredTensor:
    """Where a parameter lies in its file.

    Attributes:
        dtype: element type, a number of framework.proto's VarType.Type; 5 is float32.
        shape: dimensions.
        offset: where its data start, in bytes.
        length: how long they are, in bytes.
    """

    dtype: int
    shape: tuple[int, ...]
    offset: int
    length: int


def checked_params(program: Path) -> list[StoredTensor]:
    """Walk over the parameters of a program, and compare each with what the program declares.

    Args:
        program: `.json` or `.pdmodel`; its `.pdiparams` is beside it.

    Returns:
        The tensors of the parameters file.

    Raises:
        BundleError: the two files are of different exports, or one is missing or damaged.
    """
    params = program.with_suffix(".pdiparams")
    stored, declared = read_params(params), declared_params(program)
    for parameter, tensor in zip(declared, stored, strict=False):
        if not _fits(parameter, tensor):
            raise BundleError(
                f"{params} is not of {program.name}: {parameter.name} is "
                f"{_shown(parameter)} in the program and {_shown(tensor)} in the parameters; "
                f"{_MIXED}"
            )
    if len(stored) != len(declared):
        raise BundleError(
            f"{params} is not of {program.name}: the program has {len(declared)} parameters, the "
            f"file {len(stored)}; {_MIXED}"
        )
    return stored


_MIXED = "check that both files come from one export"


def _fits(declared: DeclaredParam, stored: StoredTensor) -> bool:
    """Tell whether a tensor is of the declared shape and, if both are floats, type.

    A scalar is [] or [1], and -1 any size. PaddleSlim stores weights as int8 that it declares fp32.
    """
    floats = FLOATS.values()
    if declared.dtype in floats and stored.dtype in floats and declared.dtype != stored.dtype:
        return False
    if math.prod(declared.shape) == math.prod(stored.shape) == 1:
        return True
    return len(declared.shape) == len(stored.shape) and all(
        want in (-1, size) for want, size in zip(declared.shape, stored.shape, strict=True)
    )


def _shown(tensor: DeclaredParam | StoredTensor) -> str:
    names = {number: name for name, number in FLOATS.items()}
    return f"{names.get(tensor.dtype, 'not float')} {list(tensor.shape)}"


def read_params(path: Path) -> list[StoredTensor]:
    """Walk over the tensors of a `.pdiparams` file.

    Returns:
        Its tensors, which Paddle stores in the order of their names.

    Raises:
        BundleError: the file is missing, empty, truncated, or no Paddle parameters file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            tensors = []
            while file.tell() < size:
                tensors.append(_next_tensor(file, size))
    except OSError as error:
        raise BundleError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, struct.error) as error:
        raise BundleError(
            f"{path} is damaged or truncated ({error or 'it ends inside a tensor'}; it has {size} "
            "bytes); copy it again, or export the model again"
        ) from None
    if not tensors:
        raise BundleError(f"{path} is empty; copy it again, or export the model again")
    return tensors


def _next_tensor(file: BinaryIO, size: int) -> StoredTensor:
    """Read past one tensor: versions, levels of detail, a protobuf description, then its data."""
    _version(file)
    (levels,) = _unpack(file, "<Q")
    if levels > 8:
        raise ValueError("it is no Paddle parameters file")
    for _ in range(levels):
        (length,) = _unpack(file, "<Q")
        file.seek(length, 1)
    _version(file)
    (length,) = _unpack(file, "<i")
    if not 0 < length <= _MAX_DESCRIPTION_BYTES:
        raise ValueError("it is no Paddle parameters file")
    dtype, dims = _description(_read(file, length))
    if dtype not in _ITEM_BYTES:
        raise ValueError(f"a tensor has the unknown element type {dtype}")
    tensor = StoredTensor(dtype, tuple(dims), file.tell(), math.prod(dims) * _ITEM_BYTES[dtype])
    if tensor.offset + tensor.length > size:
        raise ValueError(f"a tensor of shape {dims} ends {tensor.offset + tensor.length - size} "
                         "bytes after it")  # fmt: skip
    file.seek(tensor.length, 1)
    return tensor


def _version(file: BinaryIO) -> None:
    if _unpack(file, "<I") != (0,):
        raise ValueError("it is no Paddle parameters file")


def _unpack(file: BinaryIO, layout: str) -> tuple[int, ...]:
    return struct.unpack(layout, _read(file, struct.calcsize(layout)))


def _read(file: BinaryIO, length: int) -> bytes:
    data = file.read(length)
    if len(data) != length:
        raise ValueError("it ends inside a tensor")
    return data


def _description(data: bytes) -> tuple[int, list[int]]:
    """Read the two fields of a protobuf TensorDesc: element type and dimensions."""
    dtype, dims, position = -1, list[int](), 0
    while position < len(data):
        key, position = _varint(data, position)
        value, position = _varint(data, position)
        if key == _DTYPE_FIELD << 3:
            dtype = value
        elif key == _DIMS_FIELD << 3:
            dims.append(value)
        elif key == _DIMS_FIELD << 3 | 2:  # packed: `value` is the length
            end = position + value
            while position < end:
                value, position = _varint(data, position)
                dims.append(value)
        else:
            raise ValueError("it is no Paddle parameters file")
    return dtype, dims


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(data):
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ValueError("it ends inside a tensor")
