# SPDX-License-Identifier: Apache-2.0
"""Our server and NVIDIA's Triton, on the repository that we write for it: the same answers.

`make triton-env` installs Triton. Its ONNX Runtime back end is ours, in Python, since no package
has the one in C++; all else, from the config to the answer, is the real server's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import DEADLINE, HGDEPLOY, has, hgdeploy, mini_bundle, require_engine

if not all(map(has, ("grpc", "grpc_health", "starlette", "tritonclient", "geventhttpclient"))):
    pytest.skip("the extra serve is not installed", allow_module_level=True)

import grpc
import protocol_requests as asked
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from protocol_requests import FILES, IMAGES, SCORES, TENSORS, X
from served import pictures
from triton_server import Triton, triton_server, why_not
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc
from tritonclient.utils import InferenceServerException

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.triton import TritonOptions, triton_repository

pytestmark = pytest.mark.slow

# Calls by their request; that of a stream comes after that of one request.
CALLS = {
    method.input_type.name: method.name
    for method in reversed(pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods)
}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_engine("onnxruntime")
    return mini_bundle(tmp_path_factory.mktemp("bundle") / "mini")


@pytest.fixture(scope="module")
def triton(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    """Triton, on what we write for its ONNX Runtime and Python back ends."""
    if reason := why_not():
        pytest.skip(reason)
    repository = tmp_path_factory.mktemp("triton") / "repository"
    for backend in ("onnxruntime", "python"):
        done = hgdeploy("build", bundle, "--triton", repository, "--triton-backend", backend)
        assert done.returncode == 0, done.stderr
    with triton_server(repository) as server:
        yield server


@pytest.fixture(scope="module")
def ours(bundle: Path, triton: Triton) -> Iterator[dict[str, str]]:
    """Our own server: HOST:PORT for `http` and `grpc`."""
    listen = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0")
    process = subprocess.Popen(
        [*HGDEPLOY, "serve", bundle, "--engine", "onnxruntime", *listen],
        stderr=subprocess.PIPE,
        text=True,
    )
    said, found = "", {}
    try:
        while "http" not in found:
            line = process.stderr.readline()
            said += line
            assert line, said
            for name, start in (("grpc", "gRPC at "), ("http", "ready at http://")):
                if match := re.search(rf"{start}(\S+)", line):
                    found[name] = match[1]
        yield found
    finally:
        process.terminate()
        process.communicate(timeout=DEADLINE)


def answer_of(where: str, request: asked.Request) -> tuple[int, dict[str, str], bytes]:
    with contextlib.closing(http.client.HTTPConnection(where, timeout=DEADLINE)) as connection:
        body, headers = request.written()
        connection.request("GET" if body is None else "POST", request.path, body, headers)
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read()


def both_over_http(triton: Triton, ours: dict[str, str], request: asked.Request):
    """The answers of both; a bundle of ours takes tensors and images under one name."""
    own = dataclasses.replace(request, path=request.path.replace(IMAGES, TENSORS))
    return answer_of(triton.http, request), answer_of(ours["http"], own)


def read_texts(data: bytes) -> list[str]:
    found = []
    while data:
        size = int.from_bytes(data[:4], "little")
        found.append(data[4 : 4 + size].decode())
        data = data[4 + size :]
    return found


def outputs_of(document: dict[str, Any], rest: bytes) -> dict[str, tuple[object, ...]]:
    """The outputs by name: datatype, shape, whether they are binary, and their values."""
    found = {}
    for one in document["outputs"]:
        size = one.get("parameters", {}).get("binary_data_size")
        data, rest = (one.get("data"), rest) if size is None else (rest[:size], rest[size:])
        if isinstance(data, bytes):
            texts = one["datatype"] == "BYTES"
            data = read_texts(data) if texts else np.frombuffer(data, np.float32)
        # An image's reason has an axis of its own in Triton, whose models have their batch first.
        shape = one["shape"][:1] if one["name"] == "error" else one["shape"]
        found[one["name"]] = (one["datatype"], shape, size is not None, data)
    assert not rest
    return found


def assert_alike(left: dict[str, tuple[object, ...]], right: dict[str, tuple[object, ...]]) -> None:
    assert left.keys() == right.keys()
    for name, (*facts, values) in left.items():
        *expected, wanted = right[name]
        assert facts == expected
        if facts[0] == "FP32":
            both = (np.array(one, np.float32) for one in (values, wanted))
            assert np.allclose(*both, atol=1e-5, equal_nan=True)
        else:
            texts = [[split_class(text) for text in one] for one in (values, wanted)]
            assert texts[0] == texts[1]


def split_class(text: str) -> tuple[object, ...]:
    """SCORE:INDEX:LABEL with a rounded score, or any other text."""
    match = re.fullmatch(r"([0-9.]+):(\d+)(?::(.*))?", text)
    return (round(float(match[1]), 4), match[2], match[3]) if match else (text,)


@pytest.mark.parametrize("name", asked.HTTP)
def test_answers_over_http(triton, ours, name):
    (status, headers, body), (own_status, own_headers, own_body) = both_over_http(
        triton, ours, asked.HTTP[name]
    )
    if status != 200:
        assert own_status // 100 == status // 100 == 4, (body, own_body)
        assert set(json.loads(own_body)) == set(json.loads(body)) == {"error"}
        return
    assert own_status == 200, own_body
    assert bool(own_body) == bool(body)
    if not body:
        return
    sizes = [one.get("inference-header-content-length") for one in (headers, own_headers)]
    assert (sizes[0] is None) == (sizes[1] is None)
    if sizes[0] is not None:
        assert headers["content-type"] == own_headers["content-type"]
    heads = [int(size or len(one)) for size, one in zip(sizes, (body, own_body), strict=True)]
    left, right = (json.loads(one[:n]) for one, n in zip((body, own_body), heads, strict=True))
    assert left.get("id") == right.get("id")
    assert left["model_version"] == right["model_version"]
    assert left["model_name"].removesuffix("_image") == right["model_name"]
    assert_alike(outputs_of(left, body[heads[0] :]), outputs_of(right, own_body[heads[1] :]))


@pytest.mark.parametrize("name", asked.UNPARSED)
def test_what_triton_cannot_parse_is_the_clients_fault_here(triton, ours, name):
    (status, _, body), (own_status, _, own_body) = both_over_http(
        triton, ours, asked.UNPARSED[name]
    )
    assert (status, own_status) == (500, 400), (body, own_body)
    assert list(json.loads(own_body)) == ["error"]


@pytest.mark.parametrize("name", asked.DIFFERENT)
def test_documented_differences_over_http(triton, ours, name):
    request, *expected = asked.DIFFERENT[name]
    answers = both_over_http(triton, ours, request)
    assert [one[0] for one in answers] == expected, [one[2] for one in answers]


def test_a_raw_file_has_the_same_scores(triton, ours):
    """Triton answers it with bytes, and our server with JSON, for people with curl."""
    header = {"Inference-Header-Content-Length": "0"}
    request = asked.Request(f"/v2/models/{IMAGES}/infer", FILES[0], header)
    (_, headers, body), (_, own_headers, own_body) = both_over_http(triton, ours, request)
    size = int(headers["inference-header-content-length"])
    _, shape, _, scores = outputs_of(json.loads(body[:size]), body[size:])[SCORES]
    assert own_headers["content-type"] == "application/json"
    _, own_shape, _, own_scores = outputs_of(json.loads(own_body), b"")[SCORES]
    assert own_shape == shape
    assert np.allclose(own_scores, scores, atol=1e-5)


def test_a_failed_image_has_its_reason_and_no_scores(triton, ours):
    wanted = (asked.output(binary_data=True), asked.output("error", binary_data=True))
    found = []
    for status, headers, body in both_over_http(triton, ours, asked.images(asked.BAD, *wanted)):
        assert status == 200
        size = int(headers["inference-header-content-length"])
        found.append(outputs_of(json.loads(body[:size]), body[size:]))
    assert_alike(*found)
    assert np.isnan(found[1][SCORES][3][10:]).all()


def call(where: str, request: Any) -> tuple[str, Any]:
    """The code and the answer, or the reason."""
    with grpc.insecure_channel(where) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        try:
            return "OK", getattr(stub, CALLS[type(request).__name__])(request, timeout=DEADLINE)
        except grpc.RpcError as error:
            return error.code().name, error.details()


def both_over_grpc(triton: Triton, ours: dict[str, str], request: Any) -> list[tuple[str, Any]]:
    first = call(triton.grpc, request)
    if getattr(request, "model_name", None) == IMAGES:
        request = type(request).FromString(request.SerializeToString())
        request.model_name = TENSORS
    return [first, call(ours["grpc"], request)]


@pytest.mark.parametrize("name", asked.GRPC)
def test_answers_over_grpc(triton, ours, name):
    (code, answer), (own_code, own_answer) = both_over_grpc(triton, ours, asked.GRPC[name])
    assert own_code == code, (answer, own_answer)
    if code != "OK":
        assert own_answer
    elif isinstance(answer, pb.ModelInferResponse):
        assert (own_answer.id, own_answer.model_version) == (answer.id, answer.model_version)
        assert_alike(*map(outputs_of_message, (answer, own_answer)))
    else:
        assert own_answer == answer


def outputs_of_message(answer: Any) -> dict[str, tuple[object, ...]]:
    raw = answer.raw_output_contents
    described = [
        {
            "name": one.name,
            "datatype": one.datatype,
            "shape": list(one.shape),
            "parameters": {"binary_data_size": len(data)},
        }
        for one, data in zip(answer.outputs, raw, strict=True)
    ]
    return outputs_of({"outputs": described}, b"".join(raw))


@pytest.mark.parametrize("name", asked.GRPC_DIFFERENT)
def test_documented_differences_over_grpc(triton, ours, name):
    request, *expected = asked.GRPC_DIFFERENT[name]
    answers = both_over_grpc(triton, ours, request)
    assert [code for code, _ in answers] == expected, [answer for _, answer in answers]


def texts_of(values: np.ndarray) -> list[tuple[object, ...]]:
    return [split_class(text.decode()) for text in values.ravel()]


def client_run(kind: Any, where: str, images: str) -> dict[str, Any]:
    """What a program with NVIDIA's client gets from a server."""
    found: dict[str, Any] = {}
    with kind.InferenceServerClient(where) as client:
        found["up"] = (
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready(TENSORS),
            client.is_model_ready(TENSORS, "1"),
            client.is_model_ready("other"),
        )
        tensor = kind.InferInput("x", [3, 3, 64, 64], "FP32").set_data_from_numpy(X[:3])
        files = kind.InferInput("image", [2, 1], "BYTES")
        files.set_data_from_numpy(np.array([[one] for one in FILES], object))
        scores = kind.InferRequestedOutput(SCORES)
        best = kind.InferRequestedOutput(SCORES, class_count=3)
        for name, model, given, wanted in (
            ("tensors", TENSORS, tensor, scores),
            ("classes of tensors", TENSORS, tensor, best),
            ("files", images, files, scores),
            ("classes of files", images, files, best),
        ):
            result = client.infer(model, [given], outputs=[wanted], request_id=name)
            found[name] = result.as_numpy(SCORES)
            answer = result.get_response()
            found[f"{name}: id"] = answer["id"] if isinstance(answer, dict) else answer.id
        wrong = kind.InferInput("x", [1, 3, 32, 32], "FP32")
        wrong.set_data_from_numpy(X[:1, :, :32, :32].copy())
        for name, model, version, given in (
            ("other model", "other", "", tensor),
            ("other version", TENSORS, "9", tensor),
            ("another size", TENSORS, "", wrong),
        ):
            with pytest.raises(InferenceServerException) as error:
                client.infer(model, [given], model_version=version)
            found[name] = error.value.status()
    return found


