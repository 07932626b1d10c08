# SPDX-License-Identifier: Apache-2.0
"""Small classifiers that a test writes as text, in fp32 and in int8."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8 import qdq

CHANNELS, SIZE, CLASSES = 8, 16, 10


def network(text: str) -> Any:
    """A model written as `tensor=Operator(inputs)`, where layers get random weights."""
    import onnx

    rng = np.random.default_rng(0)
    nodes, weights = [], []

    def weight(name: str, *shape: int) -> str:
        values = (rng.standard_normal(shape) * 0.3).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(values, name))
        return name

    for part in text.split():
        output, _, rest = part.partition("=")
        kind, _, inputs = rest.rstrip(")").partition("(")
        names, given = inputs.split(","), {}
        if kind.startswith("Conv"):
            side = 1 if kind == "Conv1" else 3
            channels = 3 if names == ["x"] else CHANNELS
            kind, given = "Conv", {"kernel_shape": [side] * 2, "pads": [side // 2] * 4}
            names += [weight(f"{output}.w", CHANNELS, channels, side, side)]
            names += [weight(f"{output}.b", CHANNELS)]
        elif kind.startswith("Gemm"):
            wide = CHANNELS if kind == "Gemm8" else CLASSES
            kind, names = "Gemm", [*names, weight(f"{output}.w", CHANNELS, wide)]
        elif kind == "MaxPool":
            given = {"kernel_shape": [2, 2], "strides": [2, 2]}
        nodes.append(onnx.helper.make_node(kind, names, [output], name=output, **given))
    for name in ("half", "three", "six"):
        value = {"half": 0.5, "three": 3.0, "six": 6.0}[name]
        weights.append(onnx.numpy_helper.from_array(np.float32(value), name))
    shape = np.array([-1, CHANNELS, 1, 1], np.int64)
    weights.append(onnx.numpy_helper.from_array(shape, "gate_shape"))
    float32, info = onnx.TensorProto.FLOAT, onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "written",
        [info("x", float32, ["batch", 3, SIZE, SIZE])],
        [info("y", float32, ["batch", CLASSES])],
        weights,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
    model.ir_version = 8
    return model


def quantized(text: str, tmp_path: Path, *, symmetric: bool = True) -> OnnxGraph:
    """The network in int8; its results are compared with those of fp32."""
    import onnx

    path = tmp_path / "written.onnx"
    onnx.save(network(text), path)
    graph = qdq.load_folded(path)
    x = np.random.default_rng(1).standard_normal((1, 3, SIZE, SIZE)).astype(np.float32)
    names = qdq.activation_names(graph)
    values = qdq.Session(graph, names).run(x)
    ranges = {n: (float(v.min()), float(v.max())) for n, v in zip(names, values, strict=True)}
    nodes = qdq.node_names(graph)
    result = qdq.quantized_graph(graph, ranges, nodes, symmetric=symmetric, weight_bits=7)
    result.check()
    (expected,), (found,) = qdq.Session(graph).run(x), qdq.Session(result).run(x)
    np.testing.assert_allclose(found, expected, atol=0.05)
    return result
