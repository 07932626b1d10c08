# SPDX-License-Identifier: Apache-2.0
"""Networks that are not of our zoo are converted and quantized rightly, or refused with why."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.convert import OnnxOptions
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8.norms import fold_dense_norms
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.errors import BundleError, HGDeployError
from hgdeploy.system.progress import nothing
from hgdeploy.validation.compare import compare

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
for _library in ("paddle", "paddle2onnx", "onnxslim", "onnxruntime"):
    pytest.importorskip(_library, reason=f"{_library} is not installed")

from foreign import make_foreign  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_trial_process")


def test_one_score_agrees_by_its_distance():
    reference = np.array([[0.9], [0.6], [0.2], [0.1]])
    found = np.array([[0.52], [0.6], [0.2], [0.1]])
    assert compare(reference, found, kind="independent").top1_agreement == 0.75
    values = reference * 40 - 20
    assert compare(values, values - 1, kind="logits").top1_agreement == 1
    assert compare(values, values * 0, kind="logits").top1_agreement == 0


def test_a_batch_normalisation_behind_a_dense_layer_is_folded(foreign_onnx):
    from onnxruntime import InferenceSession

    source = foreign_onnx("dense_norm") / "inference.onnx"
    graph = OnnxGraph.read(source)
    assert any(node.op_type == "BatchNormalization" for node in graph.nodes)
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    fold_dense_norms(graph)
    kinds = [node.op_type for node in graph.nodes]
    assert "BatchNormalization" not in kinds
    before, after = (InferenceSession(data) for data in (source.read_bytes(), graph.to_bytes()))
    np.testing.assert_allclose(
        after.run(None, {"x": x})[0], before.run(None, {"x": x})[0], atol=1e-5
    )


def _dense_norm_graph(kind: str) -> OnnxGraph:
    """A dense layer and a norm in other forms: of a Gemm, without a bias, read twice, of 3 axes."""
    helper, rng = onnx.helper, np.random.default_rng(0)
    make = onnx.numpy_helper.from_array
    arrays = {"w": rng.normal(size=(4, 6)), "b": rng.normal(size=6)}
    arrays |= {name: rng.uniform(0.5, 2, 6) for name in ("gamma", "beta", "mean", "var")}
    if kind == "transposed gemm":
        arrays["w"] = arrays["w"].T.copy()
    nodes = [helper.make_node("Flatten", ["x"], ["h"])]
    if "gemm" in kind:
        transposed = int(kind == "transposed gemm")
        nodes.append(helper.make_node("Gemm", ["h", "w", "b"], ["d"], transB=transposed))
    else:
        nodes.append(helper.make_node("MatMul", ["h", "w"], ["d"]))
    nodes.append(
        helper.make_node("BatchNormalization", ["d", "gamma", "beta", "mean", "var"], ["n"])
    )
    last = ["n", "d"] if kind == "read twice" else ["n", "n"]
    nodes.append(helper.make_node("Add", last, ["y"]))
    values = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", 1, 2, 2]), ("y", ["batch", 6]))
    ]
    weights = [make(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], weights)
    imports = [helper.make_opsetid("", 17)]
    return OnnxGraph(helper.make_model(graph, opset_imports=imports, ir_version=8), "a test")


@pytest.mark.parametrize("kind", ["matmul", "gemm", "transposed gemm", "read twice"])
def test_a_folded_norm_computes_the_same_and_one_that_is_read_elsewhere_stays(kind):
    from onnxruntime import InferenceSession

    graph = _dense_norm_graph(kind)
    x = np.random.default_rng(1).standard_normal((3, 1, 2, 2), dtype=np.float32)
    before = InferenceSession(graph.to_bytes()).run(None, {"x": x})[0]
    fold_dense_norms(graph)
    kinds = [node.op_type for node in graph.nodes]
    assert ("BatchNormalization" in kinds) == (kind == "read twice")
    after = InferenceSession(graph.to_bytes()).run(None, {"x": x})[0]
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("any_size_pooled", "fixed height and width"), ("branching", "--engine paddle")],
)
def test_an_operator_that_the_converter_lacks_is_named_with_what_to_do(tmp_path, name, advice):
    bundle = make_foreign(name, tmp_path / name)
    with pytest.raises(BundleError, match=re.escape(advice)) as caught:
        convert_to_onnx(open_bundle(bundle), ConvertOptions(check=False), nothing)
    assert "come from one export" not in str(caught.value)


def test_a_pooling_that_was_frozen_is_no_dynamic_size(tmp_path):
    bundle = make_foreign("plain", tmp_path / "plain")
    options = ConvertOptions(OnnxOptions(dynamic_size=True))
    with pytest.raises(HGDeployError, match=r"dynamic height and width are not possible.*frozen"):
        convert_to_onnx(open_bundle(bundle), options, nothing)
    assert not list(bundle.glob("*.onnx"))


def test_long_steps_are_told(tmp_path):
    bundle, lines = make_foreign("plain", tmp_path / "plain"), []
    convert_to_onnx(open_bundle(bundle), ConvertOptions(), nothing, lines.append)
    assert [line.split()[0] for line in lines] == ["converting", "folding", "comparing"]
