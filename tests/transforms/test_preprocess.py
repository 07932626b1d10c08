# SPDX-License-Identifier: Apache-2.0
"""Preprocessing equals PaddleClas's arithmetic in every bit, and refuses what it cannot serve.

The oracle below restates the formulas as plainly as possible, on cv2, Pillow and numpy alone.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from image_files import every_kind, picture
from PIL import Image

from hgdeploy.errors import ConfigError, ImageError
from hgdeploy.images.decode import read_image
from hgdeploy.transforms.difference import ops_difference
from hgdeploy.transforms.operators import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    ToCHWImage,
)
from hgdeploy.transforms.operators_config import imagenet_ops, ops_to_config, parse_ops
from hgdeploy.transforms.preprocess import Preprocessor

SIZES = [(1, 1), (1, 9), (9, 1), (2, 3), (64, 64), (51, 77), (77, 51), (300, 20), (500, 375)]
CV2 = {
    "nearest": cv2.INTER_NEAREST,
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
PIL = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
    "hamming": Image.Resampling.HAMMING,
}
EVERY_RESIZE = [("cv2", name) for name in CV2] + [("pil", name) for name in PIL]


# --- the oracle


def expected_resize(image: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    height, width = image.shape[:2]
    if "resize_short" in params:
        percent = float(params["resize_short"]) / min(width, height)
        size = round(width * percent), round(height * percent)
    else:
        size = tuple(params["size"])
    name = params.get("interpolation", "bilinear")
    if params.get("backend", "cv2") == "pil":
        return np.asarray(Image.fromarray(image).resize(size, PIL[name]))
    return resize_without_ipp(image, size, CV2[name])


def resize_without_ipp(
    image: np.ndarray, size: tuple[int, int], interpolation: int = cv2.INTER_LINEAR
) -> np.ndarray:
    """OpenCV's own code: what OpenCV 4.6 computes, which PaddleClas asks for."""
    used = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    resized = cv2.resize(image, size, interpolation=interpolation)
    cv2.ipp.setUseIPP(used)
    return resized


def expected_normalize(
    image: np.ndarray,
    order: str,
    scale: float = 1.0 / 255.0,
    mean: tuple[float, ...] = IMAGENET_MEAN,
    std: tuple[float, ...] = IMAGENET_STD,
) -> np.ndarray:
    shape = (3, 1, 1) if order == "chw" else (1, 1, 3)
    mean32 = np.array(mean).reshape(shape).astype("float32")
    std32 = np.array(std).reshape(shape).astype("float32")
    return (image.astype("float32") * np.float32(scale) - mean32) / std32


def expected_imagenet(image: np.ndarray, short: int, crop: int, **resize: str) -> np.ndarray:
    # PaddleClas's arrays are BGR read backwards; the values are the same.
    backwards = np.ascontiguousarray(image[:, :, ::-1])[:, :, ::-1]
    resized = expected_resize(backwards, {"resize_short": short, **resize})
    height, width = resized.shape[:2]
    left, top = (width - crop) // 2, (height - crop) // 2
    cropped = resized[top : top + crop, left : left + crop, :]
    return expected_normalize(cropped, "").transpose((2, 0, 1))


def same(result: np.ndarray, expected: np.ndarray) -> None:
    """Equal in type, shape and every bit."""
    assert result.dtype == expected.dtype
    assert result.shape == expected.shape
    assert result.flags.c_contiguous
    assert result.tobytes() == np.ascontiguousarray(expected).tobytes()


