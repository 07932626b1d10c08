# SPDX-License-Identifier: Apache-2.0
"""Programs at another image size than they were exported for.

Paddle runs a program on images of any size, and says nothing where the answer is another one than
the network's: an operator may hold a size that was a number at the export, such as the kernel of a
pooling over the whole picture. So every operator is looked at that works on a tensor whose shape
follows the image. Where none of them holds a size, the program is what an export with open sizes
would be. Operators that are not known here count as bound. What an export has left out because it
did nothing at its size, such as cutting the picture to just that size, no file can show.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hgdeploy.engines.base import CheckedEngine, TensorSpec
from hgdeploy.engines.fit import channels_last
from hgdeploy.engines.paddle.operators import Operator, Value, read_operators
from hgdeploy.engines.paddle.program import ProgramSpecs, read_program_specs
from hgdeploy.errors import BundleError, EngineError

Axes = frozenset[int]
"""The axes of a tensor that follow the image's size."""

_NONE: Axes = frozenset()


class _BoundError(Exception):
    """An operator holds a size, or may."""


def specs_at(source: Path, size: tuple[int, int] | None) -> ProgramSpecs:
    """Return a program's inputs and outputs, at the size of the images that it will be fed.

    Args:
        source: the program's file.
        size: (height, width), -1 where they differ from image to image; None for its own size.

    Raises:
        BundleError: the program is not readable, or bound to another size.
    """
    specs = read_program_specs(source)
    if size is None or len(specs.inputs) != 1 or len(specs.inputs[0].shape) != 4:
        return specs
    shape = list(specs.inputs[0].shape)
    image = slice(1, 3) if channels_last(shape) else slice(2, 4)
    own = shape[image]
    wanted = [-1 if fixed == -1 else asked for fixed, asked in zip(own, size, strict=True)]
    if own == wanted:
        return specs
    holder = bound_by(source)
    if holder is not None and -1 in size:
        return specs  # images of its own size may come
    if holder is not None:
        raise BundleError(
            f"{source} takes images of {own[1]}x{own[0]}, but the preprocessing makes "
            f"{size[1]}x{size[0]} (width x height), and its operator {holder} may hold the size "
            "of the export; correct ResizeImage or CropImage, or export it for that size"
        )
    shape[image] = wanted
    resized = dataclasses.replace(specs.inputs[0], shape=tuple(shape))
    return ProgramSpecs((resized,), specs.outputs)


def check_size(engine: CheckedEngine, source: Path) -> None:
    """Run a program once, where it was exported for images of another size.

    Raises:
        BundleError: it fails, or the shape of its answer is another.
    """
    declared = read_program_specs(source).inputs
    if declared == engine.inputs:
        return
    (own,), (spec,) = declared, engine.inputs
    # An open size is tried with another than the program's own.
    shape = [
        abs(fixed) if axis == 0 or now == fixed else fixed + 32 if now == -1 else now
        for axis, (fixed, now) in enumerate(zip(own.shape, spec.shape, strict=True))
    ]
    what = (
        f"{source} was exported for images of {_size_of(own)}, and cannot run on {_size_of(spec)}"
    )
    try:
        answers = engine.infer({spec.name: np.zeros(shape, spec.dtype)})
    except EngineError as error:
        raise BundleError(f"{what}: {error}") from None
    for output in engine.outputs:
        found, expected = list(answers[output.name].shape), [shape[0], *output.shape[1:]]
        if len(found) != len(expected) or any(
            size not in (-1, made) for made, size in zip(found, expected, strict=True)
        ):
            raise BundleError(f"{what}: it answers {found}, expected {expected}")


def size_warnings(engine: CheckedEngine, source: Path) -> tuple[str, ...]:
    """Return what to tell where a program runs at another size than it was exported for."""
    own, runs = read_program_specs(source).inputs, engine.inputs
    if own == runs:
        return ()
    return (
        f"{source} was exported for images of {_size_of(own[0])} and runs {_size_of(runs[0])} "
        "(width x height), as the preprocessing makes them",
    )


def _size_of(spec: TensorSpec) -> str:
    height, width = spec.shape[1:3] if channels_last(spec.shape) else spec.shape[2:]
    return "any size" if -1 in (height, width) else f"{width}x{height}"


def bound_by(program: Path) -> str | None:
    """Return what binds a program of one image input to the image size of its export.

    Args:
        program: the program's file.

    Returns:
        The name of the first operator that holds a size, or is not known to hold none; None where
        there is none.
    """
    following: dict[str, Axes] = {}
    for operator in read_operators(program):
        if operator.kind == "data":
            result = operator.outputs[0]
            image = {1, 2} if channels_last(result.shape) else {2, 3}
            following[result.name] = frozenset(image)
            continue
        if operator.nested:
            return operator.kind
        axes = [following.get(value.name, _NONE) for value in operator.inputs]
        if not any(axes):
            continue
        try:
            follows = _RULES[operator.kind](operator, axes)
        except (_BoundError, LookupError, TypeError, ValueError):
            return operator.kind
        following |= {value.name: follows for value in operator.outputs[: _results(operator)]}
    return None


def _results(operator: Operator) -> int:
    """Return how many of an operator's outputs are results; the others are statistics."""
    return len(operator.outputs) if operator.kind == "split" else 1


