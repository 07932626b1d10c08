# SPDX-License-Identifier: Apache-2.0
"""A server listens before its models are loaded, and at its end answers what has begun."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from served import asked, pictures, served

from conftest import DEADLINE, has, require_engine
from hgdeploy.errors import BundleError
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.running import run_server

if not all(map(has, ("starlette", "uvicorn", "grpc", "grpc_health", "tritonclient"))):
    pytest.skip("the extra serve is not installed", allow_module_level=True)

import grpc
import tritonclient.grpc as client_of
from grpc_health.v1 import health_pb2, health_pb2_grpc

from hgdeploy.serving.server.grpc.service import GrpcServer
from hgdeploy.serving.server.http.app import Api
from hgdeploy.serving.server.http.body import BodyLimits
from hgdeploy.serving.server.http.listen import HttpServer

LOCAL = ("127.0.0.1", 0)


class Run:
    """A server of one model in this process; `during` runs beside it and ends it with SIGTERM."""

    def __init__(self, load: Callable[[], ServedModel]) -> None:
        require_engine("onnxruntime")
        self.logged: list[dict[str, object]] = []
        doors = DoorOptions(on_access=lambda line: self.logged.append(json.loads(line)))
        self.models, self._load = Models(), load
        app = Api(self.models, BodyLimits(), doors).app()
        self.http, self.grpc = HttpServer(app, LOCAL), GrpcServer(self.models, LOCAL, 1, doors)
        self.address = self.http.address.removeprefix("http://")
        self.ready = threading.Event()

    def serve(self, during: Callable[[], None], drain: float = DEADLINE) -> bool:
        failures: list[BaseException] = []

        def beside() -> None:
            try:
                during()
            except BaseException as error:
                failures.append(error)
            finally:
                assert self.ready.wait(DEADLINE)
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=beside)
        thread.start()
        listeners = [self.http, self.grpc]
        try:
            return run_server(self.models, [self._load], listeners, drain, self.ready.set)
        finally:
            self.ready.set()
            thread.join()
            self.http.close()
            if failures:
                raise failures[0]


def test_it_lives_before_its_models_are_loaded_and_is_ready_after(mini: Path):
    loading = threading.Event()

    def load() -> ServedModel:
        assert loading.wait(DEADLINE)
        return served(mini)

    run = Run(load)

    def health(channel: grpc.Channel) -> object:
        return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()).status

    def during() -> None:
        data, states = pictures(1)[0], health_pb2.HealthCheckResponse
        with (
            grpc.insecure_channel(run.grpc.address) as channel,
            client_of.InferenceServerClient(run.grpc.address) as client,
        ):
            assert asked(run.address, "/v2/health/live")[0] == 200
            assert client.is_server_live()
            assert asked(run.address, "/v2/health/ready")[0] == 503
            assert not client.is_server_ready()
            assert health(channel) == states.NOT_SERVING
            for path in ("/predict", "/v2/models/pphgnet_mini/infer"):
                status, headers, answer = asked(run.address, path, data)
                assert (status, headers["retry-after"]) == (503, "1")
                assert "not ready" in answer["error"]
            assert asked(run.address, "/")[0] == 200
            loading.set()
            assert run.ready.wait(DEADLINE)
            assert asked(run.address, "/v2/health/ready")[0] == 200
            assert client.is_server_ready()
            assert health(channel) == states.SERVING
            assert asked(run.address, "/predict", data)[0] == 200

    assert run.serve(during)


def test_a_model_that_does_not_load_ends_the_server_with_its_error(mini: Path, caplog):
    (mini / "inference.onnx").write_bytes(b"none")
    run = Run(lambda: served(mini))
    with pytest.raises(BundleError, match=r"inference\.onnx"):
        run_server(run.models, [run._load], [run.http, run.grpc], 5, run.ready.set)
    run.http.close()
    assert not caplog.records  # the error is the only line
    assert not run.ready.is_set()
    with pytest.raises(OSError, match="refused"):
        asked(run.address, "/v2/health/live")


def over_http(address: str, data: bytes) -> Callable[[], bool]:
    """A request that returns whether it was answered; it may not have been taken at all."""

    def ask() -> bool:
        try:
            status, _, answer = asked(address, "/predict", data)
        except OSError:
            return False
        assert status == 200, answer
        return True

    return ask


def over_grpc(address: str, data: bytes) -> Callable[[], bool]:
    client = client_of.InferenceServerClient(address)
    image = client_of.InferInput("image", [1], "BYTES")
    image.set_data_from_numpy(np.array([data], object))

    def ask() -> bool:
        try:
            client.infer("pphgnet_mini", [image])
        except client_of.InferenceServerException as error:
            # gRPC's own answers to calls that it had not handed over yet
            if error.status() not in ("StatusCode.UNAVAILABLE", "StatusCode.CANCELLED"):
                raise
            return False
        return True

    return ask


def test_sigterm_under_load_answers_all_that_has_begun(mini: Path):
    run, (data,) = Run(lambda: served(mini)), pictures(1)
    doors = {"POST": over_http(run.address, data), "gRPC": over_grpc(run.grpc.address, data)}
    answers: list[str] = []
    failures: list[BaseException] = []
    ended = threading.Event()

    def ask(method: str) -> None:
        try:
            while not ended.is_set():
                if doors[method]():
                    answers.append(method)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=ask, args=[method]) for method in list(doors) * 3]

    def during() -> None:
        assert run.ready.wait(DEADLINE)
        for thread in threads:
            thread.start()
        while min(map(answers.count, doors)) < 20 and not failures:
            time.sleep(0.01)

    assert run.serve(during)
    ended.set()
    for thread in threads:
        thread.join()
    assert not failures
    assert {one["status"] for one in run.logged} == {200, "OK"}
    assert sorted(str(one["method"]) for one in run.logged) == sorted(answers)


def test_what_takes_too_long_at_the_end_is_given_up(mini: Path):
    entered, leave = threading.Event(), threading.Event()

    def load() -> ServedModel:
        model = served(mini)
        worked = model.scheduler._work

        def slow(images):
            entered.set()
            assert leave.wait(DEADLINE)
            return worked(images)

        model.scheduler._work = slow
        return model

    run, answers = Run(load), []

    def ask() -> None:
        answers.append(asked(run.address, "/predict", pictures(1)[0]))

    asking = threading.Thread(target=ask)

    def during() -> None:
        assert run.ready.wait(DEADLINE)
        asking.start()
        assert entered.wait(DEADLINE)

    start = time.monotonic()
    assert not run.serve(during, drain=0.3)
    assert time.monotonic() - start < DEADLINE / 2
    leave.set()
    asking.join()
    ((status, _, answer),) = answers
    assert (status, answer["error"][:15]) == (503, "the server ends")
