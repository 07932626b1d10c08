# SPDX-License-Identifier: Apache-2.0
"""The server over HTTP: a real client's requests are answered, hostile ones refused in one line."""

from __future__ import annotations

import base64
import gc
import hashlib
import http.client
import json
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from image_files import jpeg, png_of_declared_size
from served import SETTINGS, over_http, pictures, served
from served import asked as ask

from conftest import DEADLINE, HGDEPLOY, MINI, require_engine
from hgdeploy.classify.batch import Image
from hgdeploy.classify.classifier import Classifier
from hgdeploy.serving.server.doors import DoorOptions

for library in ("starlette", "uvicorn", "httptools", "python_multipart"):
    pytest.importorskip(library, reason="the extra serve is not installed")

YAML = """\
Global: {model_name: mini}
PreProcess:
  transform_ops:
    - ResizeImage: {resize_short: 72}
    - CropImage: {size: 64}
    - NormalizeImage: {scale: 1.0/255.0, order: ''}
    - ToCHWImage:
PostProcess:
  Topk: {topk: 3, label_list: [%s]}
""" % ", ".join(f"name{i}" for i in range(10))  # noqa: UP031


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    require_engine("onnxruntime")
    folder = tmp_path_factory.mktemp("mini")
    (folder / "inference.onnx").write_bytes((MINI / "inference.onnx").read_bytes())
    (folder / "inference.yml").write_text(YAML)
    return folder


@pytest.fixture(scope="module")
def server(bundle: Path):
    with over_http(served(bundle), max_body_mb=1) as address:
        yield address


@pytest.fixture(scope="module")
def classifier(bundle: Path):
    with Classifier(bundle, settings=SETTINGS) as loaded:
        yield loaded


def infer(address: str, document: object, name: str = "mini"):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    status, _, answer = ask(address, f"/v2/models/{name}/infer", body, Content_Type="text/json")
    return status, answer


def image_input(*files: bytes) -> dict[str, object]:
    data = [base64.b64encode(file).decode() for file in files]
    return {"name": "image", "datatype": "BYTES", "shape": [len(files)], "data": data}


