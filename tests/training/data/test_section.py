# SPDX-License-Identifier: Apache-2.0
"""`DataLoader` of PaddleClas's training configs: read as it is, or refused in one line."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from loader_sections import pphgnet_loader

from hgdeploy.errors import ConfigError
from hgdeploy.training.data.operators.image import (
    RandCropImage,
    RandFlipImage,
    RandomErasing,
    TimmAutoAugment,
)
from hgdeploy.training.data.operators.mixing import CutmixOperator, MixupOperator, OpSampler
from hgdeploy.training.data.pipeline import Pipeline
from hgdeploy.training.data.section import read_section
from hgdeploy.transforms.operators import CropImage, DecodeImage, NormalizeImage, ResizeImage


@pytest.mark.parametrize(
    ("size", "magnitude", "erasing", "alpha", "short"),
    [("tiny", 7, 0.25, 0.2, 232), ("small", 7, 0.25, 0.2, 236), ("base", 15, 0.4, 0.4, 236)],
)
def test_the_recipes_of_pphgnet_are_read_as_they_are(size, magnitude, erasing, alpha, short):
    loader = pphgnet_loader(size)
    train = read_section(loader["Train"], training=True)
    assert train.ops == (
        DecodeImage(),
        RandCropImage((224, 224), interpolation="bicubic", backend="pil"),
        RandFlipImage(1),
        TimmAutoAugment(f"rand-m{magnitude}-mstd0.5-inc1", "bicubic", (224, 224)),
        NormalizeImage(order=""),
        RandomErasing(erasing, 0.02, 1.0 / 3.0, 0.3, (0, 0, 0), 10, True, "pixel"),
    )
    mixed = ((MixupOperator(alpha), 0.5), (CutmixOperator(1.0), 0.5))
    assert train.batch_ops == (OpSampler(mixed),)
    assert (train.batch_size, train.shuffle, train.drop_last, train.workers) == (
        128,
        True,
        False,
        16,
    )
    assert Pipeline(train.ops, 0, "ops").shape == (3, 224, 224)
    evaluation = read_section(loader["Eval"], training=False)
    resize = ResizeImage(resize_short=short, interpolation="bicubic", backend="pil")
    assert evaluation.ops == (
        DecodeImage(),
        resize,
        CropImage((224, 224)),
        NormalizeImage(order=""),
    )
    assert (evaluation.batch_ops, evaluation.shuffle) == ((), False)
    assert Pipeline(evaluation.ops, 0, "ops").shape == (3, 224, 224)


def changed(path: str, value: Any) -> dict[str, Any]:
    """Return tiny's `Train` with a value at a path; `...` removes what is there."""
    section = copy.deepcopy(pphgnet_loader("tiny")["Train"])
    *way, last = (int(key) if key.isdecimal() else key for key in path.split("."))
    place: Any = section
    for key in way:
        place = place[key]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return section


OPS = "dataset.transform_ops"
MIX = "dataset.batch_transform_ops"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("datset", {}, "unknown key DataLoader.Train.datset, did you mean 'dataset'?"),
        ("dataset.image_rot", "x", "Train.dataset.image_rot, did you mean 'image_root'?"),
        ("dataset.image_root", None, "Train.dataset.image_root is None, expected a value"),
        ("dataset.name", "ImageNetDataSet", "did you mean 'ImageNetDataset'?"),
        ("dataset.relabel", True, "relabel cannot be served: write the new classes"),
        ("dataset.label_ratio", True, "label_ratio is for MultiLabelDataset"),
        ("dataset.name", "MultiLabelDataset", "OpSampler mixes images of one label each"),
        ("sampler.name", "PKSampler", "unknown DataLoader.Train.sampler.name 'PKSampler'"),
        ("sampler.batch_size", 0, "sampler.batch_size is 0, expected a whole number from 1"),
        ("sampler.shufle", 1, "did you mean 'shuffle'?"),
        ("loader.num_worker", 1, "did you mean 'num_workers'?"),
        (f"{OPS}.1", {"RandCropImag": None}, "did you mean 'RandCropImage'?"),
        (f"{OPS}.1.RandCropImage.sise", 3, "RandCropImage.sise, did you mean 'size'?"),
        (f"{OPS}.1.RandCropImage.scale", [2, 3], "transform_ops.1.RandCropImage.scale is [2"),
        (f"{OPS}.1.RandCropImage.size", ..., "RandCropImage.size is missing, expected"),
        (f"{OPS}.3.TimmAutoAugment.config_str", "rand-x3", "with 'x3', expected a policy"),
        (f"{OPS}.5.RandomErasing.sh", "a third", "a product or quotient of numbers"),
        (f"{OPS}.5.RandomErasing.mode", "blur", "transform_ops.5.RandomErasing.mode is 'blur'"),
        (f"{MIX}.0", {"FmixOperator": {}}, "unknown key"),
        (f"{MIX}.0.OpSampler.MixupOperator.prob", ..., "MixupOperator.prob is missing"),
        (f"{MIX}.0.OpSampler.MixupOperator.prob", 0.6, "sum 1.1, more than 1"),
        (f"{MIX}.0.OpSampler.CutmixOperator.beta", 1, "unknown key"),
        (f"{MIX}.0.OpSampler.CutmixOperator.alpha", 0, "CutmixOperator.alpha is 0"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(path, value, words):
    with pytest.raises(ConfigError) as caught:
        read_section(changed(path, value), training=True)
    assert words in str(caught.value)
    assert str(caught.value).count("DataLoader.Train") == 1
    assert "\n" not in str(caught.value)


def test_an_evaluation_has_nothing_random():
    with pytest.raises(ConfigError, match=r"RandCropImage: is a random training augmentation"):
        read_section(pphgnet_loader("tiny")["Train"], training=False)


CROP, FLIP = {"RandCropImage": {"size": 32}}, {"RandFlipImage": None}
NORMALIZE, ERASE = {"NormalizeImage": {"order": ""}}, {"RandomErasing": None}


@pytest.mark.parametrize(
    ("ops", "words"),
    [
        ([CROP], "expected a NormalizeImage of 3 channels in float32"),
        ([FLIP, NORMALIZE], "images of different sizes make no batch"),
        ([CROP, ERASE, NORMALIZE], "1.RandomErasing: must come after NormalizeImage"),
        ([CROP, NORMALIZE, FLIP], "2.RandFlipImage: must come before NormalizeImage"),
        ([CROP, {"DecodeImage": None}, NORMALIZE], "1.DecodeImage: must be the first operator"),
        ([CROP, {"CropImage": {"size": 64}}, NORMALIZE], "is larger than the 32x32"),
        ([CROP, {"NormalizeImage": None}], "use order: ''"),
        ([CROP, {"NormalizeImage": {"order": "", "channel_num": 4}}], "of 3 channels in float32"),
    ],
)
def test_orders_that_cannot_work_are_refused(ops, words):
    section = read_section(changed(OPS, ops), training=True)
    with pytest.raises(ConfigError) as caught:
        Pipeline(section.ops, 0, "ops")
    assert words in str(caught.value)
