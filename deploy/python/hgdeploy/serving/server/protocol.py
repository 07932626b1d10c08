# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol v2 over JSON: requests read and checked, answers and metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hgdeploy._version import __version__
from hgdeploy.classify.batch import Answer, Image
from hgdeploy.serving.server.model import Models, ServedModel
from hgdeploy.serving.server.refusals import RefusedError, Why, WrongError
from hgdeploy.serving.server.tensors import (
    DATATYPES,
    array_of_bytes,
    array_of_json,
    bytes_of_array,
    bytes_of_texts,
    json_of_array,
    texts_of_bytes,
    texts_of_json,
)
from hgdeploy.system.checks import Kind, check
from hgdeploy.system.documents import parse_json
from hgdeploy.system.kinds import MANY, anything, flag, list_of, mapping_of, optional, whole
from hgdeploy.system.kinds import text as a_text

IMAGE_INPUT = "image"
"""The input for image files, beside the model's own tensor."""
ERROR_OUTPUT = "error"
"""The output that says for each image why it failed; empty where it did not."""
_MOST_US = 86_400_000_000
_OBJECT: Kind[Any] = mapping_of(anything)


@dataclass(frozen=True)
class Wanted:
    """An output that a request wants.

    Attributes:
        name: which.
        binary: as bytes behind the JSON.
        classes: as so many best classes, `score:index:label`; 0 for the scores themselves.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """A request that fits its model.

    Attributes:
        images: what it asks about.
        outputs: what it wants to know.
        id: its own name, which the answer repeats.
        parameters: likewise.
        timeout: seconds until nobody wants the answer; None for no limit.
    """

    images: Sequence[Image]
    outputs: Sequence[Wanted]
    id: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None


def read_infer(model: ServedModel, body: bytes, json_size: int | None) -> InferRequest:
    """Read a request.

    Args:
        model: the model that it is for.
        body: JSON, perhaps with binary data behind it, or an image file.
        json_size: the bytes of JSON; None for all, 0 for an image file without any JSON.

    Raises:
        RefusedError: it is wrong; the message says where.
    """
    if json_size == 0:
        return InferRequest([model.image(body)], [Wanted(model.output.name)])
    size = len(body) if json_size is None else json_size
    if size > len(body):
        raise WrongError(
            f"Inference-Header-Content-Length is {size}, but the body has {len(body)} bytes"
        )
    try:
        document = parse_json(body[:size])
    except ValueError as error:
        raise WrongError(f"the request is not JSON: {error}") from None
    document = _checked("the request", document, _OBJECT)
    _refuse_shared_memory(document)
    inputs = _checked("inputs", document.get("inputs"), list_of(_OBJECT))
    if len(inputs) != 1:
        raise WrongError(
            f"the request has {len(inputs)} inputs, expected one: {IMAGE_INPUT!r} (image files) "
            f"or {model.input.name!r} (a tensor)"
        )
    parameters = _checked("parameters", document.get("parameters") or {}, _OBJECT)
    images, used = _read_input(model, inputs[0], body[size:])
    if used != len(body) - size:
        raise WrongError(f"{len(body) - size - used} bytes follow that belong to no input")
    timeout = _checked(
        "parameters.timeout", parameters.get("timeout"), optional(whole(0, _MOST_US))
    )
    return InferRequest(
        images,
        _read_outputs(model, document, parameters),
        _checked("id", document.get("id"), optional(a_text)),
        parameters,
        timeout / 1e6 if timeout else None,
    )


def answer_of(
    model: ServedModel, version: str, request: InferRequest, answers: Sequence[Answer]
) -> tuple[bytes, bytes]:
    """Return the answer: its JSON, and the binary data that goes behind it.

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
    return json.dumps(document).encode(), b"".join(parts)


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


def _checked(where: str, value: object, kind: Kind[Any]) -> Any:
    return check(where, value, kind, error=WrongError)


