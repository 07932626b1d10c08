# SPDX-License-Identifier: Apache-2.0
"""Causes, foreign engine files and long lives; run by test_tensorrt.py on the fake machine."""

from __future__ import annotations

import dataclasses
import gc
import subprocess
import sys
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from checks_tensorrt import GPU, probabilities, refused, with_graphs, write_engine, write_sidecar
from fake_gpu import count, fail

from conftest import IMAGES
from hgdeploy import cli
from hgdeploy.engines import infer_rows, load_engine
from hgdeploy.engines.tensorrt.options import TensorRtOptions
from hgdeploy.errors import EngineError, TensorError

CUDA_35 = "CUDA initialization failure with error: 35. Please check your CUDA installation"
SHAPES = {batch: (batch, 3, 64, 64) for batch in range(1, 33)}


def profile(*batches: int) -> dict[str, list[tuple[int, ...]]]:
    """A profile of (min, opt, max) batches."""
    return {"x": [SHAPES[batch] for batch in batches]}


# The cause of a failure.


@pytest.mark.parametrize("raises", [True, False], ids=["pybind's TypeError", "None"])
def test_a_library_that_is_newer_than_the_driver_says_so(tmp_path, monkeypatch, raises: bool):
    def null(logger: Any) -> None:
        logger.log(fake_tensorrt.ILogger.WARNING, CUDA_35)
        if raises:
            raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr("tensorrt.Runtime", null)
    message = refused(write_engine(tmp_path))
    assert f"tensorrt 10.16.1.11 cannot start: {CUDA_35} (the driver here is for CUDA 13.0" in (
        message
    )
    assert "docs/tensorrt.md" in message
    assert "pybind11" not in message


