# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime asked for a GPU that is not there, or for what it does not compute there."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from conftest import MINI, require_engine
from hgdeploy.engines import engine_module, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError
from hgdeploy.gpu.driver import nvidia_gpus

CUDA = "CUDAExecutionProvider"
MODEL = MINI / "inference.onnx"


@pytest.fixture
def gpu_build(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], None]], None]:
    """Have the installed ONNX Runtime claim CUDA, as the GPU build does on any machine."""
    if nvidia_gpus()[0]:
        pytest.skip("this machine has a GPU")
    require_engine("onnxruntime")
    import onnxruntime

    def claim(preload: Callable[[], None]) -> None:
        monkeypatch.setattr(onnxruntime, "preload_dlls", preload)

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA, "CPU"])
    return claim


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_cuda_is_loaded_before_the_session_and_what_is_missing_stays_off_stdout(
    gpu_build, monkeypatch, capfd
):
    """Only `preload_dlls` finds the libraries of pip's nvidia packages; it prints its failures."""
    import onnxruntime

    session, order = onnxruntime.InferenceSession, []
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda *a, **k: (order.append("session"), session(*a, **k))[1],
    )

    def preload() -> None:
        order.append("preload")
        print("Failed to load libcudart.so.13: no such file")

    gpu_build(preload)
    with pytest.raises(EngineError, match=f"CUDA did not load.*{nvidia_gpus()[1]}") as caught:
        load_engine("onnxruntime", MODEL, EngineOptions(device="gpu:0"))
    assert order == ["preload", "session"]
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().out == ""


def test_a_run_that_fails_is_not_repeated_on_the_cpu(monkeypatch):
    """ONNX Runtime's Python API does that, with a printed note."""
    require_engine("onnxruntime")
    import onnxruntime

    off = []
    monkeypatch.setattr(onnxruntime.InferenceSession, "disable_fallback", lambda s: off.append(s))
    with load_engine("onnxruntime", MODEL, EngineOptions()) as engine:
        assert off == [engine._session]


@pytest.mark.parametrize(
    ("printed", "reason"),
    [
        (
            "*** EP Error ***\nEP Error info.cc:60 FAIL : Parse: CUDA failure 35: CUDA driver "
            "version is insufficient for CUDA runtime version ; GPU=-1 ; file=x\nFalling back",
            "CUDA failure 35: CUDA driver version is insufficient for CUDA runtime version; check",
        ),
        ("Failed to load libcudnn.so.9: none\n", "Failed to load libcudnn.so.9: none; check"),
        ("", "check the driver, CUDA and cuDNN"),
    ],
)
@pytest.mark.filterwarnings("ignore:Specified provider")
def test_what_onnx_runtime_prints_becomes_the_reason(gpu_build, monkeypatch, printed, reason):
    module = sys.modules["hgdeploy.engines.onnxruntime"]
    monkeypatch.setattr(module, "reason_gpu_is_missing", lambda _: None)
    monkeypatch.setattr(module, "problems_here", lambda _: [])
    gpu_build(lambda: print(printed))
    with pytest.raises(EngineError, match="CUDA did not load") as caught:
        load_engine("onnxruntime", MODEL, EngineOptions(device="gpu:0"))
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_build_claims_no_gpu_that_the_driver_lacks(gpu_build):
    found = engine_module("onnxruntime").capability()
    assert found.devices == ("cpu",)
    assert f"gpu: {nvidia_gpus()[1]}" in found.notes


def test_int8_on_a_gpu_is_refused_because_it_would_be_fp32():
    with pytest.raises(EngineError, match=r"no int8 on a GPU.*available: fp32, tf32, fp16, bf16"):
        load_engine("onnxruntime", MODEL, EngineOptions(device="gpu:0", precision="int8"))


def test_a_cpu_build_says_how_to_get_the_other_without_mixing_them(monkeypatch):
    require_engine("onnxruntime")
    monkeypatch.setattr(sys.modules["onnxruntime"], "get_available_providers", lambda: ["CPU"])
    with pytest.raises(EngineError, match=r"pip uninstall onnxruntime, then .*\[gpu-cu12\]"):
        load_engine("onnxruntime", MODEL, EngineOptions(device="gpu:0"))
