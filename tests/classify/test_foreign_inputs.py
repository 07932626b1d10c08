# SPDX-License-Identifier: Apache-2.0
"""Models whose input is not float32 NCHW of three channels: served as they are, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import IMAGES
from hgdeploy import Classifier
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.errors import BundleError
from hgdeploy.images.decode import read_image
from hgdeploy.transforms.preprocess import Preprocessor

paddle = pytest.importorskip("paddle")
pytest.importorskip("paddle2onnx")

from foreign import make_foreign  # noqa: E402

from hgdeploy.convert.float16.from_onnx import fp16_from_onnx  # noqa: E402
from hgdeploy.convert.graph_parts import image_dims  # noqa: E402
from hgdeploy.convert.int8.qdq import load_folded  # noqa: E402
from hgdeploy.convert.onnx.from_paddle import OnnxOptions, onnx_from_paddle  # noqa: E402
from hgdeploy.convert.tensorrt.options import Shapes, profile_to_serve  # noqa: E402

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
def test_every_engine_answers_as_a_bare_predictor_does(
    bundles: dict[str, Path], name: str, engine_name: str
) -> None:
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


def test_a_model_of_bytes_is_named_as_one_where_it_is_reduced(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(BundleError, match="takes uint8, and only a model that takes float32 can"):
        load_folded(bundles["uint8"] / "inference.onnx")
    with pytest.raises(BundleError, match="takes float32 can be converted to 16 bits"):
        fp16_from_onnx(
            bundles["uint8"] / "inference.onnx", tmp_path / "half.onnx", None, verify=None
        )
    assert not (tmp_path / "half.onnx").exists()


def test_what_needs_channels_first_says_so(bundles: dict[str, Path]) -> None:
    import onnx

    source = bundles["nhwc"] / "inference.onnx"
    dims = image_dims(onnx.load(source).graph.input, source)
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
