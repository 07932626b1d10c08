# SPDX-License-Identifier: Apache-2.0
"""What `hgdeploy benchmark` does on a GPU; run by test_benchmark_gpu.py on the fake one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import fake_tensorrt
import pytest

from conftest import MINI
from hgdeploy.benchmark import CaseResult, load_results
from hgdeploy.bundle.engine_key import EngineKey
from hgdeploy.bundle.model_bundle import open_model
from hgdeploy.bundle.names import RUNTIMES, engine_name
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.cli.main import main
from hgdeploy.convert.engine_files import with_engine
from hgdeploy.engines.options import EngineOptions

SHORT = ("--min-seconds", "0.05", "--min-iterations", "5")


@pytest.fixture
def onnx_bundle(tmp_path: Path) -> Path:
    """The bundle of pphgnet_mini with nothing but its ONNX file."""
    folder = tmp_path / "mini"
    folder.mkdir()
    shutil.copy(MINI / "inference.onnx", folder)
    return folder


def measured(output: Path, *arguments: object, code: int = 0) -> tuple[CaseResult, ...]:
    """Measure with TensorRT, and return the results."""
    words = ["benchmark", "--engine", "tensorrt", *arguments, *SHORT, "--output", output]
    assert main(list(map(str, words))) == code
    return load_results(output).results


def engines_in(folder: Path) -> dict[Path, EngineKey]:
    return {
        path: EngineKey.from_json(read_sidecar(path)["key"], str(path))
        for path in sorted(folder.glob(".cache/tensorrt/*/*.engine"))
    }


def engine_for(bundle: Path, precision: str = "fp32", batch: int = 1) -> tuple[Path, list[str]]:
    """Return the file that a measurement would use, and what was said on the way."""
    said: list[str] = []
    options = EngineOptions(device="gpu:0", precision=precision, max_batch=batch)
    found = with_engine(open_model(bundle), options, said.append, said.append)
    return found.path(engine_name(precision, RUNTIMES[0])), said


def test_the_engine_is_built_before_the_clock_starts(onnx_bundle, tmp_path, capsys):
    cases = ("--model", onnx_bundle, "--precision", "fp32", "fp16")
    results = measured(tmp_path / "first.json", *cases)
    said = capsys.readouterr().err
    assert said.count("building ") == said.count("tensorrt: Building engine") == 2
    assert said.index("Building engine") < said.index("[1/2]")
    assert [result.case.device for result in results] == ["gpu:0"] * 2
    assert all(result.timings_ms["compute"] for result in results)


def test_each_precision_and_batch_has_an_engine_of_its_own(onnx_bundle):
    for precision, batch in (("fp32", 1), ("fp16", 1), ("fp32", 4)):
        file, said = engine_for(onnx_bundle, precision, batch)
        assert sum(line.startswith("building ") for line in said) == 1
        assert engine_for(onnx_bundle, precision, batch) == (
            *(file, [f"{file} fits: there is nothing to build"]),
        )
    built = engines_in(onnx_bundle)
    assert {(key.precision, key.profile.batch) for key in built.values()} == {
        *(("fp32", (1, 1, 1)), ("fp32", (4, 4, 4)), ("fp16", (1, 1, 1))),
    }
    assert all(path.parent.name == key.digest() for path, key in built.items())
    assert not (onnx_bundle / "inference.engine").exists()


def test_an_engine_that_the_bundle_has_is_measured_where_it_is_tuned_for_the_batch(onnx_bundle):
    assert main(["build", str(onnx_bundle), "--batch", "1,2,4", "--optimization-level", "5"]) == 0
    own = onnx_bundle / "inference.engine"
    assert engine_for(onnx_bundle, batch=2) == (own, [f"{own} fits: there is nothing to build"])
    file, _ = engine_for(onnx_bundle, batch=4)
    assert [*engines_in(onnx_bundle)] == [file]
    # An engine whose maker did not say what it is for is the model.
    (onnx_bundle / "inference.engine.meta.json").unlink()
    assert engine_for(onnx_bundle, batch=4) == (own, [])


def test_the_scope_gpu_has_the_gpus_own_time_and_the_rest_apart(
    onnx_bundle, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("FAKE_NVML_MHZ", "1500,1200")
    monkeypatch.setenv("FAKE_NVML_REASONS", "0x5")  # idle, and at its power limit
    output = tmp_path / "r.json"
    [one, two] = measured(
        output, "--model", onnx_bundle, "--scope", "gpu", "--streams", "1", "2", "--batch", "4"
    )
    said = capsys.readouterr()
    assert "streams" in said.out.splitlines()[0]
    for result in (one, two):
        stages = ["enqueue", "compute without graph", "h2d", "d2h", "host"]
        assert list(result.timings_ms) == stages
        assert all(len(ms) >= 5 and min(ms) >= 0 for ms in result.timings_ms.values())
        assert result.gpu["before"]["sm_mhz"] == 1500
        assert result.gpu["after"] == {
            "sm_mhz": 1200,
            "memory_mhz": 5001,
            "power_w": 70.1,
            "held_back": ["power limit"],
        }
        assert (result.gpu["driver"], result.gpu["cuda"]) == ("580.65.06", "13.0")
        assert any("moved from 1500 to 1200 MHz" in line for line in result.warnings)
        assert any("held back (power limit)" in line for line in result.warnings)
    assert len(two.samples_ms) >= 2 * 5
    assert main(["benchmark", "report", str(output)]) == 0
    report = capsys.readouterr().out
    assert "GPU Fake GPU 0 (driver 580.65.06 for CUDA 13.0), Fake GPU 1" in report
    assert "median GPU compute ms (measured)" in report
    assert "| enqueue | h2d | compute | compute without graph | d2h | host |" in report
    assert "trtexec's default is TF32, which is the precision tf32 here (not measured)" in report
    assert "tensorrt fp32, batch 4, gpu:0, 2 streams, gpu scope" in report


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (
            ["--streams", "2"],
            "2 streams are measured in the scope gpu, or engine on the cpu, not in engine",
        ),
        (["--tensorrt"], "is for the engine paddle"),
    ],
)
def test_what_does_not_go_together_is_refused(onnx_bundle, capsys, flags, told):
    assert main(["benchmark", "--model", str(onnx_bundle), "--engine", "tensorrt", *flags]) == 2
    assert told in capsys.readouterr().err


def test_an_engine_that_gives_no_times_of_the_gpu_is_refused_in_that_scope(tmp_path, onnx_bundle):
    words = ["--model", onnx_bundle, "--engine", "onnxruntime", "--scope", "gpu"]
    output = tmp_path / "r.json"
    assert main(["benchmark", *map(str, words), "--output", str(output)]) == 3
    [result] = load_results(output).results
    assert "does not give; measure it in the scope engine" in str(result.reason)


def test_files_alone_are_measured(tmp_path, capsys):
    onnx, plan = tmp_path / "net.onnx", tmp_path / "other.plan"
    shutil.copy(MINI / "inference.onnx", onnx)
    profile = {"x": [(2, 3, 64, 64)] * 3}
    plan.write_bytes(fake_tensorrt.engine_file(onnx.read_bytes(), profile))
    (tmp_path / "net.engine").write_bytes(b"another's")
    results = measured(tmp_path / "r.json", "--model", onnx, plan, "--batch", "2")
    assert [result.artifact for result in results] == ["net.engine", "other.plan"]
    assert [path.name for path in engines_in(tmp_path)] == ["net.engine"]
    assert (tmp_path / "net.engine").read_bytes() == b"another's"
    wrong = measured(tmp_path / "w.json", "--model", onnx, "--precision", "int8", code=3)
    assert "run hgdeploy quantize" in wrong[0].reason
    assert json.loads((tmp_path / "w.json").read_text())["cases"][0]["status"] == "failed"
    capsys.readouterr()
    assert main(["benchmark", "--engine", "onnxruntime", "--model", str(plan)]) == 3
    assert "nothing that onnxruntime reads" in capsys.readouterr().err