@pytest.mark.parametrize(("kind", "way"), [(http_client, "http"), (grpc_client, "grpc")])
def test_a_program_with_nvidias_client_cannot_tell_them_apart(triton, ours, kind, way):
    left = client_run(kind, getattr(triton, way), IMAGES)
    right = client_run(kind, ours[way], TENSORS)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if not isinstance(value, np.ndarray):
            assert right[name] == value, name
        elif value.dtype == np.float32:
            assert np.allclose(right[name], value, atol=1e-5)
        else:
            texts = [
                [split_class(text.decode()) for text in one.ravel()] for one in (value, right[name])
            ]
            assert texts[0] == texts[1]


@pytest.mark.parametrize("way", ["http", "grpc"])
def test_the_servers_describe_the_models_alike(triton, ours, way):
    kind = {"http": http_client, "grpc": grpc_client}[way]
    as_json = {} if way == "http" else {"as_json": True}
    found = []
    for where in (getattr(triton, way), ours[way]):
        with kind.InferenceServerClient(where) as client:
            server = client.get_server_metadata(**as_json)
            assert {"name", "version", "extensions"} == set(server)
            assert {"binary_tensor_data", "classification"} <= set(server["extensions"])
            found.append(client.get_model_metadata(TENSORS, **as_json))
            index = client.get_model_repository_index(**as_json)
            index = index if way == "http" else index["models"]
            entry = next(one for one in index if one["name"] == TENSORS)
            assert (entry["version"], entry["state"]) == ("1", "READY")
            config = client.get_model_config(TENSORS, **as_json)
            config = config if way == "http" else config["config"]
            (tensor,) = (one for one in config["input"] if one["name"] == "x")
            assert tensor["data_type"] == "TYPE_FP32"
            assert list(map(int, tensor["dims"])) == [3, 64, 64]
            statistics = client.get_inference_statistics(TENSORS, **as_json)["model_stats"][0]
            assert {"success", "fail", "queue", "compute_infer"} <= set(
                statistics["inference_stats"]
            )
    left, right = found
    assert left.keys() == right.keys()
    assert (right["name"], right["versions"]) == (left["name"], left["versions"])
    assert right["inputs"][1:] == left["inputs"]
    assert right["outputs"][:1] == left["outputs"]