# --- exactness


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("backend", "interpolation"), EVERY_RESIZE)
@pytest.mark.parametrize(
    "params", [{"resize_short": 37}, {"resize_short": 36.6}, {"size": [41, 30]}, {"size": [7, 90]}]
)
def test_resize_is_exact(
    params: dict[str, Any], backend: str, interpolation: str, size: tuple[int, int]
) -> None:
    params = {**params, "backend": backend, "interpolation": interpolation}
    image = picture(*size)
    result = Preprocessor(parse_ops([{"ResizeImage": params}], "ops"))(image)
    same(result, expected_resize(image, params))


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (341, 256), (17, 230), (640, 33)])
@pytest.mark.parametrize(("backend", "interpolation"), EVERY_RESIZE)
def test_the_imagenet_sequence_is_exact(
    backend: str, interpolation: str, size: tuple[int, int]
) -> None:
    image = picture(*size)
    ops = imagenet_ops(64, 56, interpolation=interpolation, backend=backend)
    result = Preprocessor(ops)(image)
    same(result, expected_imagenet(image, 64, 56, backend=backend, interpolation=interpolation))


@pytest.mark.parametrize("name", every_kind())
def test_every_kind_of_file_is_preprocessed_exactly(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(every_kind()[name])
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1]
    same(Preprocessor(imagenet_ops(48, 41))(read_image(path)), expected_imagenet(image, 48, 41))


@pytest.mark.parametrize("short", [1, 2, 255, 256, 257])
@pytest.mark.parametrize("size", [(3, 5), (1000, 3), (333, 500), (501, 334), (85, 27)])
def test_the_long_side_is_rounded_as_python_rounds(short: int, size: tuple[int, int]) -> None:
    image = picture(*size)
    result = Preprocessor([ResizeImage(resize_short=short)])(image)
    assert result.shape == expected_resize(image, {"resize_short": short}).shape
    assert min(result.shape[:2]) == short


def every_value() -> np.ndarray:
    """All values 0..255 in all three channels, as 16x16 HWC."""
    return np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2)


