# SPDX-License-Identifier: Apache-2.0
"""What `serving.py` works with: pictures, requests, right answers, and servers that run."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.system.machine import available_cpus, child_processes
from hgdeploy.triton import TritonOptions, triton_repository

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 120.0
_END_SECONDS = 60.0
TRITON_RUNS = "onnxruntime:fp32"
"""What Triton's Python back end computes with."""
_STATUS = {True: 200, False: 400}


def request_of(path: str, body: bytes, **headers: str) -> bytes:
    """Return a whole request of HTTP/1.1."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def protocol_request(http: str, model: str, image: bytes, classes: int) -> bytes:
    """Return a request of the Open Inference Protocol for an image file's best classes.

    Args:
        http: HOST:PORT of the server, which says what the model's tensors are called.
        model: its name.
        image: the file.
        classes: how many.
    """
    with urllib.request.urlopen(f"http://{http}/v2/models/{model}", timeout=10) as answer:
        described = json.load(answer)
    taken = next(one for one in described["inputs"] if one["datatype"] == "BYTES")
    given = next(one for one in described["outputs"] if one["datatype"] == "FP32")
    data = len(image).to_bytes(4, "little") + image
    document = {
        "inputs": [
            {
                "name": taken["name"],
                "datatype": "BYTES",
                "shape": [1] * len(taken["shape"]),
                "parameters": {"binary_data_size": len(data)},
            }
        ],
        "outputs": [{"name": given["name"], "parameters": {"classification": classes}}],
    }
    head = json.dumps(document).encode()
    path = f"/v2/models/{model}/infer"
    return request_of(path, head + data, Inference_Header_Content_Length=str(len(head)))


class Expected:
    """The answers that are right, as the folder's process gave them for the same files.

    Args:
        answers: for each request, what `predict` found in its image.
    """

    def __init__(self, answers: Sequence[dict[str, Any]]) -> None:
        self._answers = answers
        self._known: set[tuple[int, bytes]] = set()

    def of_predict(self, place: int, status: int, body: bytes) -> bool:
        """Return whether an answer of `/predict` is right."""
        part = body[body.find(b'"predictions":') : body.rfind(b',"ms":')]
        return self._is(place, part, lambda: self._is_prediction(place, status, body))

    def of_protocol(self, place: int, status: int, body: bytes) -> bool:
        """Return whether an answer of the protocol has the right classes, in their order."""
        return self._is(place, body, lambda: self._is_classes(place, status, body))

    def _is(self, place: int, part: bytes, compare: Callable[[], bool]) -> bool:
        """Compare an answer; the same bytes need no second look, which would cost CPU time."""
        if (place, part) in self._known:
            return True
        right = compare()
        if right:
            self._known.add((place, part))
        return right

    def _is_prediction(self, place: int, status: int, body: bytes) -> bool:
        wanted = self._answers[place]
        try:
            (found,) = json.loads(body)["predictions"]
        except (ValueError, KeyError):
            return False
        if status != _STATUS[wanted["error"] is None]:
            return False
        if wanted["error"] is not None:
            return bool(found.get("error") == wanted["error"])
        ids = [one["id"] for one in found["classes"]]
        scores = [one["score"] for one in found["classes"]]
        return bool(ids == wanted["ids"] and scores == wanted["scores"])

    def _is_classes(self, place: int, status: int, body: bytes) -> bool:
        try:
            (output,) = json.loads(body)["outputs"]
            ids = [int(text.split(":")[1]) for text in output["data"]]
        except (ValueError, KeyError, IndexError):
            return False
        return bool(status == 200 and ids == self._answers[place]["ids"])


class Server:
    """A server that runs; it ends with the `with` block of whoever started it.

    Attributes:
        pid: its process.
        http: its HOST:PORT.
    """

    def __init__(self, process: subprocess.Popen[Any], http: str) -> None:
        self._process, self.pid, self.http = process, process.pid, http

    @property
    def port(self) -> int:
        """Where it listens on this machine."""
        return int(self.http.rpartition(":")[2])

    def cpu_seconds(self) -> float:
        """Return the CPU time that it and its children have taken."""
        ticks = os.sysconf("SC_CLK_TCK")
        return sum(map(_ticks, (self.pid, *child_processes(self.pid)))) / ticks

    def memory_mb(self) -> float:
        """Return what it and its children hold in memory (RSS), in MiB."""
        return sum(map(_rss, (self.pid, *child_processes(self.pid)))) / 1024


def _ticks(pid: int) -> int:
    try:
        parts = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0
    return int(parts[11]) + int(parts[12])


def _rss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)


@contextlib.contextmanager
def hgdeploy_server(bundle: Path, *flags: str) -> Iterator[Server]:
    """Start `hgdeploy serve` on a free port."""
    command = [sys.executable, "-m", "hgdeploy", "serve", str(bundle), "--http", "127.0.0.1:0"]
    path = os.pathsep.join(filter(None, [str(ROOT / "deploy/python"), os.getenv("PYTHONPATH")]))
    with _started([*command, *flags], {"PYTHONPATH": path}) as (process, log):
        said = _said_by(process, log, "ready at http://")
        yield Server(process, said.rpartition("ready at http://")[2].split()[0])


def write_triton(bundle: Path, repository: Path, instances: int) -> str:
    """Write a Triton repository with the model of image files; return the model's name.

    Args:
        bundle: the model's folder.
        repository: where.
        instances: its processes, which share the CPUs.
    """
    options = TritonOptions(
        backend="python",
        device="cpu",
        instances=instances,
        threads=max(1, available_cpus() // instances),
    )
    return triton_repository(open_bundle(bundle), repository, options, lambda _: None).name


def write_triton_by_hand(bundle: Path, repository: Path) -> str:
    """Write a Triton repository with `serving_by_hand.py` as the model; return its name."""
    name = write_triton(bundle, repository, 1)
    folder = repository / name / "1"
    shutil.copy(ROOT / "benchmarks" / "serving_by_hand.py", folder / "model.py")
    (folder / "bundle.txt").write_text(str(bundle.resolve()), encoding="utf-8")
    return name


@contextlib.contextmanager
def triton(repository: Path) -> Iterator[Server]:
    """Start NVIDIA's Triton (`make triton-env`) on a repository."""
    command = [sys.executable, str(ROOT / "tests/makers/triton_server.py"), str(repository)]
    with _started(command, {}) as (process, log):
        described = json.loads(_said_by(process, log, '{"http":'))
        server = Server(process, described["http"])
        server.pid = described["pid"]
        yield server


