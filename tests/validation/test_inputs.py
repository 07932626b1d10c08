# SPDX-License-Identifier: Apache-2.0
"""What is fed to runs that are compared: images that fit, or random inputs of the right kind."""

from __future__ import annotations

import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from conftest import IMAGES
from hgdeploy import Classifier
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.int8.variants import quantize
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines.base import TensorSpec
from hgdeploy.engines.run import Run
from hgdeploy.errors import BundleError, ValidationError
from hgdeploy.images.find import find_images
from hgdeploy.system.progress import nothing
from hgdeploy.validation.divergence import bisect_failures
from hgdeploy.validation.explain import Side, explain
from hgdeploy.validation.inputs import common_input, random_rows
from hgdeploy.validation.validate import ValidateOptions, validate

PHOTOS = tuple(find_images(IMAGES))
PADDLE, ONNX = Run("paddle"), Run("onnxruntime")
NO_CHECK = ConvertOptions(check=False)


@pytest.fixture(scope="module")
def converted(foreign_models, tmp_path_factory) -> Callable[[str], Path]:
    """Bundles with an ONNX file; that of `gray` and `other_size` does not take its images."""
    for library in ("paddle2onnx", "onnxslim", "onnxruntime"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    root, made = tmp_path_factory.mktemp("converted"), dict[str, Path]()

    def make(name: str) -> Path:
        if name not in made:
            other = name == "other_size"
            source = make("any_size") if other else foreign_models(name)
            made[name] = Path(shutil.copytree(source, root / name))
            if other:
                _fix_size(root / name / "inference.onnx", 48)
            else:
                convert_to_onnx(open_bundle(root / name), NO_CHECK, nothing)
        return made[name]

    return make


def _fix_size(file: Path, size: int) -> None:
    import onnx

    model = onnx.load(str(file))
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    onnx.save(model, str(file))
    file.with_name("inference.onnx.meta.json").unlink()


@pytest.mark.parametrize("name", ["gray", "other_size"])
def test_a_model_that_does_not_take_the_images_is_refused_as_by_predict(converted, name):
    bundle = open_bundle(converted(name))
    with pytest.raises(BundleError, match=r"inference\.onnx takes images of ") as predicted:
        Classifier(bundle.root, "onnxruntime")
    reason = f"^{re.escape(str(predicted.value))}$"
    with pytest.raises(BundleError, match=reason):
        validate(bundle, ValidateOptions((ONNX,), PHOTOS, labels=(0,) * len(PHOTOS)), nothing)
    side = Side("a", bundle.own_preprocess(), bundle, ONNX)
    with pytest.raises(BundleError, match=reason):
        explain(PHOTOS[0].path, side, side)
    with pytest.raises(BundleError, match=reason):
        quantize(bundle, PHOTOS * 2, QuantizeOptions(), nothing, nothing)
    half = ConvertOptions(precision="fp16", images=PHOTOS, check=False)
    with pytest.raises(BundleError, match=reason):
        convert_to_onnx(bundle, half, nothing)
    assert not list(bundle.root.glob("inference.*.onnx"))


def test_what_one_run_leaves_open_another_may_fix(converted):
    """No image is fed, so what the preprocessing makes does not matter."""
    bundle = open_bundle(converted("other_size"))
    options = ValidateOptions((PADDLE, ONNX), random_rows=2)
    report = validate(bundle, options)
    assert report.passed
    missed = dataclasses.replace(report.pairs[0], misses=("a difference",))
    lines = bisect_failures(bundle, options, dataclasses.replace(report, pairs=(missed,)))
    assert "no layer differs" in lines[0]


def test_a_program_runs_at_the_size_of_the_preprocessing_as_in_predict(foreign):
    folder = foreign("plain")
    description = folder / "inference.yml"
    text = description.read_text().replace("size: 64", "size: 96").replace("short: 72", "short: 96")
    description.write_text(text)
    bundle = open_bundle(folder)
    report = validate(bundle, ValidateOptions((PADDLE,), PHOTOS[:1], (0,), random_rows=0))
    assert report.images == 1
    side = Side("a", bundle.own_preprocess(), bundle, PADDLE)
    found = explain(PHOTOS[0].path, side, side)
    with Classifier(folder) as classifier:
        (predicted,) = classifier.predict(PHOTOS[0].path)
    assert found.class_id == predicted.class_ids[0]
    assert found.score_a == pytest.approx(predicted.scores[0], abs=1e-5)


@pytest.mark.parametrize("name", ["other_size", "any_size"])
def test_an_image_of_a_size_that_a_model_does_not_take_fails_by_itself(converted, tmp_path, name):
    import cv2

    folder, images = tmp_path / "bundle", tmp_path / "images"
    shutil.copytree(converted(name), folder)
    description = folder / "inference.yml"
    lines = description.read_text().replace("short: 72", "short: 48").splitlines(keepends=True)
    description.write_text("".join(line for line in lines if "CropImage" not in line))
    images.mkdir()
    for file, width in (("fits", 48), ("wide", 80)):
        cv2.imwrite(str(images / f"{file}.png"), np.full((48, width, 3), width, np.uint8))
    with Classifier(folder, "onnxruntime") as classifier:
        predicted = {row.path: row.error for row in classifier.predict(images)}
    options = ValidateOptions((ONNX,), tuple(find_images(images)), (0, 0), random_rows=0)
    report = validate(open_bundle(folder), options)
    if name == "any_size":
        assert report.images == 2
        return
    assert report.failed == (("wide.png", predicted["wide.png"]),)
    assert "the model takes [3, 48, 48]" in predicted["wide.png"]
    assert report.images == 1


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((-1, 3, 48, 64), "float32", (3, 48, 64)),
        ((-1, 48, 64, 3), "float32", (48, 64, 3)),
        ((-1, -1, -1, 3), "uint8", (224, 224, 3)),
        ((-1, -1, -1, -1), "float16", (3, 224, 224)),
        ((2, 1, -1, 32), "uint8", (1, 224, 32)),
        ((-1, 3, 8, 8), "int8", (3, 8, 8)),
    ],
)
def test_random_inputs_have_the_models_layout_and_type(shape, dtype, expected):
    spec = TensorSpec("x", dtype, shape)
    rows = random_rows(spec, None, 5, 1)
    assert rows.shape == (5, *expected)
    assert rows.dtype == dtype
    np.testing.assert_array_equal(rows, random_rows(spec, None, 5, 1))
    if dtype.startswith("float"):
        contrasts = [float(row.std()) for row in rows.astype(float)]
        assert contrasts == pytest.approx([1, 1 / 4, 1 / 16, 1, 1 / 4], rel=0.1)
    else:
        most = np.iinfo(dtype).max
        assert 0 <= rows.min() < most * 0.2
        assert most * 0.8 < rows.max() <= most