def raw(address: str, data: bytes) -> bytes:
    """What the server sends back for these bytes, until it closes."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
        connection.sendall(data)
        found = b""
        while part := connection.recv(65536):
            found += part
            if b"\r\n\r\n" in found:
                break
        return found


@pytest.fixture
def client(server: str):
    triton = pytest.importorskip("tritonclient.http", reason="geventhttpclient is not installed")
    with triton.InferenceServerClient(server) as client:
        yield client


def test_a_real_client_finds_the_server_and_its_model(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("mini")
    assert client.is_model_ready("mini", "1")
    assert not client.is_model_ready("mini", "2")
    assert client.get_server_metadata()["name"] == "hgdeploy"
    found = client.get_model_metadata("mini")
    assert found["platform"] == "hgdeploy_onnxruntime"
    assert [(i["name"], i["datatype"], i["shape"]) for i in found["inputs"]] == [
        ("image", "BYTES", [-1]),
        ("x", "FP32", [-1, 3, 64, 64]),
    ]


@pytest.mark.parametrize("binary", [True, False])
def test_a_real_client_gets_the_scores_of_predict(client, classifier, binary: bool):
    import tritonclient.http as triton

    files = pictures(3)
    tensors = np.stack([classifier.reader.read_bytes(data).tensor for data in files])
    expected = list(classifier.predict(files))
    name = classifier.engine.outputs[0].name
    images = triton.InferInput("image", [3], "BYTES")
    images.set_data_from_numpy(np.array(files, object), binary_data=True)
    tensor = triton.InferInput("x", list(tensors.shape), "FP32")
    tensor.set_data_from_numpy(tensors, binary_data=binary)
    for given in (images, tensor):
        wanted = triton.InferRequestedOutput(name, binary_data=binary)
        answer = client.infer("mini", [given], outputs=[wanted], request_id="seven")
        rows = answer.as_numpy(name)
        assert answer.get_response()["id"] == "seven"
        assert rows.dtype == np.float32
        for row, prediction in zip(rows, expected, strict=True):
            assert [row[i] for i in prediction.class_ids] == pytest.approx(
                prediction.scores,
                abs=6e-6,  # which PaddleClas rounds
            )
        exact = [answer.row for answer in classifier.answers([_of(classifier, files[0])])]
        assert np.array_equal(rows[0], exact[0])
    wanted = triton.InferRequestedOutput(name, binary_data=binary, class_count=2)
    classes = client.infer("mini", [images], outputs=[wanted]).as_numpy(name)
    for texts, prediction in zip(classes, expected, strict=True):
        assert [(t.decode() if binary else t).split(":")[1:] for t in texts] == [
            [str(i), f"name{i}"] for i in prediction.class_ids[:2]
        ]


def _of(classifier: Classifier, data: bytes) -> Image:
    return Image("x", lambda out: classifier.reader.read_bytes(data, out))


def test_images_that_fail_have_their_own_reason(server: str, classifier):
    files = [pictures(1)[0], jpeg()[:200], b"none"]
    reasons = [one.error for one in classifier.predict(files)]
    status, answer = infer(server, {"inputs": [image_input(*files)]})
    assert (status, answer) == (400, {"error": f"image 1: {reasons[1]}"})
    name = classifier.engine.outputs[0].name
    wanted = [{"name": name}, {"name": "error"}]
    status, answer = infer(server, {"inputs": [image_input(*files)], "outputs": wanted})
    assert status == 200
    scores, errors = answer["outputs"]
    assert scores["shape"] == [3, 10]
    assert sum(scores["data"][:10]) == pytest.approx(1, abs=1e-3)
    assert scores["data"][10:] == [None] * 20
    assert errors["data"] == ["", *reasons[1:]]


def test_people_get_classes_by_form_and_by_body(server: str, classifier):
    data = pictures(1)[0]
    (expected,) = classifier.predict([data])
    classes = [
        {"id": i, "score": score, "label": label}
        for i, score, label in zip(
            expected.class_ids, expected.scores, expected.labels, strict=True
        )
    ]
    status, _, answer = ask(server, "/predict", data, Content_Type="image/jpeg")
    assert (status, answer["model"], answer["version"]) == (200, "mini", "1")
    assert answer["predictions"] == [{"name": "image", "classes": classes}]
    part = b'--b\r\nContent-Disposition: form-data; name="%s"; filename="%s"\r\n\r\n%s\r\n'
    form = part % (b"a", b"a.jpg", data) + part % (b"b", b"b.jpg", b"none") + b"--b--\r\n"
    status, _, answer = ask(
        server, "/predict", form, Content_Type="multipart/form-data; boundary=b"
    )
    assert status == 200
    assert answer["predictions"][0] == {"name": "a.jpg", "classes": classes}
    assert "is not an image" in answer["predictions"][1]["error"]
    status, _, answer = ask(server, "/v2/models/mini/infer", data, Content_Type="image/jpeg")
    assert (status, answer["outputs"][0]["shape"]) == (200, [1, 10])
    for kind, body in (("Image/JPEG", data), ("Multipart/Form-Data; boundary=b", form)):
        assert ask(server, "/predict", body, Content_Type=kind)[2]["predictions"][0]["classes"]
    assert ask(server, "/v2/models/mini/infer", data, Content_Type="Image/JPEG")[0] == 200


X = {"name": "x", "datatype": "FP32", "shape": [1, 3, 64, 64], "data": [0.5] * 12288}
DEEP = b'{"inputs":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
WRONG = {
    "no JSON": (b"{", "the request is not JSON"),
    "a list": ([], "the request is"),
    "nested JSON": (DEEP, "nested too deep"),
    "digits": (b'{"id":' + b"9" * 9000 + b"}", "not JSON: a number in it has too many digits"),
    "a file": (b"\xff\xd8\xff", "an image file alone needs a Content-Type such as image/jpeg"),
    "no text": (b"\xff\xfe{}", "the request is not JSON"),
    "no inputs": ({}, "inputs"),
    "two inputs": ({"inputs": [X, image_input(b"")]}, "has 2 inputs, expected one"),
    "name": ({"inputs": [X | {"name": "y"}]}, "the model has no input 'y'"),
    "dtype": ({"inputs": [X | {"datatype": "FP16"}]}, "datatype 'FP16', expected FP32"),
    "shape": ({"inputs": [X | {"shape": [1, 3, 64]}]}, "shape [1, 3, 64], expected"),
    "size": ({"inputs": [X | {"shape": [1, 3, 32, 64]}]}, "shape [1, 3, 32, 64], expected"),
    "negative": ({"inputs": [X | {"shape": [-1, 3, 64, 64]}]}, "inputs[0].shape"),
    "no images": ({"inputs": [image_input()]}, "shape [0], expected"),
    "too few": ({"inputs": [X | {"data": [1.0]}]}, "has 1 numbers"),
    "texts": ({"inputs": [X | {"data": ["1"] * 12288}]}, "are not all numbers"),
    "switches": ({"inputs": [X | {"data": [True] * 12288}]}, "are not all numbers"),
    "uneven": ({"inputs": [X | {"data": [[1.0], [1.0, 2.0]]}]}, "are not all numbers"),
    "no data": ({"inputs": [{k: v for k, v in X.items() if k != "data"}]}, "are not all numbers"),
    "NaN": ({"inputs": [X | {"data": [float("nan")] * 12288}]}, "is not finite"),
    "infinity": ({"inputs": [X | {"data": [1e300] * 12288}]}, "is not finite"),
    "no base64": ({"inputs": [image_input(b"") | {"data": ["?"]}]}, "is not base64"),
    "output": ({"inputs": [X], "outputs": [{"name": "y"}]}, "the model has no output 'y'"),
    "classes": (
        {"inputs": [X], "outputs": [{"name": "error", "parameters": {"classification": -1}}]},
        "classification",
    ),
    "timeout": ({"inputs": [X], "parameters": {"timeout": -5}}, "parameters.timeout"),
    "parameter": ({"inputs": [X], "parameters": {"mine": [1]}}, "parameters.mine is [1]"),
    "NaN's parameter": ({"inputs": [X], "parameters": {"mine": float("nan")}}, "a finite number"),
    "parameters": ({"inputs": [X], "parameters": []}, "parameters is []"),
    "outputs": ({"inputs": [X], "outputs": {}}, "outputs is {}"),
    "data twice": ({"inputs": [X | {"parameters": {"binary_data_size": 0}}]}, "has both data and"),
    "binary size": (
        {"inputs": [X | {"data": None, "parameters": {"binary_data_size": 9}}]},
        "binary_data_size",
    ),
    "shared memory": (
        {"inputs": [X | {"parameters": {"shared_memory_region": "r"}}]},
        "shared memory is not served",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_requests_are_refused_in_one_line(server: str, name: str):
    document, reason = WRONG[name]
    status, answer = infer(server, document)
    assert status == 400
    assert reason in answer["error"]
    assert "\n" not in answer["error"]
    assert len(answer["error"]) <= 400


def test_millions_of_parts_are_refused_before_each_is_looked_at(server: str):
    files = image_input(*[b""] * 70_000)
    start = time.process_time()
    status, _, answer = ask(
        server, "/v2/models/mini/infer", json.dumps({"inputs": [files]}).encode()
    )
    assert (status, "70000 images, and at most" in answer["error"]) == (413, True)
    for wrong in (
        {"inputs": [{}] * 200_000},
        {"inputs": [X | {"shape": [1] * 300_000}]},
        {"inputs": [{}], "parameters": {str(i): 1 for i in range(70_000)}},
    ):
        status, answer = infer(server, wrong)
        assert status == 400
        assert "elements, expected at most 100" in answer["error"]
    assert time.process_time() - start < 1.5


def test_a_binary_tensor_that_is_not_finite_is_refused(server: str):
    tensor = {name: value for name, value in X.items() if name != "data"}
    for value in (np.nan, np.inf):
        data = np.full(12288, value, "<f4").tobytes()
        parameters = {"binary_data_size": len(data)}
        head = json.dumps({"inputs": [tensor | {"parameters": parameters}]}).encode()
        status, _, answer = ask(
            server, "/v2/models/mini/infer", head + data,
            Inference_Header_Content_Length=str(len(head)),
        )  # fmt: skip
        assert (status, answer) == (400, {"error": "input 'x': a number is not finite"})


def test_hostile_clients_are_refused_and_others_answered(server: str):
    path = "/v2/models/mini/infer"
    post = f"POST {path} HTTP/1.1\r\nHost: x\r\n"
    declared = raw(server, f"{post}Content-Length: 99999999\r\n\r\n".encode())
    assert b" 413 " in declared  # before it has come
    chunk = b"20000\r\n" + b"x" * 0x20000 + b"\r\n"
    assert b" 413 " in raw(server, f"{post}Transfer-Encoding: chunked\r\n\r\n".encode() + chunk * 9)
    assert b" 400 " in raw(server, b"nonsense\r\n\r\n")
    assert b" 400 " in raw(server, f"{post}X: {'y' * 200_000}\r\n\r\n".encode())
    assert b" 400 " in raw(server, f"{post}X: {'y' * 200_000}".encode())
    trailers = b"1\r\nx\r\n0\r\nX: " + b"y" * 200_000
    assert b" 400 " in raw(server, f"{post}Transfer-Encoding: chunked\r\n\r\n".encode() + trailers)
    for headers, reason in (
        ({"Inference_Header_Content_Length": "-1"}, "expected a number of bytes"),
        ({"Inference_Header_Content_Length": "99"}, "but the body has 2 bytes"),
        ({"Content_Encoding": "gzip"}, "Content-Encoding 'gzip' is not read"),
    ):
        status, _, answer = ask(server, path, b"{}", **headers)
        assert status == 400
        assert reason in answer["error"]
    bomb = png_of_declared_size(30_000, 30_000)
    status, _, answer = ask(server, path, bomb, Content_Type="image/png")
    assert status == 400
    assert "more than the limit of 67108864" in answer["error"]
    status, headers, answer = ask(server, "/predict")
    assert (status, headers["Allow"]) == (405, "POST")
    assert answer == {"error": "/predict takes POST, not GET"}
    for address in ("/nowhere", "/v2/models/other/infer"):
        status, _, answer = ask(server, address, b"{}")
        assert (status, list(answer)) == (404, ["error"])
    assert ask(server, "/predict?model=other", b"x")[0] == 404
    assert ask(server, "/predict", b"x", Content_Type="multipart/form-data")[0] == 400
    assert ask(server, "/predict", pictures(1)[0], Content_Type="image/jpeg")[0] == 200


def test_what_was_done_is_counted_with_tritons_names(bundle: Path):
    with over_http(served(bundle)) as address:
        _, _, before = ask(address, "/metrics")
        assert ask(address, "/predict", pictures(1)[0], Content_Type="image/jpeg")[0] == 200
        assert ask(address, "/predict", b"none", Content_Type="image/jpeg")[0] == 400
        _, _, text = ask(address, "/metrics")
    untouched = [line for line in before.decode().splitlines() if line[0] != "#"]
    assert [line for line in untouched if not line.endswith(" 0")] == []  # nor is its warm-up
    lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if line[0] != "#")
    counted = {name.partition("{")[0]: float(value) for name, value in lines.items()}
    assert 'nv_inference_count{model="mini",version="1"}' in lines
    assert counted["nv_inference_request_success"] == 1
    assert counted["nv_inference_request_failure"] == 1
    assert counted["nv_inference_exec_count"] == 2
    assert counted["nv_inference_compute_infer_duration_us"] > 0


def test_a_full_queue_is_told_and_work_of_clients_that_go_is_dropped(bundle: Path, caplog):
    model = served(bundle, max_queue=2, workers=1)
    entered, leave = threading.Event(), threading.Event()
    worked = model.scheduler._work

    def slow(images):
        entered.set()
        assert leave.wait(DEADLINE)
        return worked(images)

    model.scheduler._work = slow
    data = pictures(1)[0]
    with over_http(model) as address:
        host, port = address.split(":")
        head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n"
        opened = []
        for waiting in range(3):
            opened.append(socket.create_connection((host, int(port)), timeout=DEADLINE))
            opened[-1].sendall(head.encode() + data)
            assert entered.wait(DEADLINE)
            while model.scheduler.waiting < waiting:
                time.sleep(0.01)
        status, headers, answer = ask(address, "/predict", data)
        assert (status, headers["retry-after"]) == (503, "1")
        assert "2 images wait already" in answer["error"]
        opened[1].close()  # its image makes room
        end = time.monotonic() + DEADLINE
        timeout = {"inputs": [image_input(data)], "parameters": {"timeout": 1000}}
        while (found := infer(address, timeout))[0] == 503 and time.monotonic() < end:
            time.sleep(0.01)
        assert found[0] == 504
        leave.set()
        for connection in (opened[0], opened[2]):
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
    assert model.scheduler.times.images == 2
    gc.collect()  # when asyncio tells of errors that nobody asked for
    assert not caplog.records


def test_slow_bodies_and_missing_keys_are_refused(bundle: Path):
    with over_http(served(bundle), doors=DoorOptions(key="secret"), seconds=0.2) as address:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer secret\r\n"
        assert b" 408 " in raw(address, f"{head}Content-Length: 9\r\n\r\nx".encode())
        assert ask(address, "/v2/health/ready")[0] == 200
        for given in ({}, {"Authorization": "Bearer other"}, {"Authorization": "\xe9"}):
            status, headers, answer = ask(address, "/predict", b"x", **given)
            assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
            assert "API key" in answer["error"]
        good = {"Authorization": "Bearer secret"}
        assert ask(address, "/predict", pictures(1)[0], **good)[0] == 200


def test_the_command_serves_until_sigterm_and_answers_what_has_begun(bundle: Path):
    client = pytest.importorskip("tritonclient.grpc", reason="grpcio is not installed")
    free = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
    command = [*HGDEPLOY, "serve", bundle, "--engine", "onnxruntime", *free]
    process = subprocess.Popen(
        [*map(str, command), "--access-log"], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    said = ""
    for line in process.stderr:
        said += line
        if "ready at" in line:
            break
    address = line.rpartition("http://")[2].strip()
    with client.InferenceServerClient(said.partition("gRPC at ")[2].split()[0]) as calls:
        assert calls.is_model_ready("mini")
    assert ask(address, "/predict", pictures(1)[0])[0] == 200, said
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE)
    assert process.returncode == 0, err
    assert err.strip() == "hgdeploy: ended"
    logged = [json.loads(line) for line in out.splitlines()]
    assert [(one["client"], one["method"], one["path"], one["status"]) for one in logged] == [
        ("127.0.0.1", "gRPC", "/inference.GRPCInferenceService/ModelReady", "OK"),
        ("127.0.0.1", "POST", "/predict", 200),
    ]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--http", "8000"], "--http is '8000', expected HOST:PORT"),
        (["--max-body-mb", "0"], "max_body_mb"),
        (["--max-queue", "0"], "max_queue"),
        (["--max-batch", "0"], "batch size"),
        (["--threads", "2", "--streams", "3"], "--streams is 3, expected 1 to 2"),
        (["--threads", "2", "--streams", "0"], "--streams is 0, expected 1 to 2"),
        (["--grpc", "localhost"], "--grpc is 'localhost', expected HOST:PORT"),
        (["--api-key-file", "nowhere"], "--api-key-file nowhere cannot be read"),
    ],
)
def test_wrong_options_are_refused(bundle: Path, run_here, flags, reason: str):
    from hgdeploy.cli import main

    http = () if "--http" in flags else ("--http", "127.0.0.1:0")
    done = run_here(main, "serve", bundle, "--engine", "onnxruntime", *http, *flags)
    assert done.returncode == 2
    assert reason in done.stderr


def test_a_taken_address_for_grpc_is_told_in_one_line(bundle: Path):
    pytest.importorskip("grpc", reason="grpcio is not installed")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = "127.0.0.1:{1}".format(*taken.getsockname())
        command = [*HGDEPLOY, "serve", bundle, "--http", "127.0.0.1:0", "--grpc", where]
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    reason = f"cannot listen at {where} for gRPC; choose another address"
    assert done.stderr == f"hgdeploy: error: {reason}\n"


def test_a_key_that_no_header_can_hold_is_refused(bundle: Path, run_here, tmp_path: Path):
    from hgdeploy.cli import main

    (tmp_path / "key").write_text("schlüssel\n", encoding="utf-8")
    done = run_here(main, "serve", bundle, "--api-key-file", tmp_path / "key")
    assert done.returncode == 2
    assert "has characters that a header cannot hold" in done.stderr


def test_the_page_shows_the_model_and_runs_its_own_script_only(server: str):
    status, _, answer = ask(server, "/")
    text = answer.decode()
    assert status == 200
    assert "<td data-of='engine'>onnxruntime (onnxruntime " in text
    assert "<td data-of='input'>float32 3x64x64</td>" in text
    script = text.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; style-src 'unsafe-inline'; connect-src 'self'" in text
    assert f"script-src 'sha256-{digest}'" in text
    assert "http://" not in text
    assert "https://" not in text


def test_an_answer_does_not_wait_for_the_clients_word_on_its_head(server: str):
    """Which takes 40 ms wherever the system delays it; the quickest of a few counts."""
    connection = http.client.HTTPConnection(server, timeout=DEADLINE)
    took = []
    for _ in range(8):
        start = time.perf_counter()
        connection.request("GET", "/v2")
        assert connection.getresponse().read()
        took.append(time.perf_counter() - start)
    connection.close()
    assert min(took[1:]) < 0.03


def test_a_connection_without_a_whole_head_is_closed(bundle: Path, monkeypatch):
    monkeypatch.setattr("hgdeploy.serving.server.http.listen._HEAD_SECONDS", 0.2)
    with over_http(served(bundle)) as address:
        host, port = address.split(":")
        for first in (b"", b"GET /v2 HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.create_connection((host, int(port)), timeout=DEADLINE) as connection:
                connection.sendall(first)
                if first:
                    assert b"200 OK" in connection.recv(65536)
                with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
                    send_slowly(connection)


def send_slowly(connection: socket.socket) -> None:
    """Send a letter now and then, which would keep a connection open for ever."""
    for _ in range(DEADLINE * 20):
        connection.sendall(b"G")
        time.sleep(0.05)
