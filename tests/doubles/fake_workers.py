# SPDX-License-Identifier: Apache-2.0
"""Workers that measure nothing: the choice is tested without waiting, and without noise."""

from __future__ import annotations

import dataclasses

from hgdeploy.benchmark.worker.process import CaseError
from hgdeploy.engines import RuntimeInfo

RUNTIME = RuntimeInfo("any", "any", "0", "cpu", ("CPU",), "fp32", 1)


class FakeWorkers:
    """Workers in which each engine takes so many milliseconds; the clock is theirs too.

    `stop_at` is the number of the measurement, from 1, at which Ctrl-C comes.
    """

    def __init__(self, ms, *, stop_at=0, seconds=0.0):
        self.ms, self.stop_at, self.seconds = ms, stop_at, seconds
        self.measured = []
        self.now = 0.0

    def clock(self):
        return self.now

    def __call__(self, _):
        return FakeWorker(self)


class FakeWorker:
    def __init__(self, workers):
        self.workers = workers

    def ask(self, request, *_):
        if request["do"] == "load":
            self.case = request["case"]
            runtime = dataclasses.asdict(RUNTIME)
            times = {"load_ms": 1.0, "first_ms": 1.0, "overhead_us": 0.1}
            return {"runtime": runtime, "warnings": [], "gpu": None, **times}
        workers, case = self.workers, self.case
        if len(workers.measured) + 1 == workers.stop_at:
            raise KeyboardInterrupt
        ms = workers.ms[case["engine"]]
        if ms is None:
            raise CaseError("it fell over")
        workers.measured.append((case["engine"], case["batch"], case["threads"], case["streams"]))
        workers.now += workers.seconds
        one_by_one = {"timings_ms": None, "seconds": None, "gpu": [None, None], "mhz": None}
        samples = [ms * case["batch"] / case["streams"]] * 10
        return {"samples_ms": samples, **one_by_one, "peak_rss_mb": 5.0, "settled": True}

    def close(self):
        pass
