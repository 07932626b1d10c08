# SPDX-License-Identifier: Apache-2.0
"""OpenVINO's compiled models are kept under what the model is, not under what it looks like."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hgdeploy.engines import infer_rows, load_engine
from hgdeploy.engines.options import EngineOptions

pytest.importorskip("openvino")
LONG_AGO = 1_000_000_000


@pytest.fixture
def row(golden):
    return golden["x"][:1]


def ask(path: Path, row: np.ndarray, cache: Path | None) -> list[float]:
    engine = load_engine("openvino", path, EngineOptions(threads=1, cache_dir=cache))
    try:
        return infer_rows(engine, row)[0].tolist()
    finally:
        engine.close()


def negated(path: Path) -> onnx.ModelProto:
    """The model with its dense layer's weights negated; as many bytes as before."""
    model = onnx.load(str(path))
    constants = [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"]
    dense = max((t for t in constants if len(t.dims) == 2), key=lambda t: math.prod(t.dims))
    dense.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(dense), dense.name))
    return model


def test_a_model_of_equal_size_and_time_is_compiled_anew(mini, row, tmp_path):
    path, cache = mini / "inference.onnx", tmp_path / "cache"
    os.utime(path, (LONG_AGO, LONG_AGO))
    first = ask(path, row, cache)
    assert ask(path, row, cache) == first
    onnx.save(negated(path), str(path))
    os.utime(path, (LONG_AGO, LONG_AGO))
    second = ask(path, row, cache)
    assert second == ask(path, row, None) != first
    assert len(list((cache / "openvino").iterdir())) == 1  # the old model's is gone


def test_other_weights_in_a_file_of_any_name_are_compiled_anew(mini, row, tmp_path):
    path, weights, cache = mini / "inference.onnx", mini / "retrained.bin", tmp_path / "cache"
    other = negated(path)
    how = {
        "save_as_external_data": True,
        "location": weights.name,
        "size_threshold": 64,
        "convert_attribute": True,
    }
    onnx.save(onnx.load(str(path)), str(path), **how)
    first, graph = ask(path, row, cache), path.read_bytes()
    weights.unlink()
    onnx.save(other, str(path), **how)
    assert path.read_bytes() == graph
    assert ask(path, row, cache) == ask(path, row, None) != first
