# SPDX-License-Identifier: Apache-2.0
"""How far a candidate may be from its reference."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hgdeploy.validation.accuracy import share_interval
from hgdeploy.validation.compare import Comparison
from hgdeploy.validation.noise import Noise

# Two correct engines differ by 0.05 to 7 times the noise that is measured (docs/validation.md); a
# layer whose weights are off by 1 % differs by thousands of times.
NOISE_FACTOR = 10


@dataclass(frozen=True)
class Tolerance:
    """How far a candidate may be from its reference; the limits are inclusive.

    Attributes:
        max_abs: limit of the absolute difference of two probabilities; for logits, relative to
            the largest of them.
        max_log: limit of the difference of their logits (see `compare.Comparison.max_log`).
        min_top1: least share of equal best classes; checked on real images only, by whether the
            share that was found is evidence of a smaller one. None where the differences decide:
            a class then changes only where two scores are as close as that.
        max_sum_error: limit of the distance of a row's sum from 1.
        most_abs: what the first limit may become where a model's own noise is larger.
        most_log: the same of the second.
    """

    max_abs: float
    max_log: float
    min_top1: float | None
    max_sum_error: float
    most_abs: float
    most_log: float

    def with_noise(self, noise: Noise | None, scale: float) -> Tolerance:
        """Return the tolerance for a model of this rounding noise.

        Args:
            noise: what was measured; None leaves the tolerance as it is.
            scale: of the scores; see `Comparison.scale`.
        """
        if noise is None:
            return self
        return dataclasses.replace(
            self,
            max_abs=_widened(self.max_abs, noise.max_abs / scale if scale else 0.0, self.most_abs),
            max_log=_widened(self.max_log, noise.max_log, self.most_log),
        )

    def for_types(self, *types: np.dtype[Any]) -> Tolerance:
        """Return the tolerance for scores of these types: those of 16 bits are rounded to 11.

        So much is the last step of a probability near 1, and what of a row's sum it may move;
        logarithms of small ones say nothing.
        """
        if np.dtype(np.float16) not in types:
            return self
        step = float(np.finfo(np.float16).eps)
        return dataclasses.replace(
            self,
            max_abs=max(self.max_abs, step),
            max_log=math.inf,
            max_sum_error=max(self.max_sum_error, TOLERANCES["fp16"].max_sum_error),
        )


def _widened(limit: float, noise: float, most: float) -> float:
    return max(limit, min(NOISE_FACTOR * noise, most))


# The first limits are about ten times what was measured on EfficientNetLite0 and PP-HGNet
# (docs/validation.md has the figures): an update of a library may change the last digits, a wrong
# conversion the first. The largest logarithm in fp32 is that of LeViT on noise, whose logits are
# thousands: two correct engines differ by 0.22, and by 3e-4 in what a user sees.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-5, 1e-4, None, 1e-4, 2e-3, 0.5),
    # TF32 rounds what is multiplied to fp16's 10 bits; it has fp32's range.
    "tf32": Tolerance(2e-2, math.inf, 0.98, 1e-2, 0.1, math.inf),
    "fp16": Tolerance(2e-2, math.inf, 0.98, 1e-2, 0.1, math.inf),
    "bf16": Tolerance(0.15, math.inf, 0.95, 2e-2, 0.4, math.inf),
    "int8": Tolerance(0.5, math.inf, 0.95, 1e-2, 0.5, math.inf),
}
# The precisions from the finest to the coarsest.
COARSENESS = ("fp32", "tf32", "fp16", "bf16", "int8")


def tolerance_for(
    found: Comparison, precision: str, noise: Noise | None, *types: np.dtype[Any]
) -> Tolerance:
    """Return what is allowed of a comparison.

    Args:
        found: the comparison.
        precision: the coarser of the two sides' precisions.
        noise: the model's own; None where it is not known.
        types: of the scores of both sides.
    """
    return TOLERANCES[precision].for_types(*types).with_noise(noise, found.scale)


def too_coarse(found: Comparison, precision: str, noise: Noise | None) -> bool:
    """Tell whether rounding in a precision explains a difference that is out of tolerance.

    Then the model needs a finer precision: what is compared may be right, and cannot be told from
    what is wrong.
    """
    base = dataclasses.replace(TOLERANCES[precision], most_abs=math.inf, most_log=math.inf)
    allowed = base.with_noise(noise, found.scale)
    return noise is not None and not tolerance_misses(found, allowed, "random")


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
        ("largest difference", found.max_abs, allowed.max_abs * found.scale),
        ("largest log difference", found.max_log, allowed.max_log),
        ("distance of a row from summing to 1", found.max_sum_error, allowed.max_sum_error),
    )
    misses = [f"{name} {value:.2g} > {limit:.2g}" for name, value, limit in limits if value > limit]
    if inputs == "images" and allowed.min_top1 is not None:
        most = share_interval(found.top1_agreement, found.rows)[1]
        if most < allowed.min_top1:
            misses.append(
                f"{found.agreement} on {found.rows} images, at most "
                f"{most:.4f} with 95 % confidence < {allowed.min_top1:g}"
            )
    return misses
