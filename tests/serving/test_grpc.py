# SPDX-License-Identifier: Apache-2.0
"""The server over gRPC: the answers of HTTP, and each refusal with its code."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest
from image_files import jpeg
from served import models_of, pictures

from conftest import DEADLINE, has, require_engine
from hgdeploy.errors import ConfigError
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.models import Models

if not (has("grpc") and has("grpc_health") and has("tritonclient")):
    pytest.skip("the extra serve is not installed", allow_module_level=True)

import grpc
import tritonclient.grpc as client_of
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from hgdeploy.serving.server.grpc.service import GrpcServer

LOCAL = ("127.0.0.1", 0)


@pytest.fixture
def models(mini: Path):
    require_engine("onnxruntime")
    with models_of(mini, max_queue=8, workers=1) as found:
        yield found


@pytest.fixture
def start(models: Models):
    servers = []

    def run(key: str | None = None) -> str:
        server = GrpcServer(models, LOCAL, 1, DoorOptions(key=key))
        server.start()
        servers.append(server)
        return server.address

    yield run
    for server in servers:
        server.stop(0)()


def image_input(*files: bytes):
    given = client_of.InferInput("image", [len(files)], "BYTES")
    given.set_data_from_numpy(np.array(files, object))
    return given


def code_of(call, *arguments: object, **options: object) -> tuple[str, str]:
    """The code and the message of a call that is refused."""
    with pytest.raises(InferenceServerException) as refused:
        call(*arguments, **options)
    assert "\n" not in refused.value.message()
    return refused.value.status().removeprefix("StatusCode."), refused.value.message()


def test_a_real_client_gets_the_scores_of_predict(models: Models, start):
    model = models.find()[1]
    files = pictures(3)
    answers = [model.classifier.answers([model.image(data)])[0] for data in files]
    name = model.output.name
    with client_of.InferenceServerClient(start()) as client:
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("pphgnet_mini", "1")
        assert not client.is_model_ready("pphgnet_mini", "2")
        assert client.get_server_metadata().name == "hgdeploy"
        assert [one.name for one in client.get_model_metadata("pphgnet_mini").inputs] == [
            "image",
            "x",
        ]
        found = client.infer("pphgnet_mini", [image_input(*files)], request_id="seven")
        assert found.get_response().id == "seven"
        assert np.array_equal(found.as_numpy(name), np.stack([one.row for one in answers]))
        tensors = np.stack([model.classifier.reader.read_bytes(data).tensor for data in files])
        given = client_of.InferInput("x", list(tensors.shape), "FP32")
        given.set_data_from_numpy(tensors)
        found = client.infer("pphgnet_mini", [given], parameters={"mine": 5})
        assert np.array_equal(found.as_numpy(name), np.stack([one.row for one in answers]))
        assert found.get_response().parameters["mine"].int64_param == 5
        wanted = [
            client_of.InferRequestedOutput(name, class_count=1),
            client_of.InferRequestedOutput("error"),
        ]
        bad = jpeg()[:200]
        found = client.infer("pphgnet_mini", [image_input(files[0], bad)], outputs=wanted)
        best = answers[0].prediction
        text = found.as_numpy(name)[0][0].decode()
        assert text.split(":", 1)[1] == f"{best.class_ids[0]}:{best.labels[0]}"
        assert found.as_numpy("error")[0] == b""
        assert b"truncated" in found.as_numpy("error")[1]


def test_typed_contents_are_taken_as_raw_ones(models: Models, start):
    model, (data,) = models.find()[1], pictures(1)
    expected = model.classifier.answers([model.image(data)])[0].row
    tensor = model.classifier.reader.read_bytes(data).tensor
    with grpc.insecure_channel(start()) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for given in (
            {"name": "x", "datatype": "FP32", "shape": [1, 3, 64, 64],
             "contents": pb.InferTensorContents(fp32_contents=tensor.ravel().tolist())},
            {"name": "image", "datatype": "BYTES", "shape": [1],
             "contents": pb.InferTensorContents(bytes_contents=[data])},
        ):  # fmt: skip
            request = pb.ModelInferRequest(model_name="pphgnet_mini", inputs=[given])
            request.parameters["mine"].uint64_param = (1 << 64) - 1
            found = stub.ModelInfer(request)
            (raw,) = found.raw_output_contents
            assert np.array_equal(np.frombuffer(raw, np.float32), expected)
            assert found.parameters["mine"].uint64_param == (1 << 64) - 1
        request.raw_input_contents.append(b"")
        with pytest.raises(grpc.RpcError, match="both contents and raw_input_contents"):
            stub.ModelInfer(request)
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_each_refusal_has_its_code(models: Models, start):
    address, data = start(), pictures(1)[0]
    with client_of.InferenceServerClient(address) as client:
        ask = client.infer
        assert code_of(ask, "other", [image_input(data)])[0] == "NOT_FOUND"
        code, message = code_of(ask, "pphgnet_mini", [image_input(b"none")])
        assert code == "INVALID_ARGUMENT"
        assert "image 0: is not an image" in message
        given = client_of.InferInput("x", [1, 3, 32, 32], "FP32")
        given.set_data_from_numpy(np.zeros((1, 3, 32, 32), np.float32))
        code, message = code_of(ask, "pphgnet_mini", [given])
        assert code == "INVALID_ARGUMENT"
        assert "expected [-1, 3, 64, 64]" in message
        given.set_shared_memory("r", 12)
        assert code_of(ask, "pphgnet_mini", [given])[0] == "UNIMPLEMENTED"
        assert code_of(client.register_system_shared_memory, "r", "/r", 9)[0] == "UNIMPLEMENTED"
        large = image_input(b"x" * (1 << 21))
        assert code_of(ask, "pphgnet_mini", [large])[0] == "RESOURCE_EXHAUSTED"
        many = image_input(*[data] * 9)
        assert code_of(ask, "pphgnet_mini", [many])[0] == "RESOURCE_EXHAUSTED"
    with client_of.InferenceServerClient(start("secret")) as client:
        assert client.is_server_live()
        assert code_of(client.infer, "pphgnet_mini", [image_input(data)])[0] == "UNAUTHENTICATED"
        key = {"authorization": "Bearer secret"}
        assert client.infer("pphgnet_mini", [image_input(data)], headers=key) is not None


def test_work_of_calls_that_end_is_dropped(models: Models, start):
    scheduler = models.find()[1].scheduler
    worked, entered, leave = scheduler._work, threading.Event(), threading.Event()

    def slow(images):
        entered.set()
        assert leave.wait(DEADLINE)
        return worked(images)

    scheduler._work = slow
    given = [image_input(pictures(1)[0])]
    with client_of.InferenceServerClient(start()) as client:
        results = []
        client.async_infer(
            "pphgnet_mini", given, lambda result, error: results.append((result is None, error))
        )
        assert entered.wait(DEADLINE)
        code, _ = code_of(client.infer, "pphgnet_mini", given, client_timeout=0.2)
        assert code == "DEADLINE_EXCEEDED"
        code, _ = code_of(client.infer, "pphgnet_mini", given, timeout=1000)
        assert code == "DEADLINE_EXCEEDED"
        leave.set()
        end = time.monotonic() + DEADLINE
        while (not results or scheduler.waiting) and time.monotonic() < end:
            time.sleep(0.01)
    assert results == [(False, None)]
    assert scheduler.times.images == 1


def test_a_taken_address_is_an_error(models: Models, start):
    port = int(start().rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"cannot listen at 127.0.0.1:{port} for gRPC"):
        GrpcServer(models, ("127.0.0.1", port), 1, DoorOptions())