def test_random_inputs_of_a_type_without_numbers_are_refused():
    with pytest.raises(BundleError, match="bfloat16, of which no random input can be made"):
        random_rows(TensorSpec("x", "bfloat16", (-1, 3, 8, 8)), None, 1, 0)


def test_random_inputs_follow_the_bundle_where_the_model_is_open(foreign):
    bundle = open_bundle(foreign("four_channels"))
    (bundle.root / "inference.yml").write_text(
        (bundle.root / "inference.yml").read_text().replace("std:", "channel_num: 4, std:")
    )
    spec = TensorSpec("x", "float32", (-1, -1, -1, -1))
    assert random_rows(spec, open_bundle(bundle.root), 1, 0).shape == (1, 4, 64, 64)


def test_runs_that_no_input_fits_are_refused_by_name():
    def run(dtype: str, *shape: int) -> SimpleNamespace:
        return SimpleNamespace(inputs=(TensorSpec("x", dtype, shape),))

    same = common_input({"a": run("float32", -1, 3, -1, 64), "b": run("float32", 8, 3, 48, -1)})
    assert same.shape[1:] == (3, 48, 64)
    for other in (run("uint8", -1, 3, 48, 64), run("float32", -1, 48, 64, 3)):
        with pytest.raises(ValidationError, match=r"^a takes float32 .* and b .*do not fit both"):
            common_input({"a": run("float32", -1, 3, 48, 64), "b": other})


def test_an_onnx_file_of_several_outputs_is_quantized_by_the_one_that_the_bundle_names(converted):
    import onnx

    folder = converted("other_size")
    model = onnx.load(str(folder / "inference.onnx"))
    inner = next(node for node in model.graph.node if node.op_type == "Relu").output[0]
    float32 = onnx.TensorProto.FLOAT
    model.graph.output.insert(0, onnx.helper.make_tensor_value_info(inner, float32, None))
    alone = folder.with_name("alone")
    alone.mkdir()
    onnx.save(model, str(alone / "inference.onnx"))
    text = (folder / "inference.yml").read_text().replace("size: 64", "size: 48")
    (alone / "inference.yml").write_text(text)
    images = PHOTOS * 2
    options = QuantizeOptions(method="minmax", min_agreement=0)
    with pytest.raises(BundleError, match="has 2 outputs, and nothing says which has the scores"):
        quantize(open_bundle(alone), images, options, nothing, nothing)
    (alone / "inference.yml").write_text(f"Global: {{output_name: probabilities}}\n{text}")
    report = quantize(open_bundle(alone), images, options, nothing, nothing)
    assert [out.name for out in onnx.load(str(report.path)).graph.output] == ["probabilities"]