def _refuse_shared_memory(document: Mapping[str, Any]) -> None:
    for part in ("inputs", "outputs"):
        listed = document.get(part)
        for one in listed if isinstance(listed, list) else []:
            parameters = one.get("parameters") if isinstance(one, dict) else None
            if isinstance(parameters, dict) and "shared_memory_region" in parameters:
                text = f"{part}: shared memory is not served; send the tensor in the request"
                raise RefusedError(Why.UNSUPPORTED, text)


def _read_input(
    model: ServedModel, given: Mapping[str, Any], rest: bytes
) -> tuple[list[Image], int]:
    """Return the images of an input, and how much of the binary data is theirs."""
    name = _checked("inputs[0].name", given.get("name"), a_text)
    datatype = _checked("inputs[0].datatype", given.get("datatype"), a_text)
    shape = _checked("inputs[0].shape", given.get("shape"), list_of(whole(0, MANY)))
    parameters = _checked("inputs[0].parameters", given.get("parameters") or {}, _OBJECT)
    spec = model.input
    if name not in (IMAGE_INPUT, spec.name):
        raise WrongError(
            f"the model has no input {name!r}, expected {IMAGE_INPUT!r} (image files) or "
            f"{spec.name!r} (a tensor)"
        )
    files = datatype == "BYTES" and name == IMAGE_INPUT
    expected = DATATYPES[spec.dtype] if name == spec.name else "BYTES"
    if not files and datatype != expected:
        raise WrongError(f"input {name!r} has datatype {datatype!r}, expected {expected}")
    wanted = (-1,) if files else spec.shape
    if files and len(shape) == 2 and shape[1] == 1:  # how a batch of one element each is written
        shape = shape[:1]
    fits = len(shape) == len(wanted) and all(
        size == want or (want == -1 and size > 0) for size, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        text = f"input {name!r} has shape {list(shape)}, expected {list(wanted)}"
        raise WrongError(f"{text} (-1 stands for any size from 1)")
    size, data = parameters.get("binary_data_size"), given.get("data")
    if size is not None:
        where = "inputs[0].parameters.binary_data_size"
        size = _checked(where, size, whole(0, len(rest)))
        read: Any = (
            texts_of_bytes(rest[:size], shape[0], name)
            if files
            else array_of_bytes(rest[:size], spec.dtype, shape, name)
        )
    elif files:
        read = texts_of_json(data, shape[0], name)
    else:
        read = array_of_json(data, spec.dtype, shape, name)
    return [(model.image if files else model.tensor)(one) for one in read], size or 0


def _read_outputs(
    model: ServedModel, document: Mapping[str, Any], parameters: Mapping[str, Any]
) -> list[Wanted]:
    binary = _checked(
        "parameters.binary_data_output", parameters.get("binary_data_output", False), flag
    )
    asked = _checked("outputs", document.get("outputs") or [], list_of(_OBJECT))
    if not asked:
        return [Wanted(model.output.name, binary)]
    names = (model.output.name, ERROR_OUTPUT)
    outputs: list[Wanted] = []
    for place, one in enumerate(asked):
        where = f"outputs[{place}]"
        name = _checked(f"{where}.name", one.get("name"), a_text)
        if name not in names or any(name == other.name for other in outputs):
            raise WrongError(
                f"the model has no output {name!r}, or it is named twice; expected "
                f"{names[0]!r} or {names[1]!r}"
            )
        own = _checked(f"{where}.parameters", one.get("parameters") or {}, _OBJECT)
        kinds = {"binary_data": flag, "classification": whole(0, MANY)}
        values = {
            key: _checked(f"{where}.parameters.{key}", own[key], kind)
            for key, kind in kinds.items()
            if key in own
        }
        chosen = values.get("classification", 0) if name == names[0] else 0
        outputs.append(Wanted(name, values.get("binary_data", binary), chosen))
    return outputs


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
