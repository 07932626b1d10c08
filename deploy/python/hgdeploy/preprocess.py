# SPDX-License-Identifier: Apache-2.0
"""Preprocessing operators: PaddleClas's `transform_ops`, checked at the door and run bit-exactly.

A config list becomes a tuple of frozen operators (`parse_ops`), and a `Preprocessor` runs them on
one decoded image. For the same list the result equals PaddleClas's in every bit, on both resize
backends; what PaddleClas would accept and then compute wrongly is refused here with its reason.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import DTypeLike, NDArray

from hgdeploy.errors import ConfigError, ImageError, TensorError, nearest

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# `resize_short` multiplies the long side too, so a 1 x 60000 image would need 12 GB. The limit is
# an aspect ratio of 2048:1 at a short side of 256, about 400 MB.
MAX_RESIZED_PIXELS = 2**27

# Names by backend, each at the index that is its code in that library: PaddleClas takes both.
_INTERPOLATIONS: dict[str, tuple[str, ...]] = {
    "cv2": ("nearest", "bilinear", "bicubic", "area", "lanczos"),
    "pil": ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"),
}
_ORDERS = ("", "hwc", "chw")

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


@dataclass(frozen=True)
class DecodeImage:
    """How the model wants its colours; the decoding itself is done by `hgdeploy.images`.

    Attributes:
        to_rgb: True for a model trained on RGB, False for one trained on BGR.
        channel_first: must be False; `ToCHWImage` does that job.
    """

    to_rgb: bool = True
    channel_first: bool = False

    def __post_init__(self) -> None:
        _check_bool("DecodeImage.to_rgb", self.to_rgb)
        _check_bool("DecodeImage.channel_first", self.channel_first)
        if self.channel_first:
            raise ConfigError(
                "DecodeImage.channel_first: must be false, because resize and crop need HWC; "
                "put ToCHWImage at the end instead"
            )


@dataclass(frozen=True)
class ResizeImage:
    """Resize to a fixed size, or so that the short side has a given length.

    Attributes:
        size: (width, height) in pixels, without regard to the aspect ratio.
        resize_short: length of the short side; exactly one of the two is set.
        interpolation: a name of the backend (cv2: nearest, bilinear, bicubic, area, lanczos;
            pil: nearest, lanczos, bilinear, bicubic, box, hamming); None is bilinear.
        backend: "cv2" or "pil".
    """

    size: tuple[int, int] | None = None
    resize_short: int | None = None
    interpolation: str | None = None
    backend: str = "cv2"

    def __post_init__(self) -> None:
        if (self.size is None) == (self.resize_short is None):
            raise ConfigError(
                "ResizeImage: needs one of `size` and `resize_short`, such as resize_short: 256"
            )
        if self.size is not None:
            _check_size("ResizeImage.size", self.size)
        if self.resize_short is not None and not _is_positive_int(self.resize_short):
            raise ConfigError(
                "ResizeImage.resize_short: expected a positive whole number of pixels, "
                f"got {self.resize_short!r}"
            )
        if math.prod(self.size or (self.resize_short or 0,) * 2) > MAX_RESIZED_PIXELS:
            raise ConfigError(f"ResizeImage: gives more than {MAX_RESIZED_PIXELS} pixels")
        if not isinstance(self.backend, str) or self.backend not in _INTERPOLATIONS:
            raise ConfigError(
                f"ResizeImage.backend: expected one of cv2, pil, got {self.backend!r}"
            )
        _check_interpolation(self.interpolation, self.backend)

    @property
    def code(self) -> int:
        """The backend's own number for the interpolation."""
        return _INTERPOLATIONS[self.backend].index(self.interpolation or "bilinear")


