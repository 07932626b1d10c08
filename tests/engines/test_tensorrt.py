# SPDX-License-Identifier: Apache-2.0
"""The TensorRT engine: on a fake driver and library, and on a machine without a GPU."""

from __future__ import annotations

from pathlib import Path

import fake_tensorrt
import pytest
from fake_gpu import DOUBLES, TESTS, check_on_fake_gpu, make_fake_gpu

from conftest import IMAGES, MINI, has, hgdeploy, predict_cls
from hgdeploy.engines import engine_module, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError
from hgdeploy.gpu.device import LIBRARY_VARIABLE
from hgdeploy.gpu.driver import nvidia_gpus

CHECKS = DOUBLES / "fake_cuda"
OF_TENSORRT = [str(CHECKS / f"checks_tensorrt{end}.py") for end in ("", "_causes", "_layers")]
without_gpu = pytest.mark.skipif(nvidia_gpus()[0] > 0, reason="this machine has a GPU")
needs_bindings = pytest.mark.skipif(
    not has("cuda.bindings.driver") and not has("cuda.cuda"), reason="needs cuda-bindings"
)
PROFILE = {"x": [(1, 3, 64, 64), (2, 3, 64, 64), (4, 3, 64, 64)]}


@pytest.fixture(scope="module")
def fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_fake_gpu(tmp_path_factory.mktemp("fake_gpu"))


@needs_bindings
def test_it_runs_on_cuda_bindings(fake_gpu):
    check_on_fake_gpu(fake_gpu, *OF_TENSORRT)


@pytest.mark.skipif(not has("pycuda"), reason="needs pycuda")
def test_it_runs_on_pycuda(fake_gpu):
    environment = {**fake_gpu, LIBRARY_VARIABLE: "pycuda"}
    check_on_fake_gpu(environment, *OF_TENSORRT, may_skip=True)


@needs_bindings
def test_tensorrt_rtx_is_configured_to_compile_and_capture(fake_gpu):
    check_on_fake_gpu(fake_gpu, str(CHECKS / "checks_tensorrt_rtx.py"))


@needs_bindings
def test_it_passes_the_contract_of_all_engines(fake_gpu, tmp_path: Path):
    engine = tmp_path / "inference.engine"
    onnx = (MINI / "inference.onnx").read_bytes()
    engine.write_bytes(fake_tensorrt.engine_file(onnx, PROFILE))
    environment = {**fake_gpu, "HGDEPLOY_TEST_ENGINE": str(engine)}
    check_on_fake_gpu(
        environment, str(TESTS / "engines" / "test_engines.py"), "-k", "tensorrt", may_skip=True
    )


@without_gpu
def test_without_a_gpu_the_error_says_what_to_do_instead(tmp_path: Path):
    source = tmp_path / "inference.engine"
    source.write_bytes(b"engine")
    with pytest.raises(EngineError) as caught:
        load_engine("tensorrt", source, EngineOptions(device="gpu:0"))
    assert "gpu:0 was asked for, but no NVIDIA driver is installed" in str(caught.value)
    assert "\n" not in str(caught.value)


@without_gpu
def test_predict_cls_without_a_gpu_is_one_line_and_a_code(mini: Path):
    (mini / "inference.engine").write_bytes(b"engine")
    given = [f"Global.inference_model_dir={mini}", f"Global.infer_imgs={IMAGES}"]
    switches = ["Global.use_tensorrt=True", "Global.use_onnx=True", "Global.use_gpu=True"]
    done = predict_cls(*(word for text in given + switches for word in ("-o", text)))
    assert done.returncode == 6
    assert done.stdout == ""
    assert "gpu:0 was asked for, but no NVIDIA driver is installed" in done.stderr
    assert done.stderr.count("\n") == 1


@without_gpu
def test_the_doctor_says_that_it_needs_a_gpu():
    lines = hgdeploy("doctor").stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("  tensorrt"))
    if engine_module("tensorrt").capability().version is None:
        assert lines[head] == "  tensorrt: not installed"
    else:
        assert lines[head].endswith(": no device here")
    assert "needs an NVIDIA GPU" in lines[head + 1]
