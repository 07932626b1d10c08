# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one network, as `paddle.distributed.launch` starts them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from training_set import curve, events, training_config, write_config, write_images

from conftest import REPO, require_engine

OUTPUT = Path("output/PPLCNet_x0_25")


def launch(*arguments: str) -> None:
    words = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo"]
    script = [str(REPO / "deploy" / "python" / "train.py"), "-c", "config.yaml", *arguments]
    done = subprocess.run(
        [sys.executable, *words, "--log_dir", "log", *script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    log = "".join(path.read_text() for path in Path("log").glob("workerlog.*"))
    assert done.returncode == 0, done.stdout[-2000:] + log[-3000:]


@pytest.mark.slow
def test_two_processes_train_one_network_and_go_on_as_if_never_stopped(tmp_path, monkeypatch):
    require_engine("paddle")
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "set", train=32)
    write_config(training_config(update_freq=2, save_interval=1), tmp_path / "config.yaml")
    launch()
    told = events(OUTPUT)
    assert told[0]["ranks"] == 2
    assert [event["images"] for event in told if event["event"] == "epoch"] == [16, 16]
    assert [event["images"] for event in told if event["event"] == "eval"] == [12, 12]
    launch("-o", f"Global.checkpoints={OUTPUT}/epoch_1")
    assert curve(events(OUTPUT)) == curve(told)
    assert events(OUTPUT, "eval") == [event for event in told if event["event"] == "eval"]
