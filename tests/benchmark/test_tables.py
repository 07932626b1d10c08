# SPDX-License-Identifier: Apache-2.0
"""The tables of the documentation are those that the scripts print from the committed results."""

from __future__ import annotations

from pathlib import Path

from conftest import REPO, run_command

RESULTS = REPO / "benchmarks" / "results" / "zoo-formats.json"


def test_the_table_of_what_mnn_and_ncnn_take_is_that_of_the_results(tmp_path: Path):
    copy = tmp_path / "results.json"
    copy.write_bytes(RESULTS.read_bytes())
    script = REPO / "benchmarks" / "zoo_formats.py"
    done = ("--network", "PPHGNet_tiny", "--output", copy)
    printed = run_command(script, "--bundles", tmp_path / "none", *done)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout in (REPO / "docs" / "convert.md").read_text(encoding="utf-8")
    assert not (tmp_path / "none").exists(), "it is in the results, so nothing is made"


def test_the_table_of_the_training_loader_is_that_of_its_results():
    saved = REPO / "benchmarks" / "results" / "training-loader.json"
    printed = run_command(REPO / "benchmarks" / "training_loader.py", "--report", saved)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout in (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8")


def test_the_table_of_the_server_is_that_of_its_results():
    runs = ("lite0", "lite0-bf16", "tiny", "triton", "triton-alone", "poison")
    saved = [REPO / "benchmarks" / "results" / f"serving-{run}.json" for run in runs]
    readme = (REPO / "benchmarks" / "README.md").read_text(encoding="utf-8")
    printed = run_command(REPO / "benchmarks" / "serving.py", "--report", *saved)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout in readme
