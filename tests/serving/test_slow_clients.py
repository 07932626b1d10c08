# SPDX-License-Identifier: Apache-2.0
"""Clients that are slow on purpose, with the head, the body or the answer, hold no server up."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from served import asked, http_of, models_of, pictures, unlabelled_bundle

from conftest import DEADLINE, has, require_engine
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.models import Models

if not all(map(has, ("starlette", "uvicorn", "grpc", "grpc_health", "tritonclient"))):
    pytest.skip("the extra serve is not installed", allow_module_level=True)

import grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from hgdeploy.serving.server.grpc import service
from hgdeploy.serving.server.grpc.service import GrpcServer

SHORT = 0.3
CALL = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    require_engine("onnxruntime")
    bundle = unlabelled_bundle(tmp_path_factory.mktemp("mini") / "mini")
    with models_of(bundle) as found:
        yield found


@pytest.fixture
def http(models: Models, monkeypatch) -> Iterator[tuple[str, int]]:
    for name in ("_HEAD_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(f"hgdeploy.serving.server.http.listen.{name}", SHORT)
    with http_of(models, seconds=SHORT) as address:
        host, port = address.split(":")
        yield host, int(port)
        assert asked(address, "/predict", pictures(1)[0])[0] == 200  # it answers others


@pytest.fixture
def calls(models: Models, monkeypatch) -> Iterator[str]:
    monkeypatch.setattr("hgdeploy.serving.server.grpc.watch._TICK_SECONDS", 0.05)
    monkeypatch.setattr("hgdeploy.serving.server.grpc.service._MESSAGE_SECONDS", SHORT)
    for name in ("_IDLE_SECONDS", "_ANSWER_SECONDS"):
        monkeypatch.setattr(f"hgdeploy.serving.server.grpc.stream.{name}", SHORT)
    monkeypatch.setattr(service, "_MOST_CALLS", 4)
    server = GrpcServer(models, ("127.0.0.1", 0), 1, DoorOptions())
    server.start()
    yield server.address
    server.stop(0)()


def wait_until_closed(connection: socket.socket, slowly: bytes) -> None:
    """Send a letter now and then, and read nothing, until the server has had enough."""
    poll = select.poll()
    poll.register(connection, select.POLLHUP | select.POLLERR)
    end = time.monotonic() + DEADLINE
    while not poll.poll(50):
        assert time.monotonic() < end, "the server still waits"
        try:
            connection.send(slowly, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except ConnectionError:
            return


def test_a_body_that_no_address_reads_is_not_waited_for(http: tuple[str, int]):
    with socket.create_connection(http, timeout=DEADLINE) as connection:
        connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
        assert b" 404 " in connection.recv(65536)
        wait_until_closed(connection, b"x")


def test_a_body_that_trickles_is_not_waited_for(http: tuple[str, int]):
    with socket.create_connection(http, timeout=DEADLINE) as connection:
        connection.sendall(
            b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        wait_until_closed(connection, b"1\r\nx\r\n")


def test_answers_that_nobody_reads_are_not_kept(http: tuple[str, int]):
    page = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(DEADLINE)
        connection.connect(http)
        connection.sendall(page * 20)
        wait_until_closed(connection, page * 20)


def wait_for_room(channel: grpc.Channel) -> None:
    """Ask until a call is answered; until then there is no room."""
    ready = service_pb2_grpc.GRPCInferenceServiceStub(channel).ServerReady
    end = time.monotonic() + DEADLINE
    while True:
        try:
            assert ready(pb.ServerReadyRequest(), timeout=DEADLINE).ready
            return
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            assert time.monotonic() < end, "there is never room again"
            time.sleep(0.02)


def test_calls_that_bring_no_message_make_room_again(calls: str):
    ended = threading.Event()

    def nothing() -> Iterator[bytes]:
        ended.wait(DEADLINE)
        yield from ()

    with grpc.insecure_channel(calls) as channel:
        silent = [channel.stream_unary(CALL).future(nothing()) for _ in range(4)]
        wait_for_room(channel)
        ends = {one.code() for one in silent}
        assert grpc.StatusCode.CANCELLED in ends
        assert ends <= {grpc.StatusCode.CANCELLED, grpc.StatusCode.RESOURCE_EXHAUSTED}
        ended.set()


@pytest.mark.parametrize("large", [0, 200_000], ids=["brings nothing", "reads nothing"])
def test_streams_that_stand_still_make_room_again(calls: str, large: int):
    request = pb.ModelInferRequest(model_name="none", id="x" * large)
    ended = threading.Event()

    def requests() -> Iterator[object]:
        yield from [request] * (60 if large else 0)
        ended.wait(DEADLINE)

    with grpc.insecure_channel(calls) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        streams = [stub.ModelStreamInfer(requests()) for _ in range(4)]
        wait_for_room(channel)
        ended.set()
        for stream in streams:
            stream.cancel()
