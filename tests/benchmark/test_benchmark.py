# SPDX-License-Identifier: Apache-2.0
"""The benchmark harness: suites, statistics, scheduling, the results file and real processes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal

import numpy as np
import pytest

from conftest import DEADLINE, REPO, require_engine, run_command
from hgdeploy import zoo
from hgdeploy.benchmark import (
    Case,
    CaseResult,
    Head,
    Record,
    ResultFile,
    Runner,
    Settings,
    Suite,
    advise,
    compare_samples,
    describe_environment,
    load_results,
    load_suite,
    machine,
    run_suite,
    split_rounds,
    summarize,
)
from hgdeploy.benchmark.advice import Circumstances
from hgdeploy.benchmark.stats import bootstrap_medians
from hgdeploy.benchmark.suite_file import parse_suite
from hgdeploy.benchmark.worker.prepare import is_missing, make_missing
from hgdeploy.benchmark.worker.process import CaseError, CaseProcess
from hgdeploy.cli.measure import benchmark as command
from hgdeploy.cli.terminal import Parser
from hgdeploy.engines import RuntimeInfo
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.system.machine import available_cpus

SUITES = REPO / "benchmarks" / "suites"
RESULTS = REPO / "benchmarks" / "results"
ENVIRONMENT = {**describe_environment(), "id": "e", "cpu": "c"}
HEAD = Head("s", ("hgdeploy", "benchmark"), {"rounds": 3}, ENVIRONMENT)
RUNTIME = RuntimeInfo("openvino", "openvino", "0", "cpu", ("CPU",), "fp32", 1)
CALM = Circumstances(first_ms=1.0, overhead_us=0.0)


# ---------------------------------------------------------------------------------------- suites


def test_a_suite_is_the_product_of_its_lists_in_order_less_what_is_excluded():
    raw = {
        "models": ["PPHGNet_tiny", "PPHGNet_small"],
        "engines": ["paddle", "openvino"],
        "threads": [1, "all"],
        "exclude": [{"engine": "paddle", "threads": "all"}, {"model": "PPHGNet_small"}],
    }
    cases = parse_suite(raw, "s").cases()
    assert [(c.model, c.engine, c.threads) for c in cases] == [
        ("PPHGNet_tiny", "paddle", 1),
        ("PPHGNet_tiny", "openvino", 1),
        ("PPHGNet_tiny", "openvino", None),
    ]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"model": ["a"]}, "unknown key model, did you mean 'models'?"),
        ({"models": "a"}, "models is 'a', expected a list"),
        ({"models": []}, "models is []"),
        ({"models": [1]}, "model is 1, expected a text"),
        ({"models": ["a", "a"]}, "has the same case twice"),
        (
            {"models": ["a"], "batches": [*range(1, 3001)], "threads": [*range(1, 1001)]},
            "has 3000000 cases, more than 10000",
        ),
        ({"models": ["a"], "engines": ["openvin"]}, "did you mean 'openvino'?"),
        ({"models": ["a"], "precisions": ["fp23"]}, "unknown precision 'fp23'"),
        (
            {"models": ["a"], "scopes": [["engine"]]},
            "scope is ['engine'], expected one of: engine, pipeline",
        ),
        ({"models": ["a"], "batches": [0]}, "batch is 0"),
        ({"models": ["a"], "batches": [None]}, "batch is None, expected a whole number from 1"),
        ({"models": ["a"], "exclude": [{}]}, "exclude[0] is {}, expected keys and values"),
        ({"models": ["a"], "name": None}, "name is None, expected a text"),
        ({"models": ["a"], "batches": [True]}, "batch is True"),
        ({"models": ["a"], "threads": ["some"]}, "threads is 'some'"),
        ({"models": ["a"], "min_seconds": "3 s"}, "min_seconds is '3 s'"),
        ({"models": ["a"], "min_seconds": float("nan")}, "min_seconds is nan"),
        ({"models": ["a"], "min_iterations": 0}, "min_iterations is 0"),
        ({"models": ["a"], "rounds": 1.5}, "rounds is 1.5"),
        ({"models": ["a"], "interleave": "yes"}, "interleave is 'yes'"),
        (
            {"models": ["a"], "exclude": [{"engine": "tensorrt"}]},
            "exclude[0].engine is 'tensorrt', expected one of the suite's own: paddle",
        ),
        ({"models": ["a"], "exclude": [{"engin": "paddle"}]}, "did you mean 'engine'?"),
        (
            {"models": ["a"], "exclude": {"engine": "paddle"}},
            "exclude is {'engine': 'paddle'}, expected a list of mappings",
        ),
        ({"models": ["a"], "exclude": [{"model": "a"}]}, "has no cases left"),
        ({}, "has no cases left"),
    ],
)
def test_a_wrong_suite_is_refused_in_one_line(raw, message):
    with pytest.raises(ConfigError) as error:
        parse_suite(raw, "s").cases()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_suite_whose_image_is_null_takes_the_one_of_hgdeploy():
    assert parse_suite({"models": ["a"], "image": None}, "s").image is None


@pytest.mark.parametrize("text", [None, "a: [", "- a", "models: [a]\nmin_secs: 1"])
def test_a_suite_file_that_is_none_is_named(tmp_path, text):
    path = tmp_path / "suite.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=f"suite {path}"):
        load_suite(path)


def test_the_shipped_suites_load_and_name_models_of_the_zoo():
    for path in sorted(SUITES.glob("*.yaml")):
        suite = load_suite(path)
        assert suite.name == path.stem
        assert set(suite.models) <= set(zoo.names()), path


def test_the_published_protocol_is_paddle_with_tensorrt_and_2100_runs_less_100():
    suite = load_suite(SUITES / "v100_published.yaml")
    assert suite.models == load_suite(SUITES / "v100_table.yaml").models
    for case in suite.cases():
        assert (case.engine_name, case.device, case.batch) == ("paddle+tensorrt", "gpu:0", 1)
        assert case.options.own_of(PaddleOptions).tensorrt
    settings = suite.settings
    assert (settings.warmup_seconds, settings.warmup_iterations) == (0, 100)
    assert (settings.min_seconds, settings.min_iterations) == (0, 2000)


def test_the_table_is_measured_as_trtexec_measures_at_batch_1_in_fp32():
    suite = load_suite(SUITES / "v100_table.yaml")
    assert len(suite.cases()) == 13
    assert {(c.precision, c.batch, c.scope) for c in suite.cases()} == {("fp32", 1, "engine")}
    settings = suite.settings
    assert (settings.warmup_seconds, settings.min_seconds, settings.min_iterations) == (0.2, 3, 10)


# ------------------------------------------------------------------------------------ statistics


def test_a_summary_is_numpys():
    samples = np.random.default_rng(0).lognormal(size=501)
    stats = summarize(samples.tolist(), batch=4)
    assert stats.n == 501
    assert stats.median == pytest.approx(np.median(samples), abs=1e-5)
    for q in (90, 95, 99):
        assert getattr(stats, f"p{q}") == pytest.approx(np.percentile(samples, q), abs=1e-5)
    assert (stats.min, stats.max) == pytest.approx((samples.min(), samples.max()), abs=1e-5)
    assert stats.throughput == pytest.approx(4000 / samples.mean(), rel=1e-3)
    assert stats.median_ci[0] < stats.median < stats.median_ci[1]
    assert summarize(samples.tolist(), batch=4) == stats


def test_one_sample_is_its_own_summary():
    stats = summarize([2.0], 1)
    assert (stats.min, stats.median, stats.p99, stats.median_ci) == (2, 2, 2, (2, 2))


@pytest.mark.parametrize("n", [1, 2, 7, 10, 101])
def test_the_drawn_medians_are_distributed_as_those_of_resamples(n):
    rng = np.random.default_rng(n)
    samples = rng.lognormal(size=n)
    drawn = bootstrap_medians(samples, 20_000)
    resampled = np.median(rng.choice(samples, (20_000, n)), axis=1)
    for q in (10, 50, 90):
        near = np.percentile(resampled, [q - 2, q + 2])
        assert near[0] <= np.percentile(drawn, q) <= near[1]


def test_the_interval_holds_the_true_median_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        low, high = summarize(rng.normal(10, 1, 50).tolist(), 1).median_ci
        held += low <= 10 <= high
    assert held / 400 == pytest.approx(0.95, abs=0.035)


def noisy(rng, scale, rounds=10, drift=0.0):
    """Rounds of samples around `scale`, which grow by `drift` from the first to the last."""
    growth = np.linspace(1, 1 + drift, rounds)
    return [(scale * g * rng.normal(1, 0.02, 20)).tolist() for g in growth]


def test_a_faster_case_is_found_and_two_of_a_kind_are_not_told_apart():
    rng = np.random.default_rng(0)
    a, b, c = noisy(rng, 8), noisy(rng, 10), noisy(rng, 10)
    found = compare_samples(a, b)
    assert (found.verdict, found.paired) == ("faster", True)
    assert found.low < 0.8 < found.high or found.ratio == pytest.approx(0.8, rel=0.02)
    assert compare_samples(b, a).verdict == "slower"
    assert compare_samples(b, c).verdict == "can't tell"


def test_drift_that_both_cases_share_cancels_in_pairs():
    rng = np.random.default_rng(0)
    found = compare_samples(noisy(rng, 9, drift=1.0), noisy(rng, 10, drift=1.0))
    assert found.ratio == pytest.approx(0.9, rel=0.02)
    assert found.high - found.low < 0.03


def test_few_rounds_and_small_differences_give_no_verdict():
    rng = np.random.default_rng(0)
    assert compare_samples(noisy(rng, 5, 5), noisy(rng, 10, 5)).verdict == "can't tell"
    assert compare_samples([[9.8] * 20] * 10, [[10.0] * 20] * 10).verdict == "can't tell"
    # Not interleaved: 4 % may be the machine's, 10 % hardly.
    assert compare_samples([[9.6] * 99], [[10.0] * 99]).verdict == "can't tell"
    assert compare_samples([[9.0] * 99], [[10.0] * 99]).verdict == "faster"


def test_samples_are_split_by_their_rounds():
    assert split_rounds([1, 2, 3, 4], [0, 1, 0, 1]) == ((1, 3), (2, 4))
    assert split_rounds([1, 2], None) == ((1, 2),)


@pytest.mark.parametrize(
    ("samples", "known", "message"),
    [
        ([1.0] * 90, {"first_ms": 9.0}, "9 times the median"),
        ([1.0, 1.01, 0.99] * 30 + [9.0] * 3, {}, "3 of 93 samples are outliers"),
        ([9.0] + [1.0, 1.01, 0.99] * 30, {}, "the warm-up was too short"),
        ([1.0, 1.5, 0.8] * 30, {}, "the machine is noisy"),
        ([1.0] * 30 + [1.1] * 30 + [1.2] * 30, {}, "20 % slower than the first"),
        ([1.2] * 30 + [1.1] * 30 + [1.0] * 30, {}, "17 % faster than the first"),
        ([1.0] * 90, {"mhz": (3000.0, 2000.0)}, "throttled"),
        ([0.01] * 90, {"first_ms": 0.01, "overhead_us": 0.5}, "5.0 % of the median"),
        ([1.0] * 90, {"settled": False}, "without --interleave"),
    ],
)
def test_a_doubtful_measurement_comes_with_advice(samples, known, message):
    advice = advise(samples, dataclasses.replace(CALM, **known))
    assert any(message in line for line in advice), advice


def test_a_calm_measurement_needs_no_advice():
    samples = np.random.default_rng(0).normal(10, 0.1, 300).tolist()
    assert advise(samples, Circumstances(12.0, 0.1, (3000.0, 2990.0))) == []


# ------------------------------------------------------------------------------------ scheduling


class FakeWorkers:
    """Start workers that answer at once, and note who was asked what, in order."""

    def __init__(self, failures=()):
        self.log = []
        self.limits = []
        self.open = 0
        self.failures = dict(failures)

    def __call__(self, limit):
        self.limits.append(limit)
        self.open += 1
        return FakeWorker(self)


class FakeWorker:
    def __init__(self, workers):
        self.workers = workers
        self.engine = None
        self.closed = False

    def ask(self, request, *_):
        self.engine = request["case"]["engine"] if "case" in request else self.engine
        self.workers.log.append((request["do"], self.engine))
        error = self.workers.failures.get((request["do"], self.engine))
        if error is not None:
            raise error
        if request["do"] == "make":
            return {"file": None}
        if request["do"] == "load":
            runtime = dataclasses.asdict(RUNTIME)
            times = {"load_ms": 1.0, "first_ms": 1.0, "overhead_us": 0.1}
            told = {"warnings": ["it runs otherwise"], "gpu": None}
            return {"runtime": runtime, **told, **times}
        count = request["measure"][1]
        return {
            "samples_ms": [1.0] * count,
            "timings_ms": None,
            "seconds": None,
            "gpu": [None, None],
            "mhz": None,
            "peak_rss_mb": 5.0,
            "settled": True,
        }

    def close(self):
        if not self.closed:
            self.closed = True
            self.workers.open -= 1


def run_fake(bundle, workers, record=None, **settings):
    suite = Suite(
        models=(str(bundle),),
        engines=("paddle", "onnxruntime", "openvino"),
        settings=Settings(**settings),
    )
    said = []
    record = record or Record(None, HEAD)
    results = run_suite(suite, Runner(record, bundle.parent, said.append, workers))
    assert workers.open == 0
    return results, said


def test_cases_run_one_after_the_other_each_in_a_process_of_its_own(mini):
    workers = FakeWorkers()
    results, said = run_fake(mini, workers, time_limit_seconds=77)
    engines = ["paddle", "onnxruntime", "openvino"]
    assert workers.log == [(do, e) for e in engines for do in ("load", "measure")]
    assert workers.limits == [77.0] * 3
    assert [result.status for result in results] == ["ok"] * 3
    assert [len(result.samples_ms) for result in results] == [10] * 3
    assert [result.rounds for result in results] == [None] * 3
    assert all("it runs otherwise" in result.warnings for result in results)
    assert said[0].startswith("[1/3] ")
    assert "median 1.000 ms" in said[0]


def test_interleaved_cases_take_turns_and_their_samples_know_the_round(mini):
    workers = FakeWorkers()
    results, _ = run_fake(mini, workers, interleave=True, rounds=3, min_iterations=7)
    engines = ["paddle", "onnxruntime", "openvino"]
    turns = [("measure", engine) for engine in engines] * 3
    assert workers.log == [("load", engine) for engine in engines] + turns
    assert [result.rounds for result in results] == [(0,) * 3 + (1,) * 3 + (2,) * 3] * 3


@pytest.mark.parametrize("interleave", [False, True])
@pytest.mark.parametrize("step", ["load", "measure"])
def test_a_failed_case_is_a_row_with_its_reason_and_the_others_go_on(mini, interleave, step):
    workers = FakeWorkers({(step, "onnxruntime"): CaseError("it is broken")})
    results, _ = run_fake(mini, workers, interleave=interleave)
    found = {
        result.case.engine: (result.status, result.reason, len(result.samples_ms))
        for result in results
    }
    assert found == {
        "paddle": ("ok", None, 10),
        "openvino": ("ok", None, 10),
        "onnxruntime": ("failed", "it is broken", 0),
    }


def test_an_artifact_that_is_missing_is_the_reason_of_its_rows(mini):
    suite = Suite(models=(str(mini),), engines=("openvino",), precisions=("int8",), batches=(1, 2))
    workers = FakeWorkers()
    results = run_suite(suite, Runner(Record(None, HEAD), mini, lambda _: None, workers))
    assert [result.status for result in results] == ["failed", "failed"]
    assert "has no inference.int8.onnx" in results[0].reason
    assert workers.log == []


def test_the_form_that_mnn_reads_is_made_where_it_is_missing(mini):
    require_engine("mnn")
    case = Case(str(mini), engine="mnn")
    (mini / "inference.mnn").unlink()
    assert is_missing(case, mini)
    assert make_missing(case, mini, print) is None
    assert (mini / "inference.mnn").is_file()
    assert not is_missing(case, mini)
    assert not is_missing(dataclasses.replace(case, precision="int8"), mini)


def test_what_cannot_be_made_is_the_reason_of_its_row(mini):
    (mini / "inference.onnx").unlink()
    workers = FakeWorkers({("make", "onnxruntime"): CaseError("no converter")})
    results, _ = run_fake(mini, workers)
    reasons = {result.case.engine: result.reason for result in results}
    assert reasons == {"paddle": None, "onnxruntime": "no converter", "openvino": None}


def test_an_interrupted_suite_ends_its_processes_keeps_its_rows_and_resumes(mini, tmp_path):
    path = tmp_path / "results.json"
    workers = FakeWorkers({("measure", "onnxruntime"): KeyboardInterrupt()})
    with pytest.raises(KeyboardInterrupt):
        run_fake(mini, workers, Record(path, HEAD))
    assert workers.open == 0
    assert [result.case.engine for result in load_results(path).results] == ["paddle"]
    workers = FakeWorkers({("load", "openvino"): CaseError("broken for now")})
    run_fake(mini, workers, Record(path, HEAD, resume=True))
    assert {engine for _, engine in workers.log} == {"onnxruntime", "openvino"}
    workers = FakeWorkers()
    _, said = run_fake(mini, workers, Record(path, HEAD, resume=True))
    assert {engine for _, engine in workers.log} == {"openvino"}
    assert said[0] == "2 of 3 cases are measured already"
    assert [result.status for result in load_results(path).results] == ["ok"] * 3


# ---------------------------------------------------------------------------------- results file


def test_the_file_is_complete_after_every_case_and_in_the_suites_order(tmp_path):
    path = tmp_path / "results.json"
    cases = [Case("m", batch=n) for n in (1, 2, 3)]
    record = Record(path, HEAD, cases)
    assert load_results(path) == ResultFile(path, HEAD)
    for case in (cases[2], cases[0], cases[1]):
        record.add(CaseResult(case, runtime=RUNTIME, samples_ms=(1.0,), stats=summarize([1.0], 1)))
        assert load_results(path) == record.file
    assert [result.case.batch for result in load_results(path).results] == [1, 2, 3]
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_comes_back_from_the_file_as_it_was(tmp_path):
    path = tmp_path / "results.json"
    record = Record(path, HEAD)
    result = CaseResult(
        Case("m", "openvino", "int8", 8, 2, scope="pipeline"),
        weights="file",
        artifact="inference.int8.onnx",
        model_sha256="ab" * 32,
        runtime=RUNTIME,
        load_ms=1.5,
        first_ms=2.5,
        peak_rss_mb=30.0,
        overhead_us=0.25,
        samples_ms=(1.0, 2.0),
        rounds=(0, 1),
        timings_ms={"h2d": (0.5, 0.75)},
        stats=summarize([1.0, 2.0], 8),
        warnings=("the machine is noisy",),
    )
    failed = CaseResult(Case("m", "paddle"), "failed", "it is broken")
    record.add(result)
    record.add(failed)
    assert load_results(path).results == (result, failed)
    before = path.read_bytes()
    Record(path, HEAD, resume=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", sorted(RESULTS.glob("cpu-*.json")), ids=lambda path: path.name)
def test_a_shipped_results_file_is_written_as_it_was_read(path):
    assert load_results(path).to_json() == path.read_text(encoding="utf-8")


def test_a_sample_that_is_no_number_is_not_written(tmp_path):
    path = tmp_path / "results.json"
    record = Record(path, HEAD)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        record.add(CaseResult(Case("m"), samples_ms=(float("nan"),)))
    assert path.read_bytes() == before


def test_an_output_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path):
    for path in (tmp_path, tmp_path / "missing" / "r.json"):
        with pytest.raises(OutputError, match="--output"):
            Record(path, HEAD)
    (tmp_path / "suite.yaml").write_text("models: [a]")
    with pytest.raises(OutputError, match="exists; continue it with --resume"):
        Record(tmp_path / "suite.yaml", HEAD)
    with pytest.raises(ConfigError, match="is not JSON"):
        Record(tmp_path / "suite.yaml", HEAD, resume=True)
    assert (tmp_path / "suite.yaml").read_text() == "models: [a]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"environment": {**ENVIRONMENT, "id": "f", "cpu": "d"}},
            r"in another environment \(different: cpu\)",
        ),
        ({"settings": {"rounds": 4}}, "measured with rounds 3, not 4"),
        ({"suite": "t"}, "belongs to the suite 's', not to 't'"),
    ],
)
def test_a_file_of_another_environment_suite_or_setting_is_not_resumed(tmp_path, change, message):
    path = tmp_path / "results.json"
    Record(path, HEAD)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=message):
        Record(path, dataclasses.replace(HEAD, **change), resume=True)
    assert path.read_bytes() == before


def test_a_file_of_another_schema_is_no_results_file(tmp_path):
    path = tmp_path / "results.json"
    path.write_text('{"schema": 2, "cases": []}')
    with pytest.raises(ConfigError, match="has schema 2, and this version reads schema 1"):
        load_results(path)
    path.write_text("[]")
    with pytest.raises(ConfigError, match="is it a result of hgdeploy benchmark"):
        load_results(path)


# ------------------------------------------------------------------------------------ environment


def test_the_environments_id_changes_with_the_libraries_and_not_with_the_commit(monkeypatch):
    facts = describe_environment()
    assert facts["cpus"] == available_cpus()
    assert facts["memory_mb"] > 100
    monkeypatch.setattr(machine, "_git_state", lambda: ("0" * 40, True))
    assert describe_environment()["id"] == facts["id"]
    monkeypatch.setattr(machine, "installed_version", lambda *_: "9.9")
    changed = describe_environment()
    assert changed["id"] != facts["id"]
    # Each kind of TensorRT brings its own CUDA, so it is named as it was installed.
    assert {"tensorrt", "tensorrt-cu12", "tensorrt-cu13", "tensorrt-rtx", "cuda-bindings"} <= set(
        changed["libraries"]
    )


def test_a_package_that_a_foreign_checkout_does_not_track_has_no_commit(tmp_path, monkeypatch):
    done = run_command("-c", "import subprocess; subprocess.run(['git', 'init', '-q'], check=True)",
                       cwd=tmp_path)  # fmt: skip
    assert done.returncode == 0, done.stderr
    installed = tmp_path / "machine.py"
    installed.write_text("")
    monkeypatch.setattr(machine, "__file__", str(installed))
    assert machine._git_state() == (None, None)


# --------------------------------------------------------------------------------- real processes


@pytest.fixture
def process():
    """A real child."""
    child = CaseProcess(DEADLINE)
    yield child
    child.close()


def load_request(bundle, engine="onnxruntime", **changes):
    case = Case(str(bundle), engine, threads=1, **changes)
    return {"do": "load", "case": dataclasses.asdict(case), "bundle": str(bundle), "image": None}


MEASURE = {"do": "measure", "warmup": (0, 1), "measure": (0, 3), "settle": False}


def test_a_childs_memory_is_its_own_and_not_its_parents(mini):
    require_engine("onnxruntime")
    held = np.ones(60_000_000)  # 458 MiB that the child must not be charged with
    child = CaseProcess(DEADLINE)
    try:
        child.ask(load_request(mini))
        peak = child.ask(MEASURE)["peak_rss_mb"]
    finally:
        child.close()
    assert peak < held.nbytes / 2**20


def test_a_child_says_why_a_case_cannot_run_and_goes_on_answering(mini, process):
    require_engine("onnxruntime")
    with pytest.raises(CaseError) as error:
        process.ask(load_request(mini, precision="int8"))
    assert "has no inference.int8.onnx" in error.value.reason
    process.ask(load_request(mini))
    assert len(process.ask(MEASURE)["samples_ms"]) == 3


def test_a_model_that_computes_no_numbers_is_not_timed(mini, process):
    require_engine("onnxruntime")
    onnx = pytest.importorskip("onnx")
    model = onnx.load(mini / "inference.onnx")
    # The last layer's own, since a Relu may turn NaN into zero.
    name = model.graph.output[0].name
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(onnx.helper.make_node("Sub", ["before", "before"], ["zero"]))
    model.graph.node.append(onnx.helper.make_node("Div", ["zero", "zero"], [name]))
    onnx.save(model, mini / "inference.onnx")
    with pytest.raises(CaseError, match="not finite"):
        process.ask(load_request(mini))


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to be ended by")
def test_a_crash_is_a_reason_that_names_the_signal(process):
    os.killpg(process.pid, signal.SIGSEGV)
    with pytest.raises(CaseError) as error:
        process.ask(MEASURE)
    assert error.value.status == "failed"
    assert "SIGSEGV" in error.value.reason


def test_a_case_over_its_time_limit_is_ended_and_told(mini):
    require_engine("onnxruntime")
    child = CaseProcess(0.05)  # it starts for longer
    try:
        with pytest.raises(CaseError) as error:
            child.ask(load_request(mini))
    finally:
        child.close()
    assert (error.value.status, error.value.reason) == (
        "timeout",
        "it took longer than the limit of 0.05 s",
    )


# ---------------------------------------------------------------------------------------- command


def run_benchmark(*words):
    """Run the command's own functions; returns the exit code, stdout and its lines on stderr."""
    out, err = io.StringIO(), io.StringIO()
    arguments = parsed(*words)
    with contextlib.redirect_stderr(err):
        code = arguments.run(arguments, out)
    said = [line.removeprefix("hgdeploy: ") for line in err.getvalue().splitlines()]
    return code, out.getvalue(), said


