# SPDX-License-Identifier: Apache-2.0
"""Hostile requests over both doors are refused in one line, and the next client is answered."""

from __future__ import annotations

import base64
import json
import logging
import random
import socket
from collections.abc import Iterator
from http.client import HTTPConnection

import pytest
from image_files import jpeg, png_of_declared_size
from served import asked, http_of, models_of, pictures, unlabelled_bundle

from conftest import DEADLINE, has, require_engine
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.models import Models

if not all(map(has, ("starlette", "uvicorn", "grpc", "grpc_health", "tritonclient"))):
    pytest.skip("the extra serve is not installed", allow_module_level=True)

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from hgdeploy.serving.server.grpc.service import GrpcServer

INFER = "/v2/models/mini/infer"
# What may stand anywhere in a request's JSON, in place of what should.
VALUES = (
    None, True, 0, -1, 1, 1 << 63, 10**400, -0.0, 1e308, float("nan"), float("inf"), "", "x",
    "\ud800", "\x00", "x" * 10_000, [], {}, [[]], [None], [1e400], {"": None}, {"data": {}},
    [[1], [1, 2]], [{}] * 3, ["a"] * 50, "BYTES", "FP32", [3, 64, 64], [1, 3, 64, 64], [-1],
    [1 << 40], [0, 3, 64, 64], "AAAA", ["AAAA"], [1.5], "image", "x", "error", ["image"],
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    require_engine("onnxruntime")
    bundle = unlabelled_bundle(tmp_path_factory.mktemp("bundle") / "mini")
    with models_of(bundle, max_queue=64) as found:
        yield found


@pytest.fixture(scope="module")
def http(models: Models) -> Iterator[str]:
    with http_of(models, DoorOptions(control=True, paddle_serving=True), max_body_mb=1) as address:
        yield address


@pytest.fixture(scope="module")
def channel(models: Models):
    server = GrpcServer(models, ("127.0.0.1", 0), 1, DoorOptions(control=True))
    server.start()
    with grpc.insecure_channel(server.address) as opened:
        yield opened
    server.stop(0)()


@pytest.fixture(autouse=True)
def _nothing_is_broken(http: str, caplog):
    yield
    assert asked(http, "/predict", pictures(1)[0])[0] == 200
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]


def documents(choice: random.Random) -> Iterator[dict[str, object]]:
    """Good requests of each kind in which something is changed, left out or added."""
    image = base64.b64encode(jpeg()).decode()
    while True:
        document: dict[str, object] = {
            "id": "1",
            "parameters": {"timeout": 10**7, "binary_data_output": False},
            "inputs": [
                {"name": "image", "datatype": "BYTES", "shape": [1], "data": [image],
                 "parameters": {"binary_data_size": 9}}
                if choice.random() < 0.5
                else {"name": "x", "datatype": "FP32", "shape": [1, 3, 64, 64],
                      "data": [0.5] * 12288}
            ],
            "outputs": [{"name": "error", "parameters": {"classification": 2}}],
        }  # fmt: skip
        for _ in range(choice.randint(1, 3)):
            spoil(document, choice)
        yield document


def spoil(part: object, choice: random.Random) -> None:
    """Change a random place in a document."""
    while isinstance(part, dict | list) and part:
        place = choice.choice(list(part) if isinstance(part, dict) else range(len(part)))
        if choice.random() < 0.4 or not isinstance(part[place], dict | list):
            if choice.random() < 0.2:
                del part[place]
            else:
                part[place] = choice.choice(VALUES)
            return
        part = part[place]


def refused(status: int, answer: object) -> bool:
    """Return whether that is an answer or a refusal in one line; else fail."""
    if status == 200:
        return False
    assert 400 <= status < 500, answer
    assert list(answer) in (["error"], ["err_no", "err_msg", "key", "value", "tensors"]), answer
    reason = answer.get("error") or answer["err_msg"]
    assert 0 < len(reason) <= 400
    assert "\n" not in reason
    assert "Traceback" not in reason
    return True


def test_json_with_anything_in_it_is_answered_or_refused(http: str):
    choice, wrong = random.Random(7), 0
    for _, document in zip(range(200), documents(choice), strict=False):
        body = json.dumps(document).encode()
        if choice.random() < 0.2:
            cut = choice.randrange(len(body))
            body = body[:cut] + choice.randbytes(4) + body[cut + choice.randrange(9) :]
        headers = {"Content_Type": "application/json"}
        if choice.random() < 0.2:
            headers["Inference_Header_Content_Length"] = str(choice.choice((0, 1, 10**9, -1, "x")))
        wrong += refused(*asked(http, INFER, body, **headers)[::2])
    assert wrong > 100


def test_bodies_of_anything_are_refused_at_every_address(http: str):
    choice = random.Random(8)
    bodies = (
        b"", b"\x00" * 9, b"{", b"null", b"[]", b"1", b'"x"', b"NaN", b"[" * 100_000,
        b'{"a":' * 50_000, b'{"key": ["a"], "value": ["AAAAAAAAA"]}', b'{"ready": "yes"}',
        b'{"parameters": 5}', b'{"parameters": {"file:1/model.onnx": "AAAA"}}', b"\xff\xfe",
        b"9" * 10_000, jpeg()[:100], png_of_declared_size(60_000, 60_000), choice.randbytes(1000),
        b"--b\r\n\r\n",
    )  # fmt: skip
    paths = (
        "/predict", INFER, "/imagenet/prediction", "/v2/repository/index",
        "/v2/repository/models/mini/unload", "/predict?model=%00&version=%ff",
    )  # fmt: skip
    for path in paths:
        control = path.startswith("/v2/repository")
        for body in (
            [body for body in bodies if body and not body.startswith(b'{"key"')]
            if control
            else bodies
        ):
            for kind in ("application/json", "image/png", "multipart/form-data; boundary=b"):
                status, _, answer = asked(http, path, body, Content_Type=kind)
                if path == "/predict" and status == 400 and "predictions" in answer:
                    (failed,) = answer["predictions"]
                    answer = {"error": failed["error"]}
                assert refused(status, answer) or path == "/v2/repository/index"


