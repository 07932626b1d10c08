# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's random operators, against plain numpy and, for resizing alone, Pillow and OpenCV.

Each was also compared with PaddleClas's own class, fed the same draws: equal in every bit.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from PIL import Image
from scripted_chance import ScriptedChance

from hgdeploy.errors import ConfigError
from hgdeploy.training.data.operators.image import (
    RandCropImage,
    RandFlipImage,
    RandomErasing,
    TimmAutoAugment,
)

NAMES = (
    *("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd"),
    *("Color", "Contrast", "Brightness", "Sharpness"),
    *("ShearX", "ShearY", "TranslateXRel", "TranslateYRel"),
)
DO, PASS_OVER, MINUS, PLUS = 0.4, 0.6, 0.7, 0.3  # what the draws for these decisions may be
FILL = (124, 116, 104)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Smooth colours, 80 wide and 60 high, of which no channel reaches 0 or 255."""
    small = np.random.default_rng(5).integers(20, 230, (6, 8, 3), np.uint8)
    return cv2.resize(small, (80, 60), interpolation=cv2.INTER_LINEAR)


# RandCropImage


def plain_part(
    size: tuple[int, int], scale: tuple[float, float], ratio: tuple[float, float], draws: list
) -> tuple[int, int]:
    """Return width and height of the part, from the area and the shape that were drawn."""
    width, height = size
    shape = ratio[0] + (ratio[1] - ratio[0]) * draws[0]
    bound = min(width / height / shape, height / width * shape)
    low, high = min(scale[0], bound), min(scale[1], bound)
    area = width * height * (low + (high - low) * draws[1])
    return int(math.sqrt(area * shape)), int(math.sqrt(area / shape))


@pytest.mark.parametrize("draws", [[0.0, 0.0], [0.3, 0.5], [1.0, 0.9], [0.7, 0.2]])
@pytest.mark.parametrize(("backend", "kernel"), [("pil", "bicubic"), ("cv2", "bilinear")])
def test_the_crop_has_the_drawn_area_and_shape_and_is_resized(image, draws, backend, kernel):
    crop = RandCropImage((32, 24), interpolation=kernel, backend=backend)
    width, height = plain_part((80, 60), (0.08, 1.0), (3 / 4, 4 / 3), draws)
    left, top = 80 - width, (60 - height) // 2
    chance = ScriptedChance(*draws, left, top)
    result = crop(image, chance)
    assert chance.asked[2:] == [(0, 80 - width, True), (0, 60 - height, True)]
    part = np.ascontiguousarray(image[top : top + height, left : left + width])
    if backend == "pil":
        expected = np.asarray(Image.fromarray(part).resize((32, 24), Image.Resampling.BICUBIC))
    else:
        expected = cv2.resize(part, (32, 24), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(result, expected)


def test_crops_stay_in_the_image_and_keep_to_scale_and_ratio():
    crop, rng = RandCropImage((8, 8), scale=(0.3, 0.9), ratio=(0.5, 2.0)), np.random.default_rng(1)
    for width, height in ((500, 375), (375, 500), (2000, 90), (300, 300)):
        for _ in range(200):
            left, top, across, down = crop.part(width, height, rng)
            assert left >= 0
            assert top >= 0
            assert left + across <= width
            assert top + down <= height
            assert 0.48 <= across / down <= 2.05
            if width / height < 2:
                assert 0.29 <= across * down / (width * height) <= 0.9


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 3), (3, 2)])
def test_an_image_of_few_pixels_is_cropped_all_the_same(size):
    tiny, rng = np.full((*size, 3), 7, np.uint8), np.random.default_rng(0)
    for backend in ("pil", "cv2"):
        crop = RandCropImage((4, 4), backend=backend)
        assert all((crop(tiny, rng) == 7).all() for _ in range(20))


# RandFlipImage


@pytest.mark.parametrize(
    ("code", "flipped"), [(1, np.s_[:, ::-1]), (0, np.s_[::-1]), (-1, np.s_[::-1, ::-1])]
)
def test_every_other_image_is_flipped(image, code, flipped):
    flip = RandFlipImage(code)
    np.testing.assert_array_equal(flip(image, ScriptedChance(1)), image[flipped])
    assert flip(image, ScriptedChance(0)) is image


# TimmAutoAugment


def augmented(image: np.ndarray, name: str, *draws: float, level: str = "m7", inc: str = "-inc1"):
    """Do one operation alone; `draws` are those of the operation itself."""
    chance = ScriptedChance([NAMES.index(name)], DO, *draws)
    result = TimmAutoAugment(f"rand-{level}-n1{inc}", "bilinear")(image, chance)
    assert chance.finished()
    return result.astype(int)


def test_operations_on_single_values_are_those_of_numpy(image):
    x = image.astype(int)
    solarized = np.where(x < 256 - int(0.7 * 256), x, 255 - x)
    np.testing.assert_array_equal(augmented(image, "Invert"), 255 - x)
    np.testing.assert_array_equal(augmented(image, "Solarize"), solarized)
    np.testing.assert_array_equal(
        augmented(image, "Solarize", inc=""), np.where(x < int(0.7 * 256), x, 255 - x)
    )
    np.testing.assert_array_equal(
        augmented(image, "SolarizeAdd"), np.where(x < 128, np.minimum(255, x + 77), x)
    )
    np.testing.assert_array_equal(augmented(image, "Posterize"), x // 64 * 64)  # 4 - int(2.8) bits
    np.testing.assert_array_equal(augmented(image, "Posterize", inc=""), x // 64 * 64)
    np.testing.assert_array_equal(augmented(image, "Posterize", level="m2"), x // 16 * 16)


def test_posterize_at_the_highest_level_keeps_no_bit(image):
    # Pillow 13 raises an error there; PPHGNet_base's m15 always reaches it.
    assert not augmented(image, "Posterize", level="m15").any()


def test_contrast_is_stretched_and_equalised_channel_by_channel(image):
    stretched, equalised = augmented(image, "AutoContrast"), augmented(image, "Equalize")
    for channel in range(3):
        x = image[:, :, channel].astype(int)
        low, high = x.min(), x.max()
        expected = (x - low) * 255 / (high - low)
        np.testing.assert_allclose(stretched[:, :, channel], expected, atol=1)
        counts = np.bincount(x.ravel(), minlength=256)
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        table = (step // 2 + np.concatenate([[0], np.cumsum(counts)[:-1]])) // step
        np.testing.assert_array_equal(equalised[:, :, channel], np.clip(table, 0, 255)[x])


@pytest.mark.parametrize(("draw", "factor"), [(MINUS, 1 - 0.63), (PLUS, 1 + 0.63)])
def test_enhancements_move_away_from_a_dull_image(image, draw, factor):
    x = image.astype(float)
    grey = (x @ [0.299, 0.587, 0.114])[:, :, None]
    kernel = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13
    smooth = cv2.filter2D(x, -1, kernel)
    inner = np.s_[1:-1, 1:-1]
    dulls = {"Brightness": 0 * x, "Color": grey, "Contrast": grey.mean() + 0 * x}
    for name, dull in {**dulls, "Sharpness": smooth}.items():
        expected = np.clip(dull + factor * (x - dull), 0, 255)
        result = augmented(image, name, draw)
        np.testing.assert_allclose(result[inner], expected[inner], atol=2, err_msg=name)
    plain = np.clip(x * (0.7 * 1.8 + 0.1), 0, 255)
    np.testing.assert_allclose(augmented(image, "Brightness", inc=""), plain, atol=1)


def warped(image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the image at `matrix` times (x, y, 1), bilinear, and whether that is well inside."""
    height, width = image.shape[:2]
    ys, xs = np.mgrid[:height, :width] + 0.5
    x, y = (row[0] * xs + row[1] * ys + row[2] - 0.5 for row in matrix)
    inside = (x >= 0) & (x <= width - 1.001) & (y >= 0) & (y <= height - 1.001)
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    left, top = x.astype(int), y.astype(int)
    dx, dy = (x - left)[:, :, None], (y - top)[:, :, None]
    above = image[top, left] * (1 - dx) + image[top, left + 1] * dx
    below = image[top + 1, left] * (1 - dx) + image[top + 1, left + 1] * dx
    return above * (1 - dy) + below * dy, inside


