# SPDX-License-Identifier: Apache-2.0
"""Runs with Ray: the same rows as without, whatever happens to files, workers and the run."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from image_files import jpeg

from conftest import HGDEPLOY, hgdeploy, require_engine, wait_for_a_row
from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import classify_files
from hgdeploy.classify.ray import classify_files_on_ray
from hgdeploy.classify.ray_cluster import ray_cluster
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.classify.summary import Summary
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, ConfigError, EngineError
from hgdeploy.images.find import ImageFile, find_images
from hgdeploy.results.file import ResultsFile
from hgdeploy.results.rows import row_from_line
from hgdeploy.system.libraries import installed_version

DOUBLES = Path(__file__).parents[1] / "doubles"
needs_ray = pytest.mark.skipif(installed_version("ray") is None, reason="ray is not installed")
SETTINGS = ClassifierSettings(
    "onnxruntime", batch_size=2, options=EngineOptions(threads=1, max_batch=2)
)


@pytest.fixture(scope="module")
def cluster():
    """A Ray of our own with two CPUs, whose workers some images kill."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Ray warns of its own future defaults
        import ray

        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        environment = {
            "env_vars": {"PYTHONPATH": str(DOUBLES)},
            "worker_process_setup_hook": "ray_worker_hook.install",
        }
        ray.init(
            "local", num_cpus=2, include_dashboard=False, log_to_driver=False,
            runtime_env=environment,
        )  # fmt: skip
        yield
        ray.shutdown()


@pytest.fixture
def bundle(mini):
    """A small bundle; the file of its engine."""
    require_engine("onnxruntime")
    return mini


@pytest.fixture
def folder(tmp_path) -> Path:
    """Thirty images, of which some fail, each for its own reason; odd names among them."""
    images = tmp_path / "images"
    images.mkdir()
    for i in range(20):
        (images / f"{i:02}.jpg").write_bytes(jpeg(90 + i, 80, seed=i))
    (images / "03.jpg").write_bytes(b"")
    (images / "07.jpg").write_bytes(jpeg()[:300])
    (images / "folder.jpg").mkdir()
    (images / "gone.jpg").symlink_to("nowhere")
    os.mkfifo(images / "pipe.jpg")
    for name in ("a?b#c%20 d.jpg", "two\nlines.jpg", os.fsdecode(b"latin\xff.jpg")):
        (images / name).write_bytes(jpeg(100, 100, seed=len(name)))
    return images


Classify = Callable[[Classifier, list[ImageFile], ResultsFile, list[str], Summary], None]


def here(classifier, files, results, lines, summary) -> None:
    classify_files(classifier, files, [results], lines.append, summary)


def on_ray(classifier, files, results, lines, summary) -> None:
    with ray_cluster("local"):
        classify_files_on_ray(classifier, files, [results], lines.append, summary)


def run(
    classify: Classify, bundle: Path, files: list[ImageFile], output: Path, resume: bool = False
) -> tuple[Summary, list[str]]:
    """What a command does with `--output`; returns the accounts and what was reported."""
    summary, lines = Summary(found=len(files)), []
    with (
        warnings.catch_warnings(),
        ResultsFile(output) as results,
        Classifier.from_settings(bundle, SETTINGS) as classifier,
    ):
        warnings.simplefilter("ignore")  # of Ray and its libraries
        plan = results.begin(files, classifier.fingerprint(), "refuse" if resume else None)
        summary.take_earlier(plan.kept, plan.kept_failed)
        classify(classifier, list(plan.remaining), results, lines, summary)
        results.finish()
    return summary, lines


def accounts(summary: Summary) -> tuple[object, ...]:
    """All of them but the times."""
    return (summary.found, summary.classified, summary.failed, summary.reasons, summary.earlier)


@needs_ray
@pytest.mark.slow
def test_rows_accounts_and_reports_are_those_of_one_machine(cluster, bundle, folder, tmp_path):
    files = find_images(folder)
    files.append(ImageFile(str(folder / "never.jpg"), "never.jpg"))
    files += files[:3]  # repeated names
    expected, lines = run(here, bundle, files, tmp_path / "here.jsonl")
    found, reported = run(on_ray, bundle, files, tmp_path / "ray.jsonl")
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert accounts(found) == accounts(expected)
    assert reported == lines
    assert found.failed == 5
    assert found.found == found.done == len(files)
    assert found.times.images == len(files)
    assert sum(found.shares().values()) == pytest.approx(1)


@needs_ray
@pytest.mark.slow
def test_a_killed_worker_costs_no_row(cluster, bundle, folder, tmp_path):
    (folder / "x.kills_once.jpg").write_bytes(jpeg(seed=50))
    files = find_images(folder)
    found, _ = run(on_ray, bundle, files, tmp_path / "ray.jsonl")
    assert (folder / "x.kills_once.deaths").read_text().count("\n") == 1, "no worker was killed"
    expected, _ = run(here, bundle, files, tmp_path / "here.jsonl")
    assert (tmp_path / "ray.jsonl").read_bytes() == (tmp_path / "here.jsonl").read_bytes()
    assert accounts(found) == accounts(expected)


