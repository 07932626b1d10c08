# SPDX-License-Identifier: Apache-2.0
"""How far a candidate may be from its reference."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from hgdeploy.validation.compare import Comparison


@dataclass(frozen=True)
class Tolerance:
    """How far a candidate may be from its reference; the limits are inclusive.

    Attributes:
        max_abs: limit of the absolute difference of two probabilities.
        max_log: limit of the difference of their logarithms (see `compare.LOG_FLOOR`).
        min_top1: least share of equal best classes; checked on real images only.
        max_sum_error: limit of the distance of a row's sum from 1.
    """

    max_abs: float
    max_log: float
    min_top1: float
    max_sum_error: float


# About ten times what was measured on EfficientNetLite0 and PP-HGNet (docs/validation.md has the
# figures): an update of a library may change the last digits, a wrong conversion the first.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-5, 1e-4, 0.99, 1e-4),
    "fp16": Tolerance(2e-2, math.inf, 0.98, 1e-2),
    "bf16": Tolerance(0.15, math.inf, 0.95, 2e-2),
    "int8": Tolerance(0.5, math.inf, 0.95, 1e-2),
}
# The precisions from the finest to the coarsest.
COARSENESS = ("fp32", "fp16", "bf16", "int8")


def tolerance_misses(found: Comparison, allowed: Tolerance, inputs: str) -> list[str]:
    """Return each figure that is out of tolerance, with its limit.

    Args:
        found: the figures.
        allowed: their limits.
        inputs: `images` or `random`; on random inputs the best classes are not compared.
    """
    if not found.finite:
        return ["an output has NaN or infinity"]
    limits = (
        ("largest difference", found.max_abs, allowed.max_abs),
        ("largest log difference", found.max_log, allowed.max_log),
        ("distance of a row from summing to 1", found.max_sum_error, allowed.max_sum_error),
    )
    misses = [f"{name} {value:.2g} > {limit:g}" for name, value, limit in limits if value > limit]
    if inputs == "images" and found.top1_agreement < allowed.min_top1:
        misses.append(f"top-1 agreement {found.top1_agreement:.4f} < {allowed.min_top1:g}")
    return misses