@dataclass(frozen=True)
class CropImage:
    """Cut the middle out of the image.

    Attributes:
        size: (width, height) in pixels; a larger crop than the image is an ImageError.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_size("CropImage.size", self.size)


@dataclass(frozen=True)
class NormalizeImage:
    """(pixel * scale - mean) / std, in float32, per channel.

    Attributes:
        scale: factor on the 0..255 pixels.
        mean: three numbers, in the channel order of the model.
        std: three numbers, none of them 0.
        order: layout that it works on: "chw", or "hwc" with "" as its other name.
        channel_num: 3, or 4 to append a channel of zeros.
        output_fp16: round the result to float16.
    """

    scale: float = 1.0 / 255.0
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    order: str = "chw"
    channel_num: int = 3
    output_fp16: bool = False

    def __post_init__(self) -> None:
        for name, value in (("scale", (self.scale,)), ("mean", self.mean), ("std", self.std)):
            _check_numbers(f"NormalizeImage.{name}", value, 1 if name == "scale" else 3)
        for name, numbers in (("scale", (self.scale,)), ("std", self.std)):
            if any(np.float32(number) == 0 for number in numbers):
                raise ConfigError(f"NormalizeImage.{name}: must not be 0 in float32")
        if not isinstance(self.order, str) or self.order not in _ORDERS:
            raise ConfigError(
                f"NormalizeImage.order: expected one of '', 'hwc', 'chw', got {self.order!r}"
            )
        if type(self.channel_num) is not int or self.channel_num not in (3, 4):
            raise ConfigError(
                f"NormalizeImage.channel_num: expected 3 or 4, got {self.channel_num!r}"
            )
        _check_bool("NormalizeImage.output_fp16", self.output_fp16)
        self._check_range()

    def _check_range(self) -> None:
        dtype = np.float16 if self.output_fp16 else np.float32
        with np.errstate(over="ignore", invalid="ignore"):
            finite = np.isfinite(_table(self)).all()
        if not finite:
            raise ConfigError(
                f"NormalizeImage: scale, mean and std give values outside of {np.dtype(dtype)}"
            )


@dataclass(frozen=True)
class ToCHWImage:
    """Move the channels to the front: HWC becomes CHW."""


Op: TypeAlias = DecodeImage | ResizeImage | CropImage | NormalizeImage | ToCHWImage

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


def _is_positive_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _check_bool(where: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: expected true or false, got {value!r}")


def _check_size(where: str, value: object) -> None:
    if (
        not isinstance(value, tuple)
        or len(value) != 2
        or not all(_is_positive_int(side) for side in value)
    ):
        got = list(value) if isinstance(value, tuple) else value
        raise ConfigError(
            f"{where}: expected a positive whole number or [width, height], got {got!r}"
        )


def _check_numbers(where: str, value: object, count: int) -> None:
    got = list(value) if isinstance(value, tuple) else value
    wanted = "a number" if count == 1 else f"a list of {count} numbers"
    if not isinstance(value, tuple) or len(value) != count:
        raise ConfigError(f"{where}: expected {wanted}, got {got!r}")
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ConfigError(f"{where}: expected {wanted}, got {number!r}")
        if not abs(number) <= float(np.finfo(np.float32).max):  # also false for nan
            raise ConfigError(f"{where}: must be finite in float32, got {number!r}")


def _check_interpolation(name: object, backend: str) -> None:
    names = _INTERPOLATIONS[backend]
    if name is None or (isinstance(name, str) and name in names):
        return
    where = "ResizeImage.interpolation"
    if name == "random":
        raise ConfigError(
            f"{where}: 'random' is a training augmentation, which a deployed model cannot use; "
            "name the one that the model is tested with, such as bilinear"
        )
    if isinstance(name, str):
        raise ConfigError(f"{where}: unknown {name!r} on {backend}; {nearest(name, names)}")
    raise ConfigError(
        f"{where}: expected a name or a code of 0..{len(names) - 1} on {backend}, got {name!r}"
    )


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
    _check_sequence(ops, where)
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
    names = _INTERPOLATIONS.get(str(values.get("backend", "cv2")), ())
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


def _check_sequence(ops: Sequence[Op], where: str) -> None:
    for index, op in enumerate(ops):
        problem = _misplaced(op, ops[:index])
        if problem is not None:
            raise ConfigError(f"{where}.{index}.{type(op).__name__}: {problem}")


def _misplaced(op: Op, before: Sequence[Op]) -> str | None:
    """Why `op` cannot follow the operators `before` it, or None."""
    planar = any(isinstance(other, ToCHWImage) for other in before)
    if isinstance(op, DecodeImage):
        return "must be the first operator" if before else None
    if isinstance(op, ToCHWImage):
        return "stands there twice; remove one" if planar else None
    if isinstance(op, NormalizeImage):
        return _misplaced_normalize(op, before, planar)
    if planar:
        return "must come before ToCHWImage"
    if isinstance(op, CropImage):
        return _impossible_crop(op, before)
    normalize = next((other for other in before if isinstance(other, NormalizeImage)), None)
    if normalize is not None and (op.backend == "pil" or normalize.output_fp16):
        return "cannot resize what NormalizeImage made; put it before NormalizeImage"
    return None


def _misplaced_normalize(op: NormalizeImage, before: Sequence[Op], planar: bool) -> str | None:
    if any(isinstance(other, NormalizeImage) for other in before):
        return "stands there twice; remove one"
    if planar and op.order != "chw":
        return f"order {op.order!r} does not fit after ToCHWImage; use order: 'chw'"
    if not planar and op.order == "chw":
        return "order 'chw' (the default) does not fit before ToCHWImage; use order: ''"
    return None


def _impossible_crop(op: CropImage, before: Sequence[Op]) -> str | None:
    """Find the crops that no image can satisfy, rather than fail on every image."""
    last = next((o for o in reversed(before) if isinstance(o, ResizeImage | CropImage)), None)
    if last is None:
        return None
    width, height = op.size
    if last.size is not None and (width > last.size[0] or height > last.size[1]):
        return (
            f"size {width}x{height} is larger than the {last.size[0]}x{last.size[1]} that "
            f"{type(last).__name__} leaves (width x height)"
        )
    short = last.resize_short if isinstance(last, ResizeImage) else None
    if short is not None and min(width, height) > short:
        return f"size {width}x{height} is larger than ResizeImage.resize_short {short}"
    return None


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
    _check_sequence(ops, "imagenet_ops")
    return ops


def ops_difference(
    a: Sequence[Op], b: Sequence[Op], a_name: str = "config", b_name: str = "bundle"
) -> list[str]:
    """Name the parameters in which two lists compute something different.

    Two spellings of one computation (order '' and 'hwc', no interpolation and bilinear, a
    `DecodeImage` that changes nothing) are no difference.

    Args:
        a: the first operators.
        b: the second operators.
        a_name: what to call the first in the lines.
        b_name: what to call the second.

    Returns:
        Lines such as `ResizeImage.resize_short: 256 (config), 232 (bundle)`; empty when equal.
    """
    first, second = _meaning(a), _meaning(b)
    a_kinds, b_kinds = [name for name, _ in first], [name for name, _ in second]
    if a_kinds != b_kinds:
        a_list, b_list = (", ".join(kinds) or "none" for kinds in (a_kinds, b_kinds))
        return [f"operators: {a_list} ({a_name}), {b_list} ({b_name})"]
    lines = []
    for (name, mine), (_, other) in zip(first, second, strict=True):
        lines += [
            f"{name}.{key}: {mine[key]} ({a_name}), {other[key]} ({b_name})"
            for key in mine
            if mine[key] != other[key]
        ]
    return lines


def _meaning(ops: Iterable[Op]) -> list[tuple[str, dict[str, Any]]]:
    """Operators as (name, parameters) in a form where equal computations are equal."""
    result = []
    for op in ops:
        if op == DecodeImage():
            continue
        params: dict[str, Any] = {}
        for field in fields(op):
            value = getattr(op, field.name)
            if field.name == "interpolation":
                value = value or "bilinear"
            elif field.name == "order":
                value = value or "hwc"
            elif field.name in ("scale", "mean", "std"):
                value = _shown(value)
            elif isinstance(value, tuple):
                value = list(value)
            params[field.name] = value
        result.append((type(op).__name__, params))
    return result


def _shown(value: float | tuple[float, ...]) -> str:
    """Numbers at the precision they are computed in, so that 1 and 1.0 read the same."""
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(number) for number in value) + "]"
    return str(np.float32(value)).removesuffix(".0")


class Preprocessor:
    """Runs a sequence of operators on one image; safe to call from many threads at once."""

    def __init__(self, ops: Sequence[Op]) -> None:
        """Take the operators.

        Args:
            ops: in the order in which they run.

        Raises:
            ConfigError: an order of operators that cannot work.
        """
        _check_sequence(ops, "ops")
        self._ops = tuple(ops)
        self._normalize = next((op for op in self._ops if isinstance(op, NormalizeImage)), None)
        at = self._ops.index(self._normalize) if self._normalize else len(self._ops)
        self._before, self._after = self._ops[:at], self._ops[at + 1 :]
        self._table = _table(self._normalize) if self._normalize else None
        # Whether normalising may write the result itself: planes, with nothing to do after it.
        chw = self._normalize is not None and self._normalize.order == "chw"
        self._planes_last = chw or self._after == (ToCHWImage(),)

    @property
    def ops(self) -> tuple[Op, ...]:
        """The operators, in order."""
        return self._ops

    @property
    def dtype(self) -> np.dtype[Any]:
        """Element type of the result: float32, float16 (`output_fp16`), or uint8 unnormalised."""
        if self._normalize is None:
            return np.dtype(np.uint8)
        return np.dtype(_float_type(self._normalize))

    @property
    def output_size(self) -> tuple[int, int] | None:
        """(height, width) of every result, or None where it depends on the image."""
        size: tuple[int, int] | None = None
        for op in self._ops:
            if isinstance(op, ResizeImage | CropImage):
                size = op.size if op.size is not None else _resized(size, op)
        return None if size is None else (size[1], size[0])

    @property
    def output_shape(self) -> tuple[int, ...] | None:
        """Shape of every result, without a batch axis, or None where it depends on the image."""
        size = self.output_size
        if size is None:
            return None
        channels = self._normalize.channel_num if self._normalize is not None else 3
        planar = any(isinstance(op, ToCHWImage) for op in self._ops)
        return (channels, *size) if planar else (*size, channels)

    def __call__(self, rgb: NDArray[np.uint8], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Preprocess one image.

        Args:
            rgb: uint8 of shape (height, width, 3), values 0..255, in RGB order; not changed.
            out: where to put the result, such as one row of a batch: a contiguous array of `dtype`
                and of the result's shape. None for a new array.

        Returns:
            A contiguous array of `dtype`, without a batch axis: CHW after `ToCHWImage`, else HWC.
            It is `out` where that is given, and shares no memory with `rgb`.

        Raises:
            ImageError: not such an array, smaller than the crop, or too long to be resized.
            TensorError: `out` is not such an array.
        """
        _check_image(rgb)
        image: NDArray[Any] = np.ascontiguousarray(rgb)
        for op in self._before:
            image = _apply(op, image)
        if self._normalize is not None and self._table is not None:
            hwc = image.transpose(1, 2, 0) if self._normalize.order == "chw" else image
            shape = (self._normalize.channel_num, *hwc.shape[:2])
            planes = _room(out if self._planes_last else None, shape, self.dtype)
            _look_up(hwc, self._table, planes)
            if self._planes_last:
                return planes
            image = planes.transpose(1, 2, 0)
            for op in self._after:
                image = _apply(op, image)
        result = _room(out, image.shape, self.dtype)
        np.copyto(result, image)
        return result


