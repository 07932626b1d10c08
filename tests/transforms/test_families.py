# SPDX-License-Identifier: Apache-2.0
"""How known networks are fed: by every spelling of their names, and as the zoo has it."""

from __future__ import annotations

import pytest

from hgdeploy.transforms.difference import ops_difference
from hgdeploy.transforms.families import feed_differences, published_feed, published_ops
from hgdeploy.transforms.operators import NormalizeImage
from hgdeploy.transforms.operators_config import imagenet_ops
from hgdeploy.zoo.models import MODELS
from hgdeploy.zoo.published import PUBLISHED


@pytest.mark.parametrize("name", MODELS)
def test_the_zoo_feeds_every_network_as_it_is_published(name: str):
    feed = published_feed(name)
    assert feed is not None
    assert feed_differences(feed, MODELS[name].preprocess) == []
    assert ops_difference(published_ops(feed), MODELS[name].preprocess) == []


@pytest.mark.parametrize("entry", PUBLISHED, ids=lambda entry: entry.model)
def test_short_names_of_published_tables_are_known(entry):
    assert published_feed(entry.alias or entry.model) is not None


@pytest.mark.parametrize(
    ("name", "short", "crop"),
    [
        ("PP-HGNet_small", 236, 224),
        ("PP-HGNetV2-B4", 232, 224),
        ("PPHGNetV2_B4_ssld", 232, 224),
        ("PP-LCNet_x1_0", 256, 224),
        ("MobileNetV3_large_x0_35", 256, 224),
        ("mobilenet_v2", 256, 224),
        ("SE_ResNeXt50_32x4d", 256, 224),
        ("HRNet_W18_C", 256, 224),
        ("RepVGG_A0", 256, 224),
        ("InceptionV3", 320, 299),
        ("EfficientNetB7", 632, 600),
        ("MobileViT_S", 292, 256),
        ("ResNet50_vd_infer", 256, 224),
        ("Fix_ResNeXt101_32x48d_wsl", 320, 320),
        ("ViT_large_patch32_384", 384, 384),
        ("CSWinTransformer_tiny_224", 248, 224),
    ],
)
def test_a_network_is_known_by_every_spelling(name: str, short: int, crop: int):
    feed = published_feed(name)
    assert feed is not None
    assert (feed.short, feed.crop) == (short, crop)


@pytest.mark.parametrize(
    "name", ["", "x", "my_PPHGNet_small_v2", "PP-LCNet_x1_0_doc_ori", "Fix_ResNeXt101_32x16d_wsl"]
)
def test_a_model_that_is_only_called_alike_is_not_known(name: str):
    assert published_feed(name) is None


@pytest.mark.parametrize(
    "normalize",
    [
        {"scale": 1.0, "mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)},
        {"scale": 1.0, "mean": (123.68, 116.78, 103.94), "std": (58.4, 57.1, 57.4)},
    ],
)
def test_another_spelling_of_one_normalisation_is_none_of_its_own(normalize):
    feed = published_feed("ResNet50")
    assert feed is not None
    assert feed_differences(feed, imagenet_ops(256, 224, **normalize)) == []


def test_operators_that_are_missing_are_named():
    feed = published_feed("ResNet50")
    assert feed is not None
    assert feed_differences(feed, ()) == [
        "no resize of the short side to 256",
        "no crop instead of 224x224",
        "no normalisation instead of mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225]",
    ]
    halves = imagenet_ops(288, 256, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    assert len(feed_differences(feed, halves)) == 3
    assert len(feed_differences(feed, halves, sizes=False)) == 1
    assert feed_differences(feed._replace(normalize=NormalizeImage(0.1)), halves)[2].endswith(
        "and std [0.009, 0.009, 0.009]"
    )
