# SPDX-License-Identifier: Apache-2.0
"""A histogram of a tensor's values, and the ranges that calibration takes from it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_BINS = 4096
_LEVELS = 128  # magnitudes of an int8
_CANDIDATES = 256
_FIRST_LIMIT = 2.0**-20


class Histogram:
    """Counts magnitudes in bins that widen as larger values come; its size never changes.

    The bins reach to a power of two. Doubling it joins bins in pairs, so no count is estimated.
    """

    def __init__(self) -> None:
        """Start empty."""
        self._counts = np.zeros(_BINS, np.int64)
        self._limit = _FIRST_LIMIT
        self._low, self._high = 0.0, 0.0

    def add(self, values: NDArray[Any]) -> None:
        """Count values: a finite float array of any shape."""
        self._low = min(self._low, float(values.min()))
        self._high = max(self._high, float(values.max()))
        while max(-self._low, self._high) >= self._limit:
            self._counts = np.pad(self._counts.reshape(-1, 2).sum(axis=1), (0, _BINS // 2))
            self._limit *= 2
        bins = (np.abs(values.ravel()) * (_BINS / self._limit)).astype(np.int64)
        self._counts += np.bincount(bins, minlength=_BINS)

    def extremes(self) -> tuple[float, float]:
        """Return the smallest and the largest value; zero is always among them."""
        return self._low, self._high

    def percentile(self, percent: float) -> tuple[float, float]:
        """Return the range that holds `percent` (0 to 100) of the magnitudes."""
        cumulated = np.cumsum(self._counts)
        bins = int(np.searchsorted(cumulated, cumulated[-1] * percent / 100)) + 1
        return self._clipped(bins)

    def entropy(self) -> tuple[float, float]:
        """Return the range whose 128 levels represent the distribution of magnitudes best.

        It minimises the Kullback-Leibler divergence of the quantized distribution from the clipped
        one, as Migacz describes in "8-bit Inference with TensorRT" (GTC 2017). Zeros are left
        out: an activation makes many, and every range keeps them exactly.
        """
        counts = self._counts.astype(np.float64)
        counts[0] = 0
        used = int(max(-self._low, self._high) * _BINS / self._limit) + 1
        if used <= _LEVELS or not counts.any():
            return self.extremes()
        step = max(1, (used - _LEVELS) // _CANDIDATES)
        candidates = [*range(_LEVELS, used, step), used]
        return self._clipped(min(candidates, key=lambda bins: _loss(counts, bins)))

    def _clipped(self, bins: int) -> tuple[float, float]:
        top = bins * self._limit / _BINS
        return max(self._low, -top), min(self._high, top)


def _loss(counts: NDArray[np.float64], bins: int) -> float:
    """Return the divergence of `bins` bins in 128 levels from the bins with what is clipped."""
    kept = counts[:bins]
    clipped = kept.copy()
    clipped[-1] += counts[bins:].sum()
    starts = np.arange(_LEVELS) * bins // _LEVELS
    totals = np.add.reduceat(kept, starts)
    filled = np.maximum(np.add.reduceat((kept > 0).astype(np.float64), starts), 1)
    spread = np.repeat(totals / filled, np.diff(np.append(starts, bins))) * (kept > 0)
    if not spread.any():
        return float("inf")
    p, q = clipped / clipped.sum(), spread / spread.sum()
    seen = p > 0
    return float((p[seen] * np.log(p[seen] / np.maximum(q[seen], 1e-12))).sum())
