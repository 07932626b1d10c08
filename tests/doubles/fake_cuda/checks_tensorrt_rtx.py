# SPDX-License-Identifier: Apache-2.0
"""What the engine asks of TensorRT-RTX; run by test_tensorrt.py, in a process of its own."""

from __future__ import annotations

import fake_tensorrt_rtx
import numpy as np
from fake_gpu import count

from conftest import MINI
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions


def test_it_compiles_before_the_first_run_and_captures_by_itself(tmp_path, golden, monkeypatch):
    made = []
    config = fake_tensorrt_rtx.IRuntimeConfig

    def remember() -> fake_tensorrt_rtx.IRuntimeConfig:
        made.append(config())
        return made[-1]

    monkeypatch.setattr(fake_tensorrt_rtx.ICudaEngine, "_config", staticmethod(remember))
    profile = {"x": [(1, 3, 64, 64), (4, 3, 64, 64), (4, 3, 64, 64)]}
    onnx = (MINI / "inference.onnx").read_bytes()
    source = tmp_path / "inference.rtx.engine"
    source.write_bytes(
        fake_tensorrt_rtx.fake_tensorrt.engine_file(onnx, profile, version="1.7.1.116")
    )
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
