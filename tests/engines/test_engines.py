# SPDX-License-Identifier: Apache-2.0
"""One contract, and every engine passes it."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import MINI, require_engine
from hgdeploy.bundle.paddle_params import read_params
from hgdeploy.engines import ENGINES, Engine, engine_module, load_engine
from hgdeploy.engines.options import PRECISIONS, EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.engines.paddle.program import read_program_specs
from hgdeploy.errors import BundleError, ConfigError, EngineError, TensorError
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.system.machine import cpu_flags

# fp32 engines agree on softmax to a few units in the last place; measured 6e-8 on this model.
FP32_TOLERANCE = 1e-6
CPU_HAS_BF16 = bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


# One network in every form an engine reads: Paddle 2's, Paddle 3's, ONNX, an engine file.
MODELS = [
    ("paddle", MINI / "inference.pdmodel"),
    ("paddle", MINI.with_name("pphgnet_mini_pir") / "inference.json"),
    ("onnxruntime", MINI / "inference.onnx"),
    ("openvino", MINI / "inference.onnx"),
    ("openvino", MINI / "inference.pdmodel"),
    ("tensorrt", MINI / "inference.engine"),
    ("mnn", MINI / "inference.mnn"),
    ("ncnn", MINI / "inference.ncnn.param"),
]


def artifact(name: str) -> Path:
    return present(next(path for engine, path in MODELS if engine == name))


def present(path: Path) -> Path:
    """Return a model file; an engine file, which only fits one GPU, is given or built now."""
    return tensorrt_engine() if path.suffix == ".engine" else path


@functools.cache
def tensorrt_engine() -> Path:
    """Return the engine file of this run: HGDEPLOY_TEST_ENGINE, or one built for the GPU here."""
    given = os.environ.get("HGDEPLOY_TEST_ENGINE")
    if given is not None:
        return Path(given)
    from hgdeploy.convert.tensorrt.from_onnx import engine_from_onnx
    from hgdeploy.convert.tensorrt.options import BuildOptions, Shapes

    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    target = folder / "inference.engine"
    shapes = Shapes(batch=(1, 4, 4))
    return engine_from_onnx(MINI / "inference.onnx", target, shapes, BuildOptions(), print).path


def options_for(name: str, **changes: Any) -> EngineOptions:
    """Return options on the device that every machine with this engine has."""
    return EngineOptions(device="gpu:0" if name == "tensorrt" else "cpu", **changes)


def test_every_engine_is_held_to_the_contract():
    assert {name for name, _ in MODELS} == set(ENGINES)


# Each of them, and Paddle with several inferences at once, for which it has an engine of its own.
LOADS = [(*model, 1) for model in MODELS] + [(*MODELS[0], 2)]


def load_name(load: tuple[str, Path, int]) -> str:
    return f"{load[0]}{load[1].suffix}-{load[2]}"


def loaded(load: tuple[str, Path, int]) -> Engine:
    name, path, streams = load
    require_engine(name)
    return load_engine(name, present(path), options_for(name, threads=2, streams=streams))


# All tests of an engine share it: what one of them leaves behind is a fault that the others find.
@pytest.fixture(scope="module", params=LOADS, ids=load_name)
def engine(request: pytest.FixtureRequest):
    with loaded(request.param) as engine:
        yield engine


def test_it_computes_what_the_exporting_paddle_computed(engine: Engine, golden):
    result = engine.infer({"x": golden["x"]})
    assert list(result) == [engine.outputs[0].name]
    probabilities = result[engine.outputs[0].name]
    np.testing.assert_allclose(probabilities, golden["probabilities"], atol=FP32_TOLERANCE)


def test_it_names_its_tensors_with_types_and_shapes(engine: Engine):
    (x,), (y,) = engine.inputs, engine.outputs
    assert (x.name, x.dtype, x.shape) == ("x", "float32", (-1, 3, 64, 64))
    assert (y.dtype, y.shape) == ("float32", (-1, 10))


def test_it_says_what_runs(engine: Engine):
    runtime = engine.runtime
    assert runtime.engine in ENGINES
    assert runtime.device == options_for(runtime.engine).device
    assert runtime.precision == "fp32"
    assert runtime.threads == (2 if runtime.device == "cpu" else None)
    assert runtime.version
    assert runtime.providers


@pytest.mark.parametrize("batch", [1, 2, 3, 4])
def test_each_row_is_the_same_in_every_batch(engine: Engine, golden, batch: int):
    output = engine.infer({"x": golden["x"][:batch]})[engine.outputs[0].name]
    np.testing.assert_allclose(output, golden["probabilities"][:batch], atol=FP32_TOLERANCE)


def test_results_belong_to_the_caller(engine: Engine, golden):
    name = engine.outputs[0].name
    first = engine.infer({"x": golden["x"]})[name]
    kept = first.copy()
    engine.infer({"x": golden["x"][::-1].copy()})
    np.testing.assert_array_equal(first, kept)
    first[:] = -1
    np.testing.assert_array_equal(engine.infer({"x": golden["x"]})[name], kept)


def test_it_does_not_change_its_input_and_takes_strided_arrays(engine: Engine, golden):
    strided = np.repeat(golden["x"], 2, axis=0)[::2]
    assert not strided.flags.c_contiguous
    before = strided.copy()
    output = engine.infer({"x": strided})[engine.outputs[0].name]
    np.testing.assert_allclose(output, golden["probabilities"], atol=FP32_TOLERANCE)
    np.testing.assert_array_equal(strided, before)


def test_it_takes_an_array_that_cannot_be_written(engine: Engine, golden):
    fixed = golden["x"].copy()
    fixed.flags.writeable = False
    output = engine.infer({"x": fixed})[engine.outputs[0].name]
    np.testing.assert_allclose(output, golden["probabilities"], atol=FP32_TOLERANCE)


X = np.zeros((1, 3, 64, 64), np.float32)


@pytest.mark.parametrize(
    ("feeds", "message"),
    [
        ({}, "inputs named [] were given, expected ['x']"),
        ({"y": X}, "inputs named ['y'] were given, expected ['x']"),
        ({"x": X, "y": X}, "inputs named ['x', 'y'] were given, expected ['x']"),
        ({"x": X.astype(np.float64)}, "input 'x' has dtype float64, expected float32"),
        ({"x": X.astype(np.float16)}, "input 'x' has dtype float16, expected float32"),
        ({"x": X[0]}, "input 'x' has shape [3, 64, 64], expected [-1, 3, 64, 64]"),
        ({"x": X[:, :2]}, "input 'x' has shape [1, 2, 64, 64], expected [-1, 3, 64, 64]"),
        ({"x": X[..., :63]}, "input 'x' has shape [1, 3, 64, 63], expected [-1, 3, 64, 64]"),
        ({"x": X[:0]}, "input 'x' has shape [0, 3, 64, 64], expected [-1, 3, 64, 64]"),
        ({"x": X.tolist()}, "input 'x' is a list, expected a numpy array"),
    ],
)
def test_feeds_that_do_not_fit_are_refused_in_one_line(engine: Engine, golden, feeds, message: str):
    with pytest.raises(TensorError) as caught:
        engine.infer(feeds)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert engine.infer({"x": golden["x"]}), "a refused call must not spoil the engine"


@pytest.mark.parametrize("load", LOADS, ids=load_name)
def test_a_closed_engine_says_so_and_closes_twice(load: tuple[str, Path, int], golden):
    engine = loaded(load)
    assert engine.infer({"x": golden["x"]})
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="is closed"):
        engine.infer({"x": golden["x"]})


def test_concurrent_calls_do_not_mix(engine: Engine, golden):
    """As many callers as declared, and then some, each with its own row."""
    name = engine.outputs[0].name
    assert engine.concurrency >= 1

    def work(i: int) -> float:
        row = i % 4
        output = engine.infer({"x": golden["x"][row : row + 1]})[name]
        return float(abs(output - golden["probabilities"][row : row + 1]).max())

    with ThreadPoolExecutor(engine.concurrency + 2) as pool:
        assert max(pool.map(work, range(40))) < FP32_TOLERANCE


def test_without_graph_optimisation_the_answer_is_the_same(engine_name: str, golden):
    if engine_name == "tensorrt":
        pytest.skip("an engine file is optimised when it is built; asking for less is an error")
    options = EngineOptions(graph_optimization=False)
    with load_engine(engine_name, artifact(engine_name), options) as engine:
        output = engine.infer({"x": golden["x"]})[engine.outputs[0].name]
    np.testing.assert_allclose(output, golden["probabilities"], atol=FP32_TOLERANCE)


@pytest.mark.skipif(nvidia_gpus()[0] > 0, reason="this machine has a GPU")
def test_a_gpu_that_is_missing_is_an_error_that_says_what_to_do_instead(engine_name: str):
    with pytest.raises(EngineError, match="gpu:0 was asked for") as caught:
        load_engine(engine_name, artifact(engine_name), EngineOptions(device="gpu:0"))
    assert "Global.use_gpu=False" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda", "gpu", "gpu:", "gpu:x", "gpu:-1", "CPU", ""])
def test_an_unknown_device_is_an_error(engine_name: str, device: str):
    with pytest.raises(EngineError, match="expected 'cpu' or 'gpu:N'"):
        load_engine(engine_name, artifact(engine_name), EngineOptions(device=device))


def test_a_missing_file_is_an_error(engine_name: str, tmp_path: Path):
    with pytest.raises(BundleError, match="does not exist"):
        load_engine(engine_name, tmp_path / artifact(engine_name).name, EngineOptions())


@pytest.mark.skipif(sys.platform != "linux", reason="this file system takes UTF-8 names only")
def test_a_path_that_is_no_text_is_an_error_in_one_line(engine_name: str, tmp_path: Path):
    folder = tmp_path / os.fsdecode("模型".encode("gbk"))  # as unpacked from Windows
    shutil.copytree(MINI, folder)
    source = folder / artifact(engine_name).name
    with pytest.raises(BundleError, match=r"is not UTF-8, .* rename the folder") as caught:
        load_engine(engine_name, source, options_for(engine_name))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("size", [0, 1, 100, 30000])
def test_a_truncated_model_is_an_error_in_one_line(engine_name: str, tmp_path: Path, size: int):
    source = artifact(engine_name)
    broken = tmp_path / source.name
    broken.write_bytes(source.read_bytes()[:size])
    params = MINI / "inference.pdiparams"
    (tmp_path / params.name).write_bytes(params.read_bytes())
    with pytest.raises(BundleError) as caught:
        load_engine(engine_name, broken, options_for(engine_name))
    assert str(broken) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cut", [1, 100, 5000, 400_000, 758_014, 758_015])
@pytest.mark.parametrize("model", [path for name, path in MODELS if name == "paddle"], ids=str)
def test_truncated_parameters_are_an_error_in_one_line(tmp_path: Path, model: Path, cut: int):
    """Paddle itself runs with a file that ends inside its last tensor, and answers wrongly."""
    require_engine("paddle")
    (tmp_path / model.name).write_bytes(model.read_bytes())
    params = model.with_suffix(".pdiparams").read_bytes()
    (tmp_path / "inference.pdiparams").write_bytes(params[: len(params) - cut])
    with pytest.raises(BundleError, match=r"truncated|is empty") as caught:
        load_engine("paddle", tmp_path / model.name, EngineOptions())
    assert "\n" not in str(caught.value)


def test_parameters_of_another_model_are_an_error_in_one_line(tmp_path: Path):
    require_engine("paddle")
    (tmp_path / "inference.pdmodel").write_bytes((MINI / "inference.pdmodel").read_bytes())
    # The first tensors alone: a whole file, but not the one of this program.
    params = MINI / "inference.pdiparams"
    end = read_params(params)[99]
    (tmp_path / "inference.pdiparams").write_bytes(params.read_bytes()[: end.offset + end.length])
    with pytest.raises(BundleError, match="check that both files come from one export") as caught:
        load_engine("paddle", tmp_path / "inference.pdmodel", EngineOptions())
    assert "\n" not in str(caught.value)


def _program(**changes: object) -> str:
    """A Paddle 3 program of one input, with some of its parts changed."""
    tensor: list[object] = [{"#": "0.t_f32"}, [-1, 3]]
    parts = {"attributes": [{"N": "name", "AT": {"D": "x"}}], "tensor": tensor, **changes}
    op = {"#": "1.data", "A": parts["attributes"], "O": [{"TT": {"D": parts["tensor"]}}]}
    return json.dumps({"program": {"regions": [{"blocks": [{"ops": [op]}]}]}})


@pytest.mark.parametrize(
    "text",
    [
        "1",
        100_000 * "[",
        '{"program": {"regions": [{"blocks": [{"ops": [1]}]}]}}',
        _program(tensor=[{"#": 5}, [1]]),
        _program(tensor=[{"#": "0.t_f32"}, ["a"]]),
        _program(tensor=[{"#": "0.t_f32"}, 5]),
        _program(attributes=[]),
        _program(attributes=[{"N": "name", "AT": {"D": ["x"]}}]),
    ],
)
def test_a_program_of_other_parts_than_paddles_is_an_error_in_one_line(tmp_path: Path, text: str):
    path = tmp_path / "inference.json"
    path.write_text(text)
    with pytest.raises(BundleError, match=r"inference\.json is not a readable Paddle program"):
        read_program_specs(path)


def test_missing_parameters_are_an_error(tmp_path: Path):
    require_engine("paddle")
    (tmp_path / "inference.pdmodel").write_bytes((MINI / "inference.pdmodel").read_bytes())
    with pytest.raises(BundleError, match=r"inference\.pdiparams does not exist"):
        load_engine("paddle", tmp_path / "inference.pdmodel", EngineOptions())


def test_paddle_without_onednn_says_so_and_agrees(golden):
    require_engine("paddle")
    options = EngineOptions(own=(PaddleOptions(onednn=False),))
    with load_engine("paddle", MINI / "inference.pdmodel", options) as engine:
        assert engine.runtime.providers == ("CPU",)
        output = engine.infer({"x": golden["x"]})[engine.outputs[0].name]
    np.testing.assert_allclose(output, golden["probabilities"], atol=FP32_TOLERANCE)


@pytest.mark.skipif(not CPU_HAS_BF16, reason="this CPU has no bf16 instructions")
@pytest.mark.parametrize("name", ["paddle", "openvino"])
def test_bf16_really_runs_in_bf16(name: str, golden):
    """A result equal to fp32 would mean that fp32 ran; 8 mantissa bits leave a visible trace."""
    require_engine(name)
    options = EngineOptions(precision="bf16")
    with load_engine(name, artifact(name), options) as engine:
        assert engine.runtime.precision == "bf16"
        output = engine.infer({"x": golden["x"]})[engine.outputs[0].name]
    error = abs(output - golden["probabilities"]).max()
    assert 1e-5 < error < 5e-2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions(precision="fp16"), "cannot run fp16 on a CPU, available: fp32, bf16"),
        (EngineOptions(precision="int8"), "cannot run int8 on a CPU, available: fp32, bf16"),
        (
            EngineOptions(precision="bf16", own=(PaddleOptions(onednn=False),)),
            "runs in oneDNN" if CPU_HAS_BF16 else "bf16 needs a CPU with avx512_bf16 or amx_bf16",
        ),
        (EngineOptions(own=(PaddleOptions(tensorrt=True),)), "TensorRT needs a GPU"),
    ],
)
def test_paddle_refuses_what_it_cannot_run(options: EngineOptions, message: str):
    require_engine("paddle")
    with pytest.raises(EngineError, match=message):
        load_engine("paddle", MINI / "inference.pdmodel", options)


def test_no_engine_claims_a_precision_that_it_then_refuses(engine_name: str):
    """ONNX Runtime has no bf16 kernels for a CPU, and `hgdeploy doctor` shows what is claimed."""
    found = engine_module(engine_name).capability()
    if found.devices != ("cpu",):
        pytest.skip("this machine has more than a CPU")
    for precision in set(PRECISIONS) - set(found.precisions):
        with pytest.raises(EngineError, match=f"{precision}.*available|needs a CPU with"):
            load_engine(engine_name, artifact(engine_name), EngineOptions(precision=precision))
    assert (engine_name, "bf16") not in {("onnxruntime", name) for name in found.precisions}


def test_an_unknown_engine_is_an_error_with_the_nearest_name():
    with pytest.raises(EngineError, match="did you mean 'onnxruntime'"):
        load_engine("onxruntime", MINI / "inference.onnx", EngineOptions())


def test_an_unknown_precision_is_an_error():
    with pytest.raises(ConfigError, match="unknown precision 'fp8'"):
        EngineOptions(precision="fp8")


@pytest.mark.skipif(nvidia_gpus()[0] == 0, reason=f"needs a GPU: {nvidia_gpus()[1]}")
@pytest.mark.parametrize("tensorrt", [False, True])
def test_paddle_on_a_gpu_agrees(golden, tmp_path: Path, tensorrt: bool):
    require_engine("paddle")
    if "gpu:0" not in engine_module("paddle").capability().devices:
        pytest.skip("paddlepaddle here is the CPU build")
    own = (PaddleOptions(tensorrt=tensorrt),)
    options = EngineOptions(device="gpu:0", max_batch=4, cache_dir=tmp_path, own=own)
    with load_engine("paddle", MINI / "inference.pdmodel", options) as engine:
        output = engine.infer({"x": golden["x"]})[engine.outputs[0].name]
    np.testing.assert_allclose(output, golden["probabilities"], atol=1e-5)
