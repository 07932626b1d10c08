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
        max_abs: of the absolute difference of two probabilities.
        max_log: of the difference of their logarithms (see `compare.LOG_FLOOR`).
        min_top1: of the share of equal best classes; asked on real images only.
        max_sum_error: of a row's distance from summing to 1.
    """

    max_abs: float
    max_log: float
    min_top1: float
    max_sum_error: float


# About ten times what was measured on EfficientNetLite0 and PP-HGNet (docs/validation.md has the
# figures): a library's update may move the last digits, a wrong conversion moves the first.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-5, 1e-4, 0.99, 1e-4),
    "fp16": Tolerance(2e-2, math.inf, 0.98, 1e-2),
    "bf16": Tolerance(0.15, math.inf, 0.95, 2e-2),
    "int8": Tolerance(0.5, math.inf, 0.95, 1e-2),
}
COARSENESS = ("fp32", "fp16", "bf16", "int8")


def tolerance_misses(found: Comparison, allowed: Tolerance, inputs: str) -> list[str]:
    """Say each figure that is out of tolerance."""
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