def _each(_: Operator, axes: list[Axes]) -> Axes:
    """An operator on each element, or on positions that follow the image."""
    if any(axes[1:]):
        raise _BoundError
    return axes[0]


def _together(operator: Operator, axes: list[Axes]) -> Axes:
    """An operator on two tensors, element by element; the smaller one is repeated."""
    x, y = operator.inputs[:2]
    if len(x.shape) != len(y.shape) and axes[1]:
        raise _BoundError
    return axes[0] | axes[1]


def _listed(_: Operator, axes: list[Axes]) -> Axes:
    """A list of tensors, or what they are joined to along an axis that does not follow."""
    return frozenset().union(*axes)


def _joined(operator: Operator, axes: list[Axes]) -> Axes:
    result = _listed(operator, axes)
    (axis,) = _numbers(operator, "axis")
    if _axis(axis, operator.outputs[0]) in result:
        raise _BoundError
    return result


def _parted(operator: Operator, axes: list[Axes]) -> Axes:
    # Where PIR takes a list apart into its tensors, there is no axis.
    if operator.inputs[0].shape:
        (axis,) = _numbers(operator, "axis")
        if _axis(axis, operator.inputs[0]) in axes[0]:
            raise _BoundError
    return axes[0]


def _sliced(operator: Operator, axes: list[Axes]) -> Axes:
    cut = {_axis(axis, operator.inputs[0]) for axis in _numbers(operator, "axes")}
    if cut & axes[0] or operator.attributes.get("decrease_axis"):
        raise _BoundError
    return axes[0]


def _pooled(operator: Operator, axes: list[Axes]) -> Axes:
    attributes = operator.attributes
    image = [2, 3] if attributes["data_format"] in ("NCHW", "AnyLayout") else [1, 2]
    if attributes["adaptive"] or attributes["global_pooling"]:
        return axes[0].difference(image)
    kernel = _numbers(operator, "kernel_size")
    sizes = [operator.inputs[0].shape[axis] for axis in image]
    if any(k >= size for k, size in zip(kernel, sizes, strict=True)):
        raise _BoundError
    return axes[0]


def _averaged(operator: Operator, axes: list[Axes]) -> Axes:
    if operator.attributes.get("reduce_all"):
        raise _BoundError
    away = {_axis(axis, operator.inputs[0]) for axis in _numbers(operator, "axis")}
    left = axes[0] - away
    if operator.attributes["keepdim"]:
        return left
    return frozenset(axis - sum(gone < axis for gone in away) for axis in left)


def _flattened(operator: Operator, axes: list[Axes]) -> Axes:
    (start,), (stop,) = _numbers(operator, "start_axis"), _numbers(operator, "stop_axis")
    first, last = _axis(start, operator.inputs[0]), _axis(stop, operator.inputs[0])
    return frozenset(
        axis if axis < first else first if axis <= last else axis - (last - first)
        for axis in axes[0]
    )


def _reshaped(operator: Operator, axes: list[Axes]) -> Axes:
    """Only `[0, ..., -1, ...]` follows: the -1 is the image's axes, and all others are the same."""
    shape, before = _numbers(operator, "shape"), operator.inputs[0].shape
    kept = math.prod(size for i, size in enumerate(before) if i and i not in axes[0])
    given = math.prod(size for size in shape[1:] if size != -1)
    if shape[0] != 0 or shape.count(-1) != 1 or given != kept:
        raise _BoundError
    return frozenset({shape.index(-1)})


def _transposed(operator: Operator, axes: list[Axes]) -> Axes:
    order = _numbers(operator, "perm")
    return frozenset(new for new, old in enumerate(order) if old in axes[0])


def _multiplied(operator: Operator, axes: list[Axes]) -> Axes:
    x = operator.inputs[0]
    if axes[1] or axes[0] & {len(x.shape) - 1} or operator.attributes.get("transpose_x"):
        raise _BoundError
    return axes[0]


def _numbers(operator: Operator, name: str) -> list[int]:
    value = operator.attributes[name]
    return [int(number) for number in (value if isinstance(value, list) else [value])]


def _axis(axis: int, value: Value) -> int:
    return axis % len(value.shape)


_RULES: dict[str, Callable[[Operator, list[Axes]], Axes]] = {
    **dict.fromkeys(
        ("conv2d", "depthwise_conv2d", "batch_norm_", "dropout", "scale", "softmax", "prelu"), _each
    ),
    **dict.fromkeys(
        ("relu", "relu6", "leaky_relu", "elu", "gelu", "silu", "swish", "mish", "tanh"), _each
    ),
    **dict.fromkeys(("sigmoid", "hardsigmoid", "hardswish", "sqrt", "square", "exp"), _each),
    **dict.fromkeys(("add", "subtract", "multiply", "divide", "maximum", "minimum"), _together),
    "combine": _listed,
    "concat": _joined,
    "split": _parted,
    "split_with_num": _parted,
    "slice": _sliced,
    "pool2d": _pooled,
    "mean": _averaged,
    "flatten": _flattened,
    "reshape": _reshaped,
    "transpose": _transposed,
    "matmul": _multiplied,
}
