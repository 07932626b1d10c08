# SPDX-License-Identifier: Apache-2.0
"""What the protocol's extensions say, streams, PaddleClas's old service, and TLS."""

from __future__ import annotations

import ast
import base64
import json
import queue
import ssl
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from image_files import jpeg
from served import SETTINGS, asked, http_of, models_of, pictures, served

from conftest import DEADLINE, MINI, has, require_engine
from hgdeploy.classify.classifier import Classifier
from hgdeploy.errors import ConfigError
from hgdeploy.serving.server.doors import DoorOptions, Tls
from hgdeploy.serving.server.models import Models

if not all(map(has, ("starlette", "uvicorn", "grpc", "grpc_health", "tritonclient"))):
    pytest.skip("the extra serve is not installed", allow_module_level=True)

import grpc
import tritonclient.grpc as client_of
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from hgdeploy.serving.server.grpc.service import GrpcServer

PADDLE = "/imagenet/prediction"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    require_engine("onnxruntime")
    folder = tmp_path_factory.mktemp("mini")
    (folder / "inference.onnx").write_bytes((MINI / "inference.onnx").read_bytes())
    labels = "\n".join(f"      - name {i}, the" for i in range(10))
    (folder / "inference.yml").write_text(f"""\
Global: {{model_name: mini}}
PreProcess:
  transform_ops:
    - ResizeImage: {{resize_short: 72}}
    - CropImage: {{size: 64}}
    - NormalizeImage: {{scale: 1.0/255.0, order: ''}}
    - ToCHWImage:
PostProcess:
  Topk:
    topk: 3
    label_list:
{labels}
""")
    return folder


@pytest.fixture(scope="module")
def models(bundle: Path):
    with models_of(bundle, max_queue=64) as found:
        yield found


@pytest.fixture(scope="module")
def logged() -> list[dict[str, object]]:
    return []


@pytest.fixture(scope="module")
def doors(logged) -> DoorOptions:
    return DoorOptions(paddle_serving=True, on_access=lambda line: logged.append(json.loads(line)))


@pytest.fixture(scope="module")
def http(models: Models, doors: DoorOptions):
    with http_of(models, doors) as address:
        yield address


@pytest.fixture(scope="module")
def calls(models: Models, doors: DoorOptions):
    server = GrpcServer(models, ("127.0.0.1", 0), 1, doors)
    server.start()
    yield server.address
    server.stop(0)()


def image_input(*files: bytes):
    given = client_of.InferInput("image", [len(files)], "BYTES")
    given.set_data_from_numpy(np.array(files, object))
    return given


def test_the_config_says_what_a_request_may_hold(http: str, calls: str):
    config = asked(http, "/v2/models/mini/config")[2]
    assert (config["name"], config["max_batch_size"]) == ("mini", 64)
    assert config["input"] == [
        {"name": "image", "data_type": "TYPE_STRING", "dims": [], "optional": True},
        {"name": "x", "data_type": "TYPE_FP32", "dims": [3, 64, 64], "optional": True},
    ]
    assert config["output"][0]["dims"] == [10]
    assert config["dynamic_batching"]["preferred_batch_size"] == [1]
    with client_of.InferenceServerClient(calls) as client:
        found = client.get_model_config("mini").config
        assert [(one.name, list(one.dims)) for one in found.input] == [
            ("image", []),
            ("x", [3, 64, 64]),
        ]
        assert found.parameters["engine"].string_value == "onnxruntime"


def test_the_statistics_count_requests_images_and_time(bundle: Path):
    models = Models()
    models.load([lambda: served(bundle)])
    with http_of(models) as address:
        good, bad = pictures(1)[0], b"none"
        for data, status in ((good, 200), (good, 200), (bad, 400)):
            assert (
                asked(address, "/v2/models/mini/infer", data, Content_Type="image/png")[0] == status
            )
        (found,) = asked(address, "/v2/models/stats")[2]["model_stats"]
        assert asked(address, "/v2/models/mini/stats")[2]["model_stats"] == [found]
    models.close(DEADLINE)
    spent = found["inference_stats"]
    counts = {name: one["count"] for name, one in spent.items()}
    assert (found["name"], found["version"], found["inference_count"]) == ("mini", "1", 3)
    assert (counts["success"], counts["fail"]) == (2, 1)
    assert counts["queue"] == counts["compute_infer"] == 3
    assert (
        found["inference_stats"]["success"]["ns"] > found["inference_stats"]["compute_infer"]["ns"]
    )
    assert found["last_inference"] > 1.6e12  # milliseconds since 1970


