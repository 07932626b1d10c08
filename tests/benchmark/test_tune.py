# SPDX-License-Identifier: Apache-2.0
"""`tune` makes what is missing, chooses by what was measured, and goes on where it was stopped."""

from __future__ import annotations

import json
import shutil
from itertools import count

import onnx
import pytest
from broken_models import BREAKS
from fake_workers import FakeWorkers

from conftest import IMAGES, require_engine
from hgdeploy.benchmark.recommend import RecommendOptions, TuneOptions, measuring, tune
from hgdeploy.benchmark.recommend.agreeing import Agreeing
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.cli.main import main
from hgdeploy.engines.auto.choose import Asked, choose
from hgdeploy.engines.auto.saved import usable_choice
from hgdeploy.engines.mnn import engine as mnn
from hgdeploy.engines.ncnn import engine as ncnn
from hgdeploy.engines.run import Run
from hgdeploy.errors import OutputError, ValidationError
from hgdeploy.images.find import find_images

PHOTO = str(IMAGES / "coffee.jpg")


@pytest.fixture(autouse=True)
def _two_engines(monkeypatch):
    """As if MNN and ncnn were not installed: each engine costs seconds."""
    for name in ("onnxruntime", "openvino"):
        require_engine(name)
    for module in (mnn, ncnn):
        monkeypatch.setattr(module, "installed_version", lambda *_: None)


@pytest.fixture
def bundle(mini):
    """The mini bundle as an ONNX file alone."""
    for name in (
        "inference.pdmodel",
        "inference.pdiparams",
        "inference.mnn",
        "inference.ncnn.param",
    ):
        (mini / name).unlink()
    return mini


@pytest.fixture
def two_runs(monkeypatch):
    """As if two engines had just been compared, for what does not depend on that."""
    runs = [(Run("onnxruntime"), None), (Run("openvino"), None)]
    monkeypatch.setattr(measuring, "agreeing_runs", lambda *_: Agreeing(runs, runs[0][0], 0, []))


def tuned(folder, workers, *, calibration=(), **wanted):
    """Tune with these workers; return what was found and what was said."""
    said: list[str] = []
    options = TuneOptions(RecommendOptions(**{"batches": (1,), **wanted}), calibration)
    with_fakes = (workers.clock, workers)
    return tune(open_bundle(folder), options, said.append, said.append, *with_fakes), said


def test_the_fastest_is_saved_and_auto_runs_it(bundle):
    workers = FakeWorkers({"onnxruntime": 4.0, "openvino": 3.0})
    found, _ = tuned(bundle, workers)
    saved = usable_choice(bundle)
    assert saved.run.name == "openvino"
    assert found.path == bundle / "recommended.json"
    assert choose(bundle, Asked("auto"), print).run == saved.run
    assert {row["run"] for row in saved.evidence if "n" in row} == {"openvino", "onnxruntime"}
    assert len(workers.measured) == 2 * len(RecommendOptions().ways)
    states = {variant.name: variant.state for variant in found.variants}
    assert states["inference.onnx"] == "there"
    reasons = {variant.name: variant.reason for variant in found.variants}
    assert "mnn: install hgdeploy's extra mnn" in reasons["inference.mnn"]
    assert "int8 needs real images" in reasons["inference.int8.onnx"]
    assert sorted(path.name for path in (bundle / ".cache").iterdir()) == []


def test_what_differs_from_its_source_is_never_chosen(mini, monkeypatch):
    require_engine("paddle")
    broken = onnx.load(mini / "inference.onnx")
    BREAKS[2](broken)
    onnx.save(broken, mini / "inference.onnx")
    workers = FakeWorkers({"paddle": 9.0, "onnxruntime": 1.0, "openvino": 1.0})
    found, _ = tuned(mini, workers)
    assert usable_choice(mini).run.name == "paddle"
    reasons = {evidence.run.name: evidence.reason for evidence in found.found.evidence}
    assert reasons["onnxruntime"].startswith("differs from paddle: ")
    assert {engine for engine, *_ in workers.measured} == {"paddle"}


@pytest.mark.usefixtures("two_runs")
def test_an_engine_that_fails_or_is_too_slow_is_not_chosen(bundle):
    tuned(bundle, FakeWorkers({"onnxruntime": 4.0, "openvino": None}))
    assert usable_choice(bundle).run.name == "onnxruntime"
    before = (bundle / "recommended.json").read_bytes()
    with pytest.raises(ValidationError, match="nothing qualifies on this machine"):
        tuned(bundle, FakeWorkers({"onnxruntime": 4.0, "openvino": 4.0}), latency_ms=0.5)
    assert (bundle / "recommended.json").read_bytes() == before


@pytest.mark.usefixtures("two_runs")
def test_an_interrupted_run_goes_on_where_it_was(bundle):
    ms = {"onnxruntime": 4.0, "openvino": 3.0}
    first = FakeWorkers(ms, stop_at=2)
    with pytest.raises(KeyboardInterrupt):
        tuned(bundle, first)
    assert not (bundle / "recommended.json").exists()
    second = FakeWorkers(ms)
    _, said = tuned(bundle, second)
    assert len(first.measured) == 1
    assert "1 measurements of an interrupted run are taken over" in said
    assert first.measured[0] not in second.measured
    assert usable_choice(bundle).run.name == "openvino"
    third = FakeWorkers(ms)  # all was measured: it measures anew
    tuned(bundle, third)
    assert len(third.measured) == len(first.measured) + len(second.measured)


