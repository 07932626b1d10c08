# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the server: it counts every answer, and no pause of a server hides from it."""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import REPO, require_engine, run_command

sys.path.insert(0, str(REPO / "benchmarks"))
from serving_load import Load

ANSWER = b"HTTP/1.1 %d OK\r\nContent-Length: 2\r\n\r\n%s"
REQUESTS = [b"GET /%d HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % place for place in range(5)]


@contextlib.contextmanager
def server(answer: Callable[[bytes], bytes | None], once: bool) -> Iterator[int]:
    """A server that sends what `answer` makes of a request's head; None closes the connection.

    With `once`, every connection is closed behind its first answer.
    """
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(1000):
                found = answer(data)
                if found is None:
                    return
                connection.sendall(found)
                if once:
                    return

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@contextlib.contextmanager
def load_of(
    answer: Callable[[bytes], bytes | None], most: int = 512, *, once: bool = False
) -> Iterator[Load]:
    with server(answer, once) as port:
        load = Load(port, REQUESTS, lambda place, _, body: body == b"/%d" % place, most)
        try:
            yield load
        finally:
            load.close()


def path_of(request: bytes) -> bytes:
    return request.split()[1]


def test_every_answer_is_counted_as_right_wrong_refused_or_lost():
    def answer(request: bytes) -> bytes | None:
        kinds = {b"/1": ANSWER % (200, b"/0"), b"/2": ANSWER % (503, b"no"), b"/3": None}
        return kinds.get(path_of(request), ANSWER % (200, path_of(request)))

    with load_of(answer) as load:
        found = load.closed(3, 30.0, most_requests=50)
    counted = (found.right, found.wrong, found.refused, found.lost)
    assert counted == (20, 10, 10, 10)
    assert found.sent == 50
    assert len(found.latencies_ms) == 20


@pytest.mark.parametrize("most", [1, 512], ids=["one connection", "many connections"])
def test_a_pause_of_the_server_shows_in_the_latency_of_all_requests_due_meanwhile(most: int):
    gate, pause = threading.Lock(), 0.5
    until = time.monotonic() + pause

    def answer(request: bytes) -> bytes:
        with gate:
            time.sleep(max(0.0, until - time.monotonic()))
        return ANSWER % (200, path_of(request))

    with load_of(answer, most) as load:
        found = load.open(rate=100, seconds=1.0)
    assert found.sent == found.right == len(found.latencies_ms) > 50
    # Had each waited for the one before to be sent, a single one would have been slow.
    assert sum(ms > 1000 * pause / 4 for ms in found.latencies_ms) > 15
    assert max(found.latencies_ms) > 800 * pause


def test_connections_that_the_server_closes_while_they_are_idle_lose_nothing():
    with load_of(lambda request: ANSWER % (200, path_of(request)), once=True) as load:
        for _ in range(2):
            found = load.closed(4, 30.0, most_requests=4)
            assert (found.right, found.lost) == (4, 0)
        found = load.open(rate=4, seconds=1.5)
        assert found.right == found.sent > 1


def test_a_short_run_compares_every_answer_and_saves_what_it_measured(mini: Path, tmp_path: Path):
    require_engine("onnxruntime")
    for library in ("starlette", "uvicorn", "httptools", "python_multipart"):
        pytest.importorskip(library, reason="the extra serve is not installed")
    output = tmp_path / "serving.json"
    script = REPO / "benchmarks" / "serving.py"
    flags = ("--engine", "onnxruntime:fp32", "--quick", "--output", output)
    done = run_command(script, "--bundle", mini, *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(output.read_text())
    (model,) = found["models"]
    runs = [
        run for name, case in model["cases"].items() if name != "folder" for run in case["runs"]
    ]
    assert len(runs) == 4
    assert all(run["right"] and not run["wrong"] and not run["lost"] for run in runs)
    assert model["poison"]["right"] == model["poison"]["sent"] > 0
    assert found["environment"]["cpus"] > 0
    assert "| pphgnet_mini, onnxruntime fp32 | open 300 % |" in done.stdout
    assert "round 1 of 1" in done.stderr


def test_a_bundle_that_cannot_be_served_is_one_line(tmp_path: Path):
    done = run_command(REPO / "benchmarks" / "serving.py", "--bundle", tmp_path, "--quick")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr.splitlines()[-1]


@pytest.mark.timeout(240)
def test_one_server_for_each_batch_size_answers_rightly(mini: Path, tmp_path: Path):
    """Servers with single images and with batches give the same best classes."""
    require_engine("onnxruntime")
    output = tmp_path / "batches.json"
    flags = ("--run", "onnxruntime", "--rounds", "1", "--seconds", "0.1", "--clients", "4")
    done = run_command(
        REPO / "benchmarks" / "serving_batches.py", "--bundle", mini, *flags, "--output", output
    )
    assert done.returncode == 0, done.stderr
    cases = json.loads(output.read_text())["cases"]
    assert set(cases) == {"batch 1, closed 4", "batch 8, closed 4"}
    for case in cases.values():
        (run,) = case["runs"]
        assert run["right"] == run["sent"] > 0
