# SPDX-License-Identifier: Apache-2.0
"""What Paddle is asked for on a GPU, and which programs it gets, as far as no GPU is needed."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from conftest import DATA, MINI, require_engine
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.config import open_predictor, precision_warnings
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import BundleError, EngineError

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
