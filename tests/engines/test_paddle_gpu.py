# SPDX-License-Identifier: Apache-2.0
"""What Paddle is asked for on a GPU, and which programs it gets, as far as no GPU is needed."""

from __future__ import annotations

import dataclasses
import itertools
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import DATA, MINI, require_engine
from hgdeploy.engines import load_engine
from hgdeploy.engines.base import TensorSpec
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.config import open_predictor, precision_warnings
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.engines.paddle.tensorrt import converted
from hgdeploy.errors import BundleError, EngineError, HGDeployError
from hgdeploy.gpu.driver import NvidiaGpu

PIR = DATA / "pphgnet_mini_pir"


@pytest.fixture
def core():
    """Paddle's core, with its switches of TF32 put back afterwards."""
    require_engine("paddle")
    from paddle.base import core

    before = core.get_cudnn_switch(), core.get_cublas_switch()
    yield core
    core.set_cudnn_switch(before[0])
    core.set_cublas_switch(before[1])


@pytest.mark.parametrize("set_by_user", [None, "1"])
@pytest.mark.parametrize("fails", [False, True])
def test_fp32_on_a_gpu_is_ieee_fp32_for_convolutions_products_and_tensorrt(
    core, monkeypatch, set_by_user: str | None, fails: bool
):
    import paddle.inference

    seen = []

    def create(config: object) -> str:
        switches = core.get_cudnn_switch(), core.get_cublas_switch()
        seen.append((*switches, os.environ["NVIDIA_TF32_OVERRIDE"]))
        if fails:
            raise RuntimeError("no")
        return "predictor"

    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    if set_by_user is not None:
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", set_by_user)
    monkeypatch.setattr(paddle.inference, "create_predictor", create)
    core.set_cudnn_switch(True)
    core.set_cublas_switch(True)
    on_a_gpu = SimpleNamespace(use_gpu=lambda: True)
    if fails:
        with pytest.raises(BundleError):
            open_predictor(on_a_gpu, MINI)
    else:
        assert open_predictor(on_a_gpu, MINI) == "predictor"
    assert seen == [(False, False, "0")]
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == set_by_user


@pytest.mark.parametrize("version", ["2.6.2", "2.6.2.post120", "1.8.5"])
@pytest.mark.parametrize("device", ["cpu", "gpu:0"])
def test_a_program_of_paddle_3_is_not_given_to_an_older_paddle(monkeypatch, version, device):
    """Paddle 2 dies of it, by a signal."""
    require_engine("paddle")
    import paddle
    import paddle.inference

    monkeypatch.setattr(paddle, "__version__", version)
    monkeypatch.setattr(paddle.inference, "create_predictor", lambda _: pytest.fail("it was given"))
    with pytest.raises(
        EngineError, match=f"Paddle {version} cannot read .*inference.json"
    ) as error:
        load_engine("paddle", PIR / "inference.json", EngineOptions(device=device))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("version", ["3.0.0-beta1", "3.3.1", "0.0.0"])
def test_a_newer_paddle_and_a_nightly_one_get_it(monkeypatch, version):
    require_engine("paddle")
    import paddle

    monkeypatch.setattr(paddle, "__version__", version)
    options = EngineOptions(own=(PaddleOptions(onednn=False),))
    with load_engine("paddle", PIR / "inference.json", options) as engine:
        assert engine.runtime.version == version


def test_an_int8_program_that_runs_in_fp32_says_so():
    options = {"device": "gpu:0", "precision": "int8"}
    [text] = precision_warnings(EngineOptions(**options))
    assert "runs in fp32" in text
    in_tensorrt = EngineOptions(**options, own=(PaddleOptions(tensorrt=True),))
    assert precision_warnings(in_tensorrt) == ()
    assert precision_warnings(EngineOptions(precision="int8")) == ()


GPU = EngineOptions(device="gpu:0", max_batch=4, own=(PaddleOptions(tensorrt=True),))


