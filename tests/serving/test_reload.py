# SPDX-License-Identifier: Apache-2.0
"""Models are loaded again and unloaded while others ask, and each version answers for itself."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from served import asked, http_of, pictures, served

from conftest import DEADLINE, MINI, has, require_engine
from hgdeploy.errors import ConfigError
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.models import Models

for library in ("starlette", "uvicorn", "python_multipart", "grpc", "grpc_health", "tritonclient"):
    if not has(library):
        pytest.skip("the extra serve is not installed", allow_module_level=True)

CONTROL = DoorOptions(control=True)


def write_bundle(folder: Path, name: str = "mini", scale: str = "1.0/255.0") -> Path:
    """A bundle whose scores depend on `scale`."""
    folder.mkdir(exist_ok=True)
    (folder / "inference.onnx").write_bytes((MINI / "inference.onnx").read_bytes())
    (folder / "inference.yml").write_text(
        f"""\
Global: {{model_name: {name}}}
PreProcess:
  transform_ops:
    - ResizeImage: {{resize_short: 72}}
    - CropImage: {{size: 64}}
    - NormalizeImage: {{scale: {scale}, order: ''}}
    - ToCHWImage:
"""
    )
    return folder


@contextlib.contextmanager
def serving(*bundles: Path, doors: DoorOptions = CONTROL) -> Iterator[tuple[str, str, Models]]:
    """Servers of bundles over HTTP and gRPC, with their addresses."""
    from hgdeploy.serving.server.grpc.service import GrpcServer

    require_engine("onnxruntime")
    models = Models()
    models.load([lambda folder=folder: served(folder) for folder in bundles])
    calls = GrpcServer(models, ("127.0.0.1", 0), 1, doors)
    calls.start()
    with http_of(models, doors) as address:
        yield address, calls.address, models
    calls.stop(0)()
    assert models.close(DEADLINE)


def scores_of(models: Models, data: bytes, version: str | None = None) -> list[float]:
    model = models.find("mini", version)[1]
    return [float(score) for score in model.classifier.answers([model.image(data)])[0].row]


def over_http(address: str, data: bytes, version: str = "") -> Callable[[], list[float]]:
    path = f"/v2/models/mini{version and f'/versions/{version}'}/infer"

    def ask() -> list[float]:
        status, _, answer = asked(address, path, data, Content_Type="image/jpeg")
        assert status == 200, answer
        return answer["outputs"][0]["data"]

    return ask


def over_grpc(address: str, data: bytes, stop: list[object]) -> Callable[[], list[float]]:
    import tritonclient.grpc as client_of

    client = client_of.InferenceServerClient(address)
    stop.append(client)
    image = client_of.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([data], object))

    def ask() -> list[float]:
        answer = client.infer("mini", [image])
        return answer.as_numpy(answer.get_response().outputs[0].name)[0].tolist()

    return ask


def near(found: list[float], *expected: list[float]) -> list[bool]:
    return [np.allclose(found, one, atol=1e-5) for one in expected]


def test_a_model_is_loaded_again_under_load_without_a_dropped_request(tmp_path: Path):
    files = pictures(4)
    bundle = write_bundle(tmp_path / "bundle")
    ended, clients = threading.Event(), []
    found: list[tuple[float, float, int, list[float]]] = []
    failures: list[BaseException] = []
    with serving(bundle) as (address, calls, models):
        before = [scores_of(models, data) for data in files]
        doors = [over_http(address, data) for data in files]
        doors += [over_grpc(calls, data, clients) for data in files]

        def ask(place: int) -> None:
            try:
                while not ended.is_set():
                    start = time.monotonic()
                    scores = doors[place]()
                    found.append((start, time.monotonic(), place % len(files), scores))
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=ask, args=[place]) for place in range(len(doors))]
        for thread in threads:
            thread.start()
        changes = []
        for scale in ("1.0/128.0", "1.0/64.0"):
            time.sleep(0.2)
            write_bundle(bundle, scale=scale)
            start = time.monotonic()
            status, _, answer = asked(address, "/v2/repository/models/mini/load", b"")
            changes.append((start, time.monotonic(), [scores_of(models, data) for data in files]))
            assert (status, answer) == (200, b"")
        time.sleep(0.2)
        ended.set()
        for thread in threads:
            thread.join()
        for client in clients:
            client.close()
    assert not failures
    first, second = changes
    for start, end, place, scores in found:
        fits = near(scores, before[place], first[2][place], second[2][place])
        assert fits.count(True) == 1
        assert not fits[0] or start < first[1]  # the old model for no request after the change
        assert not fits[1] or (end > first[0] and start < second[1])
        assert not fits[2] or end > second[0]
    seen = [near(scores, before[p], first[2][p], second[2][p]) for _, _, p, scores in found]
    assert np.any(seen, axis=0).all()  # each of them answered


def test_a_bundle_that_does_not_load_leaves_the_old_one_serving(tmp_path: Path):
    (data,) = pictures(1)
    bundle = write_bundle(tmp_path / "bundle")
    with serving(bundle) as (address, _, _):
        ask = over_http(address, data)
        before = ask()
        load = "/v2/repository/models/mini/load"
        good = (bundle / "inference.onnx").read_bytes()
        for content, reason in ((b"none", "inference.onnx"), (good, "is now called 'other'")):
            (bundle / "inference.onnx").write_bytes(content)
            if content == good:
                write_bundle(bundle, name="other")
            status, _, answer = asked(address, load, b"{}")
            assert status == 400
            assert answer["error"].startswith("model 'mini' is not loaded again: ")
            assert reason in answer["error"]
            assert "\n" not in answer["error"]
            assert ask() == before
            (entry,) = asked(address, "/v2/repository/index", b"")[2]
            assert (entry["state"], reason in entry["reason"]) == ("READY", True)
        write_bundle(bundle, scale="1.0/128.0")
        assert asked(address, load, b"{}")[0] == 200
        assert ask() != before
        (entry,) = asked(address, "/v2/repository/index", b"")[2]
        assert entry == {"name": "mini", "version": "1", "state": "READY", "reason": ""}


def test_an_unloaded_model_is_refused_until_it_is_loaded(tmp_path: Path):
    import tritonclient.grpc as client_of
    from tritonclient.utils import InferenceServerException

    (data,) = pictures(1)
    with (
        serving(write_bundle(tmp_path / "bundle")) as (address, calls, _),
        client_of.InferenceServerClient(calls) as client,
    ):
        ask = over_http(address, data)
        before = ask()
        client.unload_model("mini")
        path = "/v2/models/mini"
        for end, status in (
            ("/ready", 404),
            ("/versions/1/ready", 503),
            ("", 404),
            ("/stats", 404),
        ):
            assert asked(address, path + end)[0] == status
        status, _, answer = asked(address, f"{path}/infer", data, Content_Type="image/jpeg")
        assert (status, answer) == (404, {"error": "model 'mini' is unloaded"})
        assert not client.is_model_ready("mini")
        assert client.is_server_ready()
        with pytest.raises(InferenceServerException, match="is unloaded") as refused:
            over_grpc(calls, data, [])()
        assert refused.value.status() == "StatusCode.NOT_FOUND"
        (entry,) = client.get_model_repository_index(as_json=True)["models"]
        assert entry == {
            "name": "mini",
            "version": "1",
            "state": "UNAVAILABLE",
            "reason": "unloaded",
        }
        assert asked(address, "/v2/repository/index", b'{"ready": true}')[2] == []
        assert b'model="mini"' not in asked(address, "/metrics")[2]
        client.load_model("mini")
        assert ask() == before
        assert client.is_model_ready("mini", "1")


def test_who_may_not_control_models_is_refused(tmp_path: Path):
    bundle = write_bundle(tmp_path / "bundle")
    load, unload = (f"/v2/repository/models/mini/{verb}" for verb in ("load", "unload"))
    with serving(bundle, doors=DoorOptions()) as (address, _, models):
        for path in (load, unload):
            status, _, answer = asked(address, path, b"")
            assert status == 400
            assert "--model-control explicit" in answer["error"]
        assert asked(address, "/v2/repository/index", b"")[0] == 200
        assert models.ready
    with serving(bundle, doors=DoorOptions(key="k", control=True)) as (address, _, models):
        key = {"Authorization": "Bearer k"}
        assert asked(address, unload, b"")[0] == 401
        status, _, answer = asked(address, unload, b"", Origin="http://evil", **key)
        assert (status, answer["error"]) == (400, "models are not loaded and unloaded by web pages")
        other = {"config": "{}"}
        status, _, answer = asked(address, load, json.dumps({"parameters": other}).encode(), **key)
        assert (status, "parameters.config is not taken" in answer["error"]) == (400, True)
        assert asked(address, load, b"[", **key)[0] == 400
        assert asked(address, load.replace("mini", "nine"), b"", **key)[0] == 404
        assert models.find("mini")[0] == "1"
        assert (
            asked(address, unload, b'{"parameters": {"unload_dependents": false}}', **key)[0] == 200
        )


def test_each_version_answers_for_itself(tmp_path: Path):
    import tritonclient.grpc as client_of

    (data,) = pictures(1)
    bundles = [write_bundle(tmp_path / "a"), write_bundle(tmp_path / "b", scale="1.0/128.0")]
    with (
        serving(*bundles) as (address, calls, models),
        client_of.InferenceServerClient(calls) as client,
    ):
        expected = [scores_of(models, data, version) for version in ("1", "2")]
        assert near(*expected) == [False]
        for version, scores in (("1", expected[0]), ("2", expected[1]), ("", expected[1])):
            assert near(over_http(address, data, version)(), scores) == [True]
            _, _, people = asked(address, f"/predict?version={version or 2}", data)
            assert people["version"] == (version or "2")
        for version in ("1", "2"):
            path = f"/v2/models/mini/versions/{version}"
            assert asked(address, path)[2]["versions"] == ["1", "2"]
            assert asked(address, f"{path}/ready")[0] == 200
            assert asked(address, f"{path}/config")[2]["name"] == "mini"
            (stats,) = asked(address, f"{path}/stats")[2]["model_stats"]
            done = 2 if version == "1" else 4
            assert (stats["version"], stats["inference_stats"]["success"]["count"]) == (
                version,
                done,
            )
        assert len(asked(address, "/v2/models/mini/stats")[2]["model_stats"]) == 2
        for end in ("", "/ready", "/config", "/stats"):
            status, _, answer = asked(address, f"/v2/models/mini/versions/3{end}")
            assert (status, "has no version '3'" in answer["error"]) == (404, True)
        found = client.get_inference_statistics("mini", "1", as_json=True)["model_stats"]
        assert [(one["version"], one["inference_count"]) for one in found] == [("1", "2")]
        listed = [one["version"] for one in asked(address, "/v2/repository/index", b"")[2]]
        assert listed == ["1", "2"]
        assert asked(address, "/predict?version=9", data)[0] == 404


def test_a_model_has_the_name_that_it_is_given(tmp_path: Path):
    bundle = write_bundle(tmp_path / "bundle")
    assert (model := served(bundle, name="flowers")).name == "flowers"
    assert model.close()
    for name in ("", "a/b", "a b"):
        with pytest.raises(ConfigError, match=r"letters, digits, \., _ and -"):
            served(bundle, name=name)
