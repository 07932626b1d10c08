# SPDX-License-Identifier: Apache-2.0
"""Runs of which the next is queued while one computes, so that the GPU never waits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class QueuedRuns:
    """What was measured in such runs.

    Attributes:
        compute_ms: the GPU's time for the network, of each run, between two events.
        enqueue_ms: the host's time to launch it.
        start: when the first was launched, by `time.perf_counter`.
        end: when the last had ended.
    """

    compute_ms: list[float] = field(default_factory=list)
    enqueue_ms: list[float] = field(default_factory=list)
    start: float = 0.0
    end: float = 0.0
