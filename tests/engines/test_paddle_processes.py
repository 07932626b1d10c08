# SPDX-License-Identifier: Apache-2.0
"""Paddle inferences side by side, in processes: what test_engines.py does not see of them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from foreign import make_foreign

from conftest import (
    DEADLINE,
    HGDEPLOY,
    IMAGES,
    MINI,
    children,
    require_engine,
    wait_for_a_row,
)
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import BundleError, EngineError
from hgdeploy.system.machine import out_of_memory_kills

SOURCE = MINI / "inference.pdmodel"
MODULE = "hgdeploy.engines.process_child"


@pytest.fixture(autouse=True)
def _paddle():
    require_engine("paddle")


def test_inferences_run_in_a_process_each_and_do_not_mix(golden):
    options = EngineOptions(threads=1, streams=3)
    with (
        load_engine("paddle", SOURCE, options) as engine,
        ThreadPoolExecutor(3) as pool,
    ):
        assert engine.concurrency == len(children(MODULE)) == 3
        rows = np.arange(60) % 4
        results = pool.map(lambda row: engine.infer({"x": golden["x"][row : row + 1]}), rows)
        for row, result in zip(rows, results, strict=True):
            (output,) = result.values()
            np.testing.assert_allclose(output[0], golden["probabilities"][row], atol=1e-6)
    assert children(MODULE) == []


def test_each_process_has_paddles_own_options():
    options = EngineOptions(streams=2, own=(PaddleOptions(onednn=False),))
    with load_engine("paddle", SOURCE, options) as engine:
        assert engine.runtime.providers == ("CPU",)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"precision": "fp16"}, EngineError, "cannot run fp16 on a CPU, available: fp32"),
        ({"own": (PaddleOptions(tensorrt=True),)}, EngineError, "TensorRT needs a GPU"),
    ],
)
def test_what_cannot_be_loaded_is_reported_as_in_one_process(options, kind, message):
    with pytest.raises(kind, match=message):
        load_engine("paddle", SOURCE, EngineOptions(streams=2, **options))
    assert children(MODULE) == []


def test_truncated_parameters_are_reported_as_in_one_process(tmp_path):
    (tmp_path / SOURCE.name).write_bytes(SOURCE.read_bytes())
    whole = SOURCE.with_suffix(".pdiparams").read_bytes()
    (tmp_path / "inference.pdiparams").write_bytes(whole[:-100])
    with pytest.raises(BundleError, match="truncated"):
        load_engine("paddle", tmp_path / SOURCE.name, EngineOptions(streams=2))


def test_a_process_that_dies_is_an_error_in_one_line(golden):
    message = r"^a process of the paddle engine ended \(SIGKILL\)"
    message += (
        r"; if memory is short, use fewer threads$"
        if out_of_memory_kills() is None
        else r": another process ended it; memory was not short$"
    )
    with load_engine("paddle", SOURCE, EngineOptions(threads=1, streams=2)) as engine:
        for pid in children(MODULE):
            os.kill(pid, signal.SIGKILL)
        for _ in range(3):
            with pytest.raises(EngineError, match=message):
                engine.infer({"x": golden["x"]})


def test_what_paddles_kernels_print_is_kept_from_the_user(tmp_path, capfd):
    """A mean in oneDNN prints a line for developers of Paddle."""
    source = make_foreign("dense_norm", tmp_path / "model") / "inference.json"
    capfd.readouterr()
    with load_engine("paddle", source, EngineOptions(threads=1, streams=2)) as engine:
        engine.infer({"x": np.zeros((1, 3, 64, 64), np.float32)})
    assert capfd.readouterr() == ("", "")


def test_where_memory_is_short_one_inference_has_all_threads(monkeypatch):
    monkeypatch.setattr("hgdeploy.engines.processes.memory_mb", lambda: 500)
    with load_engine("paddle", SOURCE, EngineOptions(threads=1, streams=4)) as engine:
        assert (engine.concurrency, engine.runtime.threads) == (1, 4)
        assert children(MODULE) == []


@pytest.fixture
def running(mini, tmp_path, interruptible):
    """A run of many images that has begun, in a process group of its own, and its rows."""
    photos, rows = tmp_path / "photos", tmp_path / "rows.jsonl"
    photos.mkdir()
    for i in range(2000):
        (photos / f"{i:04}.jpg").symlink_to(IMAGES / "coffee.jpg")
    process = subprocess.Popen(
        [*HGDEPLOY, "predict", mini, photos, "--threads", "2", "--output", rows],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for_a_row(process, rows)
    yield process, rows
    process.kill()
    process.communicate()


def test_an_interrupt_that_all_processes_get_keeps_the_rows_that_are_done(running):
    process, rows = running
    os.killpg(process.pid, signal.SIGINT)
    out, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, stderr
    assert out == ""
    done = rows.read_text().count("\n")
    assert done < 2000, "it went on to its end"
    assert stderr.splitlines()[-1].startswith(f"hgdeploy: interrupted: {done} of 2000 images")


def test_a_run_that_is_killed_leaves_no_process(running):
    process, _ = running
    left = children(MODULE, process.pid)
    assert len(left) == 2
    process.kill()
    process.communicate(timeout=DEADLINE)
    end = time.monotonic() + DEADLINE
    while any(Path(f"/proc/{pid}").exists() for pid in left) and time.monotonic() < end:
        time.sleep(0.05)
    assert not [pid for pid in left if Path(f"/proc/{pid}").exists()]


def test_a_process_that_dies_in_a_run_ends_it_with_all_rows_before(running):
    process, rows = running
    for pid in children(MODULE, process.pid):
        os.kill(pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 6, stderr
    assert "hgdeploy: error: a process of the paddle engine ended (SIGKILL)" in stderr
    assert f"{rows.read_text().count(chr(10))} of 2000 images are done" in stderr
    assert "Traceback" not in stderr
