# SPDX-License-Identifier: Apache-2.0
"""Operators from `transform_ops` of a config, and back."""

from __future__ import annotations

import ast
import dataclasses
import functools
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import Given, Kind, check
from hgdeploy.system.kinds import (
    anything,
    as_whole,
    exactly,
    keys,
    list_of,
    parse_literal,
    switch,
)
from hgdeploy.transforms.operators import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INTERPOLATIONS,
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    ToCHWImage,
)
from hgdeploy.transforms.sequence import check_sequence

T = TypeVar("T")

_RANDOM = "is a random training augmentation, which a deployed model cannot use; remove it"

_DETECTION = "belongs to object detection, not to classification; remove it"

_NOT_SERVED = {
    "RandCropImage": _RANDOM,
    "RandFlipImage": _RANDOM,
    "AutoAugment": _RANDOM,
    "TimmAutoAugment": _RANDOM,
    "RandomErasing": _RANDOM,
    "DetResize": _DETECTION,
    "DetNormalizeImage": _DETECTION,
    "DetPermute": _DETECTION,
    "DetPadStride": _DETECTION,
    "ToTensor": "is not served; use NormalizeImage and ToCHWImage",
    "Normalize": "is not served; use NormalizeImage",
    "Resize": "is not served; use ResizeImage",
    "CenterCrop": "is not served; use CropImage",
}

_OPS: dict[str, type[Op]] = {
    op.__name__: op for op in (DecodeImage, ResizeImage, CropImage, NormalizeImage, ToCHWImage)
}


def _decoder(given: Given) -> str:
    """Is the kind of libraries that decode images: OpenCV, which PaddleClas's predict_cls.py takes.

    Pillow ignores EXIF's rotation, and its pixels differ.
    """
    given = dataclasses.replace(
        given, hint="images are decoded as OpenCV does, which predict_cls.py uses too"
    )
    return exactly("cv2")(dataclasses.replace(given, value=as_lower(given)))


# Parameters that PaddleClas has and that change nothing here, with what may stand there.
_WITHOUT_EFFECT: dict[str, dict[str, Kind[Any]]] = {
    "DecodeImage": {"to_np": switch, "backend": _decoder},
    "ResizeImage": {"return_numpy": switch},
}

# A YAML null stands for the default in these, as PaddleClas has it.
_NULLABLE = {"size", "resize_short", "interpolation", "scale", "mean", "std"}


def parse_ops(config: object, where: str) -> tuple[Op, ...]:
    """Read PaddleClas's `transform_ops`.

    Args:
        config: a list of one-key mappings `{OpName: {parameter: value} | None}`, as YAML gives it.
        where: path of the list in its file, to name in errors: `PreProcess.transform_ops`.

    Returns:
        One operator per entry, in order; names are normalised and defaults filled in.

    Raises:
        ConfigError: an operator, parameter, value or sequence that cannot be served.
    """
    entries = check(where, config, list_of(anything, words="a list of operators"))
    places = (Given(f"{where}.{index}", entry) for index, entry in enumerate(entries))
    ops = tuple(read_op(place, {}) for place in places)
    check_sequence(ops, where)
    return ops


def read_op(given: Given, others: Mapping[str, Kind[T]]) -> Op | T:
    """Return one operator with its parameters.

    Args:
        given: the one-key mapping, as YAML gives it.
        others: operators that are known here beside those of a deployed model, by name.

    Raises:
        ConfigError: an operator, parameter or value that cannot be served.
    """
    entry = given.value
    if not isinstance(entry, Mapping) or len(entry) != 1:
        raise given.refused("one operator with its parameters, such as `CropImage: {size: 224}`")
    (name,) = entry
    if name in _NOT_SERVED and name not in others:
        raise ConfigError(f"{given.where}.{name}: {_NOT_SERVED[name]}")
    own: dict[str, Kind[Op]] = {op: functools.partial(_build_op, _OPS[op]) for op in _OPS}
    kinds: dict[str, Kind[Op | T]] = {**own, **others}
    return keys(kinds)(given)[name]


def _build_op(op: type[Op], given: Given) -> Op:
    """Is the kind of an operator's parameters; the operator checks their values itself."""
    given = given.or_empty()
    without_effect = _WITHOUT_EFFECT.get(op.__name__, {})
    known = {field.name: _CONVERT.get(field.name, anything) for field in fields(op)}
    params = keys({**known, **without_effect})(given)
    values = {
        key: value
        for key, value in params.items()
        if key not in without_effect and (value is not None or key not in _NULLABLE)
    }
    if op is ResizeImage:
        _settle_resize(values)
    if op is CropImage and "size" not in values:
        raise given.at("size").refused("a size such as 224")
    try:
        return op(**values)
    except ConfigError as error:
        raise ConfigError(f"{given.where.removesuffix(op.__name__)}{error}") from None


