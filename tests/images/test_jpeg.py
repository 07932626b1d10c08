# SPDX-License-Identifier: Apache-2.0
"""JPEG files give OpenCV's pixels in every bit, whichever decoder makes them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from hostile_files import exif_files, many_scans, odd_pictures
from image_files import encoded, every_kind, exif, jpeg, mutated, picture
from PIL import Image

from conftest import IMAGES, REPO
from hgdeploy.errors import ImageError
from hgdeploy.images.decode import decode_image, read_image
from hgdeploy.images.jpeg import MAX_SCANS, decode_plain_jpeg, read_jpeg_header

SAMPLINGS = {
    "4:4:4": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    "4:4:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_440,
    "4:2:2": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_422,
    "4:2:0": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
    "4:1:1": cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411,
}
SIZES = [
    (1, 1),
    (1, 40),
    (40, 1),
    (3, 2),
    (8, 8),
    (15, 17),
    (17, 33),
    (64, 48),
    (131, 97),
    (2, 300),
]
PHOTOS = sorted(IMAGES.glob("*.jpg"))
RGB = Image.fromarray(picture())


def opencv_rgb(data: bytes, flags: int = cv2.IMREAD_COLOR) -> np.ndarray | None:
    """The pixels of OpenCV alone, or None where it has none."""
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        return None
    return None if bgr is None else bgr[:, :, ::-1]


def fast(data: bytes, divisor: int = 1) -> np.ndarray | None:
    """The pixels of the fast decoder; None where it leaves the file to OpenCV."""
    pytest.importorskip("simplejpeg", reason="simplejpeg is not installed")
    return decode_plain_jpeg(data, read_jpeg_header(data), divisor, cv2)


def written(size: tuple[int, int], sampling: str, quality: int, progressive: int, restart: int):
    options = {
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR: SAMPLINGS[sampling],
        cv2.IMWRITE_JPEG_QUALITY: quality,
        cv2.IMWRITE_JPEG_PROGRESSIVE: progressive,
        cv2.IMWRITE_JPEG_RST_INTERVAL: restart,
    }
    flat = [number for option in options.items() for number in option]
    return cv2.imencode(".jpg", picture(*size), flat)[1].tobytes()


# --- the same pixels


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_plain_files_are_decoded_fast_to_the_bits_of_opencv(sampling, size):
    for quality in (30, 75, 100):
        for progressive in (0, 1):
            for restart in (0, 1, 3):
                data = written(size, sampling, quality, progressive, restart)
                expected = opencv_rgb(data)
                np.testing.assert_array_equal(fast(data), expected)
                np.testing.assert_array_equal(decode_image(data), expected)


@pytest.mark.parametrize("photo", PHOTOS, ids=lambda path: path.name)
@pytest.mark.parametrize(
    ("divisor", "flags"),
    [
        (1, cv2.IMREAD_COLOR),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (8, cv2.IMREAD_REDUCED_COLOR_8),
    ],
)
def test_photographs_are_decoded_fast_to_the_bits_of_opencv(photo, divisor, flags):
    data = photo.read_bytes()
    np.testing.assert_array_equal(fast(data, divisor), opencv_rgb(data, flags))


@pytest.mark.parametrize(
    ("name", "data"),
    {
        "gray": encoded(RGB.convert("L"), "JPEG"),
        "gray progressive": encoded(RGB.convert("L"), "JPEG", progressive=True),
        "optimized": encoded(RGB, "JPEG", optimize=True),
        "red, green and blue themselves": encoded(RGB, "JPEG", keep_rgb=True),
        "a comment": encoded(RGB, "JPEG", comment=b"x" * 60_000),
        "a colour profile": encoded(RGB, "JPEG", icc_profile=bytes(200_000)),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_plain_files_are_decoded_fast_too(name, data):
    np.testing.assert_array_equal(fast(data), opencv_rgb(data))


@pytest.mark.parametrize(
    "name", ["kinds/cmyk.jpg", "kinds/ycck.jpg", "kinds/twelve bits.jpg", "kinds/lossless.jpg"]
)
def test_rare_files_are_left_to_opencv(name):
    data = next(data for other, data, _ in odd_pictures() if other == name)
    assert fast(data) is None
    expected = opencv_rgb(data)
    if expected is None:
        with pytest.raises(ImageError, match=r"^is a JPEG with .*, which OpenCV"):
            decode_image(data)
    else:
        np.testing.assert_array_equal(decode_image(data), expected)


def test_a_fault_that_opencv_passes_over_is_left_to_it():
    data = jpeg(200, 150)
    middle = len(data) // 2
    damaged = data[:middle] + bytes(40) + data[middle + 40 :]
    assert fast(damaged) is None
    np.testing.assert_array_equal(decode_image(damaged), opencv_rgb(damaged))


EXIF = {name: data for name, data, _ in exif_files() if data.startswith(b"\xff\xd8")}


@pytest.mark.parametrize("name", EXIF)
def test_any_exif_data_turns_a_picture_as_in_opencv(name):
    np.testing.assert_array_equal(decode_image(EXIF[name]), opencv_rgb(EXIF[name]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_pictures_are_decoded_fast(orientation):
    for options in ({}, {"progressive": True}):
        data = encoded(RGB, "JPEG", exif=exif(orientation), **options)
        np.testing.assert_array_equal(fast(data), opencv_rgb(data))


def test_orientation_in_a_later_scan_is_left_to_opencv():
    data = encoded(RGB, "JPEG", progressive=True)
    later = data.rindex(b"\xff\xda")
    segment = b"\xff\xe1" + (len(exif(6).tobytes()) + 2).to_bytes(2, "big") + exif(6).tobytes()
    data = data[:later] + segment + data[later:]
    assert fast(data) is None
    np.testing.assert_array_equal(decode_image(data), opencv_rgb(data))


def test_damaged_files_give_the_pixels_of_opencv_or_none_in_either_decoder():
    files = [data for name, data in every_kind().items() if name.endswith(("jpg", "jpeg"))]
    files += [written((37, 25), sampling, 80, n % 2, n) for n, sampling in enumerate(SAMPLINGS)]
    files += [encoded(RGB, "JPEG", exif=exif(6))]
    outcomes = set()
    for damaged in mutated(files, 3000):
        try:
            image = decode_image(damaged, max_pixels=10**5)
        except ImageError:
            outcomes.add("refused")
            continue
        np.testing.assert_array_equal(image, opencv_rgb(damaged))
        outcomes.add("opencv" if fast(damaged) is None else "fast")
    assert outcomes == {"refused", "opencv", "fast"}


def test_without_simplejpeg_the_pixels_are_the_same():
    code = (
        "import sys; sys.modules['simplejpeg'] = None; from hashlib import sha256\n"
        "from hgdeploy.images.decode import read_image\n"
        "for path in sys.argv[1:]:\n"
        "    for shrink_to in (None, 100):\n"
        "        print(sha256(read_image(path, shrink_to=shrink_to)).hexdigest())"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *map(str, PHOTOS)],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(REPO / "deploy" / "python")},
    )
    images = [read_image(path, shrink_to=to) for path in PHOTOS for to in (None, 100)]
    assert result.stdout.split() == [hashlib.sha256(image).hexdigest() for image in images]


# --- reduced size


@pytest.mark.parametrize(
    ("shrink_to", "shape", "flags"),
    [
        (None, (97, 131, 3), cv2.IMREAD_COLOR),
        (98, (97, 131, 3), cv2.IMREAD_COLOR),
        (50, (97, 131, 3), cv2.IMREAD_COLOR),
        (49, (49, 66, 3), cv2.IMREAD_REDUCED_COLOR_2),
        (26, (49, 66, 3), cv2.IMREAD_REDUCED_COLOR_2),
        (25, (25, 33, 3), cv2.IMREAD_REDUCED_COLOR_4),
        (13, (13, 17, 3), cv2.IMREAD_REDUCED_COLOR_8),
        (1, (13, 17, 3), cv2.IMREAD_REDUCED_COLOR_8),
    ],
)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_jpeg_shrinks_no_further_than_asked(sampling, shrink_to, shape, flags):
    for progressive in (0, 1):
        data = written((131, 97), sampling, 90, progressive, 0)
        image = decode_image(data, shrink_to=shrink_to)
        assert image.shape == shape
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, opencv_rgb(data, flags))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_shrunk_photograph_is_the_same_picture_upright(orientation):
    smooth = cv2.GaussianBlur(picture(400, 240), (0, 0), 5)
    data = encoded(Image.fromarray(smooth), "JPEG", quality=95, exif=exif(orientation))
    whole, small = decode_image(data), decode_image(data, shrink_to=60)
    assert min(small.shape[:2]) == 60
    height, width = small.shape[:2]
    expected = cv2.resize(whole, (width, height), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(int) - expected).max() <= 6


def test_cmyk_shrinks_too_and_other_formats_do_not():
    data = encoded(Image.fromarray(picture(131, 97)).convert("CMYK"), "JPEG")
    np.testing.assert_array_equal(
        decode_image(data, shrink_to=25), opencv_rgb(data, cv2.IMREAD_REDUCED_COLOR_4)
    )
    for kind in ("PNG", "BMP", "WEBP", "TIFF", "GIF"):
        data = encoded(Image.fromarray(picture(131, 97)), kind)
        np.testing.assert_array_equal(decode_image(data, shrink_to=1), decode_image(data))


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 3), (5, 4), (9, 2)])
def test_tiny_pictures_never_vanish(size):
    image = decode_image(jpeg(*size), shrink_to=1)
    assert image.shape == (-(-size[1] // 8), -(-size[0] // 8), 3)


def test_the_pixel_limit_is_that_of_the_stored_picture(tmp_path: Path):
    (tmp_path / "x.jpg").write_bytes(jpeg(131, 97))
    assert read_image(tmp_path / "x.jpg", shrink_to=1).shape == (13, 17, 3)
    with pytest.raises(ImageError, match="has 12707 pixels"):
        read_image(tmp_path / "x.jpg", max_pixels=12706, shrink_to=1)


# --- time


def test_empty_segments_cost_as_little_time_as_in_opencv():
    whole = jpeg()
    for segment in (b"\xff\xe1\0\2", b"\xff\xfe\0\2", b"\xff\xff\xff\xff"):
        data = whole[:2] + segment * 200_000 + whole[2:]
        start = time.process_time()
        np.testing.assert_array_equal(decode_image(data), opencv_rgb(data))
        assert time.process_time() - start < 5  # it was 40 when it took quadratic time


def test_a_large_picture_may_have_fewer_scans():
    side = 4096
    gray = encoded(Image.new("L", (side, side)), "JPEG", progressive=True)
    last, usual = gray.rindex(b"\xff\xda"), gray.count(b"\xff\xda")
    data = gray[:-2] + gray[last:-2] * (65 - usual) + gray[-2:]
    with pytest.raises(
        ImageError, match="comes in 65 scans, more than the limit of 64 for 16777216"
    ):
        decode_image(data)
    huge = gray[: gray.index(b"\xff\xc2") + 5] + b"\x40\0" * 2  # a frame of 2**28 pixels
    huge += gray[len(huge) : -2] + gray[last:-2] * (21 - usual) + gray[-2:]
    with pytest.raises(ImageError, match="comes in 21 scans, more than the limit of 20"):
        decode_image(huge)


def test_a_picture_in_very_many_scans_is_refused_before_it_costs_time():
    usual = many_scans(0).count(b"\xff\xda")
    assert decode_image(many_scans(MAX_SCANS - usual)).shape == picture().shape
    with pytest.raises(ImageError, match=f"comes in 101 scans, more than the limit of {MAX_SCANS}"):
        decode_image(many_scans(MAX_SCANS - usual + 1))
