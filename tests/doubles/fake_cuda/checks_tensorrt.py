# SPDX-License-Identifier: Apache-2.0
"""What the TensorRT engine does; run by test_tensorrt.py with the fake driver and library."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
import pytest
from fake_gpu import count, fail

from conftest import IMAGES, MINI, hgdeploy, predict_cls
from hgdeploy.bundle.engine_key import EngineKey, Profile
from hgdeploy.bundle.sidecar import sidecar_path
from hgdeploy.engines import engine_module, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, EngineError, HGDeployError, TensorError
from hgdeploy.gpu.driver import nvidia_gpus

GPU = EngineOptions(device="gpu:0", max_batch=4)
PROFILE = {"x": [(1, 3, 64, 64), (2, 3, 64, 64), (4, 3, 64, 64)]}
LAUNCH_FAILED = 700
with_graphs = pytest.mark.skipif(
    "os.environ.get('HGDEPLOY_CUDA') == 'pycuda'",
    reason="pycuda has no graphs, and words and swallows the driver's errors in its own way",
)


def write_engine(folder: Path, name: str = "inference.engine", **facts: Any) -> Path:
    """Write the engine of pphgnet_mini."""
    onnx = (MINI / "inference.onnx").read_bytes()
    path = folder / name
    path.write_bytes(fake_tensorrt.engine_file(onnx, facts.pop("profile", PROFILE), **facts))
    return path


def write_sidecar(engine: Path, **changes: Any) -> None:
    """Write what `hgdeploy build` would have written beside an engine."""
    sizes = Profile((1, 2, 4), (64, 64, 64), (64, 64, 64))
    key = EngineKey("0", "tensorrt", fake_tensorrt.__version__, ("8.6", "8.9"), None, "fp32", sizes)
    key = dataclasses.replace(key, **changes)
    sidecar_path(engine).write_text(json.dumps({"key": key.to_json()}))


def write_small(folder: Path, nodes: list[Any], inputs: dict, outputs: dict, **facts: Any) -> Path:
    """Write the engine of a model made of `nodes`; tensors by name as (numpy type, shape)."""
    import onnx
    from onnx import helper

    def infos(tensors: dict) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(np.dtype(t)), shape)
            for name, (t, shape) in tensors.items()
        ]

    graph = helper.make_graph(nodes, "small", infos(inputs), infos(outputs))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    profile = {
        name: [
            tuple(size if isinstance(axis, str) else axis for axis in shape) for size in (1, 2, 4)
        ]
        for name, (_, shape) in inputs.items()
    }
    path = folder / "inference.engine"
    onnx.save(model, folder / "small.onnx")
    path.write_bytes(fake_tensorrt.engine_file(model.SerializeToString(), profile, **facts))
    return path


@pytest.fixture
def engine(tmp_path: Path):
    with load_engine("tensorrt", write_engine(tmp_path), GPU) as loaded:
        yield loaded


def probabilities(engine: Any, x: np.ndarray) -> np.ndarray:
    return engine.infer({"x": x})["probabilities"]


def refused(source: Path, options: EngineOptions = GPU) -> str:
    """Return the one line with which an engine is refused; nothing of the engine may remain."""
    with pytest.raises(HGDeployError) as caught:
        load_engine("tensorrt", source, options)
    assert "\n" not in str(caught.value)
    assert count("device bytes") == count("pinned bytes") == count("streams") == 0
    return str(caught.value)


def test_every_batch_is_right_the_first_time_and_from_a_graph(engine, golden):
    for batch in (1, 2, 3, 4, 2, 1):
        for _ in range(3):
            found = probabilities(engine, golden["x"][:batch])
            np.testing.assert_allclose(found, golden["probabilities"][:batch], atol=1e-6)


@with_graphs
def test_a_shape_is_captured_when_it_comes_again_and_dropped_when_another_comes(engine, golden):
    assert engine.runtime.providers == ("TensorRT", "CUDA graph")
    launches = []
    for batch in (1, 1, 1, 3, 3, 1, 1):
        before = count("graph launches")
        # One caller has the same lane each time, which sees every shape.
        probabilities(engine, golden["x"][:batch])
        launches.append(count("graph launches") - before)
    assert launches == [0, 1, 1, 0, 1, 0, 1]


@with_graphs
def test_a_model_that_cannot_be_captured_runs_without_and_says_so(tmp_path, golden):
    before = count("graph launches")
    source = write_engine(tmp_path, uncapturable_at=[1, 2, 3, 4])
    with load_engine("tensorrt", source, GPU) as engine:
        library, note = engine.runtime.providers
        assert library == "TensorRT"
        assert note.startswith("no CUDA graph: CUDA cannot capture a graph: ")
        assert "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" in note
        for _ in range(3):
            found = probabilities(engine, golden["x"])
            np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)
        assert count("graph launches") == before


@with_graphs
def test_a_shape_that_cannot_be_captured_changes_what_the_runtime_says(tmp_path, golden):
    source = write_engine(tmp_path, uncapturable_at=[3])
    with load_engine("tensorrt", source, GPU) as engine:
        assert engine.runtime.providers[1] == "CUDA graph"
        for _ in range(2 * engine.concurrency):
            found = probabilities(engine, golden["x"][:3])
            np.testing.assert_allclose(found, golden["probabilities"][:3], atol=1e-6)
        assert engine.runtime.providers[1].startswith("no CUDA graph: ")


def test_with_pycuda_it_runs_without_graphs_and_says_so(engine, golden):
    if os.environ.get("HGDEPLOY_CUDA") == "pycuda":
        note = "no CUDA graph: pycuda cannot capture one"
        assert engine.runtime.providers == ("TensorRT", note)
    assert len(engine.runtime.providers) == 2


def test_the_parts_of_a_run_are_timed(engine, golden):
    assert engine.last_timings() == {}
    for _ in range(3):
        probabilities(engine, golden["x"])
        timings = engine.last_timings()
        assert list(timings) == ["h2d", "compute", "d2h", "enqueue", "host"]
        assert all(value > 0 for value in timings.values())
        assert timings["host"] > timings["h2d"] + timings["compute"] + timings["d2h"]


def queued(engine: Any, x: np.ndarray, runs: int, *, graph: bool = True) -> Any:
    """Queue so many runs."""
    left = iter([True] * runs + [False])
    return engine.run_queued({"x": x}, lambda: next(left), graph=graph)


@with_graphs
def test_the_next_run_is_queued_before_one_is_waited_for(engine, golden):
    probabilities(engine, golden["x"])
    for graph in (True, False):
        names = ("waits with work behind them", "graph launches", "kernels", "synchronisations")
        before = {name: count(name) for name in names}
        runs = queued(engine, golden["x"], 6, graph=graph)
        done = {name: count(name) - before[name] for name in names}
        assert len(runs.compute_ms) == len(runs.enqueue_ms) == 6
        assert all(ms > 0 for ms in (*runs.compute_ms, *runs.enqueue_ms))
        assert runs.end > runs.start
        assert done["waits with work behind them"] == 5
        # Three runs of the ordinary kind come first: one checks the feeds, two leave them there.
        assert done["kernels"] == 6 + 3
        assert done["synchronisations"] == 3
        assert done["graph launches"] >= 6 if graph else done["graph launches"] <= 3
        found = probabilities(engine, golden["x"])
        np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)


@with_graphs
@pytest.mark.parametrize("function", ["cuEventSynchronize", "cuEventRecord", "cuGraphLaunch"])
def test_a_queued_run_that_fails_leaves_the_engine_usable(engine, golden, function: str):
    queued(engine, golden["x"], 3)
    fail(function, LAUNCH_FAILED, 14 if function == "cuEventRecord" else 4)
    with pytest.raises(EngineError, match=f"{function} returns"):
        queued(engine, golden["x"], 9)
    assert len(queued(engine, golden["x"], 3).compute_ms) == 3
    with pytest.raises(TensorError):
        queued(engine, np.zeros((5, 3, 64, 64), np.float32), 3)


def test_many_threads_get_their_own_answers(engine, golden):
    """Shapes change between calls, so graphs come and go meanwhile."""
    assert engine.concurrency == 2
    started = threading.Barrier(6)

    def work(i: int) -> float:
        if i < 6:
            started.wait()
        rows = slice(i % 4, i % 4 + 1 + i % 2)
        found = probabilities(engine, np.ascontiguousarray(golden["x"][rows]))
        return float(abs(found - golden["probabilities"][rows]).max())

    with ThreadPoolExecutor(6) as pool:
        assert max(pool.map(work, range(48))) < 1e-6


@pytest.mark.parametrize("batch", [5, 32])
def test_a_batch_outside_the_profile_is_refused_with_its_limits(engine, golden, batch: int):
    x = np.zeros((batch, 3, 64, 64), np.float32)
    with pytest.raises(TensorError) as caught:
        engine.infer({"x": x})
    expected = (
        f"has shape [{batch}, 3, 64, 64], and the TensorRT engine serves [1, 3, 64, 64] to [4,"
    )
    assert expected in str(caught.value)
    assert "hgdeploy build" in str(caught.value)
    assert probabilities(engine, golden["x"]).shape == (4, 10)


def test_a_profile_without_range_is_a_fixed_batch(tmp_path, golden):
    source = write_engine(tmp_path, profile={"x": [(2, 3, 64, 64)] * 3})
    with load_engine("tensorrt", source, dataclasses.replace(GPU, max_batch=2)) as engine:
        assert engine.inputs[0].shape == (2, 3, 64, 64)
        assert engine.outputs[0].shape == (2, 10)
        found = probabilities(engine, golden["x"][:2])
    np.testing.assert_allclose(found, golden["probabilities"][:2], atol=1e-6)


def test_an_engine_too_small_for_the_batch_size_is_refused(tmp_path):
    message = refused(write_engine(tmp_path), dataclasses.replace(GPU, max_batch=8))
    assert "serves batches of 1 to 4, and the batch size is 8" in message
    assert "hgdeploy build --batch 1,8" in message


def test_a_failing_run_tells_the_librarys_reason_and_both_lanes_go_on(tmp_path, golden):
    with load_engine("tensorrt", write_engine(tmp_path, fails_at=3), GPU) as engine:
        for _ in range(2 * engine.concurrency):
            with pytest.raises(EngineError, match=r"cannot run the model: .*failed for batch 3"):
                probabilities(engine, golden["x"][:3])
        for _ in range(2 * engine.concurrency):
            found = probabilities(engine, golden["x"])
            np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)


RUN_CALLS = ["cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventRecord", "cuEventElapsedTime"]


@pytest.mark.parametrize("function", [*RUN_CALLS, "cuStreamSynchronize", "cuCtxPushCurrent"])
def test_a_failure_of_the_driver_in_a_run_leaves_the_engine_usable(engine, golden, function: str):
    probabilities(engine, golden["x"][:2])
    fail(function, LAUNCH_FAILED)
    with pytest.raises(EngineError, match=r"CUDA cannot .*illegal memory access") as caught:
        probabilities(engine, golden["x"][:2])
    assert "\n" not in str(caught.value)
    for _ in range(2 * engine.concurrency):
        found = probabilities(engine, golden["x"][:2])
        np.testing.assert_allclose(found, golden["probabilities"][:2], atol=1e-6)


@with_graphs
def test_a_graph_that_does_not_launch_is_an_error_and_the_next_run_is_right(engine, golden):
    for _ in range(2 * engine.concurrency):
        probabilities(engine, golden["x"])
    fail("cuGraphLaunch", LAUNCH_FAILED)
    with pytest.raises(EngineError, match="cannot launch a graph: cuGraphLaunch returns"):
        probabilities(engine, golden["x"])
    found = probabilities(engine, golden["x"])
    np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)


LOAD_CALLS = [*RUN_CALLS[:3], "cuMemAlloc", "cuMemHostAlloc", "cuStreamCreate", "cuEventCreate"]


@with_graphs
@pytest.mark.parametrize("after", [0, 1, 2, 5])
@pytest.mark.parametrize("function", [*LOAD_CALLS, "cuStreamSynchronize"])
def test_a_load_that_fails_anywhere_frees_everything(tmp_path, function: str, after: int):
    """Where loading needs fewer calls, it succeeds; otherwise the error names what failed."""
    fail(function, LAUNCH_FAILED, after)
    message = None
    try:
        load_engine("tensorrt", write_engine(tmp_path), GPU).close()
    except HGDeployError as error:
        message = str(error)
    if message is None:
        assert after > 0, f"{function} is never called"
    else:
        assert "\n" not in message
        # The library's own allocations fail in its own words.
        assert f"{function} returns CUDA_ERROR_ILLEGAL_ADDRESS" in message or "emory" in message
    assert count("streams") == count("device bytes") == count("pinned bytes") == 0


@with_graphs
@pytest.mark.parametrize(
    "function",
    ["cuMemFree", "cuMemFreeHost", "cuStreamDestroy", "cuEventDestroy", "cuGraphExecDestroy"],
)
def test_a_failure_while_closing_is_told_and_everything_is_freed(tmp_path, function: str):
    engine = load_engine("tensorrt", write_engine(tmp_path), GPU)
    fail(function, LAUNCH_FAILED)
    if function == "cuMemFree":
        fail(function, LAUNCH_FAILED, 1)  # the first one is the library's own
    with pytest.raises(EngineError, match=f"CUDA cannot free .*: {function} returns"):
        engine.close()
    engine.close()


def test_the_second_gpu_is_used_where_it_is_asked_for(tmp_path, golden):
    options = dataclasses.replace(GPU, device="gpu:1")
    with load_engine("tensorrt", write_engine(tmp_path), options) as engine:
        assert engine.runtime.device == "gpu:1"
        found = probabilities(engine, golden["x"])
    np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"device": "gpu:2"}, "gpu:2 was asked for, but this machine has only gpu:0, gpu:1"),
        ({"device": "cpu"}, "TensorRT runs on an NVIDIA GPU, but the cpu was asked for"),
        ({"graph_optimization": False}, "drop Global.ir_optim=False"),
        ({"profile": True}, "drop Global.enable_profile"),
    ],
)
def test_what_an_engine_file_cannot_give_is_refused(tmp_path, options: dict, expected: str):
    source = write_engine(tmp_path)
    assert expected in refused(source, dataclasses.replace(GPU, **options))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"version": "10.13.2.6"},
            "was built with tensorrt 10.13.2.6 for compute capability 8.6, 8.9, here is "
            "10.16.1.11 on 8.9 (Fake GPU 0); build it again with hgdeploy build",
        ),
        (
            {"compute_capabilities": ("8.6",)},
            "was built with tensorrt 10.16.1.11 for compute capability 8.6, here is 10.16.1.11 on "
            "8.9",
        ),
        ({"precision": "fp16"}, "was built in fp16, but fp32 was asked for; build that with"),
    ],
)
def test_an_engine_built_for_something_else_is_refused_by_its_sidecar(tmp_path, changes, expected):
    source = write_engine(tmp_path)
    write_sidecar(source, **changes)
    assert expected in refused(source)


def test_an_engine_that_its_sidecar_says_fits_is_loaded(tmp_path, golden):
    source = write_engine(tmp_path)
    write_sidecar(source)
    with load_engine("tensorrt", source, GPU) as engine:
        assert (engine.runtime.library, engine.runtime.version) == ("tensorrt", "10.16.1.11")
        assert engine.runtime.threads is None


def test_a_sidecar_of_another_kind_is_refused(tmp_path):
    source = write_engine(tmp_path)
    sidecar_path(source).write_text('{"key": {"runtime": "tensorrt"}}')
    assert "key.onnx_sha256 is missing" in refused(source)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"version": "10.13.2.6"}, "expecting library version 10.16.1.11 got 10.13.2.6"),
        ({"capability": "8.6"}, "expecting compute 8.9 got compute 8.6, please rebuild"),
    ],
)
def test_without_a_sidecar_the_librarys_refusal_is_reported(tmp_path, facts: dict, expected: str):
    source = write_engine(tmp_path, **facts)
    assert f"tensorrt 10.16.1.11 cannot load {source}: IRuntime::" in (line := refused(source))
    assert expected in line


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "is empty; build it again"),
        (b"\x00\x01ftrt", "stdVersionRead == kVERSION failed"),
        ((MINI / "inference.onnx").read_bytes(), "stdVersionRead == kVERSION failed"),
    ],
    ids=["empty", "foreign", "onnx"],
)
def test_a_file_that_is_no_engine_is_refused(tmp_path, data: bytes, expected: str):
    source = tmp_path / "inference.engine"
    source.write_bytes(data)
    assert expected in refused(source)


def test_a_name_that_tells_no_library_is_refused(tmp_path):
    message = refused(write_engine(tmp_path, "model.trt"))
    assert "call it NAME.engine (tensorrt) or NAME.rtx.engine (tensorrt-rtx)" in message


def test_a_plan_of_trtexec_is_an_engine(tmp_path, golden):
    with load_engine("tensorrt", write_engine(tmp_path, "model.plan"), GPU) as engine:
        np.testing.assert_allclose(
            probabilities(engine, golden["x"]), golden["probabilities"], atol=1e-6
        )


def test_a_library_that_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert "pip install -e '.[tensorrt]'" in refused(write_engine(tmp_path))


def test_inputs_and_outputs_may_be_several_and_of_other_types(tmp_path):
    from onnx import helper

    nodes = [
        helper.make_node("Cast", ["b"], ["b16"], to=10),
        helper.make_node("Add", ["a", "b16"], ["sum"]),
        helper.make_node("Neg", ["b"], ["minus"]),
        helper.make_node("Cast", ["b"], ["nonzero"], to=9),
    ]
    inputs = {"a": ("float16", ["n", 3]), "b": ("int64", ["n", 1])}
    outputs = {
        "sum": ("float16", ["n", 3]),
        "minus": ("int64", ["n", 1]),
        "nonzero": ("bool", ["n", 1]),
    }
    source = write_small(tmp_path, nodes, inputs, outputs)
    a = np.arange(6, dtype=np.float16).reshape(2, 3)
    b = np.array([[7], [0]])
    # Not by load_engine, which only gives image classifiers.
    with engine_module("tensorrt").load(source, GPU) as engine:
        assert [(spec.name, spec.dtype, spec.shape) for spec in engine.outputs] == [
            ("sum", "float16", (-1, 3)),
            ("minus", "int64", (-1, 1)),
            ("nonzero", "bool", (-1, 1)),
        ]
        for _ in range(3):
            found = engine.infer({"b": b, "a": a})
            np.testing.assert_array_equal(found["sum"], a + b.astype(np.float16))
            np.testing.assert_array_equal(found["minus"], -b)
            np.testing.assert_array_equal(found["nonzero"], [[True], [False]])


def test_an_output_whose_size_depends_on_the_data_is_refused(tmp_path):
    from onnx import helper

    nodes = [helper.make_node("NonZero", ["a"], ["where"])]
    outputs = {"where": ("int64", [2, "found"])}
    message = refused(write_small(tmp_path, nodes, {"a": ("float32", ["n", 3])}, outputs))
    assert "the shape of output 'where' depends on the data" in message


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"packed": True}, "'x' is a shape tensor or has a packed format"),
        ({"shape_io": True}, "'x' is a shape tensor or has a packed format"),
        ({"dtypes": {"x": "BF16"}}, "'x' holds BF16, which numpy lacks; keep inputs and outputs"),
    ],
)
def test_inputs_that_are_no_plain_arrays_are_refused(tmp_path, facts: dict, expected: str):
    assert expected in refused(write_engine(tmp_path, **facts))


def test_what_is_inside_an_engine_cannot_be_asked(tmp_path, golden):
    module = engine_module("tensorrt")
    with pytest.raises(EngineError, match="compare its outputs with hgdeploy validate"):
        module.intermediates(write_engine(tmp_path), GPU, golden["x"][:1])


def test_the_capability_names_the_gpus():
    assert nvidia_gpus() == (2, "")
    found = engine_module("tensorrt").capability()
    assert found.version == "10.16.1.11"
    assert found.devices == ("gpu:0", "gpu:1")
    done = hgdeploy("doctor")
    assert "tensorrt 10.16.1.11: gpu:0, gpu:1; fp32, tf32, fp16, bf16, int8" in done.stdout


def test_the_doctor_lists_every_gpu_and_says_what_does_not_go_together(monkeypatch):
    monkeypatch.setenv("FAKE_CUDA_CAPABILITY", "7.0")
    monkeypatch.setenv("FAKE_CUDA_VERSION", "12040")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    lines = hgdeploy("doctor").stdout.splitlines()
    place = lines.index(
        "GPU: 2 NVIDIA (driver 580.65.06 for CUDA 12.4, those of CUDA_VISIBLE_DEVICES='0,1')"
    )
    assert lines[place + 1] == "  gpu:0: Fake GPU 0, compute capability 7.0, 16384 MiB"
    assert lines[place + 2] == "  gpu:1: Fake GPU 1, compute capability 7.0, 16384 MiB"
    found = lines[lines.index("Problems") :]
    assert any("tensorrt 10.16.1.11 does not serve gpu:0 Fake GPU 0" in line for line in found)


def test_predict_cls_prints_what_onnx_runtime_prints(mini, tmp_path):
    """PaddleClas's own switches, an engine file in the bundle, and a folder with a last batch."""
    write_engine(mini)
    given = ["-o", f"Global.inference_model_dir={mini}", "-o", f"Global.infer_imgs={IMAGES}"]
    given += ["-o", "Global.batch_size=2"]
    wanted = predict_cls(*given, "-o", "Global.use_onnx=True")
    gpu = ["-o", "Global.use_gpu=True", "-o", "Global.use_tensorrt=True"]
    found = predict_cls(*given, *gpu, "-o", "Global.benchmark=True")
    assert found.stdout == wanted.stdout
    assert found.stdout.count("\n") > 2
    assert "tensorrt 10.16.1.11 fp32 on gpu:0 (TensorRT, " in found.stderr


def test_a_missing_engine_is_a_bundle_error(tmp_path):
    with pytest.raises(BundleError, match="does not exist; build it with hgdeploy build"):
        load_engine("tensorrt", tmp_path / "inference.engine", GPU)