def test_a_paddle_3_program_needs_a_paddle_that_hands_parts_to_tensorrt(tmp_path):
    """The build for a CPU has no `paddle.tensorrt`."""
    require_engine("paddle")
    source = PIR / "inference.json"
    options = dataclasses.replace(GPU, cache_dir=tmp_path)
    with pytest.raises(EngineError, match="cannot hand parts of it to TensorRT") as caught:
        converted(source, options, ())
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def export(monkeypatch):
    """Paddle's converter, as far as it can be known without a GPU: names and parameters."""
    made: list[tuple] = []
    elsewhere: list[Path] = []

    def convert(model_path: str, config: SimpleNamespace) -> None:
        assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
        made.append((model_path, config))
        if config.precision_mode == "FP16":
            raise RuntimeError("(Unavailable) TensorRT is not loaded.\n[operator]")
        # As Paddle does: engines at home, under names that another model's may have.
        engines = Path("~/.pp_trt_cache").expanduser() if elsewhere == [] else elsewhere[0]
        engines.mkdir(parents=True, exist_ok=True)
        (engines / "engine_12345678.trt").write_bytes(b"engine")
        for suffix in (".json", ".pdiparams"):
            Path(config.save_model_dir + suffix).write_bytes(b"converted")

    def config_of(inputs: list, **settings: object) -> SimpleNamespace:
        return SimpleNamespace(inputs=inputs, save_model_dir=None, **settings)

    modes = {"FP32": "FP32", "FP16": "FP16"}
    names = {"Input": SimpleNamespace, "TensorRTConfig": config_of, "PrecisionMode": modes}
    module = SimpleNamespace(**names, convert=convert, made=made, elsewhere=elsewhere)
    monkeypatch.setitem(sys.modules, "paddle.tensorrt.export", module)
    return module


def test_a_paddle_3_program_is_converted_once(export, tmp_path):
    require_engine("paddle")
    source = PIR / "inference.json"
    inputs = (TensorSpec("x", "float32", (-1, 3, 64, 64)),)
    options = dataclasses.replace(GPU, cache_dir=tmp_path)
    given = (source, options, inputs)
    program = converted(*given)
    assert program.read_bytes() == program.with_suffix(".pdiparams").read_bytes() == b"converted"
    assert converted(*given) == program
    [(path, config)] = export.made
    [x] = config.inputs
    assert path == str(source)
    assert (x.name, x.input_data_type) == ("x", "float32")
    assert (x.min_input_shape, x.optim_input_shape) == ((1, 3, 64, 64), (4, 3, 64, 64))
    assert (config.precision_mode, config.min_subgraph_size) == ("FP32", 30)


def test_engines_of_another_gpu_or_another_tensorrt_are_not_used(export, tmp_path, monkeypatch):
    require_engine("paddle")
    module = sys.modules["hgdeploy.engines.paddle.tensorrt"]
    source = PIR / "inference.json"
    inputs = (TensorSpec("x", "float32", (-1, 3, 64, 64)),)
    options = dataclasses.replace(GPU, cache_dir=tmp_path)
    given = (source, options, inputs)
    machines = itertools.product(("Tesla T4", "NVIDIA L4"), ("10.3.0", "10.16.1.11"))
    for made, (name, version) in enumerate(machines, 1):
        gpus = (NvidiaGpu(0, name, (7, 5), 16384), NvidiaGpu(1, "another", (8, 0), 16384))
        monkeypatch.setattr(module, "nvidia_gpu_list", lambda gpus=gpus: gpus)
        monkeypatch.setattr(module, "installed_version", lambda *_, found=version: found)
        assert converted(*given) == converted(*given)
        assert len(export.made) == made


def test_engines_that_another_model_may_replace_are_refused(export, tmp_path):
    require_engine("paddle")
    source = PIR / "inference.json"
    options = dataclasses.replace(GPU, cache_dir=tmp_path / "cache")
    inputs = (TensorSpec("x", "float32", (-1, 3, 64, 64)),)
    export.elsewhere.append(tmp_path / "elsewhere")
    home = os.environ.get("HOME")
    with pytest.raises(EngineError, match="where those of another model may take their names"):
        converted(source, options, inputs)
    assert os.environ.get("HOME") == home
    assert not list((tmp_path / "cache").rglob("*.json"))


@pytest.mark.parametrize(
    ("changes", "shape", "told"),
    [
        ({"precision": "int8"}, (-1, 3, 64, 64), "computes fp32 and fp16, and int8 was asked for"),
        ({"device": "gpu:1"}, (-1, 3, 64, 64), "CUDA_VISIBLE_DEVICES"),
        ({}, (-1, 3, -1, -1), "TensorRT needs the image size"),
        ({"precision": "fp16"}, (-1, 3, 64, 64), "cannot convert .*TensorRT is not loaded"),
    ],
)
@pytest.mark.usefixtures("export")
def test_what_cannot_be_converted_is_refused_and_nothing_is_kept(tmp_path, changes, shape, told):
    require_engine("paddle")
    source = PIR / "inference.json"
    options = dataclasses.replace(GPU, cache_dir=tmp_path / "cache", **changes)
    inputs = (TensorSpec("x", "float32", shape),)
    with pytest.raises(HGDeployError, match=told) as caught:
        converted(source, options, inputs)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "cache").rglob("*.json"))
