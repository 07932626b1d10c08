# SPDX-License-Identifier: Apache-2.0
"""The GPU behind an engine: real CUDA libraries on a fake driver, and a machine without any."""

from __future__ import annotations

import pytest
from fake_gpu import DOUBLES, check_on_fake_gpu, make_fake_gpu

from conftest import has
from hgdeploy.errors import EngineError
from hgdeploy.gpu.device import LIBRARY_VARIABLE, open_device
from hgdeploy.gpu.driver import nvidia_gpus

CHECKS = str(DOUBLES / "fake_cuda" / "checks_cuda.py")
without_gpu = pytest.mark.skipif(nvidia_gpus()[0] > 0, reason="this machine has a GPU")


@pytest.fixture(scope="module")
def fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_fake_gpu(tmp_path_factory.mktemp("fake_gpu"))


@pytest.mark.skipif(
    not has("cuda.bindings.driver") and not has("cuda.cuda"), reason="needs cuda-bindings"
)
def test_cuda_bindings_do_what_the_engine_needs(fake_gpu):
    check_on_fake_gpu({**fake_gpu, LIBRARY_VARIABLE: "cuda-bindings"}, CHECKS)


@pytest.mark.skipif(not has("pycuda"), reason="needs pycuda")
def test_pycuda_does_what_the_engine_needs(fake_gpu):
    check_on_fake_gpu({**fake_gpu, LIBRARY_VARIABLE: "pycuda"}, CHECKS, may_skip=True)


@without_gpu
@pytest.mark.parametrize("library", ["cuda-bindings", "pycuda"])
def test_without_a_gpu_the_error_says_what_to_do_instead(monkeypatch, library: str):
    monkeypatch.setenv(LIBRARY_VARIABLE, library)
    with pytest.raises(EngineError, match=r"gpu:0 was asked for, but .*Global\.use_gpu=False"):
        open_device(0)


@pytest.mark.parametrize("name", ["cuda", "cupy", "PyCUDA"])
def test_an_unknown_cuda_library_is_an_error_that_names_the_known(monkeypatch, name: str):
    monkeypatch.setenv(LIBRARY_VARIABLE, name)
    with pytest.raises(EngineError, match=f"HGDEPLOY_CUDA is '{name}'.*(cuda-bindings|pycuda)"):
        open_device(0)
