# SPDX-License-Identifier: Apache-2.0
"""Requests of the Open Inference Protocol, right and wrong, for every server of pphgnet_mini.

Those over HTTP are of bytes, since no client lets one write wrong ones.
"""

from __future__ import annotations

import base64
import gzip
import json
import struct
from dataclasses import dataclass, field

import numpy as np
from image_files import jpeg
from tritonclient.grpc import service_pb2 as pb

TENSORS, IMAGES, SCORES = "pphgnet_mini", "pphgnet_mini_image", "probabilities"
X = np.random.default_rng(0).normal(size=(9, 3, 64, 64)).astype(np.float32)
FILES = [jpeg(80, 90, seed=1), jpeg(70, 100, seed=2)]
BAD = [FILES[0], b"hello"]
_SIZE = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Request:
    """A request over HTTP.

    Attributes:
        path: its address.
        body: what it brings; None for a GET.
        headers: those that matter.
        document: the JSON that stands before the body.
    """

    path: str
    body: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    document: dict[str, object] | None = None

    def written(self) -> tuple[bytes | None, dict[str, str]]:
        """Return the body with its JSON, and the headers."""
        if self.document is None:
            return self.body, self.headers
        head = json.dumps(self.document).encode()
        size = {_SIZE: str(len(head))} if self.body else {}
        return head + (self.body or b""), size | self.headers


def x(count: int = 1, **changes: object) -> dict[str, object]:
    """The tensor in JSON."""
    data = X[:count].ravel().tolist()
    made = {"name": "x", "datatype": "FP32", "shape": [count, 3, 64, 64], "data": data, **changes}
    return {key: value for key, value in made.items() if value is not ...}


def binary_x(count: int = 1, size: object = None) -> tuple[dict[str, object], bytes]:
    """The tensor as it is described before its bytes, and these."""
    data = X[:count].tobytes()
    told = {"binary_data_size": len(data) if size is None else size}
    return x(count, data=..., parameters=told), data


def packed(files: list[bytes]) -> bytes:
    """The bytes of a tensor of strings."""
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


def json_images(files: list[bytes], **changes: object) -> dict[str, object]:
    """Files in JSON."""
    data = [base64.b64encode(file).decode() for file in files]
    given = {"name": "image", "datatype": "BYTES", "shape": [len(files), 1], "data": data}
    return given | changes


def infer(
    *inputs: dict[str, object], rest: bytes = b"", model: str = TENSORS, **more: object
) -> Request:
    """A request for scores, of tensors where nothing else is said."""
    return Request(f"/v2/models/{model}/infer", rest, document={"inputs": inputs, **more})


def images(
    files: list[bytes], *outputs: dict[str, object], shape: object = None, cut: int = 0
) -> Request:
    """A request for files behind the JSON."""
    data = packed(files)[: -cut or None]
    told = {"binary_data_size": len(data)}
    given = {"name": "image", "datatype": "BYTES", "shape": shape or [len(files), 1]}
    wanted = list(outputs) or [{"name": SCORES}]
    return infer(given | {"parameters": told}, rest=data, model=IMAGES, outputs=wanted)


def output(name: str = SCORES, **parameters: object) -> dict[str, object]:
    """An output that is wanted."""
    return {"name": name, "parameters": parameters}


def _text(body: bytes, **headers: str) -> Request:
    return Request(f"/v2/models/{TENSORS}/infer", body, headers)


def _json(request: Request) -> bytes:
    return request.written()[0] or b""


_ONE, _BYTES = binary_x()
_THREE, _MANY_BYTES = binary_x(3)
_MODEL = f"/v2/models/{TENSORS}"
_CLASSES = output(classification=3)
_SHARED = {"shared_memory_region": "r", "shared_memory_byte_size": 49152}

