# SPDX-License-Identifier: Apache-2.0
"""Operators from `transform_ops` of a config, and back."""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from typing import Any

from hgdeploy.errors import ConfigError, nearest
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

_RANDOM = "is a random training augmentation, which a deployed model cannot use; remove it"


_DETECTION = "belongs to object detection, not to classification; remove it"


_NOT_SERVED = {
    "RandCropImage": _RANDOM,
    "RandFlipImage": _RANDOM,
    "AutoAugment": _RANDOM,
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


# Parameters that PaddleClas has and that change nothing here, with the values that may stand there.
_WITHOUT_EFFECT: dict[str, dict[str, tuple[object, ...]]] = {
    "DecodeImage": {"to_np": (True, False), "backend": ("cv2",)},
    "ResizeImage": {"return_numpy": (True, False)},
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
    if not isinstance(config, list | tuple):
        raise ConfigError(f"{where}: expected a list of operators, got {_kind(config)}")
    ops = tuple(_parse_op(entry, f"{where}.{index}") for index, entry in enumerate(config))
    check_sequence(ops, where)
    return ops


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _parse_op(entry: object, where: str) -> Op:
    if not isinstance(entry, Mapping) or len(entry) != 1:
        got = list(entry) if isinstance(entry, Mapping) else entry
        raise ConfigError(
            f"{where}: expected one operator with its parameters, such as "
            f"`CropImage: {{size: 224}}`, got {got!r}"
        )
    ((name, params),) = entry.items()
    try:
        return _build_op(name, params)
    except ConfigError as error:
        raise ConfigError(f"{where}.{error}") from None


def _build_op(name: Any, params: object) -> Op:
    """One operator; errors start with its name, so that its place can be put before them."""
    if name in _NOT_SERVED:
        raise ConfigError(f"{name}: {_NOT_SERVED[name]}")
    if name not in _OPS:
        raise ConfigError(f"{name}: unknown operator; {nearest(str(name), _OPS)}")
    if params is None:
        params = {}
    if not isinstance(params, Mapping):
        raise ConfigError(f"{name}: expected a mapping of parameters, got {_kind(params)}")
    op = _OPS[name]
    values = _parameters(name, params, [field.name for field in fields(op)])
    if op is CropImage and "size" not in values:
        raise ConfigError("CropImage.size: is required, such as size: 224")
    return op(**values)


def _parameters(name: str, params: Mapping[Any, Any], known: Iterable[str]) -> dict[str, Any]:
    """Constructor arguments, converted to what the dataclass holds; it checks them itself."""
    ignored = _WITHOUT_EFFECT.get(name, {})
    values: dict[str, Any] = {}
    for key, value in params.items():
        if key in ignored:
            if value not in ignored[key]:
                allowed = ", ".join(str(choice).lower() for choice in ignored[key])
                raise ConfigError(f"{name}.{key}: expected one of {allowed}, got {value!r}")
        elif key not in known:
            hint = nearest(str(key), [*known, *ignored]) if known or ignored else "it takes none"
            raise ConfigError(f"{name}.{key}: unknown parameter; {hint}")
        elif value is not None or key not in _NULLABLE:
            values[key] = _CONVERT[key](value) if key in _CONVERT else value
    if name == "ResizeImage":
        _settle_resize(values)
    return values


def _settle_resize(values: dict[str, Any]) -> None:
    """Apply PaddleClas's precedence of `resize_short`, and turn interpolation codes into names."""
    short = values.get("resize_short")
    if isinstance(short, int) and short > 0:
        values.pop("size", None)
    elif isinstance(short, int) and not isinstance(short, bool) and "size" in values:
        del values["resize_short"]
    names = INTERPOLATIONS.get(str(values.get("backend", "cv2")), ())
    code = values.get("interpolation")
    if type(code) is int and 0 <= code < len(names):
        values["interpolation"] = names[code]


def _as_pair(value: object) -> object:
    return (value, value) if type(value) is int else _as_tuple(value)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _as_order(value: object) -> object:
    return "" if value is None else value


def _as_scale(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        # Python's parser sees numbers and operators only: it warns about some other texts.
        if len(value) > 100 or not set(value) <= set("0123456789.eE+-*/() "):
            raise ValueError("not arithmetic on numbers")
        return float(_arithmetic(ast.parse(value.strip(), mode="eval").body))
    except (ValueError, SyntaxError, ArithmeticError, RecursionError, MemoryError):
        raise ConfigError(
            "NormalizeImage.scale: expected a number or a product or quotient of numbers, "
            f"such as 1.0/255.0, got {value[:40]!r}"
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


_CONVERT: dict[str, Callable[[object], object]] = {
    "size": _as_pair,
    "interpolation": _as_lower,
    "backend": _as_lower,
    "scale": _as_scale,
    "mean": _as_tuple,
    "std": _as_tuple,
    "order": _as_order,
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
