# SPDX-License-Identifier: Apache-2.0
"""How far rounding alone moves a model's scores, measured on the model itself.

Two correct engines differ, because each rounds in its own order, and a network may make much or
little of that. How much is measured by Monte Carlo arithmetic's test for it (D. S. Parker, Monte
Carlo Arithmetic, UCLA CSD-970002, 1997): the same engine runs on inputs that are moved by one unit
in the last place, up or down at random, which no correct engine may tell apart. On foreign
networks, two correct fp32 engines differ by 0.05 to 7 times what this finds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines import Engine
from hgdeploy.validation.compare import Comparison, Kind, compare
from hgdeploy.validation.inputs import infer_in_batches

# One unit in the last place, relative to the value: 2 to the power of minus the mantissa's bits.
_ULP = {"fp32": 2.0**-23, "tf32": 2.0**-10, "fp16": 2.0**-10, "bf16": 2.0**-7}
_SAMPLES = 2
NOISE_ROWS = 16  # more find little more


@dataclass(frozen=True)
class Noise:
    """How far rounding moves a model's scores; the largest figures of several measurements.

    Attributes:
        max_abs: of a score.
        max_log: of the logit that a score shows; see `Comparison`.
    """

    max_abs: float
    max_log: float

    def times(self, found: Comparison) -> float | None:
        """Return how many times the noise a difference is; None where there is no noise."""
        pairs = (found.max_abs, self.max_abs), (found.max_log, self.max_log)
        return max((value / noise for value, noise in pairs if noise > 0), default=None)


def rounding_noise(
    engine: Engine,
    rows: NDArray[Any],
    answers: NDArray[Any],
    kind: Kind,
    precision: str,
    batch_size: int,
) -> Noise | None:
    """Measure the noise of a model on some inputs.

    Args:
        engine: the model, in fp32.
        rows: the inputs, (n, ...); the first ones are used.
        answers: its scores for these inputs and perhaps more.
        kind: what the scores are.
        precision: whose rounding is meant: `fp32`, `tf32`, `fp16` or `bf16`.
        batch_size: rows per inference.

    Returns:
        The noise; None for inputs that are whole numbers, and for int8.
    """
    if precision not in _ULP or not np.issubdtype(rows.dtype, np.floating):
        return None
    rows = rows[:NOISE_ROWS]
    still = answers[: len(rows)]
    found = []
    for seed in range(_SAMPLES):
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], rows.shape)
        moved = (rows * (1 + signs * _ULP[precision])).astype(rows.dtype)
        found.append(compare(still, infer_in_batches(engine, moved, batch_size), kind=kind))
    return Noise(max(c.max_abs for c in found), max(c.max_log for c in found))


def rounding_text(found: Comparison, noise: Noise | None) -> str:
    """Return how a difference compares with what rounding alone does, for a message."""
    times = None if noise is None else noise.times(found)
    if times is None:
        return "rounding alone moves these scores by nothing that was measured"
    return f"that is {times:.3g} times what rounding alone does to this model's scores"
