# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy train`: from images to weights that the other verbs take."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import pytest
from training_set import events, training_config, write_config, write_images

from conftest import require_engine
from hgdeploy.cli.main import tool

OUTPUT = Path("output/PPLCNet_x0_25")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a few labelled images in `set`."""
    require_engine("paddle")
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "set")
    return tmp_path


@pytest.fixture
def train(place, run_here):
    """Run train.py, or another script, on a config."""

    def run(config: dict[str, Any], *arguments: object, script: str = "train.py"):
        write_config(config, place / "config.yaml")
        return run_here(functools.partial(tool, script), "-c", "config.yaml", *arguments)

    return run


def test_what_is_trained_is_evaluated_and_exported_as_it_was_in_the_training(train):
    config = training_config()
    done = train(config)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"\[Eval\]\[Epoch (\d)\]\[best metric", done.stdout) == ["1", "2"]
    assert "epoch 2/2, batch 3/3: loss" in done.stderr
    last = events(OUTPUT, "eval")[-1]
    weights = f"Global.pretrained_model={OUTPUT / 'latest'}"
    evaluated = train(config, "-o", weights, script="eval.py")
    assert f"CELoss: {last['loss']:.5f}" in evaluated.stdout
    assert f"top1: {last['top1']:.5f}, top2: {last['top2']:.5f}" in evaluated.stdout
    exported = train(config, "-o", weights, script="export_model.py")
    assert exported.returncode == 0, exported.stderr
    assert Path("inference/inference.json").is_file()