@needs_ray
@pytest.mark.slow
def test_an_image_that_kills_each_worker_fails_with_its_piece_alone(
    cluster, bundle, folder, tmp_path
):
    (folder / "08.kills_always.jpg").write_bytes(jpeg(seed=50))
    files = find_images(folder)
    found, _ = run(on_ray, bundle, files, tmp_path / "ray.jsonl")
    assert (folder / "08.kills_always.deaths").read_text().count("\n") == 4
    rows = [row_from_line(line) for line in (tmp_path / "ray.jsonl").read_bytes().splitlines()]
    assert [row["path"] for row in rows] == [file.name for file in files]
    lost = [row for row in rows if row["error"] and "Ray worker died" in row["error"]]
    assert "08.kills_always.jpg" in [row["path"] for row in lost]
    assert 1 < len(lost) <= len(files) // 4
    assert all(row["error"].endswith("try these again with --image-timeout") for row in lost)
    assert found.done == found.found == len(files)
    assert found.failed == 4 + len(lost)
    assert not {row["path"] for row in lost} & {"03.jpg", "07.jpg", "gone.jpg", "pipe.jpg"}


@needs_ray
@pytest.mark.slow
def test_a_worker_that_differs_or_cannot_load_ends_the_run_in_one_line(
    cluster, bundle, folder, tmp_path, monkeypatch
):
    files = find_images(folder)
    host = re.escape(socket.gethostname())
    with Classifier.from_settings(bundle, SETTINGS) as classifier, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        right = classifier.fingerprint()
        other = right | {"model hash": "another"}
        monkeypatch.setattr(classifier, "fingerprint", lambda: other)
        with pytest.raises(
            EngineError, match=f"Ray worker on {host}: its model hash is .* another "
        ):
            classify_files_on_ray(classifier, files, [], print, Summary(len(files)))
        monkeypatch.setattr(classifier, "fingerprint", lambda: right)
        (bundle / "inference.onnx").rename(tmp_path / "elsewhere.onnx")
        with pytest.raises(BundleError, match=f"^Ray worker on {host}: [^\n]*inference.onnx"):
            classify_files_on_ray(classifier, files, [], print, Summary(len(files)))


@needs_ray
@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
def test_a_run_whose_own_process_is_ended_is_resumed(bundle, folder, tmp_path, sent, code):
    for i in range(600):
        (folder / f"more{i:03}.jpg").write_bytes(jpeg(300, 300, seed=i % 7))
    output = tmp_path / "ray.jsonl"
    command = (
        "predict", bundle, folder, "--engine", "onnxruntime", "--ray", "local", "--threads", "1",
        "--output", output,
    )  # fmt: skip
    process = subprocess.Popen(
        [*HGDEPLOY, *map(str, command)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    wait_for_a_row(process, output)
    process.send_signal(sent)
    _, stderr = process.communicate()
    assert process.returncode == code, stderr.decode()
    assert b"Traceback" not in stderr
    kept = output.read_bytes().count(b"\n")
    assert 0 < kept < 620, "it was not killed on its way"
    resumed = hgdeploy(*command, "--resume")
    assert resumed.returncode == 3, resumed.stderr
    assert resumed.stdout == ""
    assert f" + failed 4 ({kept} of them earlier)" in resumed.stderr
    files = find_images(folder)
    run(here, bundle, files, tmp_path / "here.jsonl")
    assert output.read_bytes() == (tmp_path / "here.jsonl").read_bytes()


@needs_ray
@pytest.mark.slow
def test_lines_are_those_of_one_machine_and_nothing_else_is_on_stdout(bundle, folder):
    command = ("predict", bundle, folder, "--engine", "onnxruntime")
    alone, ray = hgdeploy(*command), hgdeploy(*command, "--ray", "local")
    assert ray.stdout == alone.stdout
    assert ray.returncode == alone.returncode == 3
    other = [line for line in ray.stderr.splitlines() if not line.startswith("hgdeploy: ")]
    assert all("from environment variable RAY_BACKEND_LOG_LEVEL" in line for line in other), other


@needs_ray
def test_a_cluster_that_is_not_there_is_named(bundle, folder, tmp_path):
    output = tmp_path / "rows.jsonl"
    output.write_text("earlier\n")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        result = hgdeploy(
            "predict", bundle, folder, "--engine", "onnxruntime", "--output", output,
            "--ray", address,
        )  # fmt: skip
    assert result.returncode == 6
    reason = "cannot use this cluster: [Errno 111] Connection refused"
    assert result.stderr == f"hgdeploy: error: --ray {address}: {reason}\n"
    assert output.read_text() == "earlier\n", "what was there is gone"


@pytest.mark.parametrize("address", ["ray://head:10001", "head", "head:", ""])
def test_another_form_of_address_is_refused(address):
    with (
        pytest.raises(ConfigError, match="expected local, auto or the HOST:PORT"),
        ray_cluster(address),
    ):
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install -e '\.\[ray\]'"), ray_cluster("local"):
        pass


def test_workers_and_ray_do_not_go_together(tmp_path):
    result = hgdeploy("predict", tmp_path, tmp_path, "--ray", "local", "--workers", "2")
    assert result.returncode == 2
    assert "--threads" in result.stderr