# Both servers give the same answer, or refuse with the same kind of status.
HTTP = {
    "live": Request("/v2/health/live"),
    "ready": Request("/v2/health/ready"),
    "model ready": Request(f"{_MODEL}/ready"),
    "version ready": Request(f"{_MODEL}/versions/1/ready"),
    "other model ready": Request("/v2/models/other/ready"),
    "other version ready": Request(f"{_MODEL}/versions/9/ready"),
    "other model": Request("/v2/models/other"),
    "other version": Request(f"{_MODEL}/versions/9"),
    "no version": Request(f"{_MODEL}/versions/abc"),
    "slash": Request("/v2/"),
    "no address": Request("/v2/other"),
    "GET infer": Request(f"{_MODEL}/infer"),
    "POST model": Request(_MODEL, b"{}"),
    "infer other model": infer(x(), model="other"),
    "infer other version": infer(x(), model=f"{TENSORS}/versions/9"),
    "infer version": infer(x(), model=f"{TENSORS}/versions/1"),
    "JSON": infer(x(3)),
    "nested JSON": infer(x(2, data=X[:2].tolist())),
    "whole numbers": infer(x(data=[1] * 12288)),
    "binary in": infer(_THREE, rest=_MANY_BYTES),
    "binary out": infer(x(), outputs=[output(binary_data=True)]),
    "binary": infer(_THREE, rest=_MANY_BYTES, outputs=[output(binary_data=True)]),
    "all binary": infer(_ONE, rest=_BYTES, parameters={"binary_data_output": True}),
    "all binary but one": infer(
        x(), parameters={"binary_data_output": True}, outputs=[output(binary_data=False)]
    ),
    "no output named": infer(x(), outputs=[]),
    "an unknown key": infer(x(), mine=1),
    "id": infer(x(), id="a b/ü"),
    "empty id": infer(x(), id=""),
    "parameters": infer(x(), parameters={"a": 1, "b": "c", "d": True, "e": 1.5}),
    "timeout": infer(x(), parameters={"timeout": 100_000_000}),
    "classes": infer(x(2), outputs=[_CLASSES]),
    "classes, binary": infer(x(2), outputs=[output(classification=3, binary_data=True)]),
    "more classes than there are": infer(x(), outputs=[output(classification=99)]),
    "no classes": infer(x(), outputs=[output(classification=0)]),
    "files": images(FILES),
    "files in JSON": infer(json_images(FILES), model=IMAGES, outputs=[output()]),
    "classes of files": images(FILES, _CLASSES),
    "a bad file": images(BAD),
    "a bad file of which only the reasons are wanted": images(BAD, output("error")),
    "an empty file": images([b""]),
    "a truncated file": images([FILES[0][:500]]),
    "too few files": images(FILES, shape=[3, 1]),
    "files cut off": images(FILES, cut=5),
    "files of another shape": images(FILES, shape=[1, 2]),
    "unknown output": infer(x(), outputs=[output("other")]),
    "no inputs": infer(),
    "an input twice": infer(x(), x()),
    "unknown input": infer(x(name="y")),
    "another input": infer(x(), x(name="y")),
    "no data": infer(x(data=...)),
    "FP64": infer(x(datatype="FP64")),
    "INT64": infer(x(datatype="INT64", data=[1] * 12288)),
    "FP16 in JSON": infer(x(datatype="FP16")),
    "BYTES": infer(x(datatype="BYTES", data=["a"] * 12288)),
    "unknown datatype": infer(x(datatype="fp32")),
    "another size": infer(x(shape=[1, 3, 32, 32], data=[0.5] * 3072)),
    "no batch": infer(x(shape=[3, 64, 64])),
    "no images": infer(x(shape=[0, 3, 64, 64], data=[])),
    "data twice": infer({**_ONE, "data": [0.5] * 12288}, rest=_BYTES),
    "more bytes told": infer(binary_x(size=len(_BYTES) + 4)[0], rest=_BYTES),
    "fewer bytes told": infer(binary_x(size=len(_BYTES) - 4)[0], rest=_BYTES),
    "no bytes told": infer(binary_x(size=0)[0], rest=_BYTES),
    "truncated bytes": infer(_ONE, rest=_BYTES[:-8]),
    "bytes behind": infer(_ONE, rest=_BYTES + b"12345678"),
    "header beyond the body": _text(b"{}", **{_SIZE: "99999"}),
    "negative header": _text(b"{}", **{_SIZE: "-1"}),
    "no header": _text(b"{}", **{_SIZE: "x"}),
    "no body": _text(b""),
    "a list as a parameter": infer(x(), parameters={"a": [1]}),
    "nothing as a parameter": infer(x(), parameters={"a": None}),
    "shared memory in": infer(x(data=..., parameters=_SHARED)),
    "shared memory out": infer(x(), outputs=[{"name": SCORES, "parameters": _SHARED}]),
}

