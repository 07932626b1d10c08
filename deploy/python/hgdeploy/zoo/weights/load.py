# SPDX-License-Identifier: Apache-2.0
"""Read a weights file of either kind, and load its weights into a layer if they fit exactly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import WeightsError
from hgdeploy.system.libraries import import_library
from hgdeploy.zoo import registry
from hgdeploy.zoo.weights.pdparams import read_pdparams
from hgdeploy.zoo.weights.pickles import TORCH_LEGACY_START, ZIP_MAGIC, Weights, first_bytes
from hgdeploy.zoo.weights.torch import paddle_from_torch, read_torch

_PADDLE = ".pdparams"


def weights_file(path: Path) -> Path:
    """Return the file that `path` names: itself, or with `.pdparams`, which PaddleClas leaves out.

    Raises:
        WeightsError: there is neither; the message has both names.
    """
    if path.suffix == _PADDLE or not path.name:
        return path
    named = path.with_name(path.name + _PADDLE)
    try:
        found = next((each for each in (path, named) if each.is_file()), None)
        if found is not None or path.exists():
            return found or path
    except OSError as error:  # such as a name that is too long
        raise WeightsError(f"{str(path)[:300]}: cannot be read: {error.strerror}") from None
    raise WeightsError(f"{path}: does not exist, and neither does {named.name} beside it")


def read_weights(path: Path) -> Weights:
    """Read a weights file of either kind, which its content decides and not its suffix.

    PyTorch's names become Paddle's: `running_mean` is `_mean`, `running_var` is `_variance`, and
    `num_batches_tracked` has no counterpart. Matrices are transposed, because the weight of a
    linear layer is (out, in) in PyTorch and (in, out) in Paddle.

    Args:
        path: a `.pdparams` file, or a PyTorch state dict.

    Returns:
        Parameter name to array, in the file's order.

    Raises:
        WeightsError: the file is missing, damaged, not a weights file, or asks for code to run.
    """
    start = first_bytes(path)
    if start.startswith((ZIP_MAGIC, TORCH_LEGACY_START)):
        return paddle_from_torch(read_torch(path))
    return read_pdparams(path)


def load_into(layer: Any, weights: Mapping[str, NDArray[Any]], source: Path | str) -> None:
    """Load weights into a layer; every name and every shape must match.

    Half precision and bfloat16 become the layer's float32, which changes no value.

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
    """Return what differs, in one line; empty if nothing does."""
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
    """Return advice if only the last layer differs, because of its number of classes."""
    differing = {name for name in expected if name in found and found[name].shape != expected[name]}
    last_layer = list(expected)[-2:]
    if expected.keys() != found.keys() or not differing or not differing <= set(last_layer):
        return ""
    bias = last_layer[-1]
    if found[bias].ndim != 1:
        return ""
    return (
        f"; the weights have {found[bias].size} classes and the model was built for "
        f"{expected[bias][0]}: set num_classes to {found[bias].size} (Arch.class_num in a training "
        "config)"
    )


def _architecture_hint(found: Mapping[str, NDArray[Any]]) -> str:
    """Return advice if the weights are those of another architecture of the zoo."""
    paddle = import_library("paddle", "cpu")
    shapes = {name: array.shape for name, array in found.items()}
    for name in registry.architectures():
        # Lazily built layers have shapes but no values, so even a large one takes milliseconds.
        with paddle.LazyGuard():
            state = registry.build(name).state_dict()
        own = {key: tuple(tensor.shape) for key, tensor in state.items()}
        head = list(own)[-2:]  # which has as many classes as the training had
        if own.keys() == shapes.keys() and all(own[k] == shapes[k] for k in own if k not in head):
            return f"; these are the weights of {name}"
    return ""


def _converted(array: NDArray[Any], integer: bool, where: str) -> NDArray[Any]:
    """Return the array in the layer's number type: as float32, or integers unchanged."""
    if integer:
        if array.dtype.kind not in "iu":
            raise WeightsError(f"{where} has dtype {array.dtype}, expected integers")
        return array
    if array.dtype == np.uint16:
        # numpy has no bfloat16: Paddle saves the bits, which are the upper half of a float32.
        array = (array.astype(np.uint32) << 16).view(np.float32)
    if array.dtype.kind != "f":
        raise WeightsError(f"{where} has dtype {array.dtype}, expected floating point")
    with np.errstate(over="ignore"):
        array = array.astype(np.float32)
    bad = array.size - int(np.count_nonzero(np.isfinite(array)))
    if bad:
        raise WeightsError(f"{where} has {bad} values that are NaN or infinite")
    return array