@contextlib.contextmanager
def _started(
    command: list[str], more: dict[str, str]
) -> Iterator[tuple[subprocess.Popen[Any], Path]]:
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log.txt")
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **more},
            )
        try:
            yield process, log
        finally:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _said_by(process: subprocess.Popen[Any], log: Path, words: str) -> str:
    """Wait for a line with these words, and return it."""
    until = time.monotonic() + _START_SECONDS
    while True:
        ended = process.poll() is not None or time.monotonic() > until
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        for line in lines:
            if words in line and line.endswith("\n"):
                return line.strip()
        if ended:
            raise SystemExit(f"a server does not start: {''.join(lines[-3:]).strip()}")
        time.sleep(0.05)


def pictures(folder: Path, distinct: int, count: int) -> list[Path]:
    """Make `count` JPEG files of 500x375; those after the first `distinct` are links to them."""
    import cv2

    folder.mkdir()
    sources = [cv2.imread(str(one)) for one in sorted((ROOT / "deploy/images").glob("*.jpg"))]
    draw = np.random.default_rng(0)
    paths = []
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        paths.append(path)
        if number >= distinct:
            os.link(paths[number % distinct], path)
            continue
        whole: Any = sources[number % len(sources)]
        height, width = (int(side * draw.uniform(0.6, 1.0)) for side in whole.shape[:2])
        top = int(draw.integers(whole.shape[0] - height + 1))
        left = int(draw.integers(whole.shape[1] - width + 1))
        part = cv2.resize(whole[top : top + height, left : left + width], (500, 375))
        cv2.imwrite(str(path), part, [cv2.IMWRITE_JPEG_QUALITY, 90])
    return paths


def poison(jpeg: bytes) -> list[bytes]:
    """Return files that are no image, or not one to decode."""
    bomb = b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (100_000).to_bytes(4, "big") * 2
    bomb += b"\x08\x02\0\0\0" + b"\xff" * 40
    sizes = jpeg.find(b"\xff\xc0") + 5
    return [
        jpeg[: len(jpeg) // 2],
        jpeg[:100],
        b"\xff\xd8\xff" + bytes(range(256)) * 100,
        jpeg[:sizes] + b"\xff\xff\xff\xff" + jpeg[sizes + 4 :],
        bomb,
        b"GIF89a" + b"\xff\xff\xff\xff" + bytes(500),
        b"<html>not an image</html>" * 1000,
        b"\0" * 50_000,
    ]