def parsed(*words):
    """Parse the words that follow `hgdeploy benchmark`."""
    parser = Parser()
    command.add_benchmark(parser.add_subparsers())
    return parser.parse_args(["benchmark", *map(str, words)])


TINY = ("--min-seconds", 0.02, "--min-iterations", 3)


def test_the_smoke_suite_measures_all_engines_and_scopes(mini, tmp_path):
    for engine in ("paddle", "onnxruntime", "openvino"):
        require_engine(engine)
    path = tmp_path / "results.json"
    suite = ("--suite", SUITES / "smoke.yaml", "--model", mini, *TINY)
    code, out, said = run_benchmark(*suite, "--output", path)
    assert code == 0, said
    found = load_results(path)
    assert found.head.suite == "smoke"
    assert found.head.settings["image"]["name"] == "coffee.jpg"
    assert len(found.results) == 6
    for result in found.results:
        assert (result.status, result.reason) == ("ok", None)
        assert result.runtime.engine == result.case.engine
        assert result.runtime.threads == 1
        assert len(result.samples_ms) == result.stats.n >= 3
        assert result.stats.median == pytest.approx(np.median(result.samples_ms), abs=1e-5)
        assert len(result.model_sha256) == 64
        assert min(result.load_ms, result.first_ms, result.peak_rss_mb) > 0
    assert len(out.splitlines()) == 7
    code, out, said = run_benchmark(*suite, "--output", path, "--resume")
    assert code == 0
    assert said == ["6 of 6 cases are measured already"]
    assert load_results(path).results == found.results


