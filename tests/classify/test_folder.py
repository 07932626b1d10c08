# SPDX-License-Identifier: Apache-2.0
"""Many files at once: the same predictions in the same order, and accounts that add up."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from conftest import DEADLINE, HGDEPLOY, IMAGES, require_engine, wait_for_a_row
from hgdeploy import Classifier, ClassifierSettings, EngineOptions
from hgdeploy.classify.folder import classify_files, folder_options
from hgdeploy.classify.summary import Summary
from hgdeploy.cli.main import main
from hgdeploy.engines import load_engine
from hgdeploy.errors import OutputError
from hgdeploy.images.find import find_images
from hgdeploy.results.writers import LineWriter
from hgdeploy.system.machine import available_cpus

PHOTOS = sorted(IMAGES.glob("*.jpg"))


class Gathered:
    """A writer that keeps what it is given."""

    def __init__(self) -> None:
        self.predictions, self.facts = [], []

    def write(self, prediction, facts) -> None:
        self.predictions.append(prediction)
        self.facts.append(facts)


@pytest.fixture
def many(tmp_path) -> Path:
    """Sixty files, of which every seventh is broken."""
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(60):
        path = folder / f"{i:03}.jpg"
        path.write_bytes(PHOTOS[i % 5].read_bytes() if i % 7 else b"\xff\xd8\xff broken")
    return folder


def classified(bundle, engine, files, *, batch_size=1, streams=1, workers=None):
    options = EngineOptions(threads=1, streams=streams, max_batch=batch_size)
    gathered, summary, lines = Gathered(), Summary(len(files)), []
    settings = ClassifierSettings(engine, batch_size, options)
    with Classifier.from_settings(bundle, settings) as classifier:
        classify_files(classifier, files, [gathered], lines.append, summary, workers)
    return gathered, summary, lines


@pytest.mark.parametrize("batch_size", [1, 4])
def test_many_threads_give_what_one_gives(mini, engine_name, many, batch_size):
    files = find_images(many)
    with Classifier(mini, engine_name) as classifier:
        expected = list(classifier.predict(many))
    gathered, summary, lines = classified(
        mini, engine_name, files, batch_size=batch_size, streams=2, workers=5
    )
    assert [p.path for p in gathered.predictions] == [p.path for p in expected]
    assert [p.error for p in gathered.predictions] == [p.error for p in expected]
    assert [p.class_ids for p in gathered.predictions] == [p.class_ids for p in expected]
    for mine, theirs in zip(gathered.predictions, expected, strict=True):
        np.testing.assert_allclose(mine.scores, theirs.scores, atol=1e-6)
    assert (summary.classified, summary.failed) == (51, 9)
    assert len(lines) == 9
    assert summary.workers == 5


def test_the_accounts_tell_reasons_shares_and_the_slowest(mini, many):
    (many / "zz.jpg").write_bytes(b"")
    gathered, summary, _ = classified(mini, "onnxruntime", find_images(many), streams=2)
    assert summary.done == summary.found == len(gathered.predictions) == 61
    assert summary.reasons.total() == summary.failed == 10
    assert summary.reasons["is empty"] == 1
    shares = summary.shares()
    assert list(shares) == ["decode", "preprocess", "infer", "postprocess"]
    assert sum(shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in shares.values())
    details = "\n".join(summary.details())
    assert "failed: 9 x " in details
    assert "failed: 1 x is empty" in details
    assert "time of " in details
    assert len(summary.times.slowest) == 5
    assert summary.times.slowest == sorted(summary.times.slowest, reverse=True)


def test_the_facts_are_those_of_the_file_that_was_read(mini, many):
    gathered, *_ = classified(mini, "onnxruntime", find_images(many))
    for prediction, facts in zip(gathered.predictions, gathered.facts, strict=True):
        status = (many / prediction.path).stat()
        assert (facts.size, facts.mtime_ns) == (status.st_size, status.st_mtime_ns)


def test_a_folder_that_changes_under_the_run_loses_no_account(mini, many):
    files = find_images(many)
    (many / "001.jpg").unlink()
    (many / "002.jpg").write_bytes(PHOTOS[0].read_bytes()[:2000])
    (many / "new.jpg").write_bytes(PHOTOS[0].read_bytes())
    gathered, summary, _ = classified(mini, "onnxruntime", files, streams=2)
    errors = {p.path: p.error for p in gathered.predictions}
    assert errors["001.jpg"] == "does not exist"
    assert errors["002.jpg"] == "is truncated (JPEG)"
    assert summary.done == summary.found == 60


def test_a_writer_that_fails_ends_the_run_with_the_accounts_so_far(mini, many):
    class Full(Gathered):
        def write(self, prediction, facts) -> None:
            if len(self.predictions) == 10:
                raise OSError(28, "No space left on device")
            super().write(prediction, facts)

    summary = Summary(60)
    with (
        Classifier(mini, "onnxruntime") as classifier,
        pytest.raises(OutputError, match="No space left on device"),
    ):
        classify_files(classifier, find_images(many), [Full()], lambda _: None, summary)
    assert summary.done == 10


@pytest.mark.parametrize(
    ("threads", "images", "expected"),
    [(1, 9, (1, 1)), (8, 100, (1, 8)), (8, 3, (2, 3)), (8, 1, (8, 1)), (8, 8, (1, 8))],
)
def test_cpus_are_divided_among_inferences(threads, images, expected):
    options = folder_options(EngineOptions(threads=threads), images)
    assert (options.threads, options.streams) == expected


def test_a_division_that_was_asked_for_stands():
    asked = EngineOptions(threads=2, streams=3)
    assert folder_options(asked, 100) == asked
    on_gpu = EngineOptions(device="gpu:0")
    assert folder_options(on_gpu, 100) == on_gpu


def test_engines_run_as_many_inferences_as_were_asked_for(mini, engine_name):
    options = EngineOptions(threads=1, streams=3)
    with Classifier.from_settings(mini, ClassifierSettings(engine_name, 1, options)) as classifier:
        assert classifier.engine.concurrency >= 3
        assert classifier.engine.runtime.threads == 1
        assert classifier.cpus == 3


@pytest.mark.skipif(
    sys.platform != "linux" or available_cpus() < 2, reason="needs Linux and two CPUs"
)
def test_openvino_leaves_every_cpu_to_a_thread_that_does_not_use_all_of_them(mini):
    """Pinned, the threads of several such processes would all share the first CPUs."""
    require_engine("openvino")
    x = np.zeros((64, 3, 64, 64), np.float32)
    allowed = set()
    with load_engine("openvino", mini / "inference.onnx", EngineOptions(threads=1)) as engine:
        thread = threading.Thread(target=engine.infer, args=({"x": x},))
        thread.start()
        with contextlib.suppress(ProcessLookupError):  # it has just ended
            while thread.is_alive():
                allowed.add(len(os.sched_getaffinity(thread.native_id)))
        thread.join()
    assert allowed == {available_cpus()}


def test_openvino_keeps_the_compiled_model_and_computes_the_same_with_it(mini, tmp_path):
    require_engine("openvino")
    source, cache = mini / "inference.onnx", tmp_path / "cache"
    x = np.random.default_rng(0).standard_normal((1, 3, 64, 64)).astype(np.float32)

    def run(**options) -> np.ndarray:
        with load_engine("openvino", source, EngineOptions(threads=1, **options)) as engine:
            return engine.infer({"x": x})[engine.outputs[0].name]

    expected = run()
    np.testing.assert_array_equal(run(cache_dir=cache), expected)
    (kept,) = (cache / "openvino").iterdir()
    (blob,) = kept.iterdir()
    before = blob.stat()
    np.testing.assert_array_equal(run(cache_dir=cache), expected)
    assert (blob.stat().st_ino, blob.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    whole = blob.read_bytes()
    for part in (0, 1, 2, 3):  # a disk that was full, say
        blob.write_bytes(whole[: len(whole) * part // 4])
        np.testing.assert_array_equal(run(cache_dir=cache), expected)
    run(cache_dir=cache, streams=2)
    assert len(list((cache / "openvino").iterdir())) == 2
    os.utime(source, ns=(1, 1))
    np.testing.assert_array_equal(run(cache_dir=cache), expected)
    (again,) = (cache / "openvino").iterdir()
    assert again.name != kept.name
    program = mini / "inference.pdmodel"
    with load_engine("openvino", program, EngineOptions(threads=1, cache_dir=cache)):
        kept = {path.name for path in (cache / "openvino").iterdir()}
    with (mini / "inference.pdiparams").open("r+b") as weights:  # in a file of their own
        weights.seek(-4, os.SEEK_END)
        weights.write(bytes(4))
    with load_engine("openvino", program, EngineOptions(threads=1, cache_dir=cache)):
        assert len({path.name for path in (cache / "openvino").iterdir()} - kept) == 1
    unwritable = tmp_path / "file"
    unwritable.write_bytes(b"")
    np.testing.assert_array_equal(run(cache_dir=unwritable), expected)


def test_the_whole_run_uses_the_cpus_that_were_allowed(mini, photos_of):
    """The summary has at least one thread per CPU, and the lines are those of one."""
    out = io.StringIO()
    files = find_images(photos_of)
    options = folder_options(EngineOptions(), len(files))
    summary = Summary(len(files))
    settings = ClassifierSettings("onnxruntime", 1, dataclasses.replace(options, max_batch=1))
    with Classifier.from_settings(mini, settings) as classifier:
        classify_files(classifier, files, [LineWriter(out)], lambda _: None, summary)
    assert len(out.getvalue().splitlines()) == len(files)
    assert summary.workers >= min(available_cpus(), len(files))


@pytest.fixture
def photos_of(tmp_path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(40):
        (folder / f"{i:03}.jpg").symlink_to(PHOTOS[i % 5])
    return folder


def run(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*HGDEPLOY, *map(str, arguments)],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
    )  # fmt: skip


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("suffix", "number"),
    [
        ("jsonl", signal.SIGKILL),
        ("csv", signal.SIGKILL),
        ("parquet", signal.SIGKILL),
        ("jsonl", signal.SIGINT),
    ],
)
def test_a_run_that_was_ended_goes_on_and_ends_like_one_that_was_not(
    mini, photos_of, tmp_path, suffix, number, run_here
):
    for i in range(40, 400):
        (photos_of / f"{i:04}.jpg").symlink_to(PHOTOS[i % 5])
    (photos_of / "0300.jpg").unlink()
    (photos_of / "0300.jpg").write_bytes(b"")
    whole, broken = tmp_path / f"whole.{suffix}", tmp_path / f"broken.{suffix}"
    rows = broken if suffix == "jsonl" else broken.with_name(f"{broken.name}.rows.jsonl")
    command = ("predict", mini, photos_of, "--engine", "onnxruntime")
    process = run(*command, "--output", broken)
    wait_for_a_row(process, rows)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == (130 if number == signal.SIGINT else -9), stderr
    before = [json.loads(line) for line in rows.read_text().splitlines(True) if line[-1] == "\n"]
    assert 0 < len(before) < 400
    if number == signal.SIGINT:
        assert f"interrupted: {len(before)} of 400 images are done" in stderr
        assert "--resume" in stderr

    resumed = run_here(main, *command, "--output", broken, "--resume")
    assert resumed.returncode == 3, resumed.stderr
    assert f"found 400 = classified 399 + failed 1 ({len(before)} of them earlier)" in (
        resumed.stderr
    )
    assert run_here(main, *command, "--output", whole).returncode == 3
    if suffix == "parquet":
        import pyarrow.parquet

        tables = [pyarrow.parquet.read_table(path).to_pylist() for path in (whole, broken)]
        assert tables[0] == tables[1]
    else:
        assert broken.read_bytes() == whole.read_bytes()


def test_a_run_goes_on_after_an_image_that_kills_whoever_reads_it(mini, photos_of, tmp_path):
    """As a picture does that takes more memory than there is: twice, then it fails alone."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, hgdeploy.images.reader as reader\n"
        "read = reader.ImageReader.read_file\n"
        "def read_file(self, path, out=None):\n"
        "    if path.name == '011.jpg':\n"
        "        os.kill(os.getpid(), 9)\n"
        "    return read(self, path, out)\n"
        "reader.ImageReader.read_file = read_file\n"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [
        *HGDEPLOY, "predict", str(mini), str(photos_of), "--engine", "onnxruntime",
        "--workers", "1", "--output", str(tmp_path / "x.csv"), "--resume",
    ]  # fmt: skip
    ended = [
        subprocess.run(
            command, capture_output=True, text=True, timeout=DEADLINE, check=False,
            env=os.environ | {"PYTHONPATH": path},
        )
        for _ in range(3)
    ]  # fmt: skip
    last = ended[-1]
    assert [each.returncode for each in ended] == [-9, -9, 3], last.stderr
    assert "2 runs were killed before 011.jpg had its row" in last.stderr
    assert "011.jpg: crashed the decoder" in last.stderr
    assert "found 40 = classified 39 + failed 1 (11 of them earlier)" in last.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--resume",), "--resume has no effect without --output"),
        (("--output", "x.jsonl", "--redo-changed"), "--redo-changed has no effect without"),
        (("--workers", "0"), "--workers is 0"),
        (("--image-timeout", "0"), "the image timeout is 0"),
        (("--failures", "x.csv"), "--failures x.csv: unknown suffix"),
    ],
)
def test_options_without_effect_are_refused(
    mini, photos_of, tmp_path, arguments, message, run_here
):
    result = run_here(main, "predict", mini, photos_of, "--engine", "onnxruntime", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_another_precision_or_model_is_not_mixed_into_old_rows(mini, photos_of, tmp_path, run_here):
    output = tmp_path / "rows.jsonl"
    command = ("predict", mini, photos_of, "--output", output)
    assert run_here(main, *command, "--engine", "onnxruntime").returncode == 0
    old = output.read_bytes()
    refused = run_here(main, *command, "--engine", "openvino", "--resume")
    assert refused.returncode == 2
    assert "engine was onnxruntime" in refused.stderr
    assert "--redo-changed" in refused.stderr
    assert output.read_bytes() == old
    redone = run_here(main, *command, "--engine", "openvino", "--resume", "--redo-changed")
    assert redone.returncode == 0, redone.stderr
    assert len(output.read_text().splitlines()) == 40


def test_failures_and_a_report_are_written_beside_the_rows(mini, many, tmp_path, run_here):
    failures, report = tmp_path / "failures.txt", tmp_path / "run.html"
    result = run_here(
        main, "predict", mini, many, "--engine", "onnxruntime", "--output", tmp_path / "rows.jsonl",
        "--failures", failures, "--report", report,
    )  # fmt: skip
    assert result.returncode == 3
    listed = failures.read_text().splitlines()
    assert listed == [str(many / f"{i:03}.jpg") for i in range(0, 60, 7)]
    assert "9 failed images are in" in result.stderr
    assert "pphgnet_mini" in report.read_text()
    again = run_here(main, "predict", mini, failures, "--engine", "onnxruntime")
    assert "found 9 = classified 0 + failed 9" in again.stderr


def test_a_report_alone_says_what_was_run(mini, many, tmp_path, run_here):
    report = tmp_path / "run.html"
    result = run_here(main, "predict", mini, many, "--engine", "onnxruntime", "--report", report)
    assert result.returncode == 3, result.stderr
    assert "pphgnet_mini" in report.read_text()
    assert "onnxruntime (onnxruntime" in report.read_text()
