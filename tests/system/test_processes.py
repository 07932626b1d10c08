# SPDX-License-Identifier: Apache-2.0
"""Child processes: what is asked is answered, however they die, hang or flood; none is left."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import DEADLINE, DOUBLES, IMAGES, MINI, REPO, has, require_engine
from hgdeploy.benchmark import Case
from hgdeploy.benchmark.worker.process import CaseProcess
from hgdeploy.convert.onnx.paddle2onnx_process import run_paddle2onnx
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError, TensorError
from hgdeploy.images.isolated_reader import IsolatedReader
from hgdeploy.system.machine import out_of_memory_kills
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess, ChildTimeoutError
from hgdeploy.transforms.operators_config import imagenet_ops

linux_only = pytest.mark.skipif(not Path("/proc").exists(), reason="it looks into /proc")


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    with ChildProcess("odd_child", quiet=True) as child:
        yield child


def echo(child: ChildProcess, number: int) -> int:
    return child.ask(Message({"do": "echo", "values": number}), DEADLINE).values["values"]


def running(pids: list[int]) -> list[int]:
    """Those that run; what nobody has waited for yet has ended all the same."""
    found = []
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        if stat.rpartition(")")[2].split()[0] != "Z":
            found.append(pid)
    return found


def all_end(pids: list[int], seconds: float = 45) -> bool:  # a child rests for 60 s
    end = time.monotonic() + seconds
    while running(pids) and time.monotonic() < end:
        time.sleep(0.02)
    return not running(pids)


# ---------------------------------------------------------------------------- questions, answers


def test_values_and_arrays_come_back_as_they_were_sent(child):
    arrays = {
        "empty": np.zeros((0, 3), np.float32),
        "turned": np.arange(12, dtype=np.int64).reshape(3, 4).T,
        "large": np.random.default_rng(0).random((300, 1000)),
    }
    values = {"a line\n": [1, 0.1, None, "\udcff é"]}
    answer = child.ask(Message({"do": "echo", "values": values}, arrays))
    assert answer.values["values"] == values
    assert answer.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(answer.arrays[name], array, strict=True)


def test_an_error_of_ours_is_the_same_one_here_and_the_child_goes_on(child):
    with pytest.raises(TensorError, match=r"^it does not fit$"):
        child.ask(Message({"do": "fail", "ours": True}))
    with pytest.raises(EngineError, match=r"^KeyError: 'a key'$"):
        child.ask(Message({"do": "fail", "ours": False}))
    assert child.alive
    assert echo(child, 1) == 1


def test_what_is_printed_stands_in_no_answers_way_and_stdin_is_empty(child):
    assert child.ask(Message({"do": "say"})).values == {"stdin": ""}
    child.close()
    assert child.printed == "from Python\nfrom native code\n"


def test_lines_of_progress_come_before_the_answer(child):
    lines: list[str] = []
    answer = child.ask(Message({"do": "report", "lines": 3}), DEADLINE, lines.append)
    assert answer.values == {"done": True}
    assert lines == ["0 is done", "1 is done", "2 is done"]
    assert child.ask(Message({"do": "report", "lines": 2})).values == {"done": True}
    assert echo(child, 1) == 1


def test_what_is_printed_is_passed_on_unless_it_is_to_be_quiet(capfd):
    for quiet in (False, True):
        with ChildProcess("odd_child", quiet=quiet) as child:
            child.ask(Message({"do": "say"}))
        assert capfd.readouterr() == ("", "" if quiet else "from Python\nfrom native code\n")


# ----------------------------------------------------------------------------------- how they end

WHO_KILLED = (
    "out of memory?"
    if out_of_memory_kills() is None
    else "by another process; memory was not short"
)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("SIGKILL", f"was ended by SIGKILL ({WHO_KILLED}); it said: these are my last words"),
        ("SIGSEGV", "was ended by SIGSEGV; it said: these are my last words"),
    ],
)
def test_a_child_that_is_killed_is_told_by_the_signal_and_its_last_words(child, name, told):
    with pytest.raises(ChildError) as error:
        child.ask(Message({"do": "die", "signal": int(signal.Signals[name])}))
    assert (str(error.value), error.value.how) == (told, name)
    assert not child.alive
    with pytest.raises(ChildError, match=name):
        echo(child, 1)


def test_a_child_that_leaves_is_told_by_its_exit_code():
    for _ in range(5):  # it shuts Python down while its parent sees the end of its answers
        with ChildProcess("odd_child", quiet=True) as child, pytest.raises(ChildError) as error:
            child.ask(Message({"do": "leave"}))
        assert str(error.value) == "ended with exit code 1; it said: I have had enough"
        assert error.value.how == "exit code 1"


def test_a_module_that_is_not_there_is_told():
    with ChildProcess("no_such_module", quiet=True) as child, pytest.raises(ChildError) as error:
        echo(child, 1)
    assert "it said: ImportError: No module named no_such_module" in str(error.value)


def test_a_python_that_does_not_start_is_an_error_of_ours(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(EngineError, match=r"^cannot start a process for odd_child: .*No such file"):
        ChildProcess("odd_child")


def test_a_child_that_hangs_in_native_code_is_ended_in_time(child):
    start = time.monotonic()
    with pytest.raises(ChildTimeoutError, match=r"^took longer than 0\.5 s$"):
        child.ask(Message({"do": "hang"}), 0.5)
    assert time.monotonic() - start < 20
    assert not child.alive
    assert all_end([child.pid])


def test_a_child_may_print_without_end(child):
    child.ask(Message({"do": "flood"}), DEADLINE)
    with pytest.raises(ChildError, match=r"it said: I have had enough$"):
        child.ask(Message({"do": "leave"}))
    assert len(child.printed) <= 1 << 16
    assert "the end\nI have had enough\n" in child.printed


def interrupt_soon() -> None:
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGINT]).start()


# A signal to a worker of pytest-xdist can end the worker.
@pytest.mark.alone
@pytest.mark.skipif(os.name == "nt", reason="the signal ends the process there")
@pytest.mark.usefixtures("interruptible")
def test_an_answer_that_was_not_waited_for_is_never_that_to_the_next_request(child):
    echo(child, 1)
    interrupt_soon()
    with pytest.raises(KeyboardInterrupt):
        child.ask(Message({"do": "rest", "seconds": 1}))
    assert not child.alive
    assert all_end([child.pid])
    with pytest.raises(ChildError):
        echo(child, 2)


@pytest.mark.skipif(os.name == "nt", reason="the signal ends the process there")
def test_an_inference_that_was_interrupted_is_never_the_next_ones_answer(golden, monkeypatch):
    require_engine("paddle")
    first, second = golden["x"][:1], golden["x"][1:2]
    receive = ChildProcess.receive

    def interrupted(self: ChildProcess, *_: object) -> Message:
        monkeypatch.setattr(ChildProcess, "receive", receive)
        raise KeyboardInterrupt

    source = MINI / "inference.pdmodel"
    with load_engine("paddle", source, EngineOptions(threads=1, streams=2)) as engine:
        monkeypatch.setattr(ChildProcess, "receive", interrupted)
        with pytest.raises(KeyboardInterrupt):
            engine.infer({"x": first})
        found = []
        for _ in range(2):  # both processes
            try:
                found += list(engine.infer({"x": second}).values())
            except EngineError as error:
                found.append(str(error))
    outputs = [output for output in found if not isinstance(output, str)]
    assert len(outputs) == 1
    np.testing.assert_allclose(outputs[0][0], golden["probabilities"][1], atol=1e-6)


# -------------------------------------------------------------------------------- nobody is left


def test_a_child_has_a_process_group_of_its_own(child):
    assert os.getpgid(child.pid) == child.pid != os.getpgid(0)


@linux_only
@pytest.mark.parametrize("how", ["close", "time limit"])
def test_children_of_children_end_too_even_those_that_hang(child, how):
    pids = child.ask(Message({"do": "start", "busy_with": "hang"}), DEADLINE).values["pids"]
    assert len(running(pids)) == 4
    if how == "close":
        child.close()
    else:
        with pytest.raises(ChildTimeoutError):
            child.ask(Message({"do": "hang"}), 0.2)
    assert all_end(pids)


@linux_only
def test_what_a_dead_child_had_started_ends_too(child):
    pids = child.ask(Message({"do": "start", "busy_with": "rest"}), DEADLINE).values["pids"]
    del pids[2]  # in a session of its own, and its parent cannot be asked for it any more
    with pytest.raises(ChildError):
        child.ask(Message({"do": "leave"}))
    assert all_end(pids)


PARENT = """
import sys
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildProcess
child = ChildProcess("odd_child", quiet=True)
print(*child.ask(Message({"do": "start", "busy_with": "rest"})).values["pids"], flush=True)
if sys.argv[1] == "busy":
    child.ask(Message({"do": "rest", "seconds": 60}))
