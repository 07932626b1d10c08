# SPDX-License-Identifier: Apache-2.0
"""An option that another one makes meaningless is refused, not ignored."""

from __future__ import annotations

import shlex

import pytest

from hgdeploy.cli.main import main
from hgdeploy.errors import ConfigError

SERVED = "build . --triton r --triton-backend onnxruntime"


@pytest.mark.parametrize(
    ("command", "option", "where"),
    [
        (SERVED, "--batch 4", "with --triton-backend onnxruntime, which reads the ONNX file"),
        (SERVED, "--workspace-mb 5", "with --triton-backend onnxruntime"),
        (SERVED, "--output foo.engine", "with --triton-backend onnxruntime"),
        (SERVED, "--runtime tensorrt-rtx", "with --triton-backend onnxruntime"),
        (SERVED, "--input-size 224", "with --triton-backend onnxruntime"),
        (SERVED, "--compute-capability 8.6", "with --triton-backend onnxruntime"),
        (SERVED, "--optimization-level 0", "with --triton-backend onnxruntime"),
        (SERVED, "--force", "with --triton-backend onnxruntime"),
        ("build .", "--triton-backend openvino", "without --triton DIR"),
        ("convert .", "--images photos", "with --precision fp32"),
        ("predict . photos", "--resume", "without --output"),
        ("predict . photos --output x.jsonl", "--redo-changed", "without --resume"),
        ("predict . photos --ray local", "--workers 2", "with --ray; --threads sets"),
        ("recommend . --throughput", "--min-agreement 0.9", "without --images"),
        ("benchmark --model .", "--image x.jpg", "without --scope pipeline"),
        ("benchmark --min-seconds 1 report", "x.json", "on benchmark report"),
        ("benchmark --interleave compare x.json", "x.json", "on benchmark compare"),
        ("validate . --engines paddle", "--precision fp16", "unless an engine after the first"),
        ("validate . --engines paddle,openvino:bf16@cpu", "--precision fp16", "unless an engine"),
    ],
)
def test_an_option_without_effect_is_refused(
    run_here, tmp_path, monkeypatch, command, option, where
):
    monkeypatch.chdir(tmp_path)
    result = run_here(main, *shlex.split(f"{command} {option}"))
    assert result.returncode == ConfigError.exit_code
    (line,) = result.stderr.splitlines()
    assert f" has no effect {where}" in line
    assert not list(tmp_path.iterdir())


def test_plots_belong_to_html(run_here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_here(main, "benchmark", "report", "x.json", "--no-plots")
    assert result.returncode == ConfigError.exit_code
    assert "--no-plots has no effect with --format md" in result.stderr