def test_who_sends_too_much_can_read_why(http: str):
    connection = HTTPConnection(http, timeout=DEADLINE)
    for path in ("/predict", INFER):  # one connection serves both
        connection.request("POST", path, b"x" * (3 << 20))
        answer = connection.getresponse()
        assert answer.status == 413
        assert "larger than 1 MB" in json.load(answer)["error"]
    connection.close()


POST = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
HEADS = (
    b"GET /v2 HTTP/9.9\r\n\r\n",
    b"GET /v2\r\n\r\n",
    b"G\x00T / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 20_000 + b"\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\na: " + b"b" * 200_000 + b"\r\n\r\n",
    b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"../" * 50),
    b"GET /%ff%00%0d%0a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET http://evil/v2 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"CONNECT evil:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"DELETE /predict HTTP/1.1\r\nHost: x\r\n\r\n",
    POST + b"Content-Length: -1\r\n\r\n",
    POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
    POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nxxxxxyy0\r\n\r\n",
    POST.replace(b"predict", b"nowhere") + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\nzz\r\n",
    POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"f" * 50 + b"\r\n",
    POST + b"Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: x\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 500,
)  # fmt: skip


@pytest.mark.parametrize("head", HEADS, ids=range(len(HEADS)))
def test_requests_that_are_no_http_end_in_a_refusal(http: str, head: bytes):
    host, port = http.split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
        try:
            connection.sendall(head)
            connection.shutdown(socket.SHUT_WR)
            found = b""
            while part := connection.recv(65536):
                found += part
        except OSError:  # it was cut off while it sent
            return
    assert b"HTTP/1.1 5" not in found
    assert b"Traceback" not in found


def test_calls_with_anything_in_them_are_answered_or_refused(channel: grpc.Channel):
    stub, choice = service_pb2_grpc.GRPCInferenceServiceStub(channel), random.Random(9)
    allowed = {
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "UNIMPLEMENTED",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
    }
    refusals = []
    for _ in range(200):
        request = pb.ModelInferRequest(model_name=choice.choice(("mini", "mini", "", "x\n\x00")))
        request.model_version = choice.choice(("", "1", "1", "9", "-1", "x" * 9999))
        request.id = choice.choice(("", "1", "\n" * 99))
        for _ in range(choice.choice((0, 1, 1, 1, 2))):
            given = request.inputs.add(name=choice.choice(("image", "x", "y", "")))
            given.datatype = choice.choice(("BYTES", "FP32", "FP16", "INT8", "", "\x00"))
            given.shape.extend(
                choice.choice(([1], [1, 3, 64, 64], [-1], [1 << 62] * 4, [0], [], [2, 1]))
            )
            if choice.random() < 0.5:
                given.contents.bytes_contents.extend(
                    choice.choice(([], [b""], [jpeg()], [b"x"] * 99))
                )
                given.contents.fp32_contents.extend(
                    choice.choice(([], [float("nan")] * 12288, [1e9] * 5))
                )
            if choice.random() < 0.3:
                given.parameters["shared_memory_region"].string_param = "x"
            given.parameters["binary_data_size"].int64_param = choice.choice((0, -1, 1 << 62))
        for _ in range(choice.choice((0, 0, 1, 2))):
            data = choice.choice((b"", b"\xff" * 4, b"\x00" * 49152, choice.randbytes(50)))
            request.raw_input_contents.append(data)
        if choice.random() < 0.3:
            output = request.outputs.add(name=choice.choice(("", "error", "y")))
            output.parameters["classification"].int64_param = choice.choice((-1, 2, 1 << 40))
        request.parameters["timeout"].int64_param = choice.choice((0, -1, 1, 10**6, 1 << 62))
        try:
            stub.ModelInfer(request, timeout=DEADLINE)
        except grpc.RpcError as error:
            refusals.append((error.code().name, error.details()))
    assert {code for code, _ in refusals} <= allowed
    assert all("\n" not in reason and len(reason) <= 400 for _, reason in refusals)
    assert len(refusals) > 100


def test_bytes_that_are_no_message_are_refused(channel: grpc.Channel):
    choice = random.Random(10)
    for name in ("ModelInfer", "RepositoryModelLoad", "ModelMetadata", "ServerLive", "Nothing"):
        call = channel.unary_unary(f"/inference.GRPCInferenceService/{name}")
        for size in (1, 3, 30, 300):
            with pytest.raises(grpc.RpcError) as refused_:
                call(b"\xff" + choice.randbytes(size), timeout=DEADLINE)
            assert refused_.value.code().name in ("INVALID_ARGUMENT", "UNIMPLEMENTED", "INTERNAL")
    large = channel.unary_unary("/inference.GRPCInferenceService/ServerLive")
    with pytest.raises(grpc.RpcError) as refused_:
        large(b"x", metadata=[("a", "b" * 100_000)], timeout=DEADLINE)
    assert refused_.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