# Triton answers with status 500 where it cannot parse a request, and our server with 400.
UNPARSED = {
    "malformed": _text(b'{"inputs":['),
    "a list": _text(b"[]"),
    "a text": _text(b'"a"'),
    "null": _text(b"null"),
    "nested deep": _text(b"[" * 100_000),
    "no inputs named": _text(b"{}"),
    "inputs as a mapping": _text(b'{"inputs":{}}'),
    "no JSON header": _text(_json(infer(_ONE)) + _BYTES),
    "parameters as a list": infer(x(), parameters=[]),
    "id as a number": infer(x(), id=5),
    "outputs as a text": infer(x(), outputs=SCORES),
    "no output name": infer(x(), outputs=[{}]),
    "binary_data as a text": infer(x(), outputs=[output(binary_data="yes")]),
    "classes as a text": infer(x(), outputs=[output(classification="3")]),
    "negative classes": infer(x(), outputs=[output(classification=-1)]),
    "timeout as a text": infer(x(), parameters={"timeout": "1"}),
    "negative timeout": infer(x(), parameters={"timeout": -1}),
    "no name": infer(x(name=...)),
    "no datatype": infer(x(datatype=...)),
    "no shape": infer(x(shape=...)),
    "negative shape": infer(x(shape=[-1, 3, 64, 64])),
    "shape as a text": infer(x(shape="1")),
    "shape of fractions": infer(x(shape=[1.0, 3, 64, 64])),
    "data as a text": infer(x(data="abc")),
    "uneven data": infer(x(data=[[0.5], [0.5, 0.5]])),
    "texts as data": infer(x(data=["a"] * 12288)),
    "a number beyond doubles": _text(_json(infer(x(data=[7.25]))).replace(b"7.25", b"1e400")),
    "negative size": infer(binary_x(size=-1)[0], rest=_BYTES),
    "size as a text": infer(binary_x(size="1")[0], rest=_BYTES),
}

# What docs/serving.md says of differences: a request, Triton's status, ours.
DIFFERENT = {
    "NaN in JSON": (infer(x(data=[float("nan")] * 12288)), 200, 400),
    "NaN in bytes": (infer(_ONE, rest=np.full(12288, np.nan, np.float32).tobytes()), 200, 400),
    "a number beyond FP32": (infer(x(data=[1e39] * 12288)), 200, 400),
    "more images than max_batch_size": (infer(x(9)), 400, 200),
    "an output twice": (infer(x(), outputs=[output(), output()]), 200, 400),
    "no id": (infer(x(), id=None), 500, 200),
    "shape of files without a batch": (images(FILES, shape=[2]), 400, 200),
    "gzip": (_text(gzip.compress(_json(infer(x()))), **{"Content-Encoding": "gzip"}), 200, 400),
    "a raw tensor": (_text(_BYTES, **{_SIZE: "0"}), 200, 400),
    "a raw file that is no image": (
        Request(f"/v2/models/{IMAGES}/infer", b"hello", {_SIZE: "0"}),
        200,
        400,
    ),
    "an image without a header": (
        Request(f"/v2/models/{IMAGES}/infer", FILES[0], {"Content-Type": "image/jpeg"}),
        500,
        200,
    ),
}


def call(
    model: str = TENSORS,
    inputs: tuple[dict[str, object], ...] = ({},),
    raw: tuple[bytes, ...] = (),
    outputs: tuple[dict[str, object], ...] = (),
    **more: object,
) -> pb.ModelInferRequest:
    """A request over gRPC; what an input does not say is that of one tensor `x`."""
    usual = {"name": "x", "datatype": "FP32", "shape": [1, 3, 64, 64]}
    return pb.ModelInferRequest(
        model_name=model,
        inputs=[usual | one for one in inputs],
        raw_input_contents=raw,
        outputs=outputs,
        **more,
    )


def _of_files(count: int = 2, **more: object) -> dict[str, object]:
    return {"name": "image", "datatype": "BYTES", "shape": [count, 1], **more}


def _files(raw: list[bytes], *outputs: object, cut: int = 0, **given: object) -> object:
    wanted = outputs or ({"name": SCORES},)
    return call(IMAGES, (_of_files(**given),), (packed(raw)[: -cut or None],), wanted)


_FLOATS = {"fp32_contents": X[:1].ravel().tolist()}
_CHOSEN = {"classification": pb.InferParameter(int64_param=3)}
_REGION = {
    "shared_memory_region": pb.InferParameter(string_param="r"),
    "shared_memory_byte_size": pb.InferParameter(int64_param=49152),
}
_WORD = pb.InferParameter(string_param="3")