def test_a_stream_answers_each_request_in_order(models: Models, calls: str):
    model, files = models.find()[1], [*pictures(5), jpeg()[:200], pictures(1)[0]]
    expected = [model.classifier.answers([model.image(data)])[0] for data in files]
    answers: queue.Queue[tuple[object, object]] = queue.Queue()
    with client_of.InferenceServerClient(calls) as client:
        client.start_stream(lambda result, error: answers.put((result, error)))
        for place, data in enumerate(files):
            client.async_stream_infer("mini", [image_input(data)], request_id=str(place))
        for place, one in enumerate(expected):
            result, error = answers.get(timeout=DEADLINE)
            if one.row is None:
                assert one.prediction.error in error.message()
            else:
                assert error is None
                assert result.get_response().id == str(place)
                assert result.get_response().parameters["triton_final_response"].bool_param
                assert np.array_equal(result.as_numpy(model.output.name)[0], one.row)
        client.async_stream_infer("other", [image_input(files[0])])
        result, error = answers.get(timeout=DEADLINE)
        assert "there is no model 'other'" in error.message()
        client.stop_stream()


def test_a_stream_whose_client_goes_leaves_nothing_behind(models: Models, calls: str):
    model, (data,) = models.find()[1], pictures(1)
    request = pb.ModelInferRequest(model_name="mini", raw_input_contents=[
        len(data).to_bytes(4, "little") + data
    ])  # fmt: skip
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    with grpc.insecure_channel(calls) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        stream = stub.ModelStreamInfer(iter([request] * 60))
        assert not next(iter(stream)).error_message
        stream.cancel()
    for _ in range(DEADLINE * 20):
        if not model._users and not model.scheduler.waiting:
            break
        time.sleep(0.05)
    assert not model._users


