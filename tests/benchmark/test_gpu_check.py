# SPDX-License-Identifier: Apache-2.0
"""`make gpu-check`: what it says without a GPU, what it does on a fake one, and on a real one."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_tensorrt
import pytest
from fake_gpu import make_fake_gpu

from conftest import DEADLINE, MINI, REPO, has, hgdeploy, run_command
from hgdeploy.benchmark import load_results
from hgdeploy.gpu.driver import nvidia_gpus

SCRIPT = REPO / "benchmarks" / "gpu_check.py"
CHECKS = REPO / "benchmarks" / "gpu_checks.py"
DOCUMENT = REPO / "docs" / "tensorrt.md"
MODEL = "PPHGNet_tiny"
PROFILE = [1, 2, 4]

without_gpu = pytest.mark.skipif(nvidia_gpus()[0] > 0, reason="this machine has a GPU")
needs_gpu = pytest.mark.skipif(nvidia_gpus()[0] == 0, reason="needs an NVIDIA GPU")
needs_bindings = pytest.mark.skipif(
    not has("cuda.bindings.driver") and not has("cuda.cuda"), reason="needs cuda-bindings"
)


def run_on(environment: dict[str, str], *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in another environment."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


@without_gpu
def test_without_a_gpu_it_says_so_on_one_line_and_ends_with_6(tmp_path: Path):
    done = run_command(SCRIPT, "--output", tmp_path / "gpu.json")
    assert done.returncode == 6
    assert done.stdout == ""
    assert re.fullmatch(r"gpu-check: nothing can run, it needs an NVIDIA GPU: .+\n", done.stderr), (
        done.stderr
    )
    assert list(tmp_path.iterdir()) == []


def test_the_list_of_checks_is_the_documented_one():
    listed = run_command(SCRIPT, "--list")
    assert listed.returncode == 0, listed.stderr
    written = re.findall(r"^- `(\w+)`: (.+?) \*\*.+\*\*$", DOCUMENT.read_text(), re.MULTILINE)
    assert [f"{name}: {shows}" for name, shows in written] == listed.stdout.splitlines()
    assert len(written) >= 8


def test_a_model_that_the_zoo_does_not_have_is_refused():
    done = run_command(SCRIPT, "--models", "PPHGNet_tinny")
    assert done.returncode == 2
    assert "invalid choice: 'PPHGNet_tinny'" in done.stderr


@pytest.fixture(scope="module")
def fake_gpu(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return make_fake_gpu(tmp_path_factory.mktemp("fake_gpu"))


def write_engine(folder: Path, **facts: Any) -> None:
    onnx = (MINI / "inference.onnx").read_bytes()
    profile = {"x": [(batch, 3, 64, 64) for batch in PROFILE]}
    (folder / "inference.engine").write_bytes(fake_tensorrt.engine_file(onnx, profile, **facts))


def checked(environment: dict[str, str], check: str, bundle: Path) -> list[str]:
    """Return the status and the detail of one check."""
    facts = {"target": "tensorrt", "model": MODEL, "precision": "fp32", "bundle": str(bundle)}
    job = json.dumps({"check": check, "profile": PROFILE, **facts})
    done = run_on(environment, CHECKS, job)
    assert done.returncode == 0, done.stderr
    return list(json.loads(done.stdout.splitlines()[-1]))


@needs_bindings
def test_a_check_fails_on_an_engine_that_is_wrong(fake_gpu, mini: Path):
    import onnx

    write_engine(mini, uncapturable_at=[1])
    status, detail = checked(fake_gpu, "graphs", mini)
    assert status == "failed"
    assert detail.startswith("no CUDA graph: ")
    # The reference is another model than the one that was built.
    other = onnx.load(mini / "inference.onnx")
    constants = (node.attribute[0].t for node in other.graph.node if node.op_type == "Constant")
    kernel = next(tensor for tensor in constants if len(tensor.dims) == 4)
    kernel.raw_data = bytes(len(kernel.raw_data))
    onnx.save(other, mini / "inference.onnx")
    status, detail = checked(fake_gpu, "agree", mini)
    assert status == "failed"
    assert "largest difference" in detail


# The details of the checks on the fake machine. Its driver does not report its memory: that process
# dies.
DETAILS = {
    "build": r".+/inference.engine: x float32 .+ layers .+",
    "agree": r"largest difference \S+, allowed 1e-05",
    "limits": r"input 'x' has shape \[33, 3, 64, 64\], and the TensorRT engine serves .+",
    "graphs": "CUDA graph; equal bits",
    "concurrent": "64 runs by 4 callers, equal bits",
    "memory": "its process ended with 1; it said: AttributeError: .+",
    "captures": "no CUDA graph: .+; equal bits",
    "lives": "built and loaded in one process; .+",
    "end": "the process ended with an open engine",
    "command": "5 photographs classified",
    "trtexec": r"batch 8: \S+ ms, by trtexec 1000.000 ms, ratio 0.\d+, further from .+",
}


# The fake driver does not report its memory, and the fake trtexec finds the GPU very slow.
FAIL = ("memory", "trtexec")
TRTEXEC = """#!/bin/sh
for word; do
  case $word in
    --help) echo "--loadEngine --shapes --useCudaGraph"; exit 0;;
    --exportTimes=*) times=${word#*=};;
    --useCudaGraph) graph=1;;
    --shapes=x:8x3x64x64) shape=1;;
    --noDataTransfers) exit 1;;
  esac