def test_metrics_have_the_same_names(triton, ours):
    names = []
    for where in (triton.metrics, ours["http"]):
        status, _, body = answer_of(where, asked.Request("/metrics"))
        assert status == 200
        names.append(set(re.findall(r"^(nv_inference_\w+)\{", body.decode(), re.MULTILINE)))
    assert names[1] <= names[0]


def test_a_stream_has_the_same_answers(triton, ours):
    names = ("raw", "id", "infer other model", "another size", "files", "a bad file", "classes")
    found = []
    for where in (triton.grpc, ours["grpc"]):
        requests = []
        for place, name in enumerate(names):
            request = pb.ModelInferRequest.FromString(asked.GRPC[name].SerializeToString())
            request.id = str(place)
            if where == ours["grpc"] and request.model_name == IMAGES:
                request.model_name = TENSORS
            requests.append(request)
        with grpc.insecure_channel(where) as channel:
            stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
            answers = list(stub.ModelStreamInfer(iter(requests), timeout=DEADLINE))
        found.append({one.infer_response.id: one for one in answers})
    assert found[0].keys() == found[1].keys() == set(map(str, range(len(names))))
    for place, one in found[0].items():
        own = found[1][place]
        assert bool(own.error_message) == bool(one.error_message), (one, own)
        if not one.error_message:
            final = "triton_final_response"
            assert own.infer_response.parameters[final] == one.infer_response.parameters[final]
            both = (answer.infer_response for answer in (one, own))
            assert_alike(*map(outputs_of_message, both))


