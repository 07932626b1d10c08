# SPDX-License-Identifier: Apache-2.0
"""The C++ part finds, reads and decodes images as Python does, and refuses them in its words."""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cpp_probe import CppError, Probe, told
from hostile_files import exif_files, make_hostile_folder
from image_files import encoded, every_kind, exif, mutated, picture
from PIL import Image

from hgdeploy.images.decode import decode_image, read_image
from hgdeploy.images.find import find_images
from hgdeploy.transforms.prediction import printable

pytestmark = pytest.mark.timeout(300)

# Debian's OpenCV has no decoder for these, and the C++ part says so.
ABSENT = re.compile(r"is (GIF|AVIF), which this build of OpenCV [\d.]+ cannot read")
KINDS = {name: data for name, data in every_kind().items() if not name.endswith((".gif", ".avif"))}


def by_python(data: bytes) -> np.ndarray | str:
    return told(functools.partial(decode_image, max_pixels=10**6), data)


def without_version(reason: str) -> str:
    return re.sub(r"OpenCV [\d.]+", "OpenCV", reason)


def check_same(probe: Probe, data: bytes, what: object) -> None:
    ours, theirs = by_python(data), told(probe.read_bytes, data)
    if isinstance(ours, str) or isinstance(theirs, str):
        assert isinstance(theirs, str), (what, ours)
        assert isinstance(ours, str), (what, theirs)
        assert without_version(theirs) == without_version(ours), what
    else:
        np.testing.assert_array_equal(theirs, ours, err_msg=str(what))


@pytest.fixture(scope="module")
def probe(cpp_build: Path) -> Iterator[Probe]:
    with Probe(cpp_build / "tests" / "hgdeploy-probe") as opened:
        yield opened


def test_every_kind_of_file_has_the_same_pixels(probe):
    for name, data in KINDS.items():
        check_same(probe, data, name)


def test_what_opencv_cannot_read_is_refused_by_name(probe):
    for name, data in every_kind().items():
        if name not in KINDS:
            theirs = told(probe.read_bytes, data)
            assert not isinstance(theirs, str) or ABSENT.fullmatch(theirs), name


def test_turned_pictures_and_damaged_exif_data_are_read_alike(probe):
    for name, data, _ in exif_files():
        check_same(probe, data, name)
    damaged = [data for name, data, _ in exif_files() if name.endswith((".jpg", ".jpeg"))]
    for index, data in enumerate(mutated(damaged, 300, seed=3)):
        check_same(probe, data, f"damaged EXIF {index}")


def test_damaged_files_are_refused_alike(probe):
    # Where the libraries of Debian and of OpenCV's wheel are not equally strict: docs/cpp.md.
    tolerant = (".tif", ".tiff", ".jp2", ".j2k", "progressive.jpeg")
    strict = [data for name, data in KINDS.items() if not name.endswith(tolerant)]
    for index, data in enumerate(mutated(strict, 400, seed=5)):
        check_same(probe, data, index)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict]]:
    folder = tmp_path_factory.mktemp("hostile")
    yield folder, make_hostile_folder(folder)
    (folder / "special" / "locked.jpg").chmod(0o600)


def test_the_hostile_folder_is_found_alike_and_each_file_has_its_verdict(probe, hostile):
    folder, expected = hostile
    theirs, warnings = probe.find(folder)
    assert (theirs, warnings) == by_python_search(folder)
    for place, name in theirs:
        reason, found = expected[name], told(probe.read_file, Path(place))
        if not isinstance(found, str):
            # A picture that is too long for a resize is decoded all the same.
            assert reason is None or "too long for resize_short" in reason, (name, reason)
        elif not ABSENT.fullmatch(found):
            assert reason is not None, (name, found)
            assert found.startswith(reason), (name, found, reason)


def test_special_files_have_the_same_reasons(probe, hostile):
    folder, expected = hostile
    names = [name for name in expected if name.startswith("special/")]
    for path in [*(folder / name for name in names), folder, folder / "gone" / "x.jpg"]:
        ours, theirs = told(read_image, path), told(probe.read_file, path)
        if isinstance(ours, str):
            assert theirs == ours, path
        else:
            np.testing.assert_array_equal(theirs, ours)


