# SPDX-License-Identifier: Apache-2.0
"""A model's config and statistics, in the words of Triton's extensions of the protocol.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/README.md
"""

from __future__ import annotations

from typing import Any

from hgdeploy.serving.server.answers import model_metadata
from hgdeploy.serving.server.counts import Requests
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.models import Listed, Models

_TYPES = {"BYTES": "TYPE_STRING"}


def model_config(models: Models, model: ServedModel) -> dict[str, Any]:
    """Return a model's `ModelConfig`: what a request may hold, and how it is worked off."""
    described, queue = model_metadata(models, model), model.scheduler.options
    ran = model.classifier.engine.runtime
    return {
        "name": model.name,
        "platform": described["platform"],
        "backend": "hgdeploy",
        "version_policy": {"all": {}},
        "max_batch_size": queue.max_queue,  # images of one request; an inference may have fewer
        # A request has one of the inputs.
        "input": [_tensor(one) | {"optional": True} for one in described["inputs"]],
        "output": [_tensor(one) for one in described["outputs"]],
        "instance_group": [
            {
                "name": model.name,
                "kind": "KIND_CPU" if ran.device == "cpu" else "KIND_GPU",
                "count": model.classifier.engine.concurrency,
            }
        ],
        "dynamic_batching": {
            "preferred_batch_size": [queue.max_batch],
            "max_queue_delay_microseconds": round(1000 * queue.max_delay_ms),
        },
        "parameters": {
            "engine": {"string_value": ran.engine},
            "precision": {"string_value": ran.precision},
            "device": {"string_value": ran.device},
        },
    }


def statistics(
    models: Models, name: str | None = None, version: str | None = None
) -> dict[str, Any]:
    """Return what models have done since they were loaded.

    Args:
        models: those of the server.
        name: which one; None for all.
        version: which of its versions; None for all.

    Raises:
        RefusedError: there is no such model.
    """
    listed = models.all()
    if name is not None:
        number, _ = models.find(name, version)
        wanted = [number] if version is not None else models.versions(name)
        listed = [one for one in listed if one[0] == name and one[1] in wanted]
    return {"model_stats": [_statistics(*one) for one in listed]}


def index_entry(one: Listed) -> dict[str, str]:
    """Return a version's entry in the index of the repository."""
    state = "READY" if one.ready else "UNAVAILABLE"
    return {"name": one.name, "version": one.version, "state": state, "reason": one.reason}


def _tensor(described: dict[str, Any]) -> dict[str, Any]:
    kind = described["datatype"]
    return {
        "name": described["name"],
        "data_type": _TYPES.get(kind, f"TYPE_{kind}"),
        "dims": described["shape"][1:],  # the first one is the batch
    }


def _statistics(name: str, version: str, model: ServedModel) -> dict[str, Any]:
    queue, stages, counts = model.scheduler.times, model.classifier.times, model.counts
    images = queue.images
    return {
        "name": name,
        "version": version,
        "last_inference": round(1000 * counts.last),
        "inference_count": images,
        "execution_count": queue.runs,
        "inference_stats": {
            "success": _spent(counts.answered),
            "fail": _spent(counts.failed),
            "queue": _spent(Requests(images, queue.waited)),
            "compute_input": _spent(Requests(images, stages.decode + stages.preprocess)),
            "compute_infer": _spent(Requests(images, stages.infer)),
            "compute_output": _spent(Requests(images, stages.postprocess)),
        },
        "batch_stats": [],
    }


def _spent(requests: Requests) -> dict[str, int]:
    return {"count": requests.count, "ns": round(1e9 * requests.seconds)}