def test_interleaved_engines_are_measured_in_rounds_and_leave_the_cpu_idle_between(mini, tmp_path):
    for engine in ("paddle", "onnxruntime", "openvino"):
        require_engine(engine)
    path = tmp_path / "results.json"
    engines = ("--engine", "paddle", "onnxruntime", "openvino")
    code, _, _ = run_benchmark("--model", mini, *engines, *TINY, "--interleave", "--output", path)
    assert code == 0
    for result in load_results(path).results:
        assert sorted(set(result.rounds)) == list(range(10))
        assert len(result.rounds) == len(result.samples_ms)
        assert not any("kept a CPU busy" in line for line in result.warnings)


def test_failed_cases_are_rows_of_the_table_and_of_the_exit_code(mini):
    require_engine("onnxruntime")
    words = ("--model", mini, "--engine", "onnxruntime", "--precision", "fp32", "int8", *TINY)
    code, out, said = run_benchmark(*words)
    assert code == 3
    assert "failed: " in out.splitlines()[2]
    assert said[-1] == "1 of 2 cases failed"


def test_a_missing_bundle_of_the_zoo_is_made_with_random_weights_and_says_so(tmp_path):
    require_engine("paddle")
    path = tmp_path / "results.json"
    words = ("--model", "EfficientNetLite0", "--bundles", tmp_path / "models", "--output", path)
    code, _, said = run_benchmark(*words, *TINY)
    assert code == 0, said
    assert any("with random weights, for timing only" in line for line in said)
    assert load_results(path).results[0].weights == "random"