def by_python_search(*inputs: object) -> tuple[list[tuple[str, str]], str]:
    said: list[str] = []
    files = find_images(list(inputs), said.append)
    return [(file.place, file.name) for file in files], " | ".join(said)


def both(probe: Probe, *inputs: object) -> None:
    assert told(probe.find, *inputs) == told(by_python_search, *inputs), inputs


def test_inputs_of_every_kind_are_found_alike(probe, tmp_path, monkeypatch):
    for name in (
        *("b.jpg", "a.PNG", "sub/x.jpg", "sub/deep/y.webp", "sub/[z].jpg", "Sub/é.jpg", ".jpg"),
        *("photo.heic", "other.heic", "x.jxl", "no suffix", "more", "most", ".hidden"),
        "data.db",
        *("empty/readme.md", "\udcff.jpg", "\U0001f43c.jpg", "~.jpg"),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to("sub")
    (tmp_path / "lost").symlink_to("nothing")
    (tmp_path / "sub" / "up").symlink_to("..")
    lines = "b.jpg\r\n\n  sub/x.jpg \ngone.jpg\n./sub//deep\nempty\n/dev/null\nb.jpg\n"
    (tmp_path / "list.txt").write_text("\ufeff" + lines, encoding="utf-8")
    (tmp_path / "none.lst").write_text("\n \n", encoding="utf-8")
    (tmp_path / "latin.list").write_bytes(b"a\xe9.jpg\n")
    monkeypatch.chdir(tmp_path)
    with Probe(probe.program) as inside:
        for one in (
            *(
                tmp_path,
                ".",
                "sub",
                "sub/",
                "./sub/../sub",
                "link",
                "empty",
                "gone",
                "lost",
                "x" * 300,
            ),
            *(" ", "b.jpg", "no suffix", "list.txt", "none.lst", "latin.list", "/dev/null"),
            *("*.jpg", "*", "**", "**/*.jpg", "s*/*.jpg", "[sS]ub", "sub/[z].jpg", "sub/[[]z].jpg"),
            *("*/deep", "gone/*", "b.jpg/*", "?.jpg", "[!a-c]*", "**/deep/**", "[", "sub/up/*.jpg"),
            f"{tmp_path}/*/x.jpg",
        ):
            both(inside, one)
        both(inside, "sub", "b.jpg", "./sub/x.jpg")
        both(inside, tmp_path / "a.PNG", "gone")


def test_texts_are_shown_as_python_shows_them(probe):
    alphabet = [chr(code) for code in range(1, sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    alphabet.remove("\n")
    texts = ["".join(alphabet[at : at + 4096]) for at in range(0, len(alphabet), 4096)]
    texts += ["it's", 'say "it\'s"', "back\\slash", "\udcff\udce3 half", "tab\tand\rmore"]
    assert [probe.shown(text) for text in texts] == [
        (repr(text), printable(text)) for text in texts
    ]


def test_photographs_are_decoded_at_a_reduced_size_alike(probe):
    sides = ((160, 120), (99, 201), (8, 300), (65, 64))
    images = [Image.fromarray(picture(width, height)) for width, height in sides]
    files = [encoded(image, "JPEG", exif=exif(6)) for image in images]
    files += [encoded(image.convert("L"), "JPEG", progressive=True) for image in images]
    files.append(encoded(images[0].convert("CMYK"), "JPEG"))
    for shrink_to in (8, 16, 33, 500):
        probe.shrink_to(shrink_to)
        for data in files:
            ours = decode_image(data, shrink_to=shrink_to)
            np.testing.assert_array_equal(probe.read_bytes(data), ours)
    probe.shrink_to(None)


def test_a_picture_of_more_pixels_than_allowed_is_refused(probe):
    data = b"P6 40000 40000 255\n" + picture().tobytes()
    with pytest.raises(CppError, match="has 1600000000 pixels"):
        probe.read_bytes(data)
