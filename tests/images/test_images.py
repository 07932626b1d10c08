# SPDX-License-Identifier: Apache-2.0
"""Finding and decoding images: every file gives its whole picture, or says why not."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from hostile_files import png_with_text
from image_files import (
    RGB555,
    RGB565,
    RGB888,
    bmp,
    encoded,
    every_kind,
    exif,
    jpeg,
    mutated,
    picture,
    png_chunk,
    png_of_declared_size,
    tiff,
    with_chunks,
)
from PIL import Image, ImageOps

from hgdeploy.errors import ImageError, InputError
from hgdeploy.images.decode import decode_image, read_image
from hgdeploy.images.find import IMAGE_SUFFIXES, ImageFile, find_images
from hgdeploy.images.labelled import read_labelled_images

KINDS = every_kind()
needs_user = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)


def names(files: list[ImageFile]) -> list[str]:
    return [file.name for file in files]


def touch(folder: Path, *paths: str) -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def opencv_rgb(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1]


def refusal(data: bytes) -> str | None:
    """Why the bytes are refused, or None where they decode."""
    try:
        decode_image(data, max_pixels=10**6)  # so that a damaged size costs no memory
    except ImageError as error:
        return str(error)
    return None


# --- decoding good files


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_decodes_as_opencv_reads_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(KINDS[name])
    image = read_image(path)
    np.testing.assert_array_equal(image, opencv_rgb(path))
    assert image.dtype == np.uint8
    assert image.shape == picture().shape
    assert image.flags.c_contiguous


@pytest.mark.parametrize("name", ["rgb.png", "rgb.bmp", "rgb.tif", "lossless.webp", "big.tif"])
def test_lossless_files_give_back_the_picture_in_rgb(name: str) -> None:
    np.testing.assert_array_equal(decode_image(KINDS[name]), picture())


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_upper_case_suffixes_are_found_and_read(suffix: str, tmp_path: Path) -> None:
    data = next((data for name, data in KINDS.items() if name.endswith(suffix)), jpeg())
    (tmp_path / f"PHOTO{suffix.upper()}").write_bytes(data)
    (found,) = find_images(tmp_path)
    np.testing.assert_array_equal(read_image(found.path), opencv_rgb(found.path))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_turned_photographs_come_out_upright(kind: str, orientation: int, tmp_path: Path) -> None:
    # The inverse of what each orientation asks a viewer to do.
    turn = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }[orientation]
    stored = Image.fromarray(np.ascontiguousarray(turn(picture(40, 24))))
    options = {"lossless": True} if kind == "WEBP" else {"quality": 100, "subsampling": 0}
    path = tmp_path / f"photo.{kind.lower()}"
    path.write_bytes(encoded(stored, kind, exif=exif(orientation), **options))
    image = read_image(path)
    np.testing.assert_array_equal(image, opencv_rgb(path))
    if kind == "WEBP" and int(cv2.__version__.split(".")[0]) < 5:
        return  # OpenCV 4 leaves WebP as it is stored
    assert image.shape == (24, 40, 3)
    assert np.abs(image.astype(int) - picture(40, 24)).mean() < 4  # JPEG loses a little


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_tiffs_come_out_upright_even_where_imread_fails(
    orientation: int, tmp_path: Path
) -> None:
    path = tmp_path / "photo.tif"
    path.write_bytes(encoded(Image.fromarray(picture()), "TIFF", tiffinfo={274: orientation}))
    image = read_image(path)
    np.testing.assert_array_equal(image, ImageOps.exif_transpose(Image.open(path)))
    seen = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if seen is not None:  # a bug of OpenCV's 4.12 to 5.0: None for those that change their sides
        np.testing.assert_array_equal(image, seen[:, :, ::-1])


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize(
    ("bits", "masks", "headers"),
    [
        (16, (), (40,)),
        (16, RGB565, (40,)),
        (16, RGB555, (40,)),
        (24, (), (40, 108, 124)),
        (32, (), (40, 108)),
        (32, RGB888, (40, 52, 56, 108, 124)),
    ],
)
def test_bitmaps_of_all_depths_decode_as_opencv_reads_them(
    bits: int, masks: tuple[int, ...], headers: tuple[int, ...], down: bool, tmp_path: Path
) -> None:
    for header in headers:
        path = tmp_path / "x.bmp"
        path.write_bytes(bmp(bits, masks, header, down=down))
        np.testing.assert_array_equal(read_image(path), opencv_rgb(path))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (bmp(16, RGB565, 108), "BMP with 16-bit pixels of masks 0xf800, 0x7e0, 0x1f behind a head"),
        (bmp(16, (0xF00, 0xF0, 0xF)), "BMP with 16-bit pixels of masks 0xf00, 0xf0, 0xf behind a"),
        (bmp(2), "BMP with 2-bit pixels"),
        (encoded(Image.fromarray(picture()).convert("F"), "TIFF"), "TIFF with 32-bit floating-poi"),
        (encoded(Image.fromarray(picture()), "TIFF", compression="zstd"), "TIFF with Zstandard co"),
        (encoded(Image.fromarray(picture()), "TIFF", compression="lzma"), "TIFF with LZMA compre"),
        (tiff(sides=(20, 10), samples=5), "TIFF with 5 samples for each pixel"),
        (jpeg().replace(b"\xff\xc0", b"\xff\xc3"), "JPEG with lossless coding"),
        (jpeg().replace(b"\xff\xc0", b"\xff\xf7"), "JPEG with JPEG-LS coding"),
        (jpeg().replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "JPEG with 12-bit samples"),
    ],
)
def test_a_whole_file_that_opencv_cannot_read_is_named_for_what_it_is(
    data: bytes, what: str, tmp_path: Path
) -> None:
    (tmp_path / "x").write_bytes(data)
    if cv2.imread(str(tmp_path / "x"), cv2.IMREAD_COLOR) is not None:  # a newer OpenCV reads it
        np.testing.assert_array_equal(decode_image(data), opencv_rgb(tmp_path / "x"))
        return
    with pytest.raises(ImageError, match=f"^is a {what}.*, which OpenCV .* does not read; convert"):
        decode_image(data)


@pytest.mark.parametrize(
    ("form", "first"), [("H", ()), ("B", ()), ("I", ()), ("H", ((700, "B", 1),))]
)
def test_the_tags_of_a_tiff_may_be_of_any_form_and_order(
    form: str, first: tuple[tuple[int, str, int], ...], tmp_path: Path
) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff(sides=(20, 10), form=form, first=first))
    np.testing.assert_array_equal(read_image(path), opencv_rgb(path))


def test_of_two_sizes_in_a_tiff_the_first_counts_as_in_libtiff() -> None:
    sizes = ((256, "H", 30_000), (257, "H", 30_000))
    with pytest.raises(ImageError, match=r"^has 900000000 pixels \(30000x30000\)"):
        decode_image(tiff(sides=(20, 10), first=sizes))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "is a Git LFS pointer"),
        (b"\0\0\1\0\1\0" + bytes(40), "is a Windows icon, which is not read; convert it to"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\4CgBI" + bytes(40), "is corrupt (PNG): it is Apple's own kind"),
    ],
)
def test_a_file_that_stands_for_an_image_is_named(data: bytes, reason: str) -> None:
    told = refusal(data)
    assert told is not None
    assert told.startswith(reason)


@pytest.mark.parametrize("keyword", [b"Comment", b"Raw profile type exif", b"XML:com.adobe.xmp"])
@pytest.mark.parametrize("kind", [b"tEXt", b"zTXt", b"iTXt"])
def test_no_text_in_a_png_touches_its_pixels(kind: bytes, keyword: bytes, tmp_path: Path) -> None:
    tags = exif(6).tobytes()
    text = b"\nexif\n%8d\n%b\n" % (len(tags), tags.hex().encode())
    body = {b"tEXt": text, b"zTXt": b"\0" + zlib.compress(text), b"iTXt": b"\0\0\0\0" + text}[kind]
    path = tmp_path / "x.png"
    path.write_bytes(with_chunks(KINDS["rgb.png"], png_chunk(kind, keyword + b"\0" + body)))
    np.testing.assert_array_equal(read_image(path), opencv_rgb(path))


def test_nine_hundred_compressed_texts_in_a_png_cost_no_time() -> None:
    start = time.process_time()
    np.testing.assert_array_equal(decode_image(png_with_text(7_900_000, 900)), picture())
    assert time.process_time() - start < 5  # libpng takes 30 to 180 to unpack all of them


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 2), (700, 5)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "AVIF", "PPM"])
def test_odd_sizes_decode(kind: str, size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "odd.bin"
    path.write_bytes(encoded(Image.fromarray(picture(*size)), kind))
    np.testing.assert_array_equal(read_image(path), opencv_rgb(path))


def test_bytes_after_the_end_of_a_jpeg_do_no_harm() -> None:
    whole = decode_image(jpeg())
    np.testing.assert_array_equal(decode_image(jpeg() + b"junk \xff\xda" * 9), whole)


def test_many_threads_decode_the_same_pictures() -> None:
    files = [jpeg(seed=seed) for seed in range(8)] * 8
    with ThreadPoolExecutor(8) as pool:
        for data, image in zip(files, pool.map(decode_image, files), strict=True):
            np.testing.assert_array_equal(image, decode_image(data))


# --- refusing bad files


@pytest.mark.parametrize("name", KINDS)
def test_a_cut_file_is_refused_or_still_whole(name: str) -> None:
    data, whole = KINDS[name], decode_image(KINDS[name])
    cuts = {*range(1, len(data), max(1, len(data) // 60)), *range(len(data) - 16, len(data))}
    reasons = {cut: refusal(data[:cut]) for cut in cuts}
    for cut in (cut for cut, reason in reasons.items() if reason is None):
        # The other pages of a file may be missing: the first is all there.
        np.testing.assert_array_equal(decode_image(data[:cut]), whole)
    refused = [reason for cut, reason in reasons.items() if reason is not None and cut > 12]
    assert len(refused) > len(cuts) // 3
    assert all("is truncated" in reason for reason in refused)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "GIF", "JPEG2000", "AVIF", "PPM"]
)
@pytest.mark.parametrize("part", [0.3, 0.7, 0.99])
def test_a_cut_large_file_is_refused(kind: str, part: float) -> None:
    data = encoded(Image.fromarray(picture(900, 600)), kind)
    with pytest.raises(ImageError, match="is truncated"):
        decode_image(data[: int(len(data) * part)])


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("part", [0.5, 0.9, 0.98])
@pytest.mark.parametrize("filler", [b"\x00", b"\xff"])
def test_a_jpeg_download_padded_to_its_final_length_is_refused(
    filler: bytes, part: float, options: dict[str, bool]
) -> None:
    data = encoded(Image.fromarray(picture(200, 150)), "JPEG", **options)
    have = int(len(data) * part)
    with pytest.raises(ImageError, match=r"is truncated \(JPEG\)"):
        decode_image(data[:have] + filler * (len(data) - have))


def test_a_thumbnail_inside_a_jpeg_does_not_hide_that_its_end_is_missing() -> None:
    data = KINDS["thumbnail.jpg"]
    assert data.count(b"\xff\xd9") == 2
    with pytest.raises(ImageError, match="is truncated"):
        decode_image(data[:-400] + bytes(400))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is empty"),
        (b"hello world", r"is not an image \(starts with b'hello wo'; known formats: JPEG, PNG"),
        (b"<html><body>404", "is not an image"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "is not an image"),
        (b"\xff\xd8\xff\xd9", r"is corrupt \(JPEG\): it ends before the picture begins"),
        (b"\xff\xd8\xff", "is truncated"),
        (b"BM", "is truncated"),
        (b"BM" + bytes(60), "is corrupt .*its size is 0x0"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), r"is corrupt \(PNG\)"),
        (b"GIF89a\x05\0\x05\0" + bytes(20), r"\(GIF\)"),
        (b"II*\0\xff\xff\xff\xff", "is truncated"),
        (b"II+\0\x08\0\0\0" + b"\xff" * 60, "is truncated"),
        (b"II*\0\x08\0\0\0\0\0" + bytes(9), r"is corrupt \(TIFF\): its size is missing"),
        (b"RIFF\x24\0\0\0WEBPJUNK" + bytes(40), r"is corrupt \(WebP\)"),
    ],
)
def test_what_is_no_whole_image_is_refused_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as raised:
        decode_image(data, max_pixels=10**6)  # so that a damaged size costs no memory
    assert "\n" not in str(raised.value)


def test_random_damage_gives_a_picture_or_an_image_error_and_nothing_else() -> None:
    outcomes = set()
    for damaged in mutated(list(KINDS.values()), 4000):
        reason = refusal(damaged)
        outcomes.add(reason is None)
        assert "\n" not in (reason or "")
    assert outcomes == {True, False}


def test_a_flipped_bit_in_a_png_is_noticed() -> None:
    data = bytearray(KINDS["rgb.png"])
    data[len(data) // 2] ^= 1
    with pytest.raises(ImageError, match=r"is corrupt \(PNG\)"):
        decode_image(bytes(data))


@pytest.mark.parametrize("name", KINDS)
def test_every_format_obeys_the_pixel_limit(name: str) -> None:
    height, width = picture().shape[:2]
    limit = width * height
    assert decode_image(KINDS[name], max_pixels=limit).shape == (height, width, 3)
    with pytest.raises(
        ImageError, match=f"has {limit} pixels .* more than the limit of {limit - 1}"
    ):
        decode_image(KINDS[name], max_pixels=limit - 1)


def test_a_huge_picture_in_a_small_file_is_refused_without_memory(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of_declared_size(30_000, 30_000))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match=r"has 900000000 pixels \(30000x30000\), more than the"):
        read_image(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_a_limit_above_that_of_opencv_still_ends_as_an_image_error() -> None:
    with pytest.raises(ImageError, match=r"cannot be decoded \(PNG\)|is corrupt") as raised:
        decode_image(png_of_declared_size(2**21, 2), max_pixels=2**40)
    assert "\n" not in str(raised.value)


def test_a_folder_a_pipe_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    with pytest.raises(ImageError, match=r"^is a directory$"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="not a regular file"):
        read_image(tmp_path / "pipe.jpg")
    with pytest.raises(ImageError, match=r"^does not exist$"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="cannot be read: too many levels of symbolic links"):
        read_image(tmp_path / "loop.jpg")
    with pytest.raises(ImageError, match=r"cannot be read: .*null"):
        read_image("a\0.jpg")


@needs_user
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "locked.jpg"
    path.write_bytes(jpeg())
    path.chmod(0)
    with pytest.raises(ImageError, match="cannot be read: permission denied"):
        read_image(path)


def test_a_denied_read_names_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    (tmp_path / "locked.jpg").write_bytes(jpeg())
    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(ImageError, match=r"^cannot be read: permission denied$"):
        read_image(tmp_path / "locked.jpg")


def test_cut_files_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    for data in KINDS.values():
        for part in (0.2, 0.6, 0.95):
            refusal(data[: int(len(data) * part)])
    assert capfd.readouterr() == ("", "")


def test_importing_loads_neither_opencv_nor_pillow() -> None:
    code = (
        "import sys, hgdeploy.images, hgdeploy.preprocess\n"
        "sys.exit(any(name in sys.modules for name in ('cv2', 'PIL')))"
    )
    folder = Path(__file__).parents[2] / "deploy" / "python"
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


# --- finding


def test_a_folder_gives_its_images_of_all_depths_sorted_as_strings(tmp_path: Path) -> None:
    touch(
        tmp_path, "b.jpg", "a/2.PNG", "a/10.png", "a-b/1.jpeg", "a/notes.txt", "x.JPG.bak", "B.bmp"
    )
    files = find_images(tmp_path)
    assert names(files) == ["B.bmp", "a-b/1.jpeg", "a/10.png", "a/2.PNG", "b.jpg"]
    assert [file.path for file in files] == [tmp_path / name for name in names(files)]
    walked = [f"{root}/{name}" for root, _, there in os.walk(tmp_path) for name in there]
    expected = sorted(path for path in walked if path.lower().endswith(IMAGE_SUFFIXES))
    assert [str(file.path) for file in files] == expected


def test_hidden_files_are_found_as_paddleclas_finds_them(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden.jpg", ".folder/x.jpg")
    assert names(find_images(tmp_path)) == [".folder/x.jpg", ".hidden.jpg"]


@pytest.mark.parametrize("name", ["with space.jpg", "привет 熊猫 é.jpg", "[1].jpg", "a*b?.jpg"])
def test_unusual_names_are_found_alone_and_in_a_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(jpeg())
    touch(tmp_path, "1.jpg", "aXbY.jpg")
    assert find_images(str(tmp_path / name)) == [ImageFile(str(tmp_path / name), name)]
    assert name in names(find_images(tmp_path))
    assert read_image(tmp_path / name).shape == picture().shape


def test_a_folder_with_glob_characters_is_taken_literally(tmp_path: Path) -> None:
    touch(tmp_path, "set[1]/x.jpg", "set1/y.jpg")
    assert names(find_images(tmp_path / "set[1]")) == ["x.jpg"]


def test_a_named_file_is_taken_whatever_its_suffix(tmp_path: Path) -> None:
    touch(tmp_path, "photo", "movie.mp4")
    assert names(find_images(tmp_path / "photo")) == ["photo"]
    assert names(find_images(tmp_path / "movie.mp4")) == ["movie.mp4"]


def test_symbolic_links_to_folders_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "data/real/x.jpg", "elsewhere/y.jpg")
    (tmp_path / "data/a-link-to-real").symlink_to("real")
    (tmp_path / "data/loop").symlink_to("..")
    (tmp_path / "data/real/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/other").symlink_to(tmp_path / "elsewhere")
    found = names(find_images(tmp_path / "data"))
    assert [name for name in found if name.endswith("x.jpg")] == ["real/x.jpg"]
    assert len([name for name in found if name.endswith("y.jpg")]) == 1


def test_links_to_files_count_and_broken_ones_are_kept_to_fail_by_name(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg")
    (tmp_path / "again.jpg").symlink_to("x.jpg")
    (tmp_path / "broken.jpg").symlink_to("gone.jpg")
    (tmp_path / "self.jpg").symlink_to("self.jpg")
    found = find_images(tmp_path)
    assert names(found) == ["again.jpg", "broken.jpg", "self.jpg", "x.jpg"]
    with pytest.raises(ImageError, match="does not exist"):
        read_image(found[1].path)


def test_a_pattern_gives_names_relative_to_its_fixed_part(tmp_path: Path) -> None:
    touch(
        tmp_path, "imgs/a/1.jpg", "imgs/b/1.jpg", "imgs/b/2.png", "imgs/b/readme.txt", "imgs/0.jpg"
    )
    assert names(find_images(f"{tmp_path}/imgs/*/1.jpg")) == ["a/1.jpg", "b/1.jpg"]
    assert names(find_images(f"{tmp_path}/imgs/*")) == ["0.jpg", "a/1.jpg", "b/1.jpg", "b/2.png"]
    assert names(find_images(f"{tmp_path}/imgs/**/*.jpg")) == ["0.jpg", "a/1.jpg", "b/1.jpg"]
    assert names(find_images(f"{tmp_path}/imgs/[b]/?.*")) == ["b/1.jpg", "b/2.png"]


def test_a_relative_pattern_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    monkeypatch.chdir(tmp_path)
    assert find_images("*.jpg") == [ImageFile(name, name) for name in ("1.jpg", "2.jpg")]


@pytest.mark.parametrize("suffix", [".txt", ".lst", ".LIST"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_text_list_keeps_its_order_and_what_is_missing(
    suffix: str, encoding: str, tmp_path: Path
) -> None:
    touch(tmp_path, "b.jpg", "sub/ä b.jpg")
    lines = f"b.jpg\r\n\r\n  \nsub/ä b.jpg \ngone.jpg\nb.jpg\n{tmp_path}/b.jpg"
    path = tmp_path / f"images{suffix}"
    path.write_bytes(lines.encode(encoding))
    found = find_images(path)
    assert names(found) == ["b.jpg", "sub/ä b.jpg", "gone.jpg", "b.jpg", f"{tmp_path}/b.jpg"]
    assert [file.path.exists() for file in found] == [True, True, False, True, True]


def test_several_inputs_follow_each_other_under_their_paths(tmp_path: Path) -> None:
    touch(tmp_path, "z/1.jpg", "a/1.jpg")
    found = find_images([tmp_path / "z", str(tmp_path / "a" / "1.jpg")])
    assert names(found) == [f"{tmp_path}/z/1.jpg", f"{tmp_path}/a/1.jpg"]
    assert find_images([tmp_path / "z"]) == find_images(tmp_path / "z")


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        ([], "no input was given"),
        ("", "an input is an empty path"),
        ("{}/gone.jpg", "gone.jpg: does not exist"),
        ("{}/gone/*.jpg", r"gone/\*.jpg: no images found \(searched for .jpg, .jpeg"),
        ("{}/empty", "empty: no images found"),
        ("{}/empty.txt", "the list is empty"),
        ("{}/latin.txt", r"is not UTF-8 text \(byte 1\)"),
        ("{}/" + "x" * 300, "cannot be searched: file name too long"),
        (["{}/empty", "{}/x.jpg"], "empty: no images found"),
    ],
)
def test_nothing_to_classify_is_an_input_error(
    inputs: str | list[str], reason: str, tmp_path: Path
) -> None:
    touch(tmp_path, "x.jpg", "empty/notes.md")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "latin.txt").write_bytes("bär.jpg".encode("latin-1"))
    where = [text.format(tmp_path) for text in ([inputs] if isinstance(inputs, str) else inputs)]
    with pytest.raises(InputError, match=reason) as raised:
        find_images(where)
    assert "\n" not in str(raised.value)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No folder called `closed` may be searched, not even by root."""
    real = os.scandir

    def scandir(path: str | Path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


@pytest.mark.parametrize("pattern", ["", "/*", "/**", "/**/*.jpg"])
@pytest.mark.usefixtures("closed")
def test_a_closed_folder_inside_fails_by_itself(pattern: str, tmp_path: Path) -> None:
    touch(tmp_path, "open/x.jpg", "closed/y.jpg", "z.jpg")
    found = find_images(f"{tmp_path}{pattern}")
    assert names(found) == ["closed", "open/x.jpg", "z.jpg"]
    with pytest.raises(ImageError, match=r"^cannot be read: permission denied$"):
        read_image(found[0].path)


@pytest.mark.usefixtures("closed")
def test_a_closed_folder_that_was_named_is_an_error(tmp_path: Path) -> None:
    touch(tmp_path, "closed/y.jpg")
    for where in (tmp_path / "closed", tmp_path / "closed" / "*.jpg"):
        with pytest.raises(InputError, match=r"closed.*: cannot be searched: permission denied"):
            find_images(where)


def test_a_list_of_failures_takes_a_folder_up_again_once_it_may_be_searched(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    touch(tmp_path, "all/closed/y.jpg", "all/closed/deep/z.png", "all/x.jpg", "all/empty/a.txt")
    failures = tmp_path / "failures.txt"
    failures.write_text("all/x.jpg\nall/closed\nall/empty\nall/gone\n")
    listed = find_images(failures)
    again = ["all/x.jpg", "all/closed/deep/z.png", "all/closed/y.jpg", "all/empty", "all/gone"]
    assert [file.name for file in listed] == again
    assert all(file.path.exists() for file in listed[:3])
    request.getfixturevalue("closed")
    still = find_images(failures)
    assert [file.name for file in still] == ["all/x.jpg", "all/closed", "all/empty", "all/gone"]
    with pytest.raises(ImageError, match=r"^cannot be read: permission denied$"):
        read_image(still[1].path)


@pytest.mark.usefixtures("closed")
def test_a_closed_class_folder_keeps_its_class_and_others_are_counted(tmp_path: Path) -> None:
    touch(tmp_path, "closed/y.jpg", "hen/x.jpg", "hen/z.heic")
    lines: list[str] = []
    names_of = {3: "closed", 8: "hen"}
    files, labels = read_labelled_images(tmp_path, tmp_path, names_of, lines.append)
    assert (names(list(files)), labels) == (["closed", "hen/x.jpg"], (3, 8))
    assert len(lines) == 1
    assert "1 other file left out, by suffix: 1 .heic (HEIC" in lines[0]


def test_the_part_of_a_pattern_that_exists_is_taken_literally(tmp_path: Path) -> None:
    touch(tmp_path, "set[1]/x.jpg", "set[1]/a[2].jpg", "set[1]/a2.jpg", "set1/y.jpg", "a*/b.jpg")
    assert names(find_images(tmp_path / "set[1]" / "*.jpg")) == ["a2.jpg", "a[2].jpg", "x.jpg"]
    assert names(find_images(tmp_path / "set[1]" / "a[2].jpg")) == ["a[2].jpg"]
    assert names(find_images(tmp_path / "set[12]" / "*")) == ["set1/y.jpg"]
    assert names(find_images(tmp_path / "a*" / "?.jpg")) == ["b.jpg"]


@pytest.mark.parametrize("pattern", ["", "/**", "/**/*", "/**/*.jpg", "/*/**/d/*.jpg"])
def test_a_search_has_no_greatest_depth(pattern: str, tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):  # beyond Python's recursion limit, within the system's longest path
        os.mkdir("d", dir_fd=folder)
        deeper = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = deeper
    os.close(os.open("x.jpg", os.O_CREAT, dir_fd=folder))
    os.close(folder)
    deepest = f"{tmp_path}{'/d' * 1200}"
    try:
        (found,) = find_images(f"{tmp_path}{pattern}")
    finally:  # pytest's own removal of old folders recurses
        Path(deepest, "x.jpg").unlink()
        (tmp_path / "kept").touch()
        os.removedirs(deepest)
    assert found.name.endswith("/d/x.jpg")
    assert not (tmp_path / "d").exists()


def test_other_files_are_counted_by_suffix_and_heic_is_named(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.HEIC" for n in range(3)), "a.jxl", "no suffix", "b.\x1b]x", "x.jfif")
    touch(tmp_path, "labels.txt", ".DS_Store", "Thumbs.db", "readme.md")  # not meant as pictures
    lines: list[str] = []
    assert names(find_images(tmp_path, lines.append)) == ["x.jfif"]
    assert len(lines) == 1
    assert (
        "6 other files left out, by suffix: 3 .heic (HEIC: convert to JPEG or PNG), 1 " in lines[0]
    )
    for part in ("1 .jxl (JPEG XL: ", "1 without a suffix", "1 .\\x1b]x"):
        assert part in lines[0]
    (tmp_path / "x.jfif").unlink()
    with pytest.raises(
        InputError, match=r"no images found \(.*\): 6 other files left out, by suff"
    ):
        find_images(tmp_path)
    assert len(lines) == 1


def test_nothing_is_said_where_nothing_was_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "x.jpg", "labels.txt")
    find_images(tmp_path, lambda line: pytest.fail(line))
    find_images(tmp_path / "x.jpg", lambda line: pytest.fail(line))


def test_a_name_with_a_line_break_stays_on_one_line_of_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\\nb: does not exist") as raised:
        find_images(f"{tmp_path}/a\nb")
    assert "\n" not in str(raised.value)


def test_a_file_that_is_called_by_its_suffix_alone_is_an_image(tmp_path: Path) -> None:
    (tmp_path / ".JPG").write_bytes(jpeg())
    (tmp_path / ".hidden").write_bytes(b"")
    assert [file.name for file in find_images(tmp_path)] == [".JPG"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [("nowhere", "no such file or directory"), ("link.jpg", "too many levels of symbolic links")],
)
def test_a_named_link_to_nothing_is_told(target: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "link.jpg").symlink_to(target)
    with pytest.raises(InputError, match=f"link.jpg: is a link to {target}: {reason}"):
        find_images(tmp_path / "link.jpg")