def test_other_calls_and_addresses_are_refused_by_name(http: str, calls: str):
    with grpc.insecure_channel(calls) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for name, request in (
            ("SystemSharedMemoryStatus", pb.SystemSharedMemoryStatusRequest()),
            ("CudaSharedMemoryRegister", pb.CudaSharedMemoryRegisterRequest()),
            ("TraceSetting", pb.TraceSettingRequest()),
            ("LogSettings", pb.LogSettingsRequest()),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                getattr(stub, name)(request)
            assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert refused.value.details() == f"{name} is not served here"
    for path in (
        "systemsharedmemory/status",
        "cudasharedmemory/region/r/register",
        "trace/setting",
    ):
        for body in (None, b"{}"):
            status, _, answer = asked(http, f"/v2/{path}", body)
            assert status == 400
            assert "is not served here" in answer["error"]


def test_paddleclass_old_clients_are_answered_as_they_were(http: str, bundle: Path):
    files = pictures(2)
    texts = [base64.b64encode(data).decode() for data in files]
    with Classifier(bundle, settings=SETTINGS) as classifier:
        expected = list(classifier.predict(files))
    document = {"key": ["image", "b"], "value": texts}
    status, _, answer = asked(http, PADDLE, json.dumps(document).encode())
    assert answer["err_msg"] == ""
    assert status == 200
    assert list(answer) == ["err_no", "err_msg", "key", "value", "tensors"]
    assert (answer["err_no"], answer["err_msg"], answer["tensors"]) == (0, "", [])
    assert answer["key"] == ["label", "prob"]
    labels, scores = map(ast.literal_eval, answer["value"])
    assert labels == [one.labels[0].replace(",", "") for one in expected]
    assert scores == pytest.approx([one.scores[0] for one in expected], abs=6e-6)
    for body, reason in (
        (b"{", "is not JSON"),
        (b"[]", "the request is"),
        (b'{"key": ["image"], "value": []}', "1 in key and 0 in value"),
        (b'{"key": ["image"], "value": ["?"]}', "is not base64"),
        (b'{"key": ["image"], "value": ["bm9uZQ=="]}', "image 0: is not an image"),
        (b'{"key": [7], "value": ["bm9uZQ=="]}', "key[0]"),
    ):
        status, _, answer = asked(http, PADDLE, body)
        assert (status, answer["err_no"], answer["key"]) == (400, 5000, [])
        assert reason in answer["err_msg"]


def test_paddleclass_old_address_is_an_option(models: Models):
    with http_of(models) as address:
        assert asked(address, PADDLE, b"{}")[0] == 404


def test_calls_are_logged_as_requests_are(http: str, calls: str, logged):
    logged.clear()
    assert asked(http, "/v2/health/live")[0] == 200
    with client_of.InferenceServerClient(calls) as client:
        assert client.is_server_live()
        client.infer("mini", [image_input(pictures(1)[0])])
        with pytest.raises(client_of.InferenceServerException):
            client.infer("other", [image_input(b"")])
    kept = [(one["client"], one["method"], one["path"], one["status"]) for one in logged]
    call = "/inference.GRPCInferenceService/"
    assert kept == [
        ("127.0.0.1", "GET", "/v2/health/live", 200),
        ("127.0.0.1", "gRPC", f"{call}ServerLive", "OK"),
        ("127.0.0.1", "gRPC", f"{call}ModelInfer", "OK"),
        ("127.0.0.1", "gRPC", f"{call}ModelInfer", "NOT_FOUND"),
    ]
    assert all(one["ms"] >= 0 for one in logged)


@pytest.fixture(scope="module")
def tls(tmp_path_factory) -> Tls:
    """A certificate of 127.0.0.1 that signs itself."""
    folder = tmp_path_factory.mktemp("tls")
    files = Tls(folder / "cert.pem", folder / "key.pem")
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", files.key, "-out", files.certificate],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    return files


def test_requests_come_over_tls(models: Models, tls: Tls):
    import http.client

    data, options = pictures(1)[0], DoorOptions(tls=tls)
    with http_of(models, options) as address:
        context = ssl.create_default_context(cafile=tls.certificate)
        connection = http.client.HTTPSConnection(address, context=context, timeout=DEADLINE)
        connection.request("POST", "/predict", data)
        assert connection.getresponse().status == 200
        connection.close()
        with pytest.raises((ConnectionError, http.client.HTTPException)):  # over plain HTTP
            asked(address, "/v2/health/live")
    server = GrpcServer(models, ("127.0.0.1", 0), 1, options)
    server.start()
    trusted = grpc.ssl_channel_credentials(tls.certificate.read_bytes())
    with grpc.secure_channel(server.address, trusted) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        assert stub.ServerReady(pb.ServerReadyRequest()).ready
    server.stop(0)()


def test_a_certificate_that_cannot_be_used_is_refused(models: Models, tls: Tls, tmp_path: Path):
    broken, locked = tmp_path / "broken.pem", tmp_path / "locked.pem"
    broken.write_text("none")
    command = ["openssl", "ec", "-in", tls.key, "-aes128", "-passout", "pass:x", "-out", locked]
    subprocess.run(command, capture_output=True, check=True)
    for files, reason in (
        (Tls(tls.certificate, tmp_path / "nowhere"), "No such file"),
        (Tls(broken, tls.key), "expected PEM files"),
        (Tls(tls.certificate, locked), "a key that is not encrypted"),
    ):
        options = DoorOptions(tls=files)
        with pytest.raises(ConfigError, match=reason), http_of(models, options):
            pass
        with pytest.raises(ConfigError, match=reason):
            GrpcServer(models, ("127.0.0.1", 0), 1, options)
