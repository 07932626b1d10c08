# SPDX-License-Identifier: Apache-2.0
"""In which keys two preprocessings differ."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from hgdeploy.transforms.operators import DecodeImage, Op


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