@pytest.mark.parametrize(("draw", "sign"), [(MINUS, -1), (PLUS, 1)])
def test_what_moves_pixels_is_an_affine_map_with_the_mean_outside(image, draw, sign):
    shear, turn = sign * 0.21, math.radians(sign * 21)
    cos, sin = math.cos(turn), math.sin(turn)
    # About the middle (40, 30), counter-clockwise for a positive angle.
    rotation = [[cos, -sin, 40 - 40 * cos + 30 * sin], [sin, cos, 30 - 40 * sin - 30 * cos]]
    maps = {
        "ShearX": [[1, shear, 0], [0, 1, 0]],
        "ShearY": [[1, 0, 0], [shear, 1, 0]],
        "TranslateXRel": [[1, 0, sign * 0.315 * 80], [0, 1, 0]],
        "TranslateYRel": [[1, 0, 0], [0, 1, sign * 0.315 * 60]],
        "Rotate": rotation,
    }
    for name, matrix in maps.items():
        expected, inside = warped(image.astype(float), np.array(matrix))
        result = augmented(image, name, draw)
        np.testing.assert_allclose(result[inside], expected[inside], atol=1.01, err_msg=name)
        outside = (result == FILL).all(axis=2)
        assert outside.sum() > 20, name
        assert not (outside & inside).any(), name


