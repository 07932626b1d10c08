# SPDX-License-Identifier: Apache-2.0
"""What samples show, and what they do not: summaries, intervals, warnings and verdicts.

Percentiles are numpy's default: linear interpolation between the two nearest samples. Intervals
are 95 % percentile bootstrap intervals from seeded draws, so the same samples always give the
same figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FASTER, SLOWER, CANT_TELL = "faster", "slower", "can't tell"

_SEED = 0
_DRAWS = 2000
_INTERVAL = (2.5, 97.5)
# With fewer pairs than this, chance alone puts all on one side more often than 5 times in 100.
_LEAST_ROUNDS = 6
# Two processes of the same case differ by about this much, depending on where their memory happens
# to lie: no number of rounds makes a smaller difference meaningful.
_PAIRED_MARGIN = 0.03
# Runs that did not alternate also differ by what else the machine was doing.
_UNPAIRED_MARGIN = 0.05


@dataclass(frozen=True)
class Stats:
    """A summary of samples in milliseconds.

    Attributes:
        n: the number of samples.
        min: the fastest.
        mean: the mean.
        median: the median.
        p90: 90th percentile.
        p95: 95th percentile.
        p99: 99th percentile.
        max: the slowest.
        throughput: images per second: the batch size over the mean time, or all images over the
            whole time where runs overlap (the scope `gpu`).
        median_ci: 95 % bootstrap interval of the median. It assumes independent samples, so it
            covers noise, not drift.
    """

    n: int
    min: float
    mean: float
    median: float
    p90: float
    p95: float
    p99: float
    max: float
    throughput: float
    median_ci: tuple[float, float]


@dataclass(frozen=True)
class Ratio:
    """The time that A takes, divided by the time that B takes.

    Attributes:
        ratio: the estimate; below 1 if A is faster.
        low: lower end of its 95 % interval.
        high: upper end.
        verdict: `faster`, `slower` (A than B) or `can't tell`.
        paired: whether the samples come from interleaved rounds, so that drift cancels out. If not,
            the verdict requires a difference of more than 5 % instead of 3 %.
    """

    ratio: float
    low: float
    high: float
    verdict: str
    paired: bool = False


def summarize(samples_ms: Sequence[float], batch: int, seconds: float | None = None) -> Stats:
    """Return a summary of the samples of a case.

    Args:
        samples_ms: milliseconds of each run; at least one.
        batch: images per run.
        seconds: how long all runs took together; None for the sum of the samples.
    """
    times = np.asarray(samples_ms, np.float64)
    median, p90, p95, p99 = (_ms(value) for value in np.percentile(times, [50, 90, 95, 99]))
    low, high = np.percentile(bootstrap_medians(times), _INTERVAL)
    mean = float(times.mean())
    return Stats(
        n=len(times),
        min=_ms(times.min()),
        mean=_ms(mean),
        median=median,
        p90=p90,
        p95=p95,
        p99=p99,
        max=_ms(times.max()),
        throughput=round(batch * len(times) / max(seconds or times.sum() / 1000, 1e-12), 3),
        median_ci=(_ms(low), _ms(high)),
    )


def _ms(value: float) -> float:
    return round(float(value), 5)


def bootstrap_medians(
    samples: Sequence[float] | NDArray[np.float64], draws: int = _DRAWS, seed: int = _SEED
) -> NDArray[np.float64]:
    """Return the medians of `draws` resamples of `samples`.

    A resample of n values is n uniform positions in the sorted samples, and its median is the
    value at the middle position. The k-th smallest of n uniform numbers is Beta(k, n - k + 1), and
    the smallest of those above it lies Beta(1, n - k) of the way to 1: drawing these directly gives
    the same distribution as resampling, without draws x n numbers.
    """
    ordered = np.sort(np.asarray(samples, np.float64))
    n = len(ordered)
    k = (n + 1) // 2
    rng = np.random.default_rng(seed)
    middle = rng.beta(k, n - k + 1, draws)
    below = ordered[np.minimum((middle * n).astype(np.intp), n - 1)]
    if n % 2:
        return below
    following = middle + (1 - middle) * rng.beta(1, n - k, draws)
    above = ordered[np.minimum((following * n).astype(np.intp), n - 1)]
    medians: NDArray[np.float64] = (below + above) / 2
    return medians


def compare_samples(
    a_rounds: Sequence[Sequence[float]], b_rounds: Sequence[Sequence[float]]
) -> Ratio:
    """Compare two cases by the ratio of their medians, A over B.

    Args:
        a_rounds: the samples of A, one list per round.
        b_rounds: those of B. If both have the same number of rounds, at least two, the cases were
            interleaved, and the ratio is the median of the rounds' own ratios. If not, the samples
            of each side are taken together, and the two sides are assumed to be independent.

    Returns:
        The ratio, its interval and the verdict.
    """
    paired = len(a_rounds) == len(b_rounds) > 1
    if paired:
        pairs = zip(a_rounds, b_rounds, strict=True)
        ratios = np.array([np.median(a) / np.median(b) for a, b in pairs])
        ratio, drawn = float(np.median(ratios)), bootstrap_medians(ratios)
    else:
        a, b = np.concatenate([*a_rounds]), np.concatenate([*b_rounds])
        ratio = float(np.median(a) / np.median(b))
        drawn = bootstrap_medians(a, seed=_SEED) / bootstrap_medians(b, seed=_SEED + 1)
    low, high = (float(value) for value in np.percentile(drawn, _INTERVAL))
    margin = _PAIRED_MARGIN if paired else _UNPAIRED_MARGIN
    verdict = CANT_TELL
    if not paired or len(a_rounds) >= _LEAST_ROUNDS:
        if high < 1 / (1 + margin):
            verdict = FASTER
        elif low > 1 + margin:
            verdict = SLOWER
    return Ratio(ratio, low, high, verdict, paired)


def split_rounds(
    samples_ms: Sequence[float], rounds: Sequence[int] | None
) -> tuple[tuple[float, ...], ...]:
    """Return one tuple of samples per round, in the order of the rounds.

    Args:
        samples_ms: a result's `samples_ms`.
        rounds: its `rounds`; None puts all samples into one tuple.
    """
    if rounds is None:
        return (tuple(samples_ms),)
    found: dict[int, list[float]] = {}
    for sample, number in zip(samples_ms, rounds, strict=True):
        found.setdefault(number, []).append(sample)
    return tuple(tuple(found[number]) for number in sorted(found))