def test_a_library_that_does_not_serve_the_gpu_says_which_one_does(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_CAPABILITY", "7.0")
    monkeypatch.setattr("tensorrt.Runtime", lambda _: None)
    message = refused(write_engine(tmp_path))
    assert "tensorrt 10.16.1.11 does not serve gpu:0 Fake GPU 0 (compute capability 7.0)" in message
    assert "TensorRT 10.4 is the last that does" in message


@pytest.mark.parametrize(
    ("function", "doing"),
    [
        ("set_optimization_profile_async", "choose its profile 0"),
        ("set_input_shape", r"take shape \[1, 3, 64, 64\] for 'x'"),
        ("infer_shapes", "infer shapes"),
        ("set_tensor_address", "place 'x'"),
        ("execute_async_v3", "run the model"),
    ],
)
def test_what_the_bindings_raise_is_one_line_and_frees_everything(
    tmp_path, monkeypatch, function: str, doing: str
):
    def fails(*_: Any) -> bool:
        raise RuntimeError("Error in set optimization profile async.")

    monkeypatch.setattr(fake_tensorrt.IExecutionContext, function, fails)
    with pytest.raises(EngineError, match=f"TensorRT cannot {doing}: Error in set opt") as caught:
        load_engine("tensorrt", write_engine(tmp_path), GPU)
    assert "\n" not in str(caught.value)
    assert count("device bytes") == count("streams") == 0


def test_an_error_that_is_kept_keeps_nothing_of_a_closed_engine(tmp_path):
    engine = load_engine("tensorrt", write_engine(tmp_path, fails_at=3), GPU)
    with pytest.raises(EngineError, match="failed for batch 3") as caught:
        probabilities(engine, np.zeros(SHAPES[3], np.float32))
    engine.close()
    assert count("device bytes") == 0
    assert caught.value.__traceback__ is not None


def test_all_engines_share_one_logger(tmp_path, monkeypatch):
    loggers = []
    start = fake_tensorrt.Runtime.__init__

    def remember(self: Any, logger: Any) -> None:
        loggers.append(logger)
        start(self, logger)

    monkeypatch.setattr(fake_tensorrt.Runtime, "__init__", remember)
    for _ in range(2):
        load_engine("tensorrt", write_engine(tmp_path), GPU).close()
    assert len(loggers) == 2
    assert loggers[0] is loggers[1]


# Files that other programs have made.


def test_a_plan_with_nvidias_plugins_loads(tmp_path):
    load_engine("tensorrt", write_engine(tmp_path, plugin="EfficientNMS_TRT"), GPU).close()


def test_code_for_the_cpu_in_a_plan_runs_only_where_it_is_allowed(mini, tmp_path, capsys):
    write_engine(mini, host_code=True)
    command = ["predict", str(mini), str(IMAGES), "--engine", "tensorrt", "--device", "gpu:0"]
    assert cli.main(command) == 5
    assert "--allow-host-code" in capsys.readouterr().err
    assert cli.main([*command, "--allow-host-code"]) == 0
    engines = ["--engines", "onnxruntime,tensorrt@gpu:0", "--batch-size", "4"]
    assert cli.main(["validate", str(mini), *engines]) == 5
    assert cli.main(["validate", str(mini), *engines, "--allow-host-code"]) == 0
    source = write_engine(tmp_path, host_code=True)
    message = refused(source)
    assert "IRuntime::getEngineHostCodeAllowed() is false; it has code for the CPU" in message
    options = dataclasses.replace(GPU, own=(TensorRtOptions(host_code=True),))
    load_engine("tensorrt", source, options).close()


def test_an_engine_tuned_on_another_gpu_says_so_wherever_it_is_reported(tmp_path):
    source = write_engine(tmp_path)
    write_sidecar(source, gpu="NVIDIA L4")
    with load_engine("tensorrt", source, dataclasses.replace(GPU, device="gpu:1")) as engine:
        assert engine.runtime.providers[2:] == ("tuned on NVIDIA L4",)
        (warning,) = engine.warnings
    assert "tuned on NVIDIA L4 and runs on Fake GPU 1" in warning
    assert "hgdeploy build --device gpu:1" in warning
    write_sidecar(source, gpu="Fake GPU 0")
    with load_engine("tensorrt", source, GPU) as engine:
        assert (len(engine.runtime.providers), engine.warnings) == (2, ())


@pytest.mark.parametrize(
    ("flags", "key", "fits"),
    [
        ({"version_compatible": "True"}, {"version": "10.9.0.34"}, True),
        ({"version_compatible": "True"}, {"version": "10.17.0.1"}, False),
        ({"version_compatible": "True"}, {"version": "9.3.0.1"}, False),
        ({"hardware_compatibility": "ampere+"}, {"compute_capabilities": ("8.0",)}, True),
        ({"hardware_compatibility": "ampere+"}, {"version": "10.9.0.34"}, False),
        ({"hardware_compatibility": "same"}, {"compute_capabilities": ("8.0",)}, False),
    ],
)
def test_a_file_runs_where_it_was_built_to_run(tmp_path, flags, key, fits: bool):
    source = write_engine(tmp_path)
    write_sidecar(source, flags=tuple(flags.items()), **key)
    if fits:
        load_engine("tensorrt", source, GPU).close()
    else:
        assert "build it again with hgdeploy build" in refused(source)


def test_what_the_library_warns_of_while_it_loads_is_passed_on(tmp_path):
    warns = "Using an engine plan file across different models of devices is not recommended"
    with load_engine("tensorrt", write_engine(tmp_path, warns=warns), GPU) as engine:
        assert engine.warnings == (f"tensorrt 10.16.1.11 warns: {warns}",)


# Batches and profiles.


def test_a_batch_below_the_least_is_filled_up(tmp_path, golden):
    source = write_engine(tmp_path, profile=profile(2, 4, 4))
    with load_engine("tensorrt", source, dataclasses.replace(GPU, max_batch=4)) as engine:
        assert (engine.inputs[0].shape[0], engine.warnings) == (-1, ())
        for rows in (4, 1, 1, 3, 1):
            found = infer_rows(engine, golden["x"][:rows])
            np.testing.assert_allclose(found, golden["probabilities"][:rows], atol=1e-6)
        with pytest.raises(TensorError, match=r"serves \[2, 3, 64, 64\] to \[4, 3, 64, 64\]; "):
            engine.infer({"x": np.zeros(SHAPES[5], np.float32)})
    with load_engine("tensorrt", source, dataclasses.replace(GPU, max_batch=1)) as engine:
        (warning,) = engine.warnings
    assert "serves batches of 2 to 4: a smaller one is filled up with zeros" in warning


def test_an_output_without_a_row_for_each_image_is_not_filled_up(tmp_path):
    from checks_tensorrt import write_small
    from onnx import helper

    from hgdeploy.engines import engine_module

    node = helper.make_node("ReduceSum", ["a"], ["sum"], keepdims=0)
    outputs = {"sum": ("float32", [])}
    write_small(tmp_path, [node], {"a": ("float32", ["n", 3])}, outputs)
    onnx = (tmp_path / "small.onnx").read_bytes()
    source = tmp_path / "inference.engine"
    source.write_bytes(fake_tensorrt.engine_file(onnx, {"a": [(2, 3), (2, 3), (4, 3)]}))
    with engine_module("tensorrt").load(source, GPU) as engine:
        assert engine.infer({"a": np.ones((3, 3), np.float32)})["sum"] == 9
        with pytest.raises(EngineError, match=r"'sum' of shape .* has no row for each image"):
            engine.infer({"a": np.ones((1, 3), np.float32)})


def test_each_batch_runs_in_the_profile_that_is_tuned_for_it(tmp_path, golden, monkeypatch):
    chosen: list[int] = []
    choose = fake_tensorrt.IExecutionContext.set_optimization_profile_async

    def remember(self: Any, profile_index: int, stream_handle: int) -> bool:
        chosen.append(profile_index)
        return choose(self, profile_index, stream_handle)

    monkeypatch.setattr(fake_tensorrt.IExecutionContext, "set_optimization_profile_async", remember)
    others = [profile(1, 4, 4), profile(8, 8, 8)]
    source = write_engine(tmp_path, profile=profile(1, 1, 2), profiles=others)
    with load_engine("tensorrt", source, dataclasses.replace(GPU, max_batch=8)) as engine:
        assert engine.inputs[0].shape[0] == -1
        for batch, number in ((1, 0), (2, 0), (3, 1), (4, 1), (1, 0), (6, 2), (8, 2)):
            x = np.resize(golden["x"], SHAPES[batch])
            chosen.clear()
            for _ in range(3):
                found = probabilities(engine, x)
                wanted = np.resize(golden["probabilities"], (batch, 10))
                np.testing.assert_allclose(found, wanted, atol=1e-6)
            assert chosen in ([], [number]), batch
        with pytest.raises(TensorError, match=r"serves .*\[2, 3, 64, 64\], .*\[4, 3, 64, 64\], "):
            engine.infer({"x": np.zeros(SHAPES[9], np.float32)})


# Long lives.


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("devices", [("gpu:0", "gpu:0"), ("gpu:0", "gpu:1")])
def test_two_engines_may_be_closed_in_either_order(tmp_path, golden, devices, first: int):
    source = write_engine(tmp_path)
    both = [load_engine("tensorrt", source, dataclasses.replace(GPU, device=d)) for d in devices]
    both[first].close()
    found = probabilities(both[1 - first], golden["x"])
    np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)
    both[1 - first].close()
    assert count("device bytes") == count("streams") == 0