def test_a_policy_chooses_operations_does_half_of_them_and_adds_noise_to_the_level(image):
    x = image.astype(int)
    draws = ([NAMES.index("Invert"), NAMES.index("SolarizeAdd")], PASS_OVER, DO, 2.0)
    chance = ScriptedChance(*draws)
    result = TimmAutoAugment("rand-m7-mstd0.5-inc1")(image, chance).astype(int)
    assert chance.asked[0] == (15, 2, True, None)
    np.testing.assert_array_equal(result, np.where(x < 128, np.minimum(255, x + 88), x))
    chance = ScriptedChance([NAMES.index("SolarizeAdd")], DO, 9.0)
    capped = TimmAutoAugment("rand-m7-n1-mstd0.5")(image, chance).astype(int)
    np.testing.assert_array_equal(capped, np.where(x < 128, np.minimum(255, x + 110), x))


def test_weights_choose_no_operation_twice_and_some_never(image):
    chance = ScriptedChance([], *())
    TimmAutoAugment("rand-w0-n0")(image, chance)
    count, _, again, chances = chance.asked[0]
    assert (count, again) == (15, False)
    assert chances.sum() == pytest.approx(1)
    assert {name for name, p in zip(NAMES, chances, strict=True) if p == 0} == {
        "Invert",
        "Posterize",
    }
    assert chances[NAMES.index("Rotate")] == pytest.approx(0.3)


def test_kernels_are_drawn_where_interpolation_is_random(image):
    def turned(interpolation: str, *draws: float) -> np.ndarray:
        chance = ScriptedChance([NAMES.index("Rotate")], DO, PLUS, *draws)
        return TimmAutoAugment("rand-m7-n1", interpolation)(image, chance)

    for draw, name in enumerate(("bilinear", "bicubic")):
        np.testing.assert_array_equal(turned("random", draw), turned(name))
    assert (turned("bilinear") != turned("bicubic")).any()


def test_with_a_chance_some_images_are_left_as_they_are(image):
    augment = TimmAutoAugment("rand-m7-n1", prob=0.3)
    assert augment(image, ScriptedChance(0.3)) is image
    inverted = augment(image, ScriptedChance(0.29, [NAMES.index("Invert")], DO))
    np.testing.assert_array_equal(inverted, 255 - image)


