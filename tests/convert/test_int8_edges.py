# SPDX-License-Identifier: Apache-2.0
"""Where int8 pairs stand: nowhere that keeps TensorRT from fusing operators into one kernel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from written_networks import network, quantized

from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8 import qdq

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

HEAD = "p=GlobalAveragePool({}) f=Flatten(p) l=Gemm(f) y=Softmax(l)"
SQUEEZE = (
    "p0=GlobalAveragePool({0}) t0=Conv1(p0) u0=Relu(t0) t1=Conv1(u0) g=Sigmoid(t1) m=Mul({0},g)"
)
SQUEEZE_DENSE = (
    "p0=GlobalAveragePool({0}) f0=Flatten(p0) t0=Gemm8(f0) u0=HardSigmoid(t0) "
    "g=Reshape(u0,gate_shape) m=Mul({0},g)"
)


def read_by(graph: OnnxGraph, name: str) -> list[str]:
    """What a node reads, without constants: a tensor's name, with `*` where it is a pair's."""
    return list(_read_by(graph, next(node for node in graph.nodes if node.name == name)))


def _read_by(graph: OnnxGraph, node: Any) -> Iterator[str]:
    makers = {name: maker for maker in graph.nodes for name in maker.output}
    constants = {tensor.name for tensor in graph.model.graph.initializer}
    for name in node.input:
        maker = makers.get(name)
        if maker is None or maker.op_type != "DequantizeLinear":
            if name not in constants:
                yield name
        elif maker.input[0] in makers:
            yield f"{makers[maker.input[0]].input[0]}*"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            "c0=Conv(x) r0=Relu(c0) c1=Conv(r0) a=Add(c1,r0) r1=Relu(a) c2=Conv(r1)",
            {"a": ["c1", "r0*"], "r0": ["c0"], "c1": ["r0*"], "r1": ["a"], "c2": ["r1*"]},
            id="the shortcut is the block's input",
        ),
        pytest.param(
            "c0=Conv(x) r0=Relu(c0) c1=Conv(r0) r1=Relu(c1) c2=Conv(r1) s=Conv1(r0) a=Add(s,c2) "
            "c3=Conv(a)",
            {"a": ["s*", "c2"], "c3": ["a*"]},
            id="the shortcut is a convolution, written last",
        ),
        pytest.param(
            "c0=Conv(x) c1=Conv(c0) c2=Conv(c0) c3=Conv(c2) b=HardSwish(c3) a=Add(c1,b)",
            {"a": ["c1*", "b"], "b": ["c3"]},
            id="the branch ends in an activation",
        ),
        pytest.param(
            "c0=Conv(x) s=Conv1(x) a0=Add(c0,s) c1=Conv(a0) a1=Add(a0,c1) c2=Conv(a1)",
            {"a1": ["a0*", "c1"], "c1": ["a0*"]},
            id="a linear bottleneck: the shortcut is another sum",
        ),
        pytest.param(
            "c0=Conv(x) r0=Relu(c0) r1=Relu(c0) a=Add(r0,r1) c1=Conv(a)",
            {"a": ["r0", "r1"], "c1": ["a*"]},
            id="both branches come from one convolution",
        ),
    ],
)
def test_of_a_sum_only_the_shortcut_has_a_pair(tmp_path, text, expected):
    last = text.rpartition("=")[0].split()[-1]
    graph = quantized(f"{text} {HEAD.format(last)}", tmp_path)
    assert {name: read_by(graph, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("activation", "inner"),
    [
        ("s=Sigmoid(c0) m=Mul(c0,s)", {"s": ["c0"], "m": ["c0", "s"]}),
        (
            "a=Add(c0,three) k=Clip(a,,six) n=Mul(c0,k) m=Div(n,six)",
            {"a": ["c0"], "n": ["c0", "k"], "m": ["n"]},
        ),
        ("h=HardSigmoid(c0) m=Mul(c0,h)", {"h": ["c0"], "m": ["c0", "h"]}),
        ("t=Softplus(c0) u=Tanh(t) m=Mul(c0,u)", {"t": ["c0"], "u": ["t"], "m": ["c0", "u"]}),
        (
            "e=Erf(c0) a=Add(e,half) n=Mul(c0,a) m=Mul(n,half)",
            {"e": ["c0"], "a": ["e"], "n": ["c0", "a"], "m": ["n"]},
        ),
        ("n=Mul(c0,half) m=Add(n,half)", {"n": ["c0"], "m": ["n"]}),
    ],
    ids=["swish", "hardswish", "with HardSigmoid", "mish", "gelu", "scale and shift"],
)
def test_no_pair_stands_inside_a_convolution_and_its_activation(tmp_path, activation, inner):
    graph = quantized(f"c0=Conv(x) {activation} c1=Conv(m) {HEAD.format('c1')}", tmp_path)
    assert {name: read_by(graph, name) for name in inner} == inner
    assert read_by(graph, "c1") == ["m*"]
    values = {tensor.name: tensor for tensor in graph.model.graph.initializer}
    for name in {"half", "three", "six"} & values.keys():
        assert values[name].data_type == onnx.TensorProto.FLOAT
    assert not [name for name in values if name.startswith(("half_", "three_", "six_"))]


@pytest.mark.parametrize("gate", [SQUEEZE, SQUEEZE_DENSE], ids=["convolutions", "dense layers"])
def test_the_layers_of_a_gate_stay_out_of_int8(tmp_path, gate):
    text = f"c0=Conv(x) r0=Relu(c0) {gate.format('r0')} c1=Conv(m) {HEAD.format('c1')}"
    graph = quantized(text, tmp_path)
    assert read_by(graph, "m") == ["r0*", "g"]
    assert read_by(graph, "p0") == ["r0*"]
    assert read_by(graph, "c1") == ["m*"]
    weights = {tensor.name: tensor.data_type for tensor in graph.model.graph.initializer}
    for node in graph.nodes:
        if node.name in ("t0", "u0", "t1", "g"):
            assert not any(name.endswith("*") for name in read_by(graph, node.name))
        if node.name in ("t0", "t1"):
            assert weights[node.input[1]] == onnx.TensorProto.FLOAT


@pytest.mark.parametrize(
    "head",
    [
        "p=GlobalAveragePool(c0) t=Conv1(p) s=Sigmoid(t) m=Mul(t,s) f=Flatten(m) l=Gemm(f)",
        "p=GlobalAveragePool(c0) t=Conv1(p) f=Flatten(t) g=Gemm(f) l=Mul(g,half)",
    ],
    ids=["swish", "temperature"],
)
def test_the_classifier_behind_the_pooling_is_no_gate(tmp_path, head):
    graph = quantized(f"c0=Conv(x) {head} y=Softmax(l)", tmp_path)
    dense = next(node.name for node in graph.nodes if node.op_type == "Gemm")
    assert read_by(graph, "t") == ["p*"]
    assert read_by(graph, dense)[0].endswith("*")


def test_a_block_of_pphgnet_ends_in_one_sum(tmp_path):
    """Squeeze-and-excite, then the shortcut: the product fuses into the sum."""
    text = (
        f"c0=Conv(x) r0=Relu(c0) c1=Conv(r0) r1=Relu(c1) {SQUEEZE.format('r1')} a=Add(m,r0) "
        f"c2=Conv(a) {HEAD.format('c2')}"
    )
    graph = quantized(text, tmp_path)
    assert read_by(graph, "m") == ["r1*", "g"]
    assert read_by(graph, "a") == ["m", "r0*"]


def test_pooling_the_largest_moves_int8_values(tmp_path):
    """Its result has the scale of what it reads, whatever its own range is."""
    text = f"c0=Conv(x) r0=Relu(c0) m=MaxPool(r0) c1=Conv(m) {HEAD.format('c1')}"
    path = tmp_path / "written.onnx"
    onnx.save(network(text), path)
    graph = qdq.load_folded(path)
    ranges = dict.fromkeys(qdq.activation_names(graph), (-4.0, 4.0)) | {"m": (0.0, 1.0)}
    nodes = qdq.node_names(graph)
    result = qdq.quantized_graph(graph, ranges, nodes, symmetric=True, weight_bits=8)
    pairs = {node.input[0]: node.input[1] for node in result.nodes if "Quant" in node.op_type}
    values = {t.name: onnx.numpy_helper.to_array(t) for t in result.model.graph.initializer}
    assert values[pairs["m"]] == values[pairs["r0"]]


def test_uint8_pairs_stand_where_a_cpu_has_kernels(tmp_path):
    text = f"c0=Conv(x) r0=Relu(c0) {SQUEEZE.format('r0')} c1=Conv(m) a=Add(c1,m) c2=Conv(a)"
    graph = quantized(f"{text} {HEAD.format('c2')}", tmp_path, symmetric=False)
    for name, expected in {"t0": ["p0*"], "m": ["r0*", "g*"], "a": ["c1*", "m*"]}.items():
        assert read_by(graph, name) == expected
