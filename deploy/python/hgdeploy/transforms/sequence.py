# SPDX-License-Identifier: Apache-2.0
"""Which orders of operators make sense."""

from __future__ import annotations

from collections.abc import Sequence

from hgdeploy.errors import ConfigError
from hgdeploy.transforms.operators import (
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    ToCHWImage,
)


def check_sequence(ops: Sequence[Op], where: str) -> None:
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
    if short is not None and min(width, height) > round(short):
        return f"size {width}x{height} is larger than ResizeImage.resize_short {short}"
    return None
