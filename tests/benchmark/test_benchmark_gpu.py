# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy benchmark` on GPUs: on the fake one, and as far as it goes without any."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_gpu import DOUBLES, check_on_fake_gpu, make_fake_gpu

from conftest import REPO, has
from hgdeploy.benchmark import load_results
from hgdeploy.cli.main import main
from hgdeploy.gpu.driver import nvidia_gpus

V100 = REPO / "benchmarks" / "suites" / "v100_table.yaml"
without_gpu = pytest.mark.skipif(nvidia_gpus()[0] > 0, reason="this machine has a GPU")
needs_bindings = pytest.mark.skipif(
    not has("cuda.bindings.driver") and not has("cuda.cuda"), reason="needs cuda-bindings"
)


@needs_bindings
def test_it_measures_on_a_gpu(tmp_path_factory):
    environment = make_fake_gpu(tmp_path_factory.mktemp("fake_gpu"))
    check_on_fake_gpu(environment, str(DOUBLES / "fake_cuda" / "checks_benchmark.py"))


@without_gpu
def test_the_published_suite_fails_at_once_where_there_is_no_gpu(tmp_path: Path, capsys):
    """Its command needs no device; and nothing is exported for what cannot be built."""
    output, bundles = tmp_path / "r.json", tmp_path / "bundles"
    words = ["--suite", V100, "--engine", "tensorrt", "--precision", "fp32", "fp16"]
    words += ["--model", "PPHGNet_tiny", "--bundles", bundles, "--output", output]
    assert main(["benchmark", *map(str, words)]) == 3
    results = load_results(output).results
    assert len(results) == 2
    for result in results:
        assert result.case.device == "gpu:0"
        assert "needs NVIDIA GPU 0, but no NVIDIA driver is installed" in str(result.reason)
    assert not bundles.exists()
    assert capsys.readouterr().err.splitlines()[-1] == "hgdeploy: 2 of 2 cases failed"
