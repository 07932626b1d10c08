# SPDX-License-Identifier: Apache-2.0
"""Accuracy on labelled images, with confidence intervals."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from hgdeploy.validation.compare import top_classes


@dataclass(frozen=True)
class Accuracy:
    """A run's accuracy on labelled images, with 95 % Wilson intervals (low, high).

    Attributes:
        run: the run's name.
        rows: how many images.
        top1: share of images whose best class is right.
        top1_interval: its interval.
        top5: share of images whose right class is among the best five.
        top5_interval: its interval.
    """

    run: str
    rows: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    top5_interval: tuple[float, float]


def measure_accuracy(run: str, rows: NDArray[Any], labels: NDArray[Any]) -> Accuracy:
    """Return a run's accuracy.

    Args:
        run: the run's name.
        rows: the scores, one row per image.
        labels: the right class of each image.
    """
    best = top_classes(rows, 5)
    first = int((best[:, 0] == labels).sum())
    among = int((best == labels[:, None]).any(axis=1).sum())
    count = len(labels)
    return Accuracy(
        run,
        count,
        first / count,
        wilson_interval(first, count),
        among / count,
        wilson_interval(among, count),
    )


_NORMAL_95 = 1.959964  # within so many standard deviations lie 95 % of a normal distribution


def wilson_interval(successes: float, trials: float, z: float = _NORMAL_95) -> tuple[float, float]:
    """Return the Wilson score interval of a share (E. B. Wilson, 1927).

    Args:
        successes: 0 to `trials`.
        trials: at least 1; an effective number need not be whole.
        z: normal quantile; the default gives 95 %.
    """
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def share_interval(share: float, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share that was found in so many trials."""
    return wilson_interval(round(share * trials), trials)


def rows_that_decide(share: float, least: float) -> int | None:
    """Return how many rows would tell whether a share reaches `least`, if it stays what it is.

    The ends of Wilson's interval are the values x with (share - x)^2 = z^2 x (1 - x) / rows.

    Args:
        share: the share that was found.
        least: what it is to reach, 0 to 1.

    Returns:
        The number from which 95 % Wilson intervals do not contain `least`; None where no number
        does.
    """
    spread, distance = least * (1 - least), (share - least) ** 2
    if not distance or not spread:
        return None
    return math.floor(_NORMAL_95**2 * spread / distance) + 1
