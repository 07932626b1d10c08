# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime asked for a GPU that is not there, or for what it does not compute there."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from conftest import MINI, require_engine
from hgdeploy.engines import engine_module, infer_rows, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.validation.inputs import random_rows

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
    module = sys.modules["hgdeploy.engines.onnxruntime.cuda"]
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


@pytest.fixture
def bound_on_cpu() -> Iterator[Any]:
    """An engine whose small batches go through fixed places, as the CUDA graphs of a GPU do.

    ONNX Runtime's CPU ignores the number of a graph; all else is what runs on a GPU.
    """
    require_engine("onnxruntime")
    import onnxruntime

    with load_engine("onnxruntime", MODEL, EngineOptions()) as engine:
        engine.use_graphs(onnxruntime, ("cpu", 0))
        yield engine


def test_runs_through_a_graphs_fixed_places_give_each_caller_its_own_outputs(bound_on_cpu):
    rows = random_rows(bound_on_cpu.inputs[0], None, 12, seed=0)
    with load_engine("onnxruntime", MODEL, EngineOptions()) as plain:
        wanted = {n: infer_rows(plain, rows[:n]) for n in (1, 3, 12)}
        other = infer_rows(plain, rows[1:2])
    for _ in range(4):  # the first time without a graph, then with; 12 rows always without
        kept = {n: infer_rows(bound_on_cpu, rows[:n]) for n in wanted}
        np.testing.assert_array_equal(infer_rows(bound_on_cpu, rows[1:2]), other)
        for n, outputs in kept.items():
            np.testing.assert_array_equal(outputs, wanted[n])


def test_callers_at_once_get_what_each_gets_alone_from_graphs(bound_on_cpu):
    rows = random_rows(bound_on_cpu.inputs[0], None, 16, seed=1)
    feeds = [rows[start : start + 1 + start % 3] for start in range(12)] + [rows]
    wanted = [infer_rows(bound_on_cpu, feed) for feed in feeds]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda feed: infer_rows(bound_on_cpu, feed), feeds)
            for want, got in zip(wanted, found, strict=True):
                np.testing.assert_array_equal(got, want)


def test_a_graph_that_fails_is_told_and_the_same_run_goes_on_without(bound_on_cpu, monkeypatch):
    row = random_rows(bound_on_cpu.inputs[0], None, 1, seed=2)
    wanted = infer_rows(bound_on_cpu, row)
    calls = []

    def broken(*_: object) -> None:
        calls.append(1)
        raise RuntimeError("operation failed due to a previous error during capture")

    monkeypatch.setattr(bound_on_cpu._session, "run_with_iobinding", broken)
    for _ in range(3):
        np.testing.assert_array_equal(infer_rows(bound_on_cpu, row), wanted)
    assert len(calls) == 1  # it is not tried again
    assert bound_on_cpu.runtime.providers[-1] == (
        "no CUDA graphs: operation failed due to a previous error during capture"
    )