@pytest.mark.parametrize(
    ("scale", "mean", "std"),
    [
        (1 / 255, IMAGENET_MEAN, IMAGENET_STD),
        (1.0, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
        (1 / 128, (127 / 128,) * 3, (1.0, 1.0, 1.0)),
        (0.00392157, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        (1, (0, 0, 0), (1, 2, 3)),
    ],
)
@pytest.mark.parametrize("order", ["", "hwc", "chw"])
@pytest.mark.parametrize("fp16", [False, True])
@pytest.mark.parametrize("channels", [3, 4])
def test_normalisation_is_exact_on_every_value(
    channels: int, fp16: bool, order: str, scale: float, mean: Any, std: Any
) -> None:
    normalize = NormalizeImage(scale, mean, std, order, channels, fp16)
    planar = order == "chw"
    result = Preprocessor([ToCHWImage(), normalize] if planar else [normalize])(every_value())
    image = every_value().transpose(2, 0, 1) if planar else every_value()
    expected = expected_normalize(image, order, scale, mean, std)
    if channels == 4:
        zeros = np.zeros((1, 16, 16) if planar else (16, 16, 1))
        expected = np.concatenate((expected, zeros), axis=0 if planar else 2)
    same(result, expected.astype("float16" if fp16 else "float32"))


def test_normalisation_is_exact_on_random_images() -> None:
    random = np.random.default_rng(1)
    processor = Preprocessor([NormalizeImage(order=""), ToCHWImage()])
    for _ in range(20):
        height, width = random.integers(1, 90, 2)
        image = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        same(processor(image), expected_normalize(image, "").transpose(2, 0, 1))


@pytest.mark.parametrize("channels", [3, 4])
def test_a_resize_and_crop_after_normalising_are_exact(channels: int) -> None:
    normalize = NormalizeImage(order="hwc", channel_num=channels)
    ops = [normalize, ResizeImage(size=(31, 20)), CropImage((9, 8))]
    expected = expected_normalize(picture(), "hwc")
    if channels == 4:
        expected = np.concatenate((expected, np.zeros((*expected.shape[:2], 1))), axis=2)
    expected = resize_without_ipp(expected.astype("float32"), (31, 20))[6:14, 11:20]
    same(Preprocessor(ops)(picture()), expected)


@pytest.mark.skipif(not cv2.ipp.useIPP(), reason="this build of OpenCV has no IPP")
def test_a_bicubic_resize_does_not_depend_on_the_kind_of_cpu() -> None:
    op = ResizeImage(size=(150, 130), interpolation="bicubic")
    made = Preprocessor([op])(picture())
    same(made, resize_without_ipp(picture(), (150, 130), cv2.INTER_CUBIC))
    assert cv2.ipp.useIPP(), "the user's own calls go on as before"


def test_a_crop_takes_width_before_height_and_rounds_its_offset_down() -> None:
    image = picture(37, 25)
    same(Preprocessor([CropImage((10, 20))])(image), image[2:22, 13:23])
    same(Preprocessor([CropImage((37, 25))])(image), image)


def test_bgr_models_get_bgr() -> None:
    image = picture()
    same(Preprocessor([DecodeImage(to_rgb=False)])(image), image[:, :, ::-1])
    same(Preprocessor([DecodeImage()])(image), image)
    ops: list[Op] = [DecodeImage(to_rgb=False), ResizeImage(size=(9, 7)), ToCHWImage()]
    same(Preprocessor(ops)(image), cv2.resize(image[:, :, ::-1], (9, 7)).transpose(2, 0, 1))
    params = {"size": [9, 7], "backend": "pil"}
    result = Preprocessor([DecodeImage(to_rgb=False), ResizeImage((9, 7), backend="pil")])(image)
    same(result, expected_resize(np.ascontiguousarray(image[:, :, ::-1]), params))


def test_the_input_is_neither_changed_nor_shared() -> None:
    image = picture()
    for ops in ([], [CropImage((37, 25))], [DecodeImage()], [NormalizeImage(order="")]):
        result = Preprocessor(ops)(image)
        result[:] = 0
        np.testing.assert_array_equal(image, picture())


@pytest.mark.parametrize("backend", ["cv2", "pil"])
def test_read_only_and_strided_inputs_are_taken(backend: str) -> None:
    processor = Preprocessor(imagenet_ops(20, 16, backend=backend))
    image = picture(80, 60)[::2, ::-2]
    image.flags.writeable = False
    same(processor(image), processor(image.copy()))


def test_one_preprocessor_serves_many_threads() -> None:
    processor = Preprocessor(imagenet_ops(40, 32))
    images = [picture(60 + seed, 50, seed) for seed in range(40)]
    with ThreadPoolExecutor(8) as pool:
        for image, result in zip(images, pool.map(processor, images), strict=True):
            same(result, expected_imagenet(image, 40, 32))


# --- what is known before an image comes


@pytest.mark.parametrize(
    ("ops", "size"),
    [
        (imagenet_ops(256, 224), (224, 224)),
        ([ResizeImage(size=(320, 48))], (48, 320)),
        ([ResizeImage(size=(320, 48)), CropImage((30, 20))], (20, 30)),
        ([ResizeImage(size=(320, 48)), ResizeImage(resize_short=24)], (24, 160)),
        ([ResizeImage(resize_short=256)], None),
        ([], None),
    ],
)
def test_the_output_size_is_height_and_width_where_fixed(
    ops: list[Op], size: tuple[int, int] | None
) -> None:
    processor = Preprocessor(ops)
    assert processor.output_size == size
    assert processor.ops == tuple(ops)
    if size is not None:
        assert {*size} <= {*processor(picture(90, 70)).shape}


def test_the_element_type_is_known() -> None:
    assert Preprocessor(imagenet_ops(8, 8)).dtype == np.float32
    assert Preprocessor([NormalizeImage(order="", output_fp16=True)]).dtype == np.float16
    assert Preprocessor([ToCHWImage()]).dtype == np.uint8


# --- images that do not fit


def test_a_crop_larger_than_the_image_gives_both_sizes_as_width_x_height() -> None:
    processor = Preprocessor([CropImage((224, 224))])
    with pytest.raises(ImageError, match=r"crop 224x224 is larger than the image 300x100 \(width"):
        processor(picture(300, 100))


@pytest.mark.parametrize(
    ("value", "got"),
    [
        (np.zeros((4, 5, 3), np.float32), r"got float32 of shape \(4, 5, 3\)"),
        (np.zeros((4, 5), np.uint8), r"got uint8 of shape \(4, 5\)"),
        (np.zeros((4, 5, 4), np.uint8), r"got uint8 of shape \(4, 5, 4\)"),
        (np.zeros((0, 5, 3), np.uint8), r"got uint8 of shape \(0, 5, 3\)"),
        ([[0]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_anything_but_an_rgb_image_is_refused(value: Any, got: str) -> None:
    with pytest.raises(ImageError, match=got):
        Preprocessor(imagenet_ops(8, 8))(value)


def test_an_extremely_long_image_is_refused_before_it_takes_the_memory() -> None:
    with pytest.raises(ImageError, match=r"60000x1 \(width x height\) is too long"):
        Preprocessor(imagenet_ops(256, 224))(np.zeros((1, 60_000, 3), np.uint8))


# --- config


def test_a_paddleclas_config_is_read() -> None:
    config = yaml.safe_load("""
      - DecodeImage: {to_rgb: True, to_np: False, channel_first: False}
      - ResizeImage: {resize_short: 256, size: 9, interpolation: BiCubic, backend: PIL,
                      return_numpy: False}
      - CropImage: {size: [224, 192]}
      - NormalizeImage:
          scale: 1.0/255.0
          mean: [0.485, 0.456, 0.406]
          std: [0.229, 0.224, 0.225]
          order: ''
      - ToCHWImage:
    """)
    assert parse_ops(config, "ops") == (
        DecodeImage(),
        ResizeImage(resize_short=256, interpolation="bicubic", backend="pil"),
        CropImage((224, 192)),
        NormalizeImage(1 / 255, IMAGENET_MEAN, IMAGENET_STD, ""),
        ToCHWImage(),
    )


@pytest.mark.parametrize(
    ("config", "op"),
    [
        ({"ResizeImage": {"size": 8}}, ResizeImage(size=(8, 8))),
        ({"ResizeImage": {"size": [8, 9], "resize_short": 0}}, ResizeImage(size=(8, 9))),
        ({"ResizeImage": {"size": [8, 9], "resize_short": None}}, ResizeImage(size=(8, 9))),
        ({"CropImage": {"size": 8}}, CropImage((8, 8))),
        ({"DecodeImage": None}, DecodeImage()),
        ({"NormalizeImage": {"order": None, "mean": None}}, NormalizeImage(order="")),
        ({"NormalizeImage": {"order": "hwc", "scale": 1}}, NormalizeImage(scale=1, order="hwc")),
        ({"NormalizeImage": {"order": "HWC"}}, NormalizeImage(order="hwc")),
        (
            {"NormalizeImage": {"order": "", "mean": [0, "0.5", "1e-1"], "std": ["1", 2, 1e-3]}},
            NormalizeImage(order="", mean=(0, 0.5, 0.1), std=(1, 2, 0.001)),
        ),
        (
            {"NormalizeImage": {"order": "", "channel_num": "4", "output_fp16": 1}},
            NormalizeImage(order="", channel_num=4, output_fp16=True),
        ),
        ({"ResizeImage": {"resize_short": 256.0}}, ResizeImage(resize_short=256)),
        ({"ResizeImage": {"resize_short": 255.6, "size": 8}}, ResizeImage(resize_short=255.6)),
        ({"ResizeImage": {"resize_short": "256", "size": 9}}, ResizeImage(resize_short=256)),
        ({"ResizeImage": {"size": [224.0, "192"]}}, ResizeImage(size=(224, 192))),
        ({"ResizeImage": {"size": 8, "return_numpy": 0}}, ResizeImage(size=(8, 8))),
        ({"ResizeImage": {"size": 8, "backend": "PIL"}}, ResizeImage(size=(8, 8), backend="pil")),
        ({"CropImage": {"size": 224.0}}, CropImage(size=(224, 224))),
        ({"DecodeImage": {"to_rgb": 0, "channel_first": "no"}}, DecodeImage(to_rgb=False)),
    ],
)
def test_short_forms_mean_what_they_mean_in_paddleclas(config: dict[str, Any], op: Op) -> None:
    assert parse_ops([config], "ops") == (op,)


@pytest.mark.parametrize(("backend", "names"), [("cv2", CV2), ("pil", PIL)])
def test_interpolation_codes_are_those_of_the_library(backend: str, names: dict[str, int]) -> None:
    for name, code in names.items():
        params = {"size": 8, "backend": backend, "interpolation": int(code)}
        (op,) = parse_ops([{"ResizeImage": params}], "ops")
        assert op == ResizeImage(size=(8, 8), backend=backend, interpolation=name)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.0/255.0", 1.0 / 255.0),
        ("1./255.", 1.0 / 255.0),
        (" 1/255 ", 1 / 255),
        ("2*0.5/128", 2 * 0.5 / 128),
        ("1/(2*127.5)", 1 / 255),
        ("-1/-255", 1 / 255),
        ("1e-3", 1e-3),
        ("0.00392157", 0.00392157),
    ],
)
def test_a_scale_may_be_written_as_arithmetic(text: str, value: float) -> None:
    (op,) = parse_ops([{"NormalizeImage": {"scale": text, "order": ""}}], "ops")
    assert op == NormalizeImage(scale=value, order="")


NOT_ARITHMETIC = ["", "__import__('os')", "1/0", "1//255", "2**9", "1+1", "x", "True", "1/255;1"]
NOT_ARITHMETIC += ["(" * 99, "1j", "'1'*3", "9" * 101, "1/255 #", "[1]", "nan", "1e", "1()", "1 2"]


@pytest.mark.parametrize("text", NOT_ARITHMETIC)
def test_a_scale_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigError, match=r"^ops\.0\.NormalizeImage\.scale is .*, expected a number, or a"
    ):
        parse_ops([{"NormalizeImage": {"scale": text, "order": ""}}], "ops")


RESIZE, CROP, NORM = "ResizeImage", "CropImage", "NormalizeImage"


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (None, "T is None, expected a list of operators"),
        ({"CropImage": 3}, r"T is \{'CropImage': 3\}, expected a list of operators"),
        (["CropImage"], "T.0 is 'CropImage', expected one operator with its parameters"),
        ([{CROP: {"size": 3}, RESIZE: 1}], r"T.0 is \{'CropImage': .*, expected one op"),
        ([{"CropImag": {"size": 3}}], "unknown key T.0.CropImag, did you mean 'CropImage'"),
        ([{CROP: {"sise": 3}}], "unknown key T.0.CropImage.sise, did you mean 'size'"),
        ([{"ToCHWImage": {"x": 1}}], "unknown key T.0.ToCHWImage.x, there are none"),
        ([{CROP: [3]}], r"T.0.CropImage is \[3\], expected a mapping"),
        ([{CROP: None}], "T.0.CropImage.size is missing, expected a size such as 224"),
        ([{CROP: {"size": 0}}], r"T.0.CropImage.size is \[0, 0\], expected a whole number from 1"),
        (
            [{CROP: {"size": [3]}}],
            r"CropImage.size is \[3\], expected a whole number from 1, or \[width, h",
        ),
        ([{CROP: {"size": 2.5}}], "CropImage.size is 2.5, expected a whole number from 1, or"),
        ([{CROP: {"size": True}}], "CropImage.size is True, expected a whole number from 1, or"),
        ([{RESIZE: None}], "T.0.ResizeImage needs one of `size` and `resize_short`"),
        ([{RESIZE: {"resize_short": -1}}], "resize_short is -1, expected a whole number from 1"),
        (
            [{RESIZE: {"resize_short": "wide"}}],
            "resize_short is 'wide', expected a whole number from 1",
        ),
        ([{RESIZE: {"size": 10**6}}], "ResizeImage gives more than"),
        (
            [{RESIZE: {"size": 8, "backend": "skimage"}}],
            "backend is 'skimage', expected 'cv2' or 'pil'",
        ),
        (
            [{RESIZE: {"size": 8, "interpolation": "box"}}],
            "is 'box', which cv2 lacks; expected one of",
        ),
        ([{RESIZE: {"size": 8, "interpolation": "bilinar"}}], "did you mean 'bilinear'"),
        ([{RESIZE: {"size": 8, "interpolation": "random"}}], "is 'random', a training"),
        ([{RESIZE: {"size": 8, "interpolation": 5}}], "is 5, expected a whole number from 0 to 4"),
        (
            [{RESIZE: {"size": 8, "interpolation": [1]}}],
            r"interpolation is \[1\], expected a whole number",
        ),
        ([{RESIZE: {"size": 8, "return_numpy": 3}}], "return_numpy is 3, expected true or false"),
        ([{NORM: {"std": [1, 0, 1]}}], "T.0.NormalizeImage.std is 0 in float32"),
        ([{NORM: {"std": [1, 1e-60, 1]}}], "T.0.NormalizeImage.std is 0 in float32"),
        ([{NORM: {"scale": 0}}], "NormalizeImage.scale is 0 in float32"),
        ([{NORM: {"mean": [0.5, 0.5]}}], r"mean is \[0.5, 0.5\], expected a list of 3 numbers"),
        ([{NORM: {"mean": 0.5}}], "mean is 0.5, expected a list of 3 numbers"),
        ([{NORM: {"mean": [0.5, "a", 1]}}], r"mean\[1\] is 'a', expected a number"),
        ([{NORM: {"mean": [0.5, float("nan"), 1]}}], r"mean\[1\] is nan, expected a number"),
        (
            [{NORM: {"scale": float("inf")}}],
            "scale is inf, expected a number that is finite in float32",
        ),
        ([{NORM: {"scale": True}}], "scale is True, expected a number"),
        ([{NORM: {"std": [1e-9, 1, 1], "output_fp16": True}}], "values outside of float16"),
        ([{NORM: {"order": "CHW"}}], "order is 'CHW', expected '', 'hwc' or 'chw'"),
        ([{NORM: {"channel_num": 1}}], "channel_num is 1, expected 3 or 4"),
        ([{NORM: {"output_fp16": "yeah"}}], "output_fp16 is 'yeah', expected true or false"),
        (
            [{"DecodeImage": {"channel_first": True}}],
            "channel_first is true, expected false.* ToCHWImage",
        ),
        (
            [{"DecodeImage": {"backend": "PIL"}}],
            "T.0.DecodeImage.backend is 'pil', expected 'cv2'; images are decoded as OpenCV does",
        ),
        ([{"DecodeImage": {"to_rgb": None}}], "to_rgb is None, expected true or false"),
        ([{1: None}], "unknown key T.0.1, expected one of"),
    ],
)
def test_a_wrong_config_is_refused_at_its_place_in_one_line(config: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as raised:
        parse_ops(config, "T")
    assert "\n" not in str(raised.value)


NOT_SERVED = {
    "training augmentation": ["RandCropImage", "RandFlipImage", "AutoAugment"],
    "object detection": ["DetResize", "DetNormalizeImage", "DetPermute", "DetPadStride"],
    "is not served; use": ["ToTensor", "Normalize", "Resize", "CenterCrop"],
}


@pytest.mark.parametrize(
    ("name", "reason"), [(name, reason) for reason, all_ in NOT_SERVED.items() for name in all_]
)
def test_operators_that_cannot_be_served_say_so(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=rf"^T\.1\.{name}: .*{reason}"):
        parse_ops([{"DecodeImage": None}, {name: {"size": 3}}], "T")


@pytest.mark.parametrize(
    ("ops", "reason"),
    [
        ([CropImage((8, 8)), DecodeImage()], "ops.1.DecodeImage: must be the first operator"),
        ([ToCHWImage(), ResizeImage(size=(8, 8))], "ResizeImage: must come before ToCHWImage"),
        ([ToCHWImage(), CropImage((8, 8))], "CropImage: must come before ToCHWImage"),
        ([ToCHWImage(), ToCHWImage()], "ToCHWImage: stands there twice"),
        ([NormalizeImage(), ToCHWImage()], "order 'chw' .* before ToCHWImage; use order: ''"),
        (
            [ToCHWImage(), NormalizeImage(order="")],
            "order '' .* after ToCHWImage; use order: 'chw'",
        ),
        ([NormalizeImage(order="hwc")] * 2, "NormalizeImage: stands there twice"),
        ([NormalizeImage(order=""), ResizeImage((8, 8), backend="pil")], "put it before Normal"),
        ([NormalizeImage(order="", output_fp16=True), ResizeImage((8, 8))], "put it before Normal"),
        ([ResizeImage(resize_short=224), CropImage((256, 256))], "larger than .*resize_short 224"),
        (
            [ResizeImage((64, 32)), CropImage((32, 64))],
            "32x64 is larger than the 64x32 that Resize",
        ),
        (
            [CropImage((8, 8)), CropImage((9, 8))],
            "9x8 is larger than the 8x8 that CropImage leaves",
        ),
    ],
)
def test_an_order_that_cannot_work_is_refused(ops: list[Op], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Preprocessor(ops)
    with pytest.raises(ConfigError, match=reason.removeprefix("ops.1.")):
        parse_ops(ops_to_config(ops), "T")


def test_values_are_checked_in_python_too() -> None:
    with pytest.raises(ConfigError, match=r"CropImage\.size"):
        CropImage((0, 1))
    with pytest.raises(ConfigError, match="larger than"):
        imagenet_ops(224, 256)


ROUND_TRIPS: list[list[Op]] = [
    list(imagenet_ops(256, 224)),
    list(imagenet_ops(232, 224, interpolation="hamming", backend="pil", scale=1 / 128)),
    [DecodeImage(to_rgb=False), ResizeImage(size=(320, 48)), ToCHWImage()],
    [ToCHWImage(), NormalizeImage(1e-3, (1, 2, 3), (4.5, 1e-3, 6), "chw", 4, True)],
    [],
]


@pytest.mark.parametrize("ops", ROUND_TRIPS)
def test_config_round_trips_through_yaml(ops: list[Op]) -> None:
    config = ops_to_config(ops)
    assert parse_ops(config, "ops") == tuple(ops)
    assert parse_ops(yaml.safe_load(yaml.safe_dump(config)), "ops") == tuple(ops)


def test_written_config_has_the_keys_of_paddleclas() -> None:
    assert ops_to_config(imagenet_ops(256, 224))[:2] == [
        {"ResizeImage": {"resize_short": 256, "backend": "cv2"}},
        {"CropImage": {"size": [224, 224]}},
    ]
    assert ops_to_config([ToCHWImage()]) == [{"ToCHWImage": None}]


def test_differences_name_the_keys_and_both_values() -> None:
    a = imagenet_ops(256, 224)
    b = imagenet_ops(232, 224, interpolation="bicubic", std=(1, 0.5, 0.25))
    assert ops_difference(a, b) == [
        "ResizeImage.resize_short: 256 (config), 232 (bundle)",
        "ResizeImage.interpolation: bilinear (config), bicubic (bundle)",
        "NormalizeImage.std: [0.229, 0.224, 0.225] (config), [1, 0.5, 0.25] (bundle)",
    ]
    assert ops_difference(a, a[:2], "yaml", "model") == [
        "operators: ResizeImage, CropImage, NormalizeImage, ToCHWImage (yaml), "
        "ResizeImage, CropImage (model)"
    ]


def test_two_spellings_of_one_computation_are_no_difference() -> None:
    a = [DecodeImage(), ResizeImage(resize_short=256), NormalizeImage(scale=1, order="")]
    bilinear = ResizeImage(resize_short=256, interpolation="bilinear")
    b = [bilinear, NormalizeImage(scale=1.0, order="hwc")]
    assert ops_difference(a, b) == []