# Both servers give the same answer, or refuse with the same code.
GRPC = {
    "live": pb.ServerLiveRequest(),
    "ready": pb.ServerReadyRequest(),
    "model ready": pb.ModelReadyRequest(name=TENSORS),
    "version ready": pb.ModelReadyRequest(name=TENSORS, version="1"),
    "other model ready": pb.ModelReadyRequest(name="other"),
    "other version ready": pb.ModelReadyRequest(name=TENSORS, version="9"),
    "other model": pb.ModelMetadataRequest(name="other"),
    "other version": pb.ModelMetadataRequest(name=TENSORS, version="9"),
    "no model": pb.ModelMetadataRequest(),
    "config of another model": pb.ModelConfigRequest(name="other"),
    "raw": call(raw=(_BYTES,)),
    "typed": call(inputs=({"contents": _FLOATS},)),
    "version": call(raw=(_BYTES,), model_version="1"),
    "id": call(raw=(_BYTES,), id="a b"),
    "parameter": call(raw=(_BYTES,), parameters={"a": pb.InferParameter(int64_param=1)}),
    "classes": call(raw=(_BYTES,), outputs=({"name": SCORES, "parameters": _CHOSEN},)),
    "classes as a text": call(
        raw=(_BYTES,), outputs=({"name": SCORES, "parameters": {"classification": _WORD}},)
    ),
    "timeout as a text": call(raw=(_BYTES,), parameters={"timeout": _WORD}),
    "infer other model": call("other", raw=(_BYTES,)),
    "infer other version": call(raw=(_BYTES,), model_version="9"),
    "infer no model": call("", raw=(_BYTES,)),
    "unknown output": call(raw=(_BYTES,), outputs=({"name": "other"},)),
    "no output name": call(raw=(_BYTES,), outputs=({},)),
    "no inputs": call(inputs=()),
    "an input twice": call(inputs=({}, {}), raw=(_BYTES, _BYTES)),
    "unknown input": call(inputs=({"name": "y"},), raw=(_BYTES,)),
    "no data": call(),
    "data twice": call(inputs=({"contents": _FLOATS},), raw=(_BYTES,)),
    "contents of another type": call(inputs=({"contents": {"int_contents": [1] * 12288}},)),
    "contents too few": call(inputs=({"contents": {"fp32_contents": [0.5]}},)),
    "FP64": call(inputs=({"datatype": "FP64"},), raw=(_BYTES * 2,)),
    "no datatype": call(inputs=({"datatype": ""},), raw=(_BYTES,)),
    "another size": call(inputs=({"shape": [1, 3, 32, 32]},), raw=(_BYTES[:12288],)),
    "no batch": call(inputs=({"shape": [3, 64, 64]},), raw=(_BYTES,)),
    "no images": call(inputs=({"shape": [0, 3, 64, 64]},), raw=(b"",)),
    "negative shape": call(inputs=({"shape": [-1, 3, 64, 64]},), raw=(_BYTES,)),
    "no shape": call(inputs=({"shape": []},), raw=(_BYTES,)),
    "bytes too few": call(raw=(_BYTES[:-4],)),
    "bytes too many": call(raw=(_BYTES * 2,)),
    "files": _files(FILES),
    "typed files": call(
        IMAGES, (_of_files(contents={"bytes_contents": FILES}),), outputs=({"name": SCORES},)
    ),
    "classes of files": _files(FILES, {"name": SCORES, "parameters": _CHOSEN}),
    "a bad file": _files(BAD),
    "an empty file": _files([b""], count=1),
    "files cut off": _files(FILES, cut=5),
    "too few files": _files(FILES, count=3),
    "files of another shape": _files(FILES, shape=[1, 2]),
    "files of another datatype": _files(FILES, datatype="UINT8"),
}

# What docs/serving.md says of differences: a request, Triton's code, ours.
GRPC_DIFFERENT = {
    "no version": (
        pb.ModelMetadataRequest(name=TENSORS, version="abc"),
        "INVALID_ARGUMENT",
        "NOT_FOUND",
    ),
    "NaN": (call(raw=(np.full(12288, np.nan, np.float32).tobytes(),)), "OK", "INVALID_ARGUMENT"),
    "more images than max_batch_size": (
        call(inputs=({"shape": [9, 3, 64, 64]},), raw=(X.tobytes(),)),
        "INVALID_ARGUMENT",
        "OK",
    ),
    "an output twice": (
        call(raw=(_BYTES,), outputs=({"name": SCORES}, {"name": SCORES})),
        "OK",
        "INVALID_ARGUMENT",
    ),
    "bytes that no input has": (call(raw=(_BYTES, _BYTES)), "OK", "INVALID_ARGUMENT"),
    "shared memory in": (call(inputs=({"parameters": _REGION},)), "NOT_FOUND", "UNIMPLEMENTED"),
    "shared memory out": (
        call(raw=(_BYTES,), outputs=({"name": SCORES, "parameters": _REGION},)),
        "NOT_FOUND",
        "UNIMPLEMENTED",
    ),
    "regions of shared memory": (pb.SystemSharedMemoryStatusRequest(), "OK", "UNIMPLEMENTED"),
}