def _room(out: NDArray[Any] | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return `out` if the result fits into it, or a new array."""
    if out is None:
        return np.empty(shape, dtype)
    fits = out.shape == shape and out.dtype == dtype
    if not (fits and out.flags.c_contiguous and out.flags.writeable):
        raise TensorError(
            f"out is {out.dtype} of shape {out.shape}, but the preprocessing makes {dtype} of "
            f"shape {shape}; give a contiguous, writable array like that"
        )
    return out


def _check_image(rgb: object) -> None:
    if not isinstance(rgb, np.ndarray):
        raise ImageError(f"expected a uint8 array of height x width x 3, got {type(rgb).__name__}")
    if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.size == 0:
        raise ImageError(
            f"expected a uint8 array of height x width x 3, got {rgb.dtype} of shape {rgb.shape}"
        )


def _apply(op: Op, image: NDArray[Any]) -> NDArray[Any]:
    if isinstance(op, DecodeImage):
        return image if op.to_rgb else image[:, :, ::-1]
    if isinstance(op, ResizeImage):
        return _resize(op, image)
    if isinstance(op, CropImage):
        return _crop(op, image)
    chw: NDArray[Any] = image.transpose(2, 0, 1)
    return chw


def _resized(size: tuple[int, int] | None, op: ResizeImage) -> tuple[int, int] | None:
    """(width, height) that `resize_short` makes of a size, or None of an unknown one."""
    if size is None or op.resize_short is None:
        return op.size
    width, height = size
    ratio = float(op.resize_short) / min(width, height)
    return round(width * ratio), round(height * ratio)


def _resize(op: ResizeImage, image: NDArray[Any]) -> NDArray[Any]:
    height, width = image.shape[:2]
    target = op.size or _resized((width, height), op)
    if target is None or math.prod(target) > MAX_RESIZED_PIXELS:
        raise ImageError(
            f"{width}x{height} (width x height) is too long for resize_short {op.resize_short}: "
            f"the result would have more than {MAX_RESIZED_PIXELS} pixels"
        )
    if op.backend == "pil":
        from PIL import Image

        return np.asarray(Image.fromarray(image).resize(target, Image.Resampling(op.code)))

    import cv2

    try:
        resized: NDArray[Any] = cv2.resize(
            np.ascontiguousarray(image), target, interpolation=op.code
        )
    except cv2.error as error:
        raise ImageError(
            f"cannot be resized from {width}x{height} to {target[0]}x{target[1]}: {error.err}"
        ) from None
    return resized


def _crop(op: CropImage, image: NDArray[Any]) -> NDArray[Any]:
    width, height = op.size
    image_height, image_width = image.shape[:2]
    if image_width < width or image_height < height:
        raise ImageError(
            f"crop {width}x{height} is larger than the image {image_width}x{image_height} "
            "(width x height); resize to at least the crop before it (ResizeImage)"
        )
    left, top = (image_width - width) // 2, (image_height - height) // 2
    return image[top : top + height, left : left + width]


def _float_type(op: NormalizeImage) -> DTypeLike:
    return np.float16 if op.output_fp16 else np.float32


def _table(op: NormalizeImage) -> NDArray[Any]:
    """What each of the three channels makes of each value 0..255: PaddleClas's three roundings.

    Nothing but uint8 comes here, and to look its results up takes half the time of computing them.
    """
    values = np.arange(256, dtype=np.float32) * np.float32(op.scale)
    mean, std = (np.array(numbers, np.float32)[:, None] for numbers in (op.mean, op.std))
    table: NDArray[Any] = ((values - mean) / std).astype(_float_type(op))
    return table


def _look_up(hwc: NDArray[Any], table: NDArray[Any], planes: NDArray[Any]) -> None:
    """Fill `planes` (channels, height, width) from `hwc`; channels after the third are zeros.

    OpenCV looks up without holding Python's lock.
    """
    import cv2

    if hwc.strides[1:] != (3, 1):  # such as BGR made by reading RGB backwards
        hwc = np.ascontiguousarray(hwc)
    if table.dtype == np.float16:  # OpenCV looks up the whole numbers of the same bits
        table, planes = table.view(np.uint16), planes.view(np.uint16)
    planes[3:] = 0
    for channel in range(3):
        plane = planes[channel]
        made = cv2.LUT(cv2.extractChannel(hwc, channel), table[channel, None], dst=plane)
        if not np.shares_memory(made, plane):  # OpenCV makes a new array where one does not fit
            np.copyto(plane, made)