def fix_batch(bundle: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    model = onnx.load(bundle / "inference.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, bundle / "inference.onnx")


def forget_labels(bundle: Path) -> None:
    description = bundle / "inference.yml"
    description.write_text(description.read_text().partition("PostProcess:")[0])


KINDS: dict[str, tuple[Callable[[Path], None] | None, dict[str, int]]] = {
    "fixed": (fix_batch, {}),
    "unlabelled": (forget_labels, {}),
    "alone": (None, {"max_batch": 1}),
    "joined": (None, {"queue_delay_us": 20_000, "instances": 2, "threads": 1}),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Triton, with a model of each kind for tensors and for images."""
    if reason := why_not():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kinds")
    for name, (change, options) in KINDS.items():
        made = mini_bundle(folder / name)
        if change is not None:
            change(made)
        for backend in ("onnxruntime", "python"):
            served = TritonOptions(backend=backend, name=f"{name}_{backend}", **options)
            triton_repository(open_bundle(made), folder / "models", served, lambda _: None)
    with triton_server(folder / "models") as server:
        yield server.http


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_repository_is_served(kinds, ours, name):
    count = 4 if name == "fixed" else 1
    with http_client.InferenceServerClient(kinds) as client:
        found = []
        for backend, given in (("onnxruntime", tensors_of(count)), ("python", files_of(count))):
            result = client.infer(f"{name}_{backend}", [given])
            found.append(result.as_numpy(SCORES))
            best = http_client.InferRequestedOutput(SCORES, class_count=1)
            if backend == "python" or count == 1:
                classes = client.infer(f"{name}_{backend}", [given], outputs=[best])
                texts = texts_of(classes.as_numpy(SCORES))
                label = "name 2, the" if name != "unlabelled" else None
                assert {one[1:] for one in texts} == {("2", label)}
    with http_client.InferenceServerClient(ours["http"]) as client:
        for given, scores in zip((tensors_of(count), files_of(count)), found, strict=True):
            expected = client.infer(TENSORS, [given]).as_numpy(SCORES)
            assert np.allclose(scores, expected, atol=1e-5)


def tensors_of(count: int) -> Any:
    given = http_client.InferInput("x", [count, 3, 64, 64], "FP32")
    return given.set_data_from_numpy(X[:count])


def files_of(count: int) -> Any:
    given = http_client.InferInput("image", [count, 1], "BYTES")
    return given.set_data_from_numpy(np.array([[FILES[i % 2]] for i in range(count)], object))


def test_requests_that_triton_joins_get_their_own_answers(kinds, ours):
    """Many at once, of one or more files, some of which fail."""
    files = [b"bad", *pictures(11)]
    groups = [files[i % 12 : i % 12 + 1 + i % 3] for i in range(60)]

    def ask(where: str, model: str, group: list[bytes]) -> tuple[np.ndarray, list[bytes]]:
        given = http_client.InferInput("image", [len(group), 1], "BYTES")
        given.set_data_from_numpy(np.array([[one] for one in group], object))
        wanted = [http_client.InferRequestedOutput(one) for one in (SCORES, "error")]
        with http_client.InferenceServerClient(where, network_timeout=DEADLINE) as client:
            result = client.infer(model, [given], outputs=wanted)
            return result.as_numpy(SCORES), list(result.as_numpy("error").ravel())

    with ThreadPoolExecutor(12) as threads:
        found = list(threads.map(lambda group: ask(kinds, "joined_python", group), groups))
    for group, (scores, reasons) in zip(groups, found, strict=True):
        expected, own_reasons = ask(ours["http"], TENSORS, group)
        assert np.allclose(scores, expected, atol=1e-5, equal_nan=True)
        assert reasons == own_reasons
    status, _, body = answer_of(kinds, asked.Request("/v2/models/joined_python/stats"))
    assert status == 200
    (counted,) = json.loads(body)["model_stats"]
    assert counted["execution_count"] < counted["inference_count"]
