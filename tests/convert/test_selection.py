# SPDX-License-Identifier: Apache-2.0
"""Images that say too little to quantize on are refused, and ordinary folders are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from conftest import IMAGES
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.int8.selection import split_images
from hgdeploy.errors import InputError
from hgdeploy.images.find import find_images
from hgdeploy.transforms.operators_config import imagenet_ops
from hgdeploy.transforms.preprocess import Preprocessor

PREPROCESS = Preprocessor(imagenet_ops(72, 64))
PHOTO = IMAGES / "chelsea.jpg"

Picture = NDArray[np.uint8]


def reencoded(image: Picture, i: int) -> Picture:
    quality = [cv2.IMWRITE_JPEG_QUALITY, 30 + 5 * i]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], 1), np.uint8)


def resized(image: Picture, i: int) -> Picture:
    by = 0.5 + i / 10
    return np.asarray(cv2.resize(image, None, fx=by, fy=by, interpolation=cv2.INTER_AREA), np.uint8)


def noisy(image: Picture, i: int) -> Picture:
    noise = np.random.default_rng(i).normal(0, 2 * i, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def brightened_by_one(image: Picture, i: int) -> Picture:
    return np.clip(image.astype(int) + i % 2, 0, 255).astype(np.uint8)


def chosen(folder: Path, preprocess: Preprocessor = PREPROCESS) -> tuple[int, list[str]]:
    lines: list[str] = []
    split = split_images(find_images(folder), preprocess, QuantizeOptions(), lines.append)
    return len(split.calibration) + len(split.held_out), lines


@pytest.mark.parametrize("change", [reencoded, resized, noisy, brightened_by_one])
def test_copies_of_one_picture_are_refused(change: Callable[[Picture, int], Picture], tmp_path):
    image = np.asarray(cv2.imread(str(PHOTO)), np.uint8)
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), change(image, i))
    with pytest.raises(InputError, match="all 12 images are the same, or copies that differ by"):
        chosen(tmp_path)


def test_a_thing_that_moves_before_a_still_camera_makes_different_pictures(tmp_path):
    image = np.asarray(cv2.imread(str(PHOTO)), np.uint8)
    for i in range(12):
        moved = image.copy()
        cv2.circle(moved, (90 + 24 * i, 150), 30, (20, 20, 220), -1)
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), moved)
    count, lines = chosen(tmp_path)
    assert count == 12
    assert not any("warning" in line for line in lines)


def test_pieces_of_one_photograph_are_different_pictures(tmp_path):
    image = cv2.imread(str(PHOTO))
    for i in range(12):
        left, top = 80 * (i % 4), 80 * (i // 4)
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), image[top : top + 120, left : left + 120])
    count, lines = chosen(tmp_path)
    assert count == 12
    assert not any("warning" in line for line in lines)


def test_copies_of_a_few_pictures_are_told(tmp_path):
    for i in range(3):
        for path in IMAGES.glob("*.jpg"):
            (tmp_path / f"{i}-{path.name}").write_bytes(path.read_bytes())
    count, lines = chosen(tmp_path)
    assert count == 15
    told = "warning: the 15 images are 5 pictures and copies of them"
    assert [line.startswith(told) for line in lines] == [True, False]


def test_an_image_of_one_colour_is_skipped_with_channels_last_too(tmp_path):
    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), np.full((80, 80, 3), (9, 99, 20 * i), np.uint8))
    for ops in (imagenet_ops(72, 64), imagenet_ops(72, 64)[:-1]):
        with pytest.raises(InputError, match=r"0 of 12 images can be used.*one colour only"):
            chosen(tmp_path, Preprocessor(ops))
