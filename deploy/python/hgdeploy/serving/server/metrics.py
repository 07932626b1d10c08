# SPDX-License-Identifier: Apache-2.0
"""What a server has done, in Prometheus's text form and with Triton's names.

https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md
"""

from __future__ import annotations

from collections.abc import Iterator

from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.models import Models

_NAMES = (
    ("nv_inference_request_success", "counter", "Requests that were answered"),
    ("nv_inference_request_failure", "counter", "Requests that failed"),
    ("nv_inference_count", "counter", "Images that were worked off"),
    ("nv_inference_exec_count", "counter", "Batches that were worked off"),
    ("nv_inference_request_duration_us", "counter", "Microseconds of all requests"),
    ("nv_inference_queue_duration_us", "counter", "Microseconds that images waited"),
    ("nv_inference_compute_input_duration_us", "counter", "Microseconds of decoding and resizing"),
    ("nv_inference_compute_infer_duration_us", "counter", "Microseconds inside the engine"),
    ("nv_inference_compute_output_duration_us", "counter", "Microseconds of postprocessing"),
    ("nv_inference_pending_request_count", "gauge", "Images that wait"),
)


def metrics_text(models: Models) -> str:
    """Return the page that Prometheus reads."""
    values = [(n, v, _values(model)) for n, v, model in models.all()]
    return "".join(_lines(values))


def _values(model: ServedModel) -> tuple[float, ...]:
    queue, stages = model.scheduler.times, model.classifier.times
    good, bad = model.counts.answered, model.counts.failed
    spent = (
        good.seconds + bad.seconds,
        queue.waited,
        stages.decode + stages.preprocess,
        stages.infer,
        stages.postprocess,
    )
    done = (good.count, bad.count, queue.images, queue.runs)
    return (*done, *(round(1e6 * one) for one in spent), model.scheduler.waiting)


def _lines(values: list[tuple[str, str, tuple[float, ...]]]) -> Iterator[str]:
    for place, (metric, kind, text) in enumerate(_NAMES):
        yield f"# HELP {metric} {text}\n# TYPE {metric} {kind}\n"
        for name, version, numbers in values:
            yield f'{metric}{{model="{name}",version="{version}"}} {numbers[place]}\n'
