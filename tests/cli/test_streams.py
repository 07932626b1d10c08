# SPDX-License-Identifier: Apache-2.0
"""Streams that are closed, full or read by nobody, and SIGTERM: rows are kept, the code is true."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from conftest import DEADLINE, HGDEPLOY, IMAGES, children, wait_for_a_row
from hgdeploy.cli.progress import told_if_slow
from hgdeploy.errors import EXIT_TERMINATED, OutputError

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the shell and signals of POSIX")
PHOTOS = sorted(IMAGES.glob("*.jpg"))
BAD = 5  # images that fail, each with a line on stderr


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """More lines of results and of warnings than a pipe whose reader has gone would take."""
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:02}.jpg").symlink_to(PHOTOS[i % len(PHOTOS)])
    for i in range(BAD):
        (folder / f"{i:02}.jpg").unlink()
        (folder / f"{i:02}.jpg").write_bytes(b"x")
    return folder


def shell(tmp_path: Path, mini: Path, images: Path, script: str) -> list[str]:
    """Run a script in which `predict` is the command; return its output and the code, as lines."""
    command = shlex.join([*HGDEPLOY, "predict", str(mini), str(images), "--engine", "onnxruntime"])
    result = subprocess.run(
        ["bash", "-c", script.replace("predict", command)],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert "Traceback" not in result.stdout + result.stderr
    return result.stdout.splitlines() + result.stderr.splitlines()


@pytest.mark.parametrize(
    "script",
    [
        "predict --output x.jsonl 2>&1 | head -n 1 >/dev/null; echo ${PIPESTATUS[0]}",
        "predict --output x.jsonl >&- 2>&- <&-; echo $?",
        "predict --output x.jsonl 2>/dev/full; echo $?",
    ],
)
def test_without_a_reader_of_stderr_the_run_goes_on(tmp_path, mini, images, script):
    assert shell(tmp_path, mini, images, script) == ["3"]
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 40


@pytest.mark.parametrize(
    ("stdout", "reason"),
    [(">&-", "Bad file descriptor"), (">/dev/full", "No space left on device")],
)
def test_a_stdout_that_takes_nothing_is_an_error(tmp_path, mini, images, stdout, reason):
    lines = shell(tmp_path, mini, images, f"predict {stdout}; echo $? >&2")
    assert lines[-1] == str(OutputError.exit_code)
    assert lines[-2].startswith(f"hgdeploy: error: stdout cannot be written: {reason}; ")


def test_a_reader_that_has_enough_is_no_error_where_nothing_else_is_wanted(tmp_path, mini, images):
    lines = shell(tmp_path, mini, images, "predict 2>/dev/null | head -n 1; echo ${PIPESTATUS[0]}")
    assert len(lines) == 2
    assert lines[-1] == "0"
    script = "predict --failures f.txt 2>x | head -n 1 >/dev/null; echo ${PIPESTATUS[0]}; cat x"
    lines = shell(tmp_path, mini, images, script)
    assert lines[0] == str(OutputError.exit_code)
    assert lines[-1].startswith("hgdeploy: error: nobody reads stdout any more")
    assert not (tmp_path / "f.txt").exists()


@pytest.mark.parametrize("stream", ["hgdeploy models | true", "hgdeploy models >/dev/full"])
def test_other_verbs_end_without_a_traceback_too(tmp_path, mini, images, stream):
    stream = stream.replace("hgdeploy", shlex.join(HGDEPLOY))
    lines = shell(tmp_path, mini, images, f"{stream}; echo ${{PIPESTATUS[0]}}")
    assert lines[0] in ("0", str(OutputError.exit_code))


def test_what_any_verb_prints_is_written_or_its_exit_code_says_so(tmp_path, mini, images):
    """argparse says nothing where --help cannot be written."""
    hgdeploy, unbuffered = shlex.join(HGDEPLOY), "PYTHONUNBUFFERED=1"
    script = f"""\
        PYTHONUNBUFFERED= {hgdeploy} --help >/dev/full; echo $? >&2
        {unbuffered} {hgdeploy} validate --help >/dev/full; echo $? >&2
        {unbuffered} {hgdeploy} models >/dev/full; echo $? >&2
        {hgdeploy} models >&- 2>&- <&-; echo $? >&2
    """
    lines = shell(tmp_path, mini, images, script)
    codes = [line for line in lines if not line.startswith("hgdeploy: ")]
    assert codes == [str(OutputError.exit_code)] * 4
    assert sum("stdout cannot be written: No space" in line for line in lines) == 3


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="children are found in /proc")
def test_sigterm_ends_a_run_as_ctrl_c_does(tmp_path, mini):
    """systemd signals every process, and Paddle in one would print a traceback."""
    pytest.importorskip("paddle")
    folder, output = tmp_path / "many", tmp_path / "rows.jsonl"
    folder.mkdir()
    for i in range(4000):
        (folder / f"{i:04}.jpg").symlink_to(PHOTOS[0])
    process = subprocess.Popen(
        [*HGDEPLOY, "predict", mini, folder, "--output", output, "--threads", "2"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for_a_row(process, output)
    others = children("hgdeploy.engines.process_child", process.pid)
    assert others
    for pid in (*others, process.pid):
        os.kill(pid, signal.SIGTERM)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == EXIT_TERMINATED, stderr
    rows = len(output.read_text().splitlines())
    assert 0 < rows < 4000
    assert stderr.splitlines()[-1].startswith(f"hgdeploy: interrupted: {rows} of 4000 images are")
    assert "Traceback" not in stderr
    assert "Termination signal" not in stderr


def test_a_process_that_ignores_sigterm_goes_on_ignoring_it():
    script = (
        "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "from hgdeploy.cli.terminal import run_command; "
        "run_command(lambda: lambda out: (os.kill(os.getpid(), signal.SIGTERM), 0)[1]); print('on')"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE, check=True
    )
    assert result.stdout == "on\n"


@pytest.mark.parametrize(("seconds", "told"), [(0.01, True), (60.0, False)])
def test_what_takes_more_than_a_moment_is_told(monkeypatch, capsys, seconds, told):
    monkeypatch.setattr("hgdeploy.cli.progress._MOMENT_SECONDS", seconds)
    with told_if_slow("loading x"):
        time.sleep(0.5 if told else 0)
    assert (capsys.readouterr().err == "hgdeploy: loading x\n") == told
