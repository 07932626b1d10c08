# SPDX-License-Identifier: Apache-2.0
"""An ONNX file as the start of its variants: its options, its weights' file, its own changes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import IMAGES, MINI
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.cli.main import main
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.int8.variants import quantize
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.errors import BundleError
from hgdeploy.images.find import find_images
from hgdeploy.system.progress import nothing

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytest.importorskip("paddle2onnx", reason="paddle2onnx is not installed")


def batch_and_opset(path: Path) -> tuple[object, int]:
    model = onnx.load(str(path))
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    return first.dim_param or first.dim_value, model.opset_import[0].version


@pytest.fixture
def plain(foreign_models, tmp_path) -> Path:
    folder = tmp_path / "plain"
    shutil.copytree(foreign_models("plain"), folder)
    return folder


def convert(*arguments: object) -> int:
    return main(["convert", "--check", "off", *map(str, arguments)])


def test_a_variant_keeps_the_options_of_the_fp32_file(plain, foreign_models):
    assert convert(plain, "--batch", "4", "--opset", "13") == 0
    made = plain / "inference.onnx"
    before = made.read_bytes()
    assert convert(plain, "--precision", "fp16") == 0
    assert made.read_bytes() == before
    assert batch_and_opset(plain / "inference.fp16.onnx") == (4, 13)
    for name in ("inference.json", "inference.pdiparams"):  # trained anew
        shutil.copy(foreign_models("other_weights") / name, plain)
    assert convert(plain, "--precision", "bf16") == 0
    assert made.read_bytes() != before
    assert batch_and_opset(made) == (4, 13)
    assert convert(plain, "--precision", "fp16", "--opset", "15") == 0
    assert batch_and_opset(made) == (4, 15)
    assert convert(plain) == 0
    assert batch_and_opset(made) == ("batch", 17)


def test_variants_are_stale_though_the_file_between_is_gone(plain, foreign_models):
    assert convert(plain, "--precision", "fp16") == 0
    origin = read_sidecar(plain / "inference.fp16.onnx")["origin"]
    assert sorted(origin) == ["inference.json", "inference.pdiparams"]
    for name in ("inference.json", "inference.pdiparams"):
        shutil.copy(foreign_models("other_weights") / name, plain)
    (plain / "inference.onnx").unlink()
    sidecar_path(plain / "inference.onnx").unlink()
    with pytest.raises(BundleError, match=r"is stale: inference\.\w+ has changed"):
        open_bundle(plain).find(("inference.fp16.onnx",))


@pytest.fixture
def alone(mini) -> Path:
    """A bundle of an ONNX file as paddle2onnx wrote it: nothing is folded."""
    for name in ("inference.pdmodel", "inference.pdiparams"):
        (mini / name).unlink()
    kinds = [node.op_type for node in onnx.load(str(MINI / "inference.onnx")).graph.node]
    assert "BatchNormalization" in kinds
    return mini


def test_an_unfolded_onnx_file_alone_is_quantized(alone, tmp_path):
    for index in range(12):
        shutil.copy(IMAGES / ("coffee.jpg", "rocket.jpg")[index % 2], tmp_path / f"{index}.jpg")
    images = find_images(tmp_path / "*.jpg")
    options = QuantizeOptions(min_agreement=0.01)
    report = quantize(open_bundle(alone), images, options, nothing, nothing)
    kinds = {node.op_type for node in onnx.load(str(report.path)).graph.node}
    assert "QuantizeLinear" in kinds
    assert "BatchNormalization" not in kinds


def test_weights_in_a_file_of_their_own_are_no_hindrance(alone):
    path = alone / "inference.onnx"
    how = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 64}
    onnx.save(onnx.load(str(path)), str(path), convert_attribute=True, **how)
    assert (alone / "w.bin").is_file()
    made = convert_to_onnx(
        open_bundle(alone), ConvertOptions(precision="fp16", check=False), nothing
    )
    assert sorted(read_sidecar(made)["source"]) == ["inference.onnx", "w.bin"]
    assert not any(
        t.external_data for t in onnx.load(str(made), load_external_data=False).graph.initializer
    )
