# SPDX-License-Identifier: Apache-2.0
"""gRPC's messages of the protocol, from and to what its JSON would hold."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from tritonclient.grpc import service_pb2 as pb

from hgdeploy.serving.server.refusals import WrongError

_WHOLE = ("int_contents", "int64_contents", "uint_contents", "uint64_contents")
_CONTENTS = {
    "FP32": ("fp32_contents",),
    "FP64": ("fp64_contents",),
    **dict.fromkeys(("UINT8", "INT8", "INT32", "INT64"), _WHOLE),
}
_PARAMETERS = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
_MOST_INT64 = (1 << 63) - 1


def document_of(request: Any) -> tuple[dict[str, Any], bytes]:
    """Return a `ModelInferRequest` as what JSON would hold, and the binary data behind it.

    Raises:
        WrongError: the raw contents are not one for each input, or one has typed contents too.
    """
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        text = f"the request has {len(request.inputs)} inputs and {len(raw)} raw_input_contents"
        raise WrongError(text)
    inputs, parts = [], []
    for place, given in enumerate(request.inputs):
        one: dict[str, Any] = {
            "name": given.name,
            "datatype": given.datatype,
            "shape": list(given.shape),
            "parameters": values_of(given.parameters),
        }
        data = raw[place] if raw else None
        if data is not None and given.contents.ByteSize():
            text = (
                f"input {given.name!r} has both contents and raw_input_contents; give one of them"
            )
            raise WrongError(text)
        if data is None and given.datatype == "BYTES":
            texts = given.contents.bytes_contents
            data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
        if data is None:
            kinds = _CONTENTS.get(given.datatype, ())
            one["data"] = [v for kind in kinds for v in getattr(given.contents, kind)]
        else:
            one["parameters"]["binary_data_size"] = len(data)
            parts.append(data)
        inputs.append(one)
    document: dict[str, Any] = {
        "parameters": values_of(request.parameters),
        "inputs": inputs,
        "outputs": [
            {"name": one.name, "parameters": values_of(one.parameters)} for one in request.outputs
        ],
    }
    if request.id:
        document["id"] = request.id
    return document, b"".join(parts)


def response_of(document: Mapping[str, Any], parts: list[bytes]) -> Any:
    """Return an answer whose outputs are all binary as a `ModelInferResponse`."""
    response = pb.ModelInferResponse(
        model_name=document["model_name"],
        model_version=document["model_version"],
        id=document.get("id", ""),
        raw_output_contents=parts,
    )
    for name, value in document.get("parameters", {}).items():
        kind = _PARAMETERS[type(value)]
        if kind == "int64_param" and value > _MOST_INT64:
            kind = "uint64_param"
        setattr(response.parameters[name], kind, value)
    for one in document["outputs"]:
        response.outputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
    return response


def metadata_of(document: Mapping[str, Any]) -> Any:
    """Return what the server says of a model as a `ModelMetadataResponse`."""
    return pb.ModelMetadataResponse(**document)


def values_of(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters by name; one that holds nothing is left out."""
    held = ((name, one, one.WhichOneof("parameter_choice")) for name, one in parameters.items())
    return {name: getattr(one, which) for name, one, which in held if which}
