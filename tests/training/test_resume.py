# SPDX-License-Identifier: Apache-2.0
"""A training that ends at any moment goes on as if it had not: the same numbers, bit for bit."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from training_set import curve, events, run_training, training_config, write_images

from conftest import require_engine
from hgdeploy.errors import ConfigError, InputError, WeightsError
from hgdeploy.training.checkpoint import read_checkpoint
from hgdeploy.training.journal import Event, OnEvent, read_journal
from hgdeploy.zoo.weights.load import read_weights

OUTPUT = Path("output/PPLCNet_x0_25")
LATEST = OUTPUT / "latest"
GO_ON = f"Global.checkpoints={LATEST}"
ADAMW = {
    "name": "AdamW",
    "weight_decay": 0.05,
    "one_dim_param_no_weight_decay": True,
    "lr": {"name": "Step", "learning_rate": 0.01, "step_size": 1, "warmup_epoch": 1},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a few labelled images in `set`."""
    require_engine("paddle")
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "set")
    return tmp_path


class KilledError(Exception):
    """Ends a training as a kill does: nothing is saved on the way out."""


def weights() -> dict[str, Any]:
    return read_weights(Path(f"{LATEST}.pdparams"))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    ("changes", "moments"),
    [
        ({}, [("saved", 2), ("eval", 1), ("step", 6)]),
        ({"EMA": {"decay": 0.9}, "Optimizer": ADAMW, "Global": {"update_freq": 2}}, [("step", 5)]),
        pytest.param({"Global": {"to_static": True}}, [("step", 5)], marks=pytest.mark.slow),
    ],
    ids=["Momentum", "AdamW, average, two batches an update", "to_static"],
)
@pytest.mark.filterwarnings("ignore:Tensor do not have 'place'")
def test_a_training_that_dies_at_any_moment_goes_on_bit_for_bit(place, changes, moments):
    config = training_config(save_minutes=1e-9)  # a checkpoint after each update
    for section, values in changes.items():
        config[section] = {**config.get(section, {}), **values} if section == "Global" else values
    unbroken = run_training(config)
    final, best = weights(), events(OUTPUT, "eval")[-1]["best"]
    for moment in moments:
        shutil.rmtree(OUTPUT)
        with pytest.raises(KilledError):
            run_training(config, on_event=dying(*moment))
        again = run_training(
            config, *([GO_ON] if LATEST.with_suffix(".checkpoint").exists() else [])
        )
        assert curve(again) == curve(unbroken), moment
        assert same(weights(), final), moment
        assert events(OUTPUT, "eval")[-1]["best"] == best


def dying(kind: str, count: int) -> OnEvent:
    """Return what ends a training at the `count`-th event of a kind."""
    seen: list[str] = []

    def die(event: Event) -> None:
        seen.append(event["event"])
        if event["event"] == kind and seen.count(kind) == count:
            raise KilledError

    return die


def test_ctrl_c_saves_within_the_epoch_and_the_rest_is_the_same(place):
    config = training_config()
    unbroken = curve(run_training(config))
    shutil.rmtree(OUTPUT)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run_training(config, on_event=lambda e: e.get("batch") == 1 and signal.raise_signal(2))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    progress = read_checkpoint(Path(f"{LATEST}.checkpoint")).progress
    assert (progress.epoch, progress.batch) == (0, 2)
    assert curve(run_training(config, GO_ON)) == unbroken


def test_sigkill_leaves_what_resume_goes_on_from(place):
    config = training_config(epochs=10, save_minutes=1e-9, eval_during_train=False)
    unbroken = curve(run_training(config))
    for _ in range(3):  # on a busy machine, a training may end before the kill
        shutil.rmtree(OUTPUT)
        if killed_after_some_steps() == -signal.SIGKILL:
            break
    assert 3 < len(steps_so_far()) < len(unbroken)
    assert curve(run_training(config, GO_ON)) == unbroken
    assert not list(OUTPUT.glob(".latest*.tmp"))


def killed_after_some_steps() -> int | None:
    """Train in a process of its own, kill it, and return how it ended."""
    # A training of its own sets these before it imports Paddle, and each changes the last bits.
    same = {"MKL_DEBUG_CPU_TYPE": "0", "OMP_NUM_THREADS": "1", **os.environ}
    words = [sys.executable, "-m", "hgdeploy", "train", "-c", "config.yaml"]
    with subprocess.Popen(words, stderr=subprocess.DEVNULL, env=same) as process:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline and len(steps_so_far()) < 4:
            time.sleep(0.01)
        process.kill()
    return process.returncode


def steps_so_far() -> list[str]:
    log = OUTPUT / "train.jsonl"
    whole = log.read_text().rpartition("\n")[0] if log.exists() else ""
    return re.findall('"step"', whole)


def test_within_an_epoch_only_the_same_batches_go_on(place):
    config = training_config(save_minutes=1e-9, eval_during_train=False)
    with pytest.raises(KilledError):
        run_training(config, on_event=dying("step", 3))
    config["DataLoader"]["Train"]["sampler"]["batch_size"] = 4
    with pytest.raises(ConfigError, match="within an epoch, after 2 batches, and was trained with"):
        run_training(config, GO_ON)


def test_a_new_training_says_what_it_will_replace(place):
    config = training_config(epochs=1, eval_during_train=False)
    told: list[str] = []
    run_training(config, on_warning=told.append)
    assert not [line for line in told if "another training" in line]
    run_training(config, on_warning=told.append)
    (line,) = [line for line in told if "another training" in line]
    assert "latest.checkpoint is of another training, after 1 epochs, and this one will" in line
    assert len(curve(read_journal(OUTPUT / "train.previous.jsonl"))) == 3


def test_images_that_are_gone_end_a_training_that_would_learn_nothing(place):
    config = training_config(epochs=3, eval_during_train=False)

    def unmount(event: Event) -> None:
        if event["event"] == "epoch":
            shutil.rmtree("set/train", ignore_errors=True)

    with pytest.raises(InputError, match=r"cannot be read.*; go on with --resume once"):
        run_training(config, on_event=unmount)
    assert read_checkpoint(LATEST.with_suffix(".checkpoint")).progress.epoch == 1


@pytest.fixture
def trained(place) -> dict[str, Any]:
    """A config whose training has its first checkpoint."""
    config = training_config(epochs=1, eval_during_train=False)
    run_training(config)
    config["Global"]["epochs"] = 2
    return config


def test_a_checkpoint_in_part_is_refused(trained):
    file = LATEST.with_suffix(".checkpoint")
    whole = file.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for damaged in (b"", whole[:100], whole[:middle], whole[:-1], flipped, b"\x93NUMPY" + whole):
        file.write_bytes(damaged)
        with pytest.raises(WeightsError, match=r"latest.checkpoint: is no whole checkpoint: "):
            run_training(trained, GO_ON)
    file.unlink()
    with pytest.raises(WeightsError, match=r"begin with them by -o Global.pretrained_model=output"):
        run_training(trained, GO_ON)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("Arch.name=PPLCNet_x0_35", "is of PPLCNet_x0_25 with 3 classes, but the config is of"),
        ("Arch.class_num=4", "is of PPLCNet_x0_25 with 3 classes, but the config is of"),
        ("Optimizer={'name': 'AdamW', 'lr': {'learning_rate': 0.1}}", "trained with Momentum, and"),
        ("Global.epochs=1", "has 1 epochs, and Global.epochs is 1: there is nothing to train"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(trained, change, told):
    with pytest.raises(ConfigError, match=told):
        run_training(trained, GO_ON, change)
