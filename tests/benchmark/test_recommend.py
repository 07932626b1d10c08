# SPDX-License-Identifier: Apache-2.0
"""`recommend` measures what is there, and names only what qualifies."""

from __future__ import annotations

import onnx
import pytest
from broken_models import BREAKS
from fake_workers import FakeWorkers

from conftest import IMAGES, hgdeploy, require_engine
from hgdeploy.benchmark import Head, Record
from hgdeploy.benchmark.recommend import RecommendOptions, recommend
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.errors import ConfigError, ValidationError
from hgdeploy.images.find import find_images

QUICK = {"threads": (1,), "batches": (1,), "budget_seconds": 1.0}
HEAD = Head("recommend", (), {}, {})
ON_A_CPU = ("paddle", "onnxruntime", "openvino", "mnn", "ncnn")
PHOTOS = tuple(find_images(IMAGES))


@pytest.fixture(autouse=True)
def _engines():
    for name in ON_A_CPU:
        require_engine(name)


@pytest.fixture
def three_engines(mini):
    """The mini bundle without what mnn and ncnn read: each engine costs seconds."""
    (mini / "inference.mnn").unlink()
    (mini / "inference.ncnn.param").unlink()
    return mini


def ignore(_: str) -> None:
    pass


def recommended(folder, **options):
    """Recommend with workers that measure nothing."""
    workers = FakeWorkers(dict.fromkeys(ON_A_CPU, 5.0))
    asked = RecommendOptions(**options, **QUICK)
    return recommend(open_bundle(folder), asked, Record(None, HEAD), ignore, start=workers)


def test_the_best_is_the_fastest_of_all_that_was_measured(mini):
    record = Record(None, HEAD)
    found = recommend(open_bundle(mini), RecommendOptions(images=PHOTOS, **QUICK), record, ignore)
    measured = [e for e in found.evidence if e.result is not None]
    assert {e.run.engine for e in measured} == set(ON_A_CPU)
    rates = [e.result.stats.throughput for e in measured]
    assert rates == sorted(rates, reverse=True)
    assert found.best is measured[0]
    assert len(record.results) == len(measured)
    left_out = {e.run.name: e.reason for e in found.evidence if e.result is None}
    assert "inference.int8.onnx" in left_out["onnxruntime:int8"]


def test_what_agrees_too_little_is_left_out_with_its_figure(three_engines):
    model = onnx.load(three_engines / "inference.onnx")
    BREAKS[2](model)  # BGR: another best class on some photographs
    onnx.save(model, three_engines / "inference.onnx")
    found = recommended(three_engines, images=PHOTOS, min_agreement=1.0)
    for evidence in found.evidence:
        if evidence.result is not None:
            assert evidence.agreement == 1.0


def test_without_images_only_fp32_is_considered(three_engines):
    found = recommended(three_engines)
    assert {e.run.precision for e in found.evidence if e.result is not None} == {"fp32"}
    assert all(
        e.reason == "no images to compare it with fp32"
        for e in found.evidence
        if e.run.precision != "fp32"
    )


def test_a_latency_that_nothing_reaches_is_an_error_with_the_nearest(three_engines):
    with pytest.raises(ValidationError, match=r"nothing qualifies.*the closest was"):
        recommended(three_engines, latency_ms=1e-4)


@pytest.mark.parametrize(
    "wrong", [{"latency_ms": 0.0}, {"min_agreement": 1.5}, {"budget_seconds": 0.0}]
)
def test_wrong_wishes_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected a number "):
        RecommendOptions(**wrong)


def test_the_command_shows_the_evidence(three_engines, tmp_path):
    (three_engines / "inference.pdmodel").unlink()
    result = hgdeploy(
        "recommend", three_engines, "--latency-ms", 1000, "--budget-seconds", 1,
        "--output", tmp_path / "r.json",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[0].split()[:3] == ["run", "batch", "threads"]
    assert result.stdout.splitlines()[-1].startswith("best: ")
    assert (tmp_path / "r.json").exists()
