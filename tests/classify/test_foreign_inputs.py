# SPDX-License-Identifier: Apache-2.0
"""Models whose input is not float32 NCHW of three channels: served as they are, or refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import IMAGES, require_engine
from hgdeploy import Classifier
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import BundleError
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import find_images
from hgdeploy.system.progress import nothing
from hgdeploy.transforms.preprocess import Preprocessor

paddle = pytest.importorskip("paddle")
pytest.importorskip("paddle2onnx")

from foreign import make_foreign  # noqa: E402

from hgdeploy.convert.graph_parts import dims_of, require_pixels  # noqa: E402
from hgdeploy.convert.int8.options import QuantizeOptions  # noqa: E402
from hgdeploy.convert.int8.variants import quantize  # noqa: E402
from hgdeploy.convert.onnx.from_paddle import OnnxOptions, onnx_from_paddle  # noqa: E402
from hgdeploy.convert.tensorrt.options import Shapes, profile_to_serve  # noqa: E402
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_trial_process")

PHOTO = sorted(IMAGES.glob("*.jpg"))[0]


def bare_paddle(bundle: Path) -> np.ndarray:
    """The scores of the photograph by `paddle.inference` alone."""
    config = paddle.inference.Config(
        str(bundle / "inference.json"), str(bundle / "inference.pdiparams")
    )
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)
    tensor = Preprocessor(open_bundle(bundle).own_preprocess())(read_image(PHOTO))
    predictor.get_input_handle("x").copy_from_cpu(tensor[None])
    predictor.run()
    return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()[0]


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("foreign_inputs")
    made = {name: make_foreign(name, folder / name) for name in ("nhwc", "uint8")}
    for bundle in made.values():
        onnx_from_paddle(open_bundle(bundle), OnnxOptions(), verify=None)
    return made


@pytest.mark.parametrize("name", ["nhwc", "uint8"])
@pytest.mark.parametrize("engine_name", ["paddle", "onnxruntime", "openvino"])
def test_every_engine_answers_as_a_bare_predictor_does(
    bundles: dict[str, Path], name: str, engine_name: str
) -> None:
    require_engine(engine_name)
    expected = bare_paddle(bundles[name])
    with Classifier(bundles[name], engine_name) as classifier:
        (prediction,) = classifier.predict(PHOTO)
    order = np.argsort(expected)[::-1]
    assert prediction.class_ids == tuple(order)
    np.testing.assert_allclose(prediction.scores, expected[order], atol=2e-5)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("gray", "takes images of 1 channel, but the preprocessing makes 3"),
        ("four_channels", "set NormalizeImage.channel_num to 4"),
    ],
)
def test_other_channels_are_refused_by_name(tmp_path: Path, name: str, told: str) -> None:
    bundle = make_foreign(name, tmp_path / name)
    with pytest.raises(BundleError, match=told):
        Classifier(bundle)
    if name == "four_channels":
        description = bundle / "inference.yml"
        description.write_text(description.read_text().replace("std:", "channel_num: 4, std:"))
        with Classifier(bundle) as classifier:
            assert next(classifier.predict(PHOTO)).error is None


def test_a_model_of_bytes_can_be_reduced(bundles: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    bundle = tmp_path / "uint8"
    shutil.copytree(bundles["uint8"], bundle)
    photos = find_images(IMAGES) * 2
    options = QuantizeOptions(method="minmax", min_agreement=0)
    quantize(open_bundle(bundle), photos, options, nothing, nothing)
    convert_to_onnx(open_bundle(bundle), ConvertOptions(precision="fp16"), nothing)
    expected = bare_paddle(bundle)
    for precision, near in (("int8", 0.1), ("fp16", 1e-3)):
        with Classifier(bundle, "onnxruntime", precision=precision) as classifier:
            (found,) = classifier.predict(PHOTO)
        np.testing.assert_allclose(found.scores, expected[list(found.class_ids)], atol=near)


def test_a_model_of_other_numbers_cannot_be_reduced(tmp_path: Path) -> None:
    spec = TensorSpec("x", "int32", (-1, 3, 8, 8))
    with pytest.raises(BundleError, match=r"takes int32, .* float32 or uint8 can be quant"):
        require_pixels(spec, tmp_path / "m.onnx", "quantized")


def test_what_needs_channels_first_says_so(bundles: dict[str, Path]) -> None:
    import onnx

    source = bundles["nhwc"] / "inference.onnx"
    dims = dims_of(onnx.load(source).graph.input[0])
    with pytest.raises(BundleError, match=r"takes NHWC .* but engines are built for NCHW"):
        profile_to_serve(dims, Shapes(), source)
    with pytest.raises(BundleError, match=r"takes NHWC .* but --dynamic-size needs NCHW"):
        onnx_from_paddle(open_bundle(bundles["nhwc"]), OnnxOptions(dynamic_size=True), verify=None)


def test_triton_is_told_the_layout(bundles: dict[str, Path], tmp_path: Path) -> None:
    pytest.importorskip("tritonclient")
    from hgdeploy.serving.triton.backends import TritonOptions
    from hgdeploy.serving.triton.repository import triton_repository

    options = TritonOptions(backend="onnxruntime")
    folder = triton_repository(
        open_bundle(bundles["nhwc"]), tmp_path / "r", options, lambda _: None
    )
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")
    assert "format: FORMAT_NHWC" in text
    assert text.replace(" ", "").count("dims:64\ndims:64\ndims:3\n") >= 1