def test_flags_replace_a_suites_lists():
    words = (
        "--model a b --engine openvino --batch 2 --threads 1 all --scope pipeline --device gpu:0"
    )
    suite = command.suite_of(parsed("--suite", SUITES / "smoke.yaml", *words.split()))
    assert (suite.models, suite.engines, suite.batches) == (("a", "b"), ("openvino",), (2,))
    assert (suite.threads, suite.scopes, suite.device) == ((1, None), ("pipeline",), "gpu:0")
    assert suite.settings.min_seconds == 0.2


def test_mistakes_are_told_before_the_output_is_made(mini, tmp_path):
    path = tmp_path / "results.json"
    with pytest.raises(ConfigError, match="name a --suite or a --model"):
        run_benchmark("--engine", "paddle")
    with pytest.raises(ConfigError, match="did you mean 'PPHGNet_tiny'"):
        run_benchmark("--model", "PPHGNet_tin", "--output", path)
    with pytest.raises(ConfigError, match="needs a photograph"):
        run_benchmark("--model", mini, "--scope", "pipeline", "--image", "no.jpg", "--output", path)
    with pytest.raises(ConfigError, match="--resume does not go with interleaving"):
        run_benchmark("--model", mini, "--interleave", "--resume", "--output", path)
    assert not path.exists()


def test_an_interrupted_command_says_how_to_go_on(mini, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "run_suite", interrupt)
    path = tmp_path / "results.json"
    code, out, said = run_benchmark("--model", mini, "--output", path)
    assert (code, out) == (130, "")
    assert said[-1].startswith(f"interrupted; 0 of 1 cases are saved in {path}; the same command")


def test_run_py_serves_the_command_uninstalled_from_any_directory(tmp_path):
    done = run_command(REPO / "benchmarks" / "run.py", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "--suite" in done.stdout + done.stderr
