# SPDX-License-Identifier: Apache-2.0
"""Requests of the Open Inference Protocol v2, read and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hgdeploy.classify.batch import Image
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.refusals import RefusedError, Why, WrongError
from hgdeploy.serving.server.tensors import (
    DATATYPES,
    array_of_bytes,
    array_of_json,
    texts_of_bytes,
    texts_of_json,
)
from hgdeploy.system.checks import Given, Kind, check
from hgdeploy.system.documents import parse_json
from hgdeploy.system.kinds import MANY, anything, flag, list_of, mapping_of, optional, whole
from hgdeploy.system.kinds import text as a_text

IMAGE_INPUT = "image"
"""The input for image files, beside the model's own tensor."""
ERROR_OUTPUT = "error"
"""The output that says for each image why it failed; empty where it did not."""
_MOST_US = 86_400_000_000
# Inputs, outputs, sizes or parameters, of which a body could hold millions: seconds to check.
_MOST_PARTS = 100
_OBJECT: Kind[Any] = mapping_of(anything)


def _parameter(given: Given) -> str | float | bool:
    """Is the kind of what a parameter may hold: what every protocol can carry back."""
    value = given.value
    if not isinstance(value, str | int | float) or value in (math.inf, -math.inf) or value != value:
        raise given.refused("a text, a finite number, true or false")
    return value


_PARAMETERS = mapping_of(_parameter)


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
        hint = ""
        if json_size is None and not body.lstrip().startswith(b"{"):
            hint = "; an image file alone needs a Content-Type such as image/jpeg"
        raise WrongError(f"the request is not JSON: {error}{hint}") from None
    return infer_of(model, _checked("the request", document, _OBJECT), body[size:])


def infer_of(model: ServedModel, document: Mapping[str, Any], rest: bytes) -> InferRequest:
    """Read a request that is no text any more.

    Args:
        model: the model that it is for.
        document: what its JSON holds.
        rest: the binary data behind it.

    Raises:
        RefusedError: it is wrong; the message says where.
    """
    _refuse_shared_memory(document)
    inputs = _checked("inputs", document.get("inputs"), list_of(_OBJECT))
    if len(inputs) != 1:
        raise WrongError(
            f"the request has {len(inputs)} inputs, expected one: {IMAGE_INPUT!r} (image files) "
            f"or {model.input.name!r} (a tensor)"
        )
    parameters = _optional("parameters", document.get("parameters"), _PARAMETERS) or {}
    images, used = _read_input(model, inputs[0], rest)
    if used != len(rest):
        raise WrongError(f"{len(rest) - used} bytes follow that belong to no input")
    timeout = _optional("parameters.timeout", parameters.get("timeout"), whole(0, _MOST_US))
    return InferRequest(
        images,
        _read_outputs(model, document, parameters),
        _id(document.get("id")),
        parameters,
        timeout / 1e6 if timeout else None,
    )


def read_control(body: bytes) -> Mapping[str, Any]:
    """Read a request to the repository: to list models, or to load or unload one.

    Raises:
        RefusedError: it is wrong, or asks for what is not done.
    """
    if not body:
        return {}
    try:
        document = parse_json(body)
    except ValueError as error:
        raise WrongError(f"the request is not JSON: {error}") from None
    checked = _checked("the request", document, _OBJECT)
    _checked("ready", checked.get("ready", False), flag)
    check_control(_optional("parameters", checked.get("parameters"), _OBJECT) or {})
    return dict(checked)


def check_control(parameters: Mapping[str, Any]) -> None:
    """Refuse parameters of a request to the repository that would be ignored.

    Raises:
        RefusedError: one is given, such as Triton's `config` or a file of a model.
    """
    # A bundle has no models that depend on it.
    unknown = next((name for name in parameters if name != "unload_dependents"), None)
    if unknown is not None:
        text = f"parameters.{unknown[:60]} is not taken; a model is loaded from its bundle's folder"
        raise RefusedError(Why.UNSUPPORTED, text)


def _checked(where: str, value: object, kind: Kind[Any]) -> Any:
    if isinstance(value, list | dict) and len(value) > _MOST_PARTS:
        raise WrongError(f"{where} has {len(value)} elements, expected at most {_MOST_PARTS}")
    return check(where, value, kind, error=WrongError)


def _optional(where: str, value: object, kind: Kind[Any]) -> Any:
    return _checked(where, value, optional(kind))


def _id(value: object) -> str | None:
    """Return a request's own name; clients write that it has none as an empty one, too."""
    return None if value == "" else _optional("id", value, a_text)


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
    parameters = _optional("inputs[0].parameters", given.get("parameters"), _PARAMETERS) or {}
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
    if files:
        model.scheduler.check_count(shape[0])
    size, data = parameters.get("binary_data_size"), given.get("data")
    if size is not None:
        where = "inputs[0].parameters.binary_data_size"
        if data is not None:
            raise WrongError(f"input {name!r} has both data and {where}; give one of them")
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
    asked = _optional("outputs", document.get("outputs"), list_of(_OBJECT))
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
        own = _optional(f"{where}.parameters", one.get("parameters"), _PARAMETERS) or {}
        kinds = {"binary_data": flag, "classification": whole(0, MANY)}
        values = {
            key: _checked(f"{where}.parameters.{key}", own[key], kind)
            for key, kind in kinds.items()
            if key in own
        }
        chosen = values.get("classification", 0) if name == names[0] else 0
        outputs.append(Wanted(name, values.get("binary_data", binary), chosen))
    return outputs
