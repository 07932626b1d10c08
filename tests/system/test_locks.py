# SPDX-License-Identifier: Apache-2.0
"""Locks: one holder at a time, free again however it ends, and said where there are none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hgdeploy.errors import DownloadError, OutputError
from hgdeploy.system import locks
from hgdeploy.system.locks import claim, wait_for

BUSY = DownloadError("busy; wait for it")


@pytest.fixture(params=["file", "folder"])
def path(request, tmp_path) -> Path:
    """What is locked."""
    place = tmp_path / "there" / "x"
    (place if request.param == "folder" else place.parent).mkdir(parents=True)
    return place


@pytest.fixture
def _system_locks() -> None:
    pytest.importorskip("fcntl", reason="this system has no file locks")


def left_over(path: Path) -> list[Path]:
    return [file for file in path.parent.rglob("*") if file.name.startswith(".")]


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until its input ends or it is killed."""
    script = (
        "import sys; from pathlib import Path; from hgdeploy.system.locks import wait_for\n"
        "with wait_for(Path(sys.argv[1]), ''): print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process


@pytest.mark.usefixtures("_system_locks")
def test_a_second_claim_is_refused_with_the_caller_s_error(path):
    with holder(path), pytest.raises(DownloadError, match="busy; wait for it"):
        claim(path, BUSY)
    with claim(path, BUSY), pytest.raises(DownloadError, match="busy"):
        claim(path, BUSY)
    assert not left_over(path)


@pytest.mark.usefixtures("_system_locks")
def test_a_claim_whose_holder_was_killed_is_free(path):
    with holder(path) as process:
        process.kill()
        process.wait()
        with claim(path, BUSY):
            pass
    assert not left_over(path)


@pytest.mark.usefixtures("_system_locks")
@pytest.mark.parametrize("end", ["killed", "released"])
def test_waiting_is_said_once_and_ends_with_the_holder(path, end):
    said: list[str] = []
    with holder(path) as process:

        def on_progress(line: str) -> None:
            said.append(line)
            if end == "killed":
                process.kill()
            else:
                process.stdin.close()

        with wait_for(path, "waiting for it", on_progress), pytest.raises(DownloadError):
            claim(path, BUSY)
    assert said == ["waiting for it"]
    assert not left_over(path)


@pytest.mark.usefixtures("_system_locks")
def test_of_many_that_wait_one_works_at_a_time(path, tmp_path):
    log = tmp_path / "log"
    script = (
        "import sys; from pathlib import Path; from hgdeploy.system.locks import wait_for\n"
        "for _ in range(50):\n"
        "    with wait_for(Path(sys.argv[1]), ''), open(sys.argv[2], 'a') as log:\n"
        "        log.write('in\\n'); log.flush(); log.write('out\\n')"
    )
    command = [sys.executable, "-c", script, str(path), str(log)]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(timeout=120) for process in processes] == [0] * 4
    assert log.read_text().split() == ["in", "out"] * 200
    assert not left_over(path)


@pytest.mark.usefixtures("_system_locks")
def test_nothing_is_said_where_nobody_else_writes(path):
    said: list[str] = []
    for take in (claim, wait_for):
        lock = take(path, BUSY if take is claim else "waiting", said.append)
        lock.release()
        lock.release()  # does nothing
    assert said == []


@pytest.mark.usefixtures("_system_locks")
@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_said_and_does_not_stop_the_work(path, code, monkeypatch):
    def no_locks(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    said: list[str] = []
    with claim(path, BUSY, said.append), wait_for(path, "waiting", said.append):
        pass
    assert len(said) == 2
    reason = os.strerror(code)
    assert said[0] == (
        f"{path} cannot be locked ({reason}): let no other process write it meanwhile"
    )
    assert not left_over(path)


def test_a_place_that_cannot_be_written_is_an_output_error(tmp_path):
    pytest.importorskip("fcntl", reason="without locks nothing is written")
    (tmp_path / "taken").write_text("a file")
    for path in (tmp_path / "none" / "x", tmp_path / "taken" / "x"):
        with pytest.raises(OutputError, match=r"x cannot be written: (No|Not) "):
            claim(path, BUSY)
