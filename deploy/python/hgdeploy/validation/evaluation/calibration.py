# SPDX-License-Identifier: Apache-2.0
"""How far a classifier's scores are the probabilities that it is right."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.validation.evaluation.judged import Judged

BINS = 15
_RESAMPLES = 1000
_TAIL = 0.025  # beyond each end of a 95 % interval


@dataclass(frozen=True)
class Bin:
    """The images whose best score lies in one fifteenth of 0 to 1.

    Attributes:
        high: where it ends; a score that is its end is in it.
        images: how many.
        confidence: their mean score.
        accuracy: the share of them that are answered right.
    """

    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The expected calibration error: how far scores and accuracy are apart, on average.

    The best score of each image falls into one of 15 bins of equal width; the error is the mean
    over all images of the distance between their bin's mean score and its accuracy (C. Guo, G.
    Pleiss, Y. Sun, K. Q. Weinberger, On Calibration of Modern Neural Networks, ICML 2017, equation
    5). Chance alone makes it larger than 0, the more so the fewer the images.

    Attributes:
        error: 0 to 1.
        interval: its 95 % interval, by a percentile bootstrap of 1000 resamples of the images.
        bins: those with images in them.
    """

    error: float
    interval: tuple[float, float]
    bins: tuple[Bin, ...]

    def __str__(self) -> str:
        """Return the error in per cent with its interval."""
        low, high = self.interval
        return f"{self.error:.2%} ({low:.2%} to {high:.2%})"


def calibration(judged: Collection[Judged]) -> Calibration:
    """Measure the calibration of probabilities, of at least one image; the same each time."""
    scores = np.array([each.score for each in judged], np.float64)
    right = np.array([each.right for each in judged], np.float64)
    place = np.clip(np.ceil(scores * BINS).astype(np.int64) - 1, 0, BINS - 1)
    images = np.bincount(place, minlength=BINS)
    sums = np.bincount(place, scores, BINS), np.bincount(place, right, BINS)
    bins = tuple(
        Bin((i + 1) / BINS, int(n), float(sums[0][i] / n), float(sums[1][i] / n))
        for i, n in enumerate(images)
        if n
    )
    random = np.random.default_rng(0)
    found = []
    for _ in range(_RESAMPLES):
        drawn = random.integers(0, len(scores), len(scores))
        found.append(_error(place[drawn], (right - scores)[drawn]))
    low, high = np.quantile(found, (_TAIL, 1 - _TAIL))
    return Calibration(_error(place, right - scores), (float(low), float(high)), bins)


def _error(place: NDArray[Any], gaps: NDArray[Any]) -> float:
    return float(np.abs(np.bincount(place, gaps, BINS)).sum() / len(gaps))