done
[ "$graph$shape" = 11 ] && echo '[{"computeMs": 1000}]' > $times
"""


@needs_bindings
def test_everything_is_checked_timed_saved_and_gone_on_with(fake_gpu, mini: Path, tmp_path: Path):
    bundles, output = tmp_path / "bundles", tmp_path / "gpu.json"
    folder = bundles / f"{MODEL}_infer"
    shutil.copytree(mini, folder)
    shutil.copy(mini / "inference.onnx", folder / "inference.fp16.onnx")
    trtexec = tmp_path / "bin" / "trtexec"
    trtexec.parent.mkdir()
    trtexec.write_text(TRTEXEC)
    trtexec.chmod(0o755)
    package = str(REPO / "deploy" / "python")
    path = os.pathsep.join([package, fake_gpu["PYTHONPATH"]])
    where = ("--bundles", bundles, "--output", output)
    what = ("--quick", "--targets", "onnxruntime", "tensorrt", "--precisions", "fp32", "int8")
    programs = os.pathsep.join([str(trtexec.parent), fake_gpu["PATH"]])
    command = (
        {**fake_gpu, "PYTHONPATH": path, "PATH": programs},
        SCRIPT,
        *what,
        "--batches",
        "1,2",
        *where,
    )
    first = run_on(*command)
    assert first.returncode == 11, first.stdout + first.stderr
    account = json.loads((tmp_path / "gpu.checks.json").read_text())["checks"]
    rows = {(r["job"]["check"], r["job"]["precision"], *r["job"]["profile"]): r for r in account}
    statuses = {key: row["status"] for key, row in rows.items()}
    for check, wanted in DETAILS.items():
        row = rows[check, "fp32", 1, 8, 32]
        del statuses[check, "fp32", 1, 8, 32]
        assert row["status"] == ("failed" if check in FAIL else "passed"), first.stdout
        assert re.fullmatch(wanted, row["detail"]), row
    for check, batch in itertools.product(("build", "timing", "compute"), (1, 2)):
        assert statuses.pop((check, "fp32", batch, batch, batch)) == "passed"
    assert [(*key[:2], status) for key, status in statuses.items()] == [
        ("installed", "", "skipped"),
        ("agree", "int8", "skipped"),
    ]
    results = load_results(output).results
    assert [(one.case.batch, one.case.scope) for one in results] == [
        *((1, "engine"), (1, "gpu"), (2, "engine"), (2, "gpu")),
    ]
    for result in results:
        other = "compute without graph" if result.case.scope == "gpu" else "compute"
        assert set(result.timings_ms) == {"h2d", other, "d2h", "enqueue", "host"}
    report = hgdeploy("benchmark", "report", output)
    assert report.returncode == 0, report.stderr
    again = run_on(*command)
    assert again.returncode == 11
    assert again.stdout.count("2 of 2 cases are measured already") == 2
    assert load_results(output).results == results
    redone = json.loads((tmp_path / "gpu.checks.json").read_text())["checks"]
    assert sorted(map(str, (row["job"] for row in redone))) == (
        sorted(map(str, (row["job"] for row in account)))
    )


@needs_gpu
def test_all_checks_pass_on_this_gpu(tmp_path: Path):
    done = run_command(SCRIPT, "--quick", "--output", tmp_path / "gpu.json")
    assert done.returncode == 0, done.stdout + done.stderr
