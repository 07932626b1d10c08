# SPDX-License-Identifier: Apache-2.0
"""fp16 and bf16: 16 bits where values fit, fp32 where they do not, and the sidecar says which."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import DATA, require_engine
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert import bf16_from_onnx, fp16_from_onnx
from hgdeploy.convert.float16.mixed import bits_of, fp32_twin, to_16_bits
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError
from hgdeploy.validation.compare import compare

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
FLOAT, FLOAT16, BFLOAT16 = (
    onnx.TensorProto.FLOAT,
    onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
)
MINI = DATA / "pphgnet_mini" / "inference.onnx"


@pytest.fixture(autouse=True)
def _needs_onnxruntime():
    require_engine("onnxruntime")


def tiny(path: Path, *, gain: float = 1.0, batch: int | str = "batch", scale: float = 1.0) -> Path:
    """Write a small classifier; `gain` blows its values up and takes them back."""
    rng, h = np.random.default_rng(0), onnx.helper
    weights = {
        "w": rng.standard_normal((8, 3, 3, 3)) * scale,
        "up": np.full(1, gain),
        "down": np.full(1, 1 / (gain * scale)),
        "dense": rng.standard_normal((8, 5)),
    }
    nodes = [
        h.make_node("Conv", ["x", "w"], ["conv"], name="Conv.0", pads=[1, 1, 1, 1]),
        h.make_node("Relu", ["conv"], ["relu"], name="Relu.0"),
        h.make_node("Mul", ["relu", "up"], ["large"], name="Mul.large"),
        h.make_node("Mul", ["large", "down"], ["small"], name="Mul.small"),
        h.make_node("GlobalAveragePool", ["small"], ["pool"], name="Pool.0"),
        h.make_node("Flatten", ["pool"], ["flat"], name="Flatten.0"),
        h.make_node("MatMul", ["flat", "dense"], ["logits"], name="MatMul.0"),
        h.make_node("Softmax", ["logits"], ["probabilities"], name="Softmax.0", axis=-1),
    ]
    model = h.make_model(
        h.make_graph(
            nodes,
            "tiny",
            [h.make_tensor_value_info("x", FLOAT, [batch, 3, 8, 8])],
            [h.make_tensor_value_info("probabilities", FLOAT, [batch, 5])],
            [onnx.numpy_helper.from_array(v.astype(np.float32), k) for k, v in weights.items()],
        ),
        opset_imports=[h.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def images(count: int = 6, size: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal((2, 3, size, size), dtype=np.float32) for _ in range(count // 2)]


def run(path: Path, x: np.ndarray, *, optimize: bool = True) -> np.ndarray:
    options = EngineOptions(threads=1, graph_optimization=optimize)
    with load_engine("onnxruntime", path, options) as engine:
        (output,) = engine.infer({"x": x}).values()
    return output


def verify(reference: Path, variant: Path) -> dict[str, Any]:
    size = onnx.load(str(reference)).graph.input[0].type.tensor_type.shape.dim[2].dim_value
    x = np.concatenate(images(size=size))
    return dataclasses.asdict(compare(run(reference, x), run(variant, x, optimize=False)))


def types_of(path: Path) -> dict[str, int]:
    """Element types of all tensors, by name."""
    g = onnx.shape_inference.infer_shapes(onnx.load(str(path)), strict_mode=True).graph
    values = {v.name: v.type.tensor_type.elem_type for v in (*g.input, *g.output, *g.value_info)}
    return values | {t.name: t.data_type for t in g.initializer}


@pytest.mark.parametrize(
    ("convert", "precision", "kind", "tolerance"),
    [(fp16_from_onnx, "fp16", FLOAT16, 1e-3), (bf16_from_onnx, "bf16", BFLOAT16, 1e-2)],
)
@pytest.mark.parametrize("model", ["tiny", "pphgnet_mini"])
def test_a_variant_computes_in_16_bits_between_fp32_ends(
    tmp_path, convert, precision, kind, tolerance, model
):
    source = tiny(tmp_path / "inference.onnx") if model == "tiny" else MINI
    size = 8 if model == "tiny" else 64
    target = tmp_path / f"inference.{precision}.onnx"
    assert convert(source, target, images(size=size), verify=verify) == target
    types, g = types_of(target), onnx.load(str(target)).graph
    assert types["x"] == types["probabilities"] == FLOAT
    for node in g.node:
        if node.op_type == "Softmax":
            assert types[node.input[0]] == FLOAT
        if node.op_type in ("Conv", "MatMul", "Relu"):
            assert {types[name] for name in (*node.input, *node.output)} == {kind}
    facts = read_sidecar(target)
    assert (facts["precision"], facts["fp32_layers"]) == (precision, [])
    assert facts["scanned_images"] == {"count": 6, "origin": "given"}
    assert facts["ending"] == ["softmax"]
    assert 0 < facts["verdict"]["max_abs"] <= tolerance
    assert facts["verdict"]["top1_agreement"] == 1.0
    assert ("twin" in facts["verdict"]["compared"]) is (precision == "bf16")
    metadata = {p.key: p.value for p in onnx.load(str(target)).metadata_props}
    assert metadata["hgdeploy.precision"] == precision


def test_layers_whose_values_overflow_stay_in_fp32(tmp_path):
    source = tiny(tmp_path / "inference.onnx", gain=1e5)
    target = fp16_from_onnx(source, tmp_path / "inference.fp16.onnx", images(), verify=verify)
    facts, types = read_sidecar(target), types_of(target)
    assert facts["fp32_layers"] == ["Mul.large", "Mul.small"]
    assert types["large"] == FLOAT
    assert types["relu"] == types["pool"] == FLOAT16
    assert facts["verdict"]["max_abs"] <= 1e-3


def test_the_twin_shows_the_overflow_that_the_scan_prevents(tmp_path):
    source = tiny(tmp_path / "inference.onnx", gain=1e5)
    graph = OnnxGraph.read(source).with_inferred_shapes()
    twin = tmp_path / "twin.onnx"
    twin.write_bytes(fp32_twin(to_16_bits(graph, "fp16", ()), "fp16").to_bytes())
    assert not np.isfinite(run(twin, images()[0], optimize=False)).all()


def test_weights_that_overflow_stay_in_fp32(tmp_path):
    source = tiny(tmp_path / "inference.onnx", scale=1e5)
    target = fp16_from_onnx(source, tmp_path / "inference.fp16.onnx", images(), verify=verify)
    assert "Conv.0" in read_sidecar(target)["fp32_layers"]
    assert types_of(target)["w"] == FLOAT


def test_without_images_random_ones_are_scanned_and_recorded(tmp_path):
    source = tiny(tmp_path / "inference.onnx", gain=1e5)
    target = fp16_from_onnx(source, tmp_path / "inference.fp16.onnx", None, verify=None)
    facts = read_sidecar(target)
    assert facts["scanned_images"] == {"count": 4, "origin": "random"}
    assert facts["fp32_layers"] == ["Mul.large", "Mul.small"]
    assert facts["verdict"] is None


def test_a_fixed_batch_is_scanned_in_whole_batches(tmp_path):
    source = tiny(tmp_path / "inference.onnx", batch=4, gain=1e5)
    target = fp16_from_onnx(source, tmp_path / "inference.fp16.onnx", images(), verify=None)
    assert read_sidecar(target)["fp32_layers"] == ["Mul.large", "Mul.small"]


def test_values_inside_a_branch_are_cast_for_it(tmp_path):
    h = onnx.helper
    branch = {
        name: h.make_graph(
            [h.make_node(op, ["relu"], [f"{name}.y"])],
            name,
            [],
            [h.make_tensor_value_info(f"{name}.y", FLOAT, None)],
        )
        for name, op in (("then", "Identity"), ("else", "Neg"))
    }
    model = h.make_model(
        h.make_graph(
            [
                h.make_node("Relu", ["x"], ["relu"]),
                h.make_node(
                    "If", ["yes"], ["y"], then_branch=branch["then"], else_branch=branch["else"]
                ),
                h.make_node("GlobalAveragePool", ["y"], ["pool"]),
                h.make_node("Flatten", ["pool"], ["flat"]),
                h.make_node("Softmax", ["flat"], ["probabilities"], axis=-1),
            ],
            "branches",
            [h.make_tensor_value_info("x", FLOAT, ["batch", 3, 8, 8])],
            [h.make_tensor_value_info("probabilities", FLOAT, ["batch", 3])],
            [onnx.numpy_helper.from_array(np.array(True), "yes")],
        ),
        opset_imports=[h.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "inference.onnx")
    target = fp16_from_onnx(
        tmp_path / "inference.onnx", tmp_path / "inference.fp16.onnx", images(), verify=verify
    )
    assert read_sidecar(target)["verdict"]["max_abs"] <= 1e-3


def test_bf16_rounds_to_nearest_even():
    values = np.array([1.0, 1.00390625, 1.01171875, -3.1415927, 65504 * 4, 1e-30], np.float32)
    bits = np.frombuffer(bits_of(values, "bf16"), "<u2").astype("<u4") << 16
    kept = bits.view("<f4")
    assert kept[:3].tolist() == [1.0, 1.0, 1.015625]
    assert np.abs(kept / values - 1).max() <= 2**-8


def test_bf16_files_have_the_first_opset_that_allows_them(tmp_path):
    target = bf16_from_onnx(
        tiny(tmp_path / "inference.onnx"), tmp_path / "inference.bf16.onnx", None, verify=None
    )
    assert OnnxGraph.read(target).opset == 22
    onnx.checker.check_model(onnx.load(str(target)), full_check=True)


def test_openvino_runs_the_bf16_file_itself(tmp_path):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    source = tiny(tmp_path / "inference.onnx")
    target = bf16_from_onnx(source, tmp_path / "inference.bf16.onnx", images(), verify=None)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(str(target), "CPU", settings)
    x = np.concatenate(images())
    np.testing.assert_allclose(compiled(x)[0], run(source, x), rtol=0, atol=1e-2)


@pytest.mark.parametrize("convert", [fp16_from_onnx, bf16_from_onnx])
def test_what_cannot_be_converted_is_refused_and_leaves_nothing(tmp_path, convert):
    target = tmp_path / "out.onnx"
    source = tiny(tmp_path / "inference.onnx")
    half = fp16_from_onnx(source, tmp_path / "inference.fp16.onnx", None, verify=None)
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"no model" * 9)
    cases = {
        tmp_path / "absent.onnx": "cannot be read: No such file",
        half: "is not an fp32 model",
        junk: "is not a readable ONNX model",
    }
    for path, message in cases.items():
        with pytest.raises(BundleError, match=message) as caught:
            convert(path, target, None, verify=None)
        assert "\n" not in str(caught.value)

    def differ(*_: Path) -> dict[str, Any]:
        raise BundleError("top-1 agreement is 0.4")

    with pytest.raises(BundleError, match=r"0\.4"):
        convert(source, target, None, verify=differ)
    assert not list(tmp_path.glob("out*"))
    assert not list(tmp_path.glob(".out*"))