def _settle_resize(values: dict[str, Any]) -> None:
    """Apply PaddleClas's precedence of `resize_short`, and turn interpolation codes into names."""
    short = values.get("resize_short")
    if isinstance(short, int | float) and short > 0:
        values.pop("size", None)
    elif isinstance(short, int | float) and not isinstance(short, bool) and "size" in values:
        del values["resize_short"]
    names = INTERPOLATIONS.get(str(values.get("backend", "cv2")), ())
    code = values.get("interpolation")
    if type(code) is int and 0 <= code < len(names):
        values["interpolation"] = names[code]


def _as_number(given: Given) -> object:
    """Read a number in quotes too, and 256.0 as the whole number that it is."""
    return as_whole(parse_literal(given.value))


def as_numbers(given: Given) -> object:
    """Read a list of numbers, each of which may stand in quotes; so may the list."""
    value = parse_literal(given.value)
    return [parse_literal(number) for number in value] if isinstance(value, list | tuple) else value


def as_pair(given: Given) -> object:
    """Read one size for both sides, or a list of two."""
    size = as_numbers(given)
    if isinstance(size, list):
        return [as_whole(number) for number in size]
    size = as_whole(size)
    return (size, size) if type(size) is int else size


def as_lower(given: Given) -> object:
    """Read a name in upper or lower case."""
    return given.value.lower() if isinstance(given.value, str) else given.value


def _as_order(given: Given) -> object:
    """PaddleClas computes on HWC where anything but 'chw' stands."""
    value = "" if given.value is None else given.value
    return "hwc" if value == "HWC" else value


def arithmetic(given: Given) -> object:
    """Read a number that may be written as a product or quotient, such as 1.0/255.0."""
    value = given.value
    if not isinstance(value, str):
        return value
    try:
        # Python's parser sees numbers and operators only: it warns about some other texts.
        if len(value) > 100 or not set(value) <= set("0123456789.eE+-*/() "):
            raise ValueError("not arithmetic on numbers")
        return float(_arithmetic(ast.parse(value.strip(), mode="eval").body))
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError):
        raise given.refused(
            "a number, or a product or quotient of numbers, such as 1.0/255.0"
        ) from None


_ARITHMETIC: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


def _arithmetic(node: ast.expr) -> float:
    """Value of a tree of literals, `*`, `/` and signs; anything else is a ValueError."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return float(node.value)  # type: ignore[arg-type]
    if isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        left, right = _arithmetic(node.left), _arithmetic(node.right)
        return float(_ARITHMETIC[type(node.op)](left, right))
    if isinstance(node, ast.UnaryOp) and type(node.op) in _ARITHMETIC:
        return float(_ARITHMETIC[type(node.op)](_arithmetic(node.operand)))
    raise ValueError("not arithmetic on numbers")


# How a config writes what an operator takes otherwise.
_CONVERT: dict[str, Kind[Any]] = {
    "to_rgb": switch,
    "channel_first": switch,
    "size": as_pair,
    "resize_short": _as_number,
    "interpolation": as_lower,
    "backend": as_lower,
    "scale": arithmetic,
    "mean": as_numbers,
    "std": as_numbers,
    "order": _as_order,
    "channel_num": _as_number,
    "output_fp16": switch,
}


def ops_to_config(ops: Iterable[Op]) -> list[dict[str, Any]]:
    """Write operators as PaddleClas's `transform_ops`: the inverse of `parse_ops`.

    Args:
        ops: the operators.

    Returns:
        One-key mappings of plain lists, numbers and strings, ready for YAML or JSON.
    """
    config: list[dict[str, Any]] = []
    for op in ops:
        params = {field.name: getattr(op, field.name) for field in fields(op)}
        plain = {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in params.items()
            if value is not None
        }
        config.append({type(op).__name__: plain or None})
    return config


def imagenet_ops(
    resize_short: int,
    crop: int,
    *,
    interpolation: str | None = None,
    backend: str = "cv2",
    scale: float = 1.0 / 255.0,
    mean: tuple[float, float, float] = IMAGENET_MEAN,
    std: tuple[float, float, float] = IMAGENET_STD,
) -> tuple[Op, ...]:
    """The usual ImageNet evaluation: resize the short side, crop the centre, normalise, CHW.

    Args:
        resize_short: short side after the resize, in pixels.
        crop: side of the square crop, at most `resize_short`.
        interpolation: see `ResizeImage`.
        backend: "cv2" or "pil".
        scale: see `NormalizeImage`.
        mean: see `NormalizeImage`.
        std: see `NormalizeImage`.

    Returns:
        Four operators; a `Preprocessor` of them gives float32 of shape (3, crop, crop).

    Raises:
        ConfigError: a value that the operators do not take.
    """
    ops = (
        ResizeImage(resize_short=resize_short, interpolation=interpolation, backend=backend),
        CropImage(size=(crop, crop)),
        NormalizeImage(scale=scale, mean=mean, std=std, order=""),
        ToCHWImage(),
    )
    check_sequence(ops, "imagenet_ops")
    return ops
