# SPDX-License-Identifier: Apache-2.0
"""The process in which one case runs: `python -m hgdeploy.benchmark.worker.child`.

It answers requests to `make`, `load` and `measure`, and sleeps while it waits for the next one.
"""

from __future__ import annotations

import dataclasses
import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.benchmark.case import Case
from hgdeploy.benchmark.worker.measure import (
    Measurement,
    Step,
    measure,
    measure_at_once,
    overhead_us,
    prepare_to_measure,
    settle,
)
from hgdeploy.benchmark.worker.on_gpu import OnGpu, check_queueing
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import Engine
from hgdeploy.engines.base import timings_of
from hgdeploy.engines.fit import check_batch
from hgdeploy.engines.run import open_run
from hgdeploy.errors import EngineError
from hgdeploy.gpu.nvml import gpu_facts, gpu_state
from hgdeploy.system.machine import cpu_mhz, peak_memory_mb
from hgdeploy.system.messages import Message, serve, tell_parent

_SEED = 0
_NO_CLOCKS = "the GPU's clocks are not read, which takes nvidia-ml-py: pip install nvidia-ml-py"


@dataclass
class _Loaded:
    """A case that is ready to run, and how many seconds loading it took."""

    engine: Engine
    step: Step
    seconds: float
    on_gpu: OnGpu | None = None
    streams: int = 1

    def run(self, seconds: float, iterations: int) -> Measurement:
        """Run for so long and so many times, as the case's scope and streams want it."""
        if self.on_gpu is not None:
            return self.on_gpu.measure(seconds, iterations)
        if self.streams > 1:
            return measure_at_once(self.step, self.streams, seconds, iterations)
        return measure(self.step, seconds, iterations, timings_of(self.engine))


class CaseServer:
    """Answers requests about one case.

    Attributes:
        loaded: the case, once it is loaded.
    """

    def __init__(self) -> None:
        self.loaded: _Loaded | None = None

    def make(self, request: Message) -> Message:
        """Make what a case needs and its bundle does not have; see `prepare.make_missing`."""
        from hgdeploy.benchmark.worker.prepare import make_missing

        case, root = Case(**request.values["case"]), Path(request.values["bundle"])
        made = make_missing(case, root, tell_parent)
        return Message({"file": None if made is None else str(made)})

    def load(self, request: Message) -> Message:
        """Load the case and run it once; the request has `case`, `bundle`, `file` and `image`."""
        from hgdeploy.benchmark.worker.prepare import bundle_to_measure

        case, file = Case(**request.values["case"]), request.values.get("file")
        root = Path(request.values["bundle"])
        bundle = bundle_to_measure(root, None if file is None else Path(file))
        if case.scope == "pipeline":
            loaded = _load_pipeline(case, bundle, Path(request.values["image"]))
        else:
            loaded = _load_engine(case, bundle)
        start = time.perf_counter()
        result = loaded.step()
        first = time.perf_counter() - start
        _check(result)
        self.loaded = loaded
        facts = gpu_facts(loaded.engine.runtime.device)
        unread = facts is not None and facts["nvidia_ml_py"] is None
        return Message(
            {
                "runtime": dataclasses.asdict(loaded.engine.runtime),
                "warnings": [*loaded.engine.warnings, *([_NO_CLOCKS] if unread else [])],
                "gpu": facts,
                "load_ms": round(loaded.seconds * 1000, 3),
                "first_ms": round(first * 1000, 5),
                "overhead_us": 0.0 if loaded.on_gpu is not None else overhead_us(),
            }
        )

    def measure(self, request: Message) -> Message:
        """Warm up, then measure; `warmup` and `measure` are each (seconds, iterations)."""
        if self.loaded is None:
            raise EngineError("nothing is loaded")
        loaded, device = self.loaded, self.loaded.engine.runtime.device
        prepare_to_measure()
        seconds, iterations = request.values["warmup"]
        warm_up = loaded.run if loaded.on_gpu is None else partial(measure, loaded.step)
        warm_up(seconds, iterations)
        before, gpu_before = cpu_mhz(), gpu_state(device)
        seconds, iterations = request.values["measure"]
        found = loaded.run(seconds, iterations)
        after, gpu_after = cpu_mhz(), gpu_state(device)
        return Message(
            {
                "samples_ms": found.samples_ms,
                "seconds": found.seconds,
                "gpu": [gpu_before, gpu_after],
                "timings_ms": found.timings_ms or None,
                "mhz": None if before is None or after is None else [before, after],
                "peak_rss_mb": _rounded(peak_memory_mb()),
                "settled": settle() if request.values["settle"] else True,
            }
        )


def _load_engine(case: Case, bundle: ModelBundle) -> _Loaded:
    """Load the case's engine; a step runs it on one ready tensor of standard normal numbers."""
    from hgdeploy.validation.inputs import random_rows

    engine, source, seconds = open_run(bundle, case.run, case.options)
    spec = engine.inputs[0]
    check_batch(spec, source, case.batch)
    feeds = {spec.name: random_rows(spec, bundle, case.batch, _SEED)}
    on_gpu = OnGpu(check_queueing(engine), feeds, case.streams) if case.scope == "gpu" else None
    return _Loaded(
        engine, lambda: engine.infer(feeds), seconds, on_gpu, 1 if on_gpu else case.streams
    )


def _load_pipeline(case: Case, bundle: ModelBundle, image: Path) -> _Loaded:
    """Load the case's classifier; a step runs it on a batch of the same photograph's bytes."""
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.classify.settings import ClassifierSettings

    data = [image.read_bytes()] * case.batch
    settings = ClassifierSettings(case.engine, case.batch, case.options)
    start = time.perf_counter()
    classifier = Classifier.from_settings(bundle, settings)
    seconds = time.perf_counter() - start - classifier.engine.once_seconds
    return _Loaded(classifier.engine, lambda: list(classifier.predict(data)), seconds)


def _check(result: Any) -> None:
    """Refuse to time what does not work: images that fail, outputs that are not finite."""
    if isinstance(result, list):
        reason = next((prediction.error for prediction in result if prediction.error), None)
        if reason is not None:
            raise EngineError(f"the photograph was not classified: {reason}")
    elif not all(np.isfinite(output).all() for output in result.values()):
        raise EngineError("the model's output is not finite (NaN or infinity)")


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 1)


def main() -> None:
    """Answer until there are no more requests."""
    server = CaseServer()
    serve({"make": server.make, "load": server.load, "measure": server.measure})


if __name__ == "__main__":
    main()
