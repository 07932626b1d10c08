# SPDX-License-Identifier: Apache-2.0
"""The measuring loop: a sample is the time between its two readings of the clock."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

Clock = Callable[[], int]
_OVERHEAD_RUNS = 10_000
# Idle thread pools spin for a while (OpenMP's up to 200 ms) before they sleep.
_SETTLE_STEP_S = 0.05
_SETTLE_LIMIT_S = 2.0
_IDLE_SHARE = 0.05


class Step(Protocol):
    """One run of what is measured."""

    def __call__(self) -> object:
        """Run it once, and return when the run is done."""


@dataclass
class Measurement:
    """Samples in the order in which they were taken.

    Attributes:
        samples_ns: nanoseconds of each run.
        timings_ms: the stages of each run by name, if the engine measures them.
        seconds: how long all runs took together, if that is not the sum of the samples.
    """

    samples_ns: list[int] = field(default_factory=list)
    timings_ms: dict[str, list[float]] = field(default_factory=dict)
    seconds: float | None = None

    @property
    def samples_ms(self) -> list[float]:
        """The samples in milliseconds, to 10 nanoseconds."""
        return [round(sample / 1e6, 5) for sample in self.samples_ns]


def measure(
    step: Step,
    seconds: float,
    iterations: int,
    timings: Callable[[], Mapping[str, float]] | None = None,
    clock: Clock = time.perf_counter_ns,
) -> Measurement:
    """Run `step` for at least `seconds` and at least `iterations` times, timing each run.

    Args:
        step: what is measured.
        seconds: how long; the run that ends after this is the last.
        iterations: how many times; with 0 seconds and 0 iterations, nothing is run.
        timings: called after each run, outside the sample; returns the stages of the run by name,
            in ms.
        clock: returns nanoseconds, monotonic.
    """
    found = Measurement()
    samples, count = found.samples_ns, 0
    stop = clock()
    end = stop + int(seconds * 1e9)
    while stop < end or count < iterations:
        start = clock()
        step()
        stop = clock()
        samples.append(stop - start)
        count += 1
        if timings is not None:
            for name, value in timings().items():
                found.timings_ms.setdefault(name, []).append(round(value, 5))
    return found


def measure_at_once(
    step: Step, streams: int, seconds: float, iterations: int, clock: Clock = time.perf_counter_ns
) -> Measurement:
    """Run `step` on several threads at once; a sample is one run as its own thread sees it.

    Args:
        step: what is measured; it may be run by many threads at once.
        streams: how many threads.
        seconds: as for `measure`.
        iterations: as for `measure`, of all threads together.
        clock: returns nanoseconds, monotonic.
    """
    each = -(-iterations // streams)
    start = clock()
    with ThreadPoolExecutor(streams) as threads:
        runs = [threads.submit(measure, step, seconds, each, None, clock) for _ in range(streams)]
        found = [run.result() for run in runs]
    samples = [sample for one in found for sample in one.samples_ns]
    return Measurement(samples, seconds=(clock() - start) / 1e9)


def prepare_to_measure() -> None:
    """Collect garbage now, and keep what is loaded out of later collections.

    Python's garbage collector stays on, as in production, but must not walk through the hundreds of
    thousands of objects of an imported library in the middle of a sample.
    """
    gc.collect()
    gc.freeze()


def overhead_us(clock: Clock = time.perf_counter_ns) -> float:
    """Return what the loop itself adds to each sample: the median of an empty step, in us."""
    samples = measure(lambda: None, 0.0, _OVERHEAD_RUNS, clock=clock).samples_ns
    return round(statistics.median(samples) / 1000, 4)


def settle() -> bool:
    """Wait until this process's threads are idle, so that they do not disturb other measurements.

    Returns:
        True if they are; False if they are still spinning after two seconds.
    """
    end = time.monotonic() + _SETTLE_LIMIT_S
    while time.monotonic() < end:
        before = time.process_time()
        time.sleep(_SETTLE_STEP_S)
        if time.process_time() - before < _IDLE_SHARE * _SETTLE_STEP_S:
            return True
    return False
