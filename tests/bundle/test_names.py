# SPDX-License-Identifier: Apache-2.0
"""The command that makes a file of a bundle is named whole."""

from __future__ import annotations

import pytest

from hgdeploy.bundle.names import made_by


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("inference.json", ""),
        ("inference.onnx", "hgdeploy convert"),
        ("inference.fp16.onnx", "hgdeploy convert --precision fp16"),
        ("inference.bf16.onnx", "hgdeploy convert --precision bf16"),
        ("inference.int8.onnx", "hgdeploy quantize"),
        ("inference.engine", "hgdeploy build"),
        ("inference.int8.engine", "hgdeploy build --precision int8"),
        ("inference.mnn", "hgdeploy convert --to mnn"),
        ("inference.int8.mnn", ""),
        ("inference.ncnn.param", "hgdeploy convert --to ncnn"),
        ("inference.int8.ncnn.param", ""),
    ],
)
def test_the_command_that_makes_a_file_makes_that_file(name: str, command: str):
    assert made_by(name) == command
