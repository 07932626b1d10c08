# SPDX-License-Identifier: Apache-2.0
"""NVIDIA's Triton on this machine's CPU, as `make triton-env` installs it.

In a test: `with triton_server(REPOSITORY) as triton:`. As a command it serves until SIGTERM or
Ctrl-C, and says where on one line of JSON: `python tests/makers/triton_server.py REPOSITORY
[OPTION...]`, where the options are those of tritonserver.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

REPO = Path(__file__).parent.parent.parent
ENVIRONMENT = REPO / ".cache" / "triton"
# Back ends in Python that stand in for those that the package lacks.
_MORE_BACKENDS = REPO / "tests" / "doubles" / "triton_backends"
_SECONDS_TO_START = 120
_SECONDS_TO_END = 60


@dataclass(frozen=True)
class Triton:
    """A server that runs.

    Attributes:
        http: its HOST:PORT for HTTP.
        grpc: for gRPC.
        metrics: for Prometheus.
        pid: its process.
        log: the file with what it says.
    """

    http: str
    grpc: str
    metrics: str
    pid: int
    log: str


def why_not() -> str | None:
    """Return why there is no server here; None where there is one."""
    return None if (ENVIRONMENT / ".ready").is_file() else "Triton is not here: make triton-env"


@contextlib.contextmanager
def triton_server(repository: Path, *options: str) -> Iterator[Triton]:
    """Start a server on free ports, and end it with the `with` block.

    Args:
        repository: the models.
        options: more of tritonserver's.

    Raises:
        RuntimeError: it is not installed, or does not get ready; the message has what it says.
    """
    reason = why_not()
    if reason is not None:
        raise RuntimeError(reason)
    with tempfile.TemporaryDirectory(prefix="triton-") as folder, contextlib.ExitStack() as at_end:
        log = at_end.enter_context(Path(folder, "log.txt").open("wb"))
        ports = dict(zip(("http", "grpc", "metrics"), _free_ports(3), strict=True))
        process = subprocess.Popen(
            [
                _package() / "bin" / "tritonserver",
                f"--model-repository={repository}",
                f"--backend-directory={_backends(Path(folder, 'backends'))}",
                *(f"--{name}-address=127.0.0.1" for name in ports),
                *(f"--{name}-port={port}" for name, port in ports.items()),
                *options,
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=_variables(),
        )
        at_end.callback(_end, process)
        where = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        triton = Triton(**where, pid=process.pid, log=log.name)
        _wait_until_ready(triton, process)
        yield triton


def _package() -> Path:
    (found,) = ENVIRONMENT.glob("lib/python3.*/site-packages/pytriton/tritonserver")
    return found


def _backends(folder: Path) -> Path:
    """Make the folder of back ends: the package's own, and ours.

    The Python inside reads no PYTHONPATH, but looks in the back end's folder, so HGDeploy is there.
    """
    python = folder / "python"
    shutil.copytree(_package() / "backends" / "python", python)
    version = _package().parts[-4].removeprefix("python")
    shutil.copy(
        _package() / "python_backend_stubs" / version / "triton_python_backend_stub", python
    )
    (python / "hgdeploy").symlink_to(REPO / "deploy" / "python" / "hgdeploy")
    for one in _MORE_BACKENDS.iterdir():
        (folder / one.name).symlink_to(one)
    return folder


def _variables() -> dict[str, str]:
    """Return the variables with which the back end's Python is that of the environment."""
    ask = "import sysconfig; print(sysconfig.get_config_var('LIBDIR'))"
    python = ENVIRONMENT / "bin" / "python"
    found = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=True)
    libraries = (found.stdout.strip(), _package().parent.parent / "nvidia_pytriton.libs")
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONHOME"},
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
    }


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _wait_until_ready(triton: Triton, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + _SECONDS_TO_START
    while process.poll() is None and time.monotonic() < until:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://{triton.http}/v2/health/ready", timeout=10).close()
            return
        time.sleep(0.05)
    lines = Path(triton.log).read_text(encoding="utf-8", errors="replace").splitlines()
    said = "\n".join(line[:2000] for line in lines if line and line[0] not in "+|")
    raise RuntimeError(f"Triton does not get ready on {triton.http}; it says:\n{said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _serve(repository: str, *options: str) -> None:
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: sys.exit(0))
    with triton_server(Path(repository), *options) as triton:
        print(json.dumps(asdict(triton)), flush=True)
        signal.pause()


if __name__ == "__main__":
    _serve(*sys.argv[1:])
