# SPDX-License-Identifier: Apache-2.0
"""Tensors as the Open Inference Protocol writes them: JSON lists, or bytes behind the JSON."""

from __future__ import annotations

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.serving.server.refusals import WrongError

# https://github.com/kserve/open-inference-protocol: the protocol's names of numpy's types.
DATATYPES = {
    "float16": "FP16",
    "float32": "FP32",
    "float64": "FP64",
    "uint8": "UINT8",
    "int8": "INT8",
    "int32": "INT32",
    "int64": "INT64",
}


def texts_of_bytes(data: bytes, count: int, name: str) -> list[bytes]:
    """Return the elements of a BYTES tensor: each has its length before it, in four bytes.

    Raises:
        WrongError: there are more or fewer than `count`.
    """
    found, start = [], 0
    while start < len(data):
        end = start + 4
        if end <= len(data):
            end += struct.unpack_from("<I", data, start)[0]
        if end > len(data) or end < start + 4:
            raise WrongError(f"input {name!r}: its last element is cut off")
        found.append(data[start + 4 : end])
        start = end
    if len(found) != count:
        raise WrongError(f"input {name!r} has {len(found)} elements, but its shape says {count}")
    return found


def texts_of_json(data: object, count: int, name: str) -> list[bytes]:
    """Return the elements of a BYTES tensor in JSON: each is base64, since JSON has no bytes.

    Raises:
        WrongError: there are more or fewer than `count`, or one is no base64.
    """
    flat = data if isinstance(data, list) else []
    flat = [one for part in flat for one in (part if isinstance(part, list) else [part])]
    if len(flat) != count:
        raise WrongError(f"input {name!r} has {len(flat)} elements, but its shape says {count}")
    try:
        return [base64.b64decode(text, validate=True) for text in flat]
    except (binascii.Error, ValueError, TypeError):
        raise WrongError(
            f"input {name!r}: an element is not base64, as image files are written in JSON; or "
            "send them as binary data"
        ) from None


def array_of_bytes(data: bytes, dtype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """Return a tensor of little-endian bytes in row-major order.

    Raises:
        WrongError: there are more or fewer bytes than its shape takes, or a number is not finite.
    """
    kind = np.dtype(dtype).newbyteorder("<")
    if len(data) != math.prod(shape) * kind.itemsize:
        raise WrongError(
            f"input {name!r} has {len(data)} bytes, but {DATATYPES[dtype]} of shape "
            f"{list(shape)} takes {math.prod(shape) * kind.itemsize}"
        )
    made = np.frombuffer(data, kind).reshape(shape).astype(dtype, copy=False)
    if made.dtype.kind == "f" and not np.isfinite(made).all():  # some engines make scores of it
        raise WrongError(f"input {name!r}: a number is not finite")
    return made


def array_of_json(data: object, dtype: str, shape: Sequence[int], name: str) -> NDArray[Any]:
    """Return a tensor of JSON's numbers, flat or nested.

    Raises:
        WrongError: they are no numbers, not finite, or more or fewer than its shape takes.
    """
    try:
        given = np.asarray(data)
    except (ValueError, OverflowError, TypeError):  # nested unevenly
        given = np.empty(0, object)
    wanted = np.dtype(dtype)
    if given.dtype.kind not in ("iuf" if wanted.kind == "f" else "iu") or data is None:
        raise WrongError(f"input {name!r}: its data are not all numbers that {dtype} holds")
    if given.size != math.prod(shape):
        raise WrongError(
            f"input {name!r} has {given.size} numbers, but its shape {list(shape)} takes "
            f"{math.prod(shape)}"
        )
    with np.errstate(over="ignore"):
        made = given.astype(wanted).reshape(shape)
    fits = np.isfinite(made).all() if wanted.kind == "f" else (made == given.reshape(shape)).all()
    if not fits:
        raise WrongError(f"input {name!r}: a number is not finite, or too large for {dtype}")
    return made


def bytes_of_texts(texts: Sequence[str]) -> bytes:
    """Return a BYTES tensor, each element with its length before it."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    return b"".join(struct.pack("<I", len(one)) + one for one in encoded)


def bytes_of_array(values: NDArray[Any]) -> bytes:
    """Return a tensor as little-endian bytes in row-major order."""
    return values.astype(values.dtype.newbyteorder("<"), copy=False).tobytes()


def json_of_array(values: NDArray[Any]) -> list[float | None]:
    """Return a tensor's numbers, flat; None where one is not finite, which JSON cannot say."""
    flat = values.ravel().tolist()
    return [value if math.isfinite(value) else None for value in flat]
