# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of TensorRT-RTX; run by test_tensorrt.py, in a process of its own."""

from __future__ import annotations

import os
from pathlib import Path

import fake_tensorrt_rtx
import numpy as np
from fake_gpu import count

from conftest import MINI
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions


def write_engine(folder: Path) -> Path:
    profile = {"x": [(1, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 64)]}
    onnx = (MINI / "inference.onnx").read_bytes()
    source = folder / "inference.rtx.engine"
    source.write_bytes(
        fake_tensorrt_rtx.fake_tensorrt.engine_file(onnx, profile, version="1.7.1.116")
    )
    return source


def test_it_compiles_before_the_first_run_and_captures_by_itself(tmp_path, golden, monkeypatch):
    made = []
    config = fake_tensorrt_rtx.IRuntimeConfig

    def remember() -> fake_tensorrt_rtx.IRuntimeConfig:
        made.append(config())
        return made[-1]

    monkeypatch.setattr(fake_tensorrt_rtx.ICudaEngine, "_config", staticmethod(remember))
    source = write_engine(tmp_path)
    with load_engine("tensorrt", source, EngineOptions(device="gpu:0")) as engine:
        assert engine.runtime.library == "tensorrt-rtx"
        assert engine.runtime.version == "1.7.1.116"
        assert engine.runtime.providers == ("TensorRT-RTX", "RTX CUDA graph")
        for _ in range(3):
            found = engine.infer({"x": golden["x"]})["probabilities"]
            np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)
    assert [
        (c.cuda_graph_strategy.name, c.dynamic_shapes_kernel_specialization_strategy.name)
        for c in made
    ] == [("WHOLE_GRAPH_CAPTURE", "EAGER")] * 2
    assert count("graph launches") == 0


def compiles(source: Path, cache: Path | None, device: str = "gpu:0") -> int:
    """Return how many kernels are compiled to load an engine."""
    fake_tensorrt_rtx._COMPILED.clear()
    load_engine("tensorrt", source, EngineOptions(device=device, cache_dir=cache)).close()
    return len(fake_tensorrt_rtx._COMPILED)


def test_what_was_compiled_is_kept_for_this_file_and_this_gpu(tmp_path):
    source, cache = write_engine(tmp_path), tmp_path / "cache"
    assert [compiles(source, cache) for _ in range(3)] == [1, 0, 0]
    assert [compiles(source, cache, "gpu:1") for _ in range(2)] == [1, 0]
    assert compiles(source, cache) == 0
    kept = list((cache / "tensorrt-rtx").iterdir())
    assert len(kept) == 2
    os.utime(source, ns=(0, 0))  # another file has taken its name
    assert [compiles(source, cache) for _ in range(2)] == [1, 0]
    assert len(list((cache / "tensorrt-rtx").iterdir())) == 2
    assert compiles(source, None) == 1


def test_a_cache_that_cannot_be_used_is_no_failure(tmp_path):
    source, cache = write_engine(tmp_path), tmp_path / "cache"
    assert compiles(source, cache) == 1
    (kept,) = (cache / "tensorrt-rtx").iterdir()
    kept.write_text("1.2\nof another version")
    assert [compiles(source, cache) for _ in range(2)] == [1, 0]
    closed = tmp_path / "closed"
    closed.write_text("a file, no folder")
    assert [compiles(source, closed) for _ in range(2)] == [1, 1]
