# SPDX-License-Identifier: Apache-2.0
"""Read Paddle's `.pdparams` files."""

from __future__ import annotations

import collections
import importlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import WeightsError
from hgdeploy.zoo.weights.pickles import (
    Weights,
    checked_name,
    first_bytes,
    open_file,
    refusal,
    unpickle,
)

_NAMES_KEY = "StructuredToParameterName@@"
_BIG_KEY = "UnpackBigParamInfor@@"


def read_pdparams(path: Path) -> Weights:
    """Read Paddle's `.pdparams`: a pickle of parameter name to array, or to (name, array).

    Args:
        path: the file. Arrays that Paddle has split because of their size are joined again.

    Returns:
        Parameter name to array, in the file's order.

    Raises:
        WeightsError: the file is missing, damaged, not a pickle, asks for code to run, or contains
            something other than arrays.
    """
    start = first_bytes(path)
    if not start.startswith(b"\x80"):
        raise WeightsError(f"{path}: is not a weights file (it starts with {start!r})")
    with open_file(path) as file:
        content = unpickle(_ArrayUnpickler(file, path), path)
    if not isinstance(content, dict):
        raise WeightsError(
            f"{path}: contains a {type(content).__name__}, expected a dict of parameters"
        )
    content.pop(_NAMES_KEY, None)
    plans = content.pop(_BIG_KEY, {})
    weights = {checked_name(key, path): _array(key, value, path) for key, value in content.items()}
    return _joined(weights, plans, path)


def _latin1(text: str, encoding: str) -> bytes:
    """Replace `_codecs.encode`: pickle protocol 2 writes an array's bytes as latin-1 text."""
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"encoding {encoding!r}")
    return text.encode("latin1")


class _ArrayUnpickler(pickle.Unpickler):
    """An unpickler that can build dicts, tuples and numpy arrays, and nothing else."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        # latin1: pickles of Python 2 keep an array's bytes in a str.
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
        raise refusal(self._path, module, name)


def _numpy_function(leaf: str, name: str) -> Callable[..., Any]:
    core = "numpy._core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "numpy.core"
    function: Callable[..., Any] = getattr(importlib.import_module(f"{core}.{leaf}"), name)
    return function


def _array(key: object, value: object, path: Path) -> NDArray[Any]:
    if isinstance(value, tuple) and len(value) == 2:
        value = value[1]
    if not isinstance(value, np.ndarray):
        raise WeightsError(f"{path}: {key!r} is a {type(value).__name__}, expected an array")
    if value.dtype.kind not in "fiub":
        raise WeightsError(f"{path}: {key!r} has dtype {value.dtype}, expected numbers")
    return value


def _joined(weights: Weights, plans: object, path: Path) -> Weights:
    """Join the arrays that Paddle has split to stay below a pickle's 4 GB."""
    try:
        for name, plan in dict(plans).items():  # type: ignore[call-overload]
            slices = [weights.pop(key) for key in plan["slices"]]
            weights[name] = np.concatenate(slices).reshape(plan["OriginShape"])
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: the list of split parameters is damaged: {error}") from error
    return weights