sys.stdin.read()
"""


@linux_only
@pytest.mark.parametrize("child_is", ["busy", "idle"])
def test_a_parent_that_is_killed_leaves_nobody_whatever_its_child_does(child_is):
    path = os.pathsep.join([str(REPO / "deploy" / "python"), str(DOUBLES)])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, child_is],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        other = pids.pop(2)  # in a session of its own
        assert len(running(pids)) == 3
        parent.kill()
    try:
        assert all_end(pids)
    finally:
        os.kill(other, signal.SIGKILL)


# ----------------------------------------------------------------------------- the current folder


def read_an_image(bundle: Path, folder: Path) -> None:
    reader = IsolatedReader(imagenet_ops(72, 64), False, DEADLINE)
    try:
        assert reader.read_file(IMAGES / "coffee.jpg").tensor.shape == (3, 64, 64)
    finally:
        reader.close()


def infer_with_paddle(bundle: Path, folder: Path) -> None:
    require_engine("paddle")
    source = bundle / "inference.pdmodel"
    with load_engine("paddle", source, EngineOptions(threads=1, streams=2)) as engine:
        assert engine.concurrency == 2
        assert engine.infer({"x": np.zeros((1, 3, 64, 64), np.float32)})


def measure_a_case(bundle: Path, folder: Path) -> None:
    require_engine("onnxruntime")
    case = dataclasses.asdict(Case(str(bundle), "onnxruntime", threads=1))
    process = CaseProcess(DEADLINE)
    try:
        process.ask({"do": "load", "case": case, "bundle": str(bundle), "image": None})
    finally:
        process.close()


def convert_to_onnx(bundle: Path, folder: Path) -> None:
    if not has("paddle2onnx"):
        pytest.skip("paddle2onnx is not installed")
    source = bundle / "inference.pdmodel"
    assert run_paddle2onnx(source, source.with_suffix(".pdiparams"), 11, folder).is_file()


@pytest.mark.parametrize(
    "work", [read_an_image, infer_with_paddle, measure_a_case, convert_to_onnx]
)
def test_a_module_in_the_current_folder_hides_no_library(
    work: Callable[[Path, Path], None], mini, tmp_path, monkeypatch
):
    # Libraries that this process has loaded, as a user's has, and that each child loads by itself.
    for name in ("subprocess", "runpy", "numpy", "json", "cv2", "yaml", "hgdeploy", "paddle"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('hidden')\n")
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    work(mini, folder)


def test_a_relative_path_of_modules_is_that_of_the_parent(tmp_path, monkeypatch):
    monkeypatch.chdir(DOUBLES.parent)
    path = [entry for entry in sys.path if Path(entry) != DOUBLES]
    monkeypatch.setattr(sys, "path", [DOUBLES.name, *path])
    with ChildProcess("odd_child", folder=tmp_path) as child:
        assert echo(child, 3) == 3


def test_a_relative_path_of_an_image_is_that_of_the_parent_as_it_moves(tmp_path, monkeypatch):
    reader = IsolatedReader(imagenet_ops(72, 64), False, DEADLINE)
    try:
        monkeypatch.chdir(tmp_path)
        reader.read_file(IMAGES / "coffee.jpg")  # the process is there
        monkeypatch.chdir(IMAGES)
        assert reader.read_file(Path("coffee.jpg")).tensor.shape == (3, 64, 64)
    finally:
        reader.close()


def test_folder_benchmark_says_why_a_case_cannot_run(tmp_path):
    done = subprocess.run(
        [sys.executable, REPO / "benchmarks" / "folder.py", "--bundle", tmp_path, "--images", "5"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.search(r"^PaddleClas's loop, 500x375: .*no model", done.stderr, re.MULTILINE), done