def test_an_engine_that_is_dropped_without_close_is_freed(tmp_path):
    engine = load_engine("tensorrt", write_engine(tmp_path), GPU)
    assert count("streams") > 0
    del engine
    gc.collect()
    assert count("device bytes") == count("pinned bytes") == count("streams") == 0


RUN_WITHOUT_CLOSE = """
import sys, threading
from pathlib import Path
import numpy as np
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
engine = load_engine("tensorrt", Path(sys.argv[1]), EngineOptions(device="gpu:1", max_batch=4))
x = np.zeros((4, 3, 64, 64), np.float32)
started = threading.Event()
def work():
    while True:
        engine.infer({"x": x})
        started.set()
if sys.argv[2] == "busy":
    threading.Thread(target=work, daemon=True).start()
    started.wait()
engine.infer({"x": x})
print("done", flush=True)
if sys.argv[2] == "fails":
    raise SystemExit(3)
"""


@pytest.mark.parametrize(("how", "code"), [("idle", 0), ("busy", 0), ("fails", 3)])
def test_a_process_that_closes_nothing_ends_well(tmp_path, how: str, code: int):
    done = subprocess.run(
        [sys.executable, "-c", RUN_WITHOUT_CLOSE, write_engine(tmp_path), how],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "done\n", "")


@with_graphs
@pytest.mark.parametrize("function", ["cuStreamBeginCapture", "cuGraphInstantiateWithFlags"])
def test_after_a_capture_that_fails_all_lanes_run_without_graphs(tmp_path, golden, function: str):
    with load_engine("tensorrt", write_engine(tmp_path), GPU) as engine:
        for _ in range(2):
            probabilities(engine, golden["x"])  # one lane's graph is of this shape
        fail(function, 2)
        for _ in range(2):
            probabilities(engine, golden["x"][:3])
        assert engine.runtime.providers[1].startswith("no CUDA graph: CUDA cannot ")
        before = count("graph launches")
        for rows in (3, 3, 4, 4, 4):
            found = probabilities(engine, golden["x"][:rows])
            np.testing.assert_allclose(found, golden["probabilities"][:rows], atol=1e-6)
        assert count("graph launches") == before
