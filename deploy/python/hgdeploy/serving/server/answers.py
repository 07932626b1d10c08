# SPDX-License-Identifier: Apache-2.0
"""Answers of the Open Inference Protocol v2, and what it says of the server and its models."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from hgdeploy._version import __version__
from hgdeploy.classify.batch import Answer
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.protocol import ERROR_OUTPUT, IMAGE_INPUT, InferRequest, Wanted
from hgdeploy.serving.server.refusals import WrongError
from hgdeploy.serving.server.tensors import (
    DATATYPES,
    bytes_of_array,
    bytes_of_texts,
    json_of_array,
)


def answer_of(
    model: ServedModel, version: str, request: InferRequest, answers: Sequence[Answer]
) -> tuple[bytes, bytes]:
    """Return the answer: its JSON, and the binary data that goes behind it.

    Raises:
        WrongError: an image failed, and the request does not ask for the output `error`.
    """
    document, parts = answer_document(model, version, request, answers)
    return json.dumps(document).encode(), b"".join(parts)


def answer_document(
    model: ServedModel, version: str, request: InferRequest, answers: Sequence[Answer]
) -> tuple[dict[str, Any], list[bytes]]:
    """Return the answer: what its JSON says, and the data of each output that is binary.

    Raises:
        WrongError: an image failed, and the request does not ask for the output `error`.
    """
    reasons = [answer.prediction.error or "" for answer in answers]
    if any(reasons) and all(wanted.name != ERROR_OUTPUT for wanted in request.outputs):
        first = next(i for i, reason in enumerate(reasons) if reason)
        raise WrongError(f"image {first}: {reasons[first]}")
    outputs, parts = [], []
    for wanted in request.outputs:
        described, data = _output(model, wanted, answers)
        if isinstance(data, bytes):
            described["parameters"] = {"binary_data_size": len(data)}
            parts.append(data)
        else:
            described["data"] = data
        outputs.append(described)
    document: dict[str, Any] = {"model_name": model.name, "model_version": version}
    if request.id is not None:
        document["id"] = request.id
    if request.parameters:
        document["parameters"] = dict(request.parameters)
    document["outputs"] = outputs
    return document, parts


def server_metadata() -> dict[str, Any]:
    """Return what the server says of itself."""
    extensions = ["binary_tensor_data", "classification"]
    return {"name": "hgdeploy", "version": __version__, "extensions": extensions}


def model_metadata(models: Models, model: ServedModel) -> dict[str, Any]:
    """Return what the server says of a model."""
    taken, given = model.input, model.output
    return {
        "name": model.name,
        "versions": models.versions(model.name),
        "platform": f"hgdeploy_{model.classifier.engine.runtime.engine}",
        "inputs": [
            {"name": IMAGE_INPUT, "datatype": "BYTES", "shape": [-1]},
            {"name": taken.name, "datatype": DATATYPES[taken.dtype], "shape": list(taken.shape)},
        ],
        "outputs": [
            {"name": given.name, "datatype": DATATYPES[given.dtype], "shape": list(given.shape)},
            {"name": ERROR_OUTPUT, "datatype": "BYTES", "shape": [-1]},
        ],
    }


def _output(
    model: ServedModel, wanted: Wanted, answers: Sequence[Answer]
) -> tuple[dict[str, Any], Any]:
    """Return how an output is described, and its data: bytes, or for JSON."""
    count = len(answers)
    if wanted.name == ERROR_OUTPUT:
        texts, shape = [answer.prediction.error or "" for answer in answers], [count]
    elif wanted.classes:
        most = min(wanted.classes, model.classes)
        texts, shape = [t for one in answers for t in _classes(model, one, most)], [count, most]
    else:
        none = np.full(model.classes, np.nan, np.float32)
        rows = [none if answer.row is None else answer.row for answer in answers]
        values = np.stack(rows).astype(np.float32, copy=False)
        data = bytes_of_array(values) if wanted.binary else json_of_array(values)
        return {"name": wanted.name, "datatype": "FP32", "shape": list(values.shape)}, data
    data_of_texts = bytes_of_texts(texts) if wanted.binary else texts
    return {"name": wanted.name, "datatype": "BYTES", "shape": shape}, data_of_texts


def _classes(model: ServedModel, answer: Answer, most: int) -> list[str]:
    """Return the best classes as Triton's classification extension writes them."""
    if answer.row is None:
        return [""] * most
    order = np.argsort(answer.row, kind="stable")[::-1][:most]
    labels = model.labels
    return [
        f"{answer.row[i]:f}:{i}" + (f":{labels[int(i)]}" if int(i) in labels else "") for i in order
    ]
