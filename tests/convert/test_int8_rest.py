# SPDX-License-Identifier: Apache-2.0
"""What is not int8 in an engine that TensorRT builds of an int8 file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from written_networks import SIZE, quantized

from conftest import IMAGES
from hgdeploy import cli
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.convert.float16.mixed import fp32_twin
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8 import qdq
from hgdeploy.convert.int8.fp16_rest import with_fp16_rest
from hgdeploy.convert.int8.from_onnx import int8_from_onnx
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.images.find import find_images
from hgdeploy.transforms.preprocess import Preprocessor

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

NETWORK = (
    "c0=Conv(x) r0=Relu(c0) c1=Conv(r0) a=Add(c1,r0) r1=Relu(a) c2=Conv(r1) "
    "p=GlobalAveragePool(c2) f=Flatten(p) l=Gemm(f) y=Softmax(l)"
)
X = np.random.default_rng(3).standard_normal((2, 3, SIZE, SIZE)).astype(np.float32)


def types_of(graph: OnnxGraph) -> dict[str, str]:
    """The element type of each tensor that a node makes."""
    inferred = onnx.shape_inference.infer_shapes(graph.model).graph
    names = onnx.TensorProto.DataType.Name
    values = (*inferred.value_info, *inferred.output)
    return {value.name: names(value.type.tensor_type.elem_type) for value in values}


def results(graph: OnnxGraph) -> np.ndarray:
    return qdq.Session(graph).run(X)[0]


def agrees(found: OnnxGraph, expected: OnnxGraph) -> None:
    """A value near the middle of two int8 steps may round to the other in fp16."""
    np.testing.assert_allclose(results(fp32_twin(found, "fp16")), results(expected), atol=0.02)


def test_all_but_the_ends_computes_in_fp16_with_no_cast_before_a_layer(tmp_path):
    graph = quantized(NETWORK, tmp_path)
    rest = with_fp16_rest(graph, ())
    rest.check()
    kinds = types_of(rest)
    for name in ("c0", "r0", "c1", "a", "r1", "c2", "p", "l"):
        assert kinds[name] == "FLOAT16"
    assert kinds["y"] == "FLOAT"
    makers = {node.output[0]: node for node in rest.nodes}
    for node in rest.nodes:
        if node.op_type in ("Conv", "Gemm"):
            assert [makers[name].op_type for name in node.input[:2]] == ["DequantizeLinear"] * 2
    assert sum(node.op_type == "Cast" for node in rest.nodes) == 2
    agrees(rest, graph)


def test_a_layer_that_fp16_cannot_hold_reads_its_pairs_in_fp32(tmp_path):
    graph = quantized(NETWORK, tmp_path)
    rest = with_fp16_rest(graph, ["c1"])
    rest.check()
    kinds = types_of(rest)
    assert (kinds["c0"], kinds["c1"], kinds["c2"]) == ("FLOAT16", "FLOAT", "FLOAT16")
    makers = {node.output[0]: node for node in rest.nodes}
    layer = next(node for node in rest.nodes if node.output[0] == "c1")
    assert [makers[name].op_type for name in layer.input[:2]] == ["DequantizeLinear"] * 2
    agrees(rest, graph)


def test_scales_that_fp16_cannot_hold_are_mended_or_kept(tmp_path):
    """A channel that is all but dead has a scale below fp16, a hot one above it."""
    graph = quantized(NETWORK, tmp_path)
    tensors = {tensor.name: tensor for tensor in graph.model.graph.initializer}
    scales = next(t for t in tensors.values() if t.name.startswith("c1.w") and "scale" in t.name)
    values = onnx.numpy_helper.to_array(scales).copy()
    values[:3] = 1e-30, 1e-7, 3e-5
    scales.CopyFrom(onnx.numpy_helper.from_array(values, scales.name))
    rest = with_fp16_rest(graph, ())
    rest.check()
    agrees(rest, graph)
    assert types_of(rest)["c1"] == "FLOAT16"
    written = {t.name: onnx.numpy_helper.to_array(t) for t in rest.model.graph.initializer}
    for node in rest.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            assert (written[node.input[1]] > 0).all(), "TensorRT takes no other scale"
    pair = next(n for n in graph.nodes if n.op_type == "QuantizeLinear" and n.input[0] == "r1")
    hot = tensors[pair.input[1]]
    hot.CopyFrom(onnx.numpy_helper.from_array(np.float32(1000.0), hot.name))
    rest = with_fp16_rest(graph, ())
    rest.check()
    assert (types_of(rest)["r1"], types_of(rest)["c2"]) == ("FLOAT", "FLOAT")


# Of a bundle: what quantize finds out, and what build makes of it.


@pytest.fixture
def int8_bundle(mini: Path) -> Path:
    """pphgnet_mini with its int8 file."""
    pytest.importorskip("onnxslim", reason="onnxslim is not installed")
    folded = OnnxGraph.read(mini / "inference.onnx").folded()[0]
    onnx.save(folded.model, mini / "folded.onnx")
    return write_int8(mini, mini / "folded.onnx")


def write_int8(bundle: Path, source: Path) -> Path:
    options = QuantizeOptions(images=10, method="minmax", min_agreement=0)
    preprocess = Preprocessor(open_bundle(bundle).preprocess)
    images, target = find_images(IMAGES) * 2, bundle / "inference.int8.onnx"
    int8_from_onnx(source, target, images, preprocess, options, lambda _: None)
    return bundle


def build(bundle: Path, *flags: str) -> dict[str, Any]:
    where = ("--runtime", "tensorrt-rtx", "--compute-capability", "8.6", "--precision", "int8")
    assert cli.main(["build", str(bundle), *where, *flags]) == 0
    facts = read_sidecar(bundle / "inference.int8.rtx.engine")
    assert facts is not None
    return facts


def test_an_int8_engine_is_int8_and_fp16_or_fp32_if_asked_for(int8_bundle, capsys):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    facts = build(int8_bundle)
    assert facts["key"]["flags"]["int8_rest"] == "fp16"
    assert facts["source"].keys() == {"inference.int8.onnx"}
    computed = facts["network"]["layer_precisions"]
    assert computed["float16"] > 100 > 5 > computed["float32"]
    assert facts["network"]["inputs"][0]["dtype"] == "float32"
    assert "random images decide" not in capsys.readouterr().err
    facts = build(int8_bundle, "--int8-rest", "fp32")
    assert "float16" not in facts["network"]["layer_precisions"]
    assert "int8_rest=fp16" in capsys.readouterr().err


def test_random_images_decide_where_the_file_does_not_say_what_overflows(int8_bundle, capsys):
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    sidecar_path(int8_bundle / "inference.int8.onnx").unlink()
    assert build(int8_bundle)["network"]["layer_precisions"]["float16"] > 100
    assert "does not say which of its values fp16 cannot hold" in capsys.readouterr().err


def test_quantize_notes_what_fp16_cannot_hold_on_real_images(int8_bundle):
    facts = read_sidecar(int8_bundle / "inference.int8.onnx")
    assert facts is not None
    assert facts["fp16_overflows"] == []
    source = int8_bundle / "folded.onnx"
    model = onnx.load(source)
    first = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    for name in first.input[1:]:
        values = onnx.numpy_helper.to_array(weights[name]) * np.float32(1e6)
        weights[name].CopyFrom(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, source)
    write_int8(int8_bundle, source)
    facts = read_sidecar(int8_bundle / "inference.int8.onnx")
    assert facts is not None
    assert first.output[0] in facts["fp16_overflows"]
