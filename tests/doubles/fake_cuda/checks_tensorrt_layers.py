# SPDX-License-Identifier: Apache-2.0
"""The layers of an engine and their times; run by test_tensorrt.py with the fake library."""

from __future__ import annotations

import fake_tensorrt
import pytest
from fake_gpu import count

from hgdeploy import cli
from hgdeploy.bundle.sidecar import read_sidecar


@pytest.mark.parametrize("again", [False, True], ids=["built", "that fits"])
def test_the_layers_of_an_engine_are_timed_and_shown(mini, capsys, again):
    command = ["build", str(mini), "--batch", "2"]
    if again:
        assert cli.main(command) == 0
    capsys.readouterr()
    assert cli.main([*command, "--profile"]) == 0
    printed = capsys.readouterr()
    engine = mini / "inference.engine"
    first, head, *rows = printed.out.splitlines()
    assert first == str(engine)
    assert head.split() == ["layer", "type", "precision", "ms", "share", "computes"]
    assert rows[0].split() == ["conv", "+", "relu", "CaskConvolution", "fp32", "0.7500", "75.0%"]
    assert rows[1].split() == ["<fc>", "CaskGemmConvolution", "fp32", "0.2500", "25.0%"]
    assert rows[2].split() == ["all", "layers", "1.0000", "100.0%"]
    assert "no times" not in printed.err
    page = (mini / "inference.engine.profile.html").read_text(encoding="utf-8")
    assert "&lt;fc&gt;" in page
    assert "width:100.0%" in page
    assert "width:33.3%" in page
    assert count("device bytes") == 0


def test_the_sidecar_lists_the_layers(mini):
    assert cli.main(["build", str(mini)]) == 0
    facts = read_sidecar(mini / "inference.engine")
    assert facts is not None
    told = facts["network"]["engine"]
    names = [layer["name"] for layer in told["layer_list"]]
    assert names == [name for name, _, _ in fake_tensorrt.LAYERS]
    assert told["precisions"] == {"fp32": 2}