@pytest.mark.parametrize(
    "spec",
    ["rand", "rand-m9", "rand-m9-n3-mstd0.5", "rand-mstd1-w0", "rand-m15-mstd0.5-inc1", "rand-m07"],
)
def test_well_formed_policies_run(image, spec):
    rng = np.random.default_rng(3)
    results = [TimmAutoAugment(spec)(image, rng) for _ in range(30)]
    assert all(result.shape == image.shape and result.dtype == np.uint8 for result in results)
    assert any((result != image).any() for result in results)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("auto-v0", "expected a policy such as rand-m7-mstd0.5-inc1"),
        ("rand-m7-foo", "with 'foo', expected a policy"),
        ("rand-m7-m8", "with 'm8', expected"),
        ("rand-m7.5", "m is 7.5, expected a whole number from 0 to 100"),
        ("rand-w1", "w is 1, expected a whole number from 0 to 0; there is one set of weights"),
        ("rand-w0-n14", "n is 14, expected a whole number from 0 to 13"),
        ("rand-inc0", "inc is 0, expected a whole number from 1; to turn it off, leave inc out"),
        ("rand-mstd1.2.3", "mstd is '1.2.3', expected a number from 0 to 100"),
    ],
)
def test_other_policies_are_refused(spec, words):
    with pytest.raises(ConfigError) as caught:
        TimmAutoAugment(spec)
    assert words in str(caught.value)
    assert "TimmAutoAugment.config_str" in str(caught.value)


# RandomErasing


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_a_rectangle_of_the_drawn_area_and_shape_is_filled(log, mode):
    planes = np.zeros((3, 60, 80), np.float32)
    erase = RandomErasing(1.0, 0.02, 1 / 3, 0.3, (1, 2, 3), 10, log, mode)
    area = (0.02 + 0.5 * (1 / 3 - 0.02)) * 60 * 80
    low, high = (math.log(0.3), math.log(1 / 0.3)) if log else (0.3, 1 / 0.3)
    ratio = low + 0.25 * (high - low)
    ratio = math.exp(ratio) if log else ratio
    height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
    noise = () if mode == "const" else (9.0,)
    chance = ScriptedChance(0.99, 0.5, 0.25, *noise, 60 - height, 2)
    erase(planes, chance)
    assert chance.finished()
    expected = np.zeros((3, 60, 80))
    filling = np.array([1, 2, 3])[:, None, None] if mode == "const" else 9.0
    expected[:, 60 - height :, 2 : 2 + width] = filling
    np.testing.assert_array_equal(planes, expected)
    shapes = {"const": [], "rand": [((3, 1, 1),)], "pixel": [((3, height, width),)]}
    assert [asked for asked in chance.asked if asked and isinstance(asked[0], tuple)] == shapes[
        mode
    ]


def test_an_image_is_left_where_chance_says_so_or_no_rectangle_fits():
    planes = np.zeros((3, 20, 20), np.float32)
    RandomErasing(0.25)(planes, ScriptedChance(0.26))
    chance = ScriptedChance(0.1, 1.0, 0.5, 1.0, 0.5)
    RandomErasing(0.25, 0.5, 1.0, 1.0, attempt=2, mode="pixel")(planes, chance)
    assert chance.finished()
    assert not planes.any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RandCropImage((0, 4)), "RandCropImage.size is [0, 4]"),
        (lambda: RandCropImage((4, 4), scale=(0.9, 0.1)), "RandCropImage.scale is [0.9, 0.1]"),
        (lambda: RandCropImage((4, 4), scale=(0.5, 1.5)), "with most at most 1"),
        (lambda: RandCropImage((4, 4), interpolation="cubic"), "RandCropImage.interpolation"),
        (lambda: RandFlipImage(2), "RandFlipImage.flip_code is 2, expected 1, 0 or -1"),
        (lambda: RandomErasing(1.5), "RandomErasing.EPSILON is 1.5, expected a number from 0 to 1"),
        (lambda: RandomErasing(sl=0.5, sh=0.1), "RandomErasing.sl is 0.5, more than sh"),
        (lambda: RandomErasing(mode="black"), "expected 'const', 'rand' or 'pixel'"),
        (lambda: TimmAutoAugment(interpolation="lanczos"), "TimmAutoAugment.interpolation"),
    ],
)
def test_values_out_of_range_are_refused(make, words):
    with pytest.raises(ConfigError) as caught:
        make()
    assert words in str(caught.value)
