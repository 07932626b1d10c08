# SPDX-License-Identifier: Apache-2.0
"""What looks wrong with a measurement, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SLOW_FIRST = 5.0
_OUTLIER_Z = 10.0
_OUTLIER_SHARE = 0.01
_NOISE = 0.10
_DRIFT = 0.05
_SLOWER_CLOCK = 0.10
_OVERHEAD_SHARE = 0.01
_GPU_CLOCK = 0.02


@dataclass(frozen=True)
class Circumstances:
    """What is known about a measurement besides its samples.

    Attributes:
        first_ms: how long the first inference after loading took.
        overhead_us: what the harness itself adds to each sample.
        mhz: the CPU's clock before and after; None if it cannot be read.
        settled: whether the engine's threads went to sleep between rounds.
        gpu: the GPU's states, as `gpu_state` gives them, in order.
        enqueue_ms: the host's time to launch each run.
        on_gpu: the samples are the GPU's own times.
    """

    first_ms: float
    overhead_us: float
    mhz: tuple[float, float] | None = None
    settled: bool = True
    gpu: tuple[Mapping[str, Any], ...] = ()
    enqueue_ms: tuple[float, ...] = ()
    on_gpu: bool = False


def advise(samples_ms: Sequence[float], known: Circumstances) -> list[str]:
    """Return what looks wrong with a measurement and what to do about it, one line per problem."""
    times = np.asarray(samples_ms, np.float64)
    median = float(np.median(times))
    warnings = [
        *_about_first(times, known.first_ms),
        *_about_spread(times, known.on_gpu),
        *_about_drift(times, "GPU" if known.on_gpu else "CPU"),
    ]
    if known.mhz is not None and known.mhz[1] < known.mhz[0] * (1 - _SLOWER_CLOCK):
        before, after = known.mhz
        warnings.append(
            f"the CPU's clock fell from {before:.0f} to {after:.0f} MHz: it is throttled; cool it, "
            "or set the governor to performance and fix the clock"
        )
    warnings += _about_gpu(known.gpu)
    if known.on_gpu and known.enqueue_ms and np.median(known.enqueue_ms) > median:
        warnings.append(
            f"launching a run takes the host {np.median(known.enqueue_ms):.3f} ms, longer than the "
            "GPU computes: it waits in between; images/s is the host's, so use a larger batch"
        )
    if known.overhead_us / 1000 > _OVERHEAD_SHARE * median:
        warnings.append(
            f"the harness itself takes {known.overhead_us:.2f} us of each run, "
            f"{known.overhead_us / 10 / max(median, 1e-9):.1f} % of the median; use a larger batch"
        )
    if not known.settled:
        warnings.append(
            "the engine kept a CPU busy between rounds and disturbed the other cases; measure it "
            "without --interleave"
        )
    return warnings


def _about_gpu(states: Sequence[Mapping[str, Any]]) -> list[str]:
    """Warn of clocks that moved, and of what held them back."""
    warnings = []
    mhz = [state["sm_mhz"] for state in states if state.get("sm_mhz")]
    if mhz and max(mhz) - min(mhz) > _GPU_CLOCK * max(mhz):
        warnings.append(
            f"the GPU's clock moved from {mhz[0]} to {mhz[-1]} MHz ({min(mhz)} to {max(mhz)}): fix "
            "it with nvidia-smi -pm 1 and nvidia-smi -lgc MHZ, as root, and measure again"
        )
    held = dict.fromkeys(reason for state in states for reason in state.get("held_back", ()))
    if held:
        warnings.append(
            f"the GPU was held back ({', '.join(held)}): cool it, or fix a lower clock with "
            "nvidia-smi -lgc MHZ"
        )
    return warnings


def _about_first(times: NDArray[np.float64], first_ms: float) -> list[str]:
    median = float(np.median(times))
    if first_ms > _SLOW_FIRST * median:
        return [
            f"the first inference took {first_ms:.1f} ms, {first_ms / median:.0f} times the "
            "median; a service should run one inference before it takes traffic"
        ]
    return []


def _about_spread(times: NDArray[np.float64], on_gpu: bool) -> list[str]:
    """Warn of outliers by the modified z-score, and of a wide middle half."""
    warnings = []
    median = float(np.median(times))
    deviation = float(np.median(np.abs(times - median)))
    outliers = np.abs(times - median) * 0.6745 > _OUTLIER_Z * max(deviation, median * 1e-3)
    count, first = int(outliers.sum()), bool(outliers[0])
    if count > max(1.0, _OUTLIER_SHARE * len(times)):
        warnings.append(
            f"{count} of {len(times)} samples are outliers: something else was running; stop it, "
            "or measure longer (--min-seconds)"
        )
    elif first and times[0] > median:
        warnings.append(
            f"the first sample ({times[0]:.2f} ms) is an outlier: the warm-up was too short; raise "
            "warmup_seconds"
        )
    low, high = np.percentile(times, [25, 75])
    if high - low > _NOISE * median:
        remedy = "fix the GPU's clock" if on_gpu else "use fewer threads than CPUs"
        warnings.append(
            f"the middle half of the samples spans {100 * (high - low) / median:.0f} % of the "
            f"median: the machine is noisy; {remedy}, or compare with --interleave"
        )
    return warnings


def _about_drift(times: NDArray[np.float64], where: str) -> list[str]:
    third = len(times) // 3
    if third < 3:
        return []
    first, last = np.median(times[:third]), np.median(times[-third:])
    change = float(last / first) - 1
    if abs(change) <= _DRIFT:
        return []
    direction = "slower" if change > 0 else "faster"
    cause = (
        f"the {where} became hot, or something else started to run"
        if change > 0
        else "the warm-up was too short, or something else stopped running"
    )
    return [
        f"the last third of the samples is {100 * abs(change):.0f} % {direction} than the first: "
        f"{cause}; measure again, or compare with --interleave"
    ]