@pytest.mark.usefixtures("two_runs")
def test_what_was_measured_with_another_model_is_measured_again(bundle):
    ms = {"onnxruntime": 4.0, "openvino": 3.0}
    with pytest.raises(KeyboardInterrupt):
        tuned(bundle, FakeWorkers(ms, stop_at=2))
    path = bundle / "inference.onnx"
    path.write_bytes(path.read_bytes() + b"\x32\x01x")  # another doc_string
    again = FakeWorkers(ms)
    _, said = tuned(bundle, again)
    assert len(again.measured) == 2 * len(RecommendOptions().ways)
    assert not [line for line in said if "taken over" in line]
    so_far = bundle / ".cache" / "tune.json"
    with pytest.raises(KeyboardInterrupt):
        tuned(bundle, FakeWorkers(ms, stop_at=2))
    facts = json.loads(so_far.read_text())
    facts["environment"]["id"] = "of another machine"
    so_far.write_text(json.dumps(facts))
    _, said = tuned(bundle, FakeWorkers(ms))
    assert any("not used: " in line and "another environment" in line for line in said)


@pytest.mark.usefixtures("two_runs")
def test_the_budget_ends_the_measurements_and_the_next_run_goes_on(bundle):
    ms = {"onnxruntime": 4.0, "openvino": 3.0}
    slow = FakeWorkers(ms, seconds=6.0)
    found, _ = tuned(bundle, slow, budget_seconds=10.0)
    assert not found.found.complete
    # Both engines had their most promising way before any had its second.
    assert [engine for engine, *_ in slow.measured] == ["onnxruntime", "openvino"]
    assert usable_choice(bundle).run.name == "openvino"
    rest = FakeWorkers(ms, seconds=6.0)
    found, _ = tuned(bundle, rest, budget_seconds=100.0)
    assert found.found.complete
    assert not set(slow.measured) & set(rest.measured)


@pytest.mark.usefixtures("two_runs")
def test_nothing_is_converted_in_the_second_half_of_the_budget(bundle, monkeypatch):
    monkeypatch.setattr(mnn, "installed_version", lambda *_: "3.6.1")
    ticks = count(step=6.0)
    workers = FakeWorkers({"onnxruntime": 4.0, "openvino": 3.0})
    workers.clock = lambda: next(ticks)
    found, said = tuned(bundle, workers, budget_seconds=10.0)
    reasons = {variant.name: variant.reason for variant in found.variants}
    assert "half of the time is used up" in reasons["inference.mnn"]
    assert "inference.mnn: skipped: " in " ".join(said)


@pytest.mark.usefixtures("two_runs")
def test_two_at_once_are_refused(bundle):
    workers = FakeWorkers({"onnxruntime": 4.0, "openvino": 3.0})

    def start(limit):
        with pytest.raises(OutputError, match="another process is writing it"):
            tuned(bundle, FakeWorkers(workers.ms))
        return workers(limit)

    options = TuneOptions(RecommendOptions(batches=(1,), threads=(1,)))
    tune(open_bundle(bundle), options, print, print, workers.clock, start)


def test_int8_comes_from_calibration_images_and_is_compared_on_them(bundle, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(IMAGES, photos)
    workers = FakeWorkers({"onnxruntime": 4.0, "openvino": 3.0})
    found, _ = tuned(bundle, workers, calibration=tuple(find_images(str(photos))))
    (int8,) = [v for v in found.variants if v.name == "inference.int8.onnx"]
    assert int8.state == "made" or int8.reason
    compared = [e for e in found.found.evidence if e.agreement is not None]
    assert compared


def test_the_command_says_what_was_done_and_what_uses_it(bundle, capsys):
    assert main(["tune", str(bundle), "--budget-seconds", "1"]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "inference.onnx: there"
    assert lines[-1] == f"run it with: hgdeploy predict {bundle} IMAGES --engine auto"
    assert lines[-2] == f"saved: {bundle / 'recommended.json'}"
    assert lines[-3].startswith("best: ")
    assert "left out: all but fp32: no images to compare it with fp32" in lines
    assert "hgdeploy: [1/" in err
    assert main(["predict", str(bundle), PHOTO, "--engine", "auto"]) == 0
    assert "the fastest here on" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["tune"], ["recommend", "--throughput"]])
def test_a_folder_without_a_model_stays_as_it_is(tmp_path, capsys, command: list[str]):
    shutil.copy(PHOTO, tmp_path)
    assert main([*command, str(tmp_path)]) == 5
    assert "there are no model files in it" in capsys.readouterr().err
    assert len(list(tmp_path.iterdir())) == 1


def test_the_command_is_interrupted_in_one_line(bundle, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("hgdeploy.benchmark.recommend.tuning.recommend", interrupt)
    assert main(["tune", str(bundle)]) == 130
    assert "the same command goes on from there" in capsys.readouterr().err
    assert main(["tune", str(bundle), "--min-agreement", "0.9"]) == 2
    assert "has no effect without --images or --calibration" in capsys.readouterr().err
