# SPDX-License-Identifier: Apache-2.0
"""A folder of files that try to break a classifier, each with its expected outcome."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from image_files import (
    encoded,
    every_kind,
    exif,
    picture,
    png_chunk,
    png_of_declared_size,
    with_chunks,
)
from PIL import Image

# Name (as Python has it: surrogates for bytes that are not UTF-8), contents, and the start of the
# reason why it fails, or None where it has to be classified.
Hostile = tuple[str, bytes, str | None]

ODD_NAMES = (
    "line\nbreak.jpg",
    "return\rback.jpg",
    "tab\tand\x0bmore.jpg",
    "\x1b[31mred\x1b[0m.jpg",
    "bell\x07 and \x7f.jpg",
    "next\x85line\u2028and\u2029more.jpg",
    "right\u202eto left.jpg",
    "zero\u200bwidth\ufeff.jpg",
    "\udcff\udcfe not utf-8.jpg",
    "half \udce3\udc81.jpg",
    "'quoted' \"twice\".jpg",
    "comma, semicolon; pipe | and `tick`.jpg",
    "=HYPERLINK(1).jpg",
    "-rf.jpg",
    "--output.jpg",
    " leading and trailing .jpg",
    "%s %n {0} $HOME ~.jpg",
    "back\\slash\\n.jpg",
    "[a-z]*?.jpg",
    "..jpg",
    "...JPG",
    "привет 熊猫 é 🐼 e\u0301.jpg",
    "x" * 251 + ".jpg",
    "熊" * 83 + "xx.jpg",
    "NUL.jpg",
    "name.png.jpg",
)


def make_hostile_folder(folder: Path) -> dict[str, str | None]:
    """Fill a folder; return by name the start of each failure's reason, or None."""
    expected: dict[str, str | None] = {}
    for name, data, reason in hostile_files():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name in expected:
            raise ValueError(f"two files are called {name}")
        path.write_bytes(data)
        expected[name] = reason
    expected.update(_special_files(folder))
    return expected


def hostile_files() -> Iterator[Hostile]:
    """All hostile files that consist of bytes alone."""
    yield from _cut_files()
    yield from _no_images()
    yield from _bombs()
    yield from _other_suffixes()
    yield from exif_files()
    yield from odd_pictures()
    good = encoded(Image.fromarray(picture()), "JPEG")
    for name in ODD_NAMES:
        yield f"names/{name}", good, None
        yield f"names of failures/{name}", good[:-40], "is truncated (JPEG)"


def _cut_files() -> Iterator[Hostile]:
    """Files of several formats, cut off after every twentieth of their length."""
    image = Image.fromarray(picture(120, 90))
    kinds = {
        "baseline.jpg": encoded(image, "JPEG", quality=90),
        "progressive.jpg": encoded(image, "JPEG", progressive=True),
        "rgb.png": encoded(image, "PNG"),
        "palette.png": encoded(image.quantize(64), "PNG"),
        "rgb.bmp": encoded(image, "BMP"),
        "lossy.webp": encoded(image, "WEBP"),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "lzw.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "plain.tif": encoded(image, "TIFF"),
        "rgb.gif": encoded(image, "GIF"),
    }
    for name, data in kinds.items():
        yield f"cut/whole {name}", data, None
        for percent in range(5, 100, 5):
            yield f"cut/{percent:02} {name}", data[: len(data) * percent // 100], "is truncated"


def _no_images() -> Iterator[Hostile]:
    starts = {
        "text.jpg": b"hello world",
        "page.jpg": b"<!DOCTYPE html><title>404</title>",
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "document.tif": b"%PDF-1.7\n",
        "archive.gif": b"PK\x03\x04" + bytes(64),
        "film.jpg": b"\x00\x00\x00\x18ftypmp42" + bytes(64),
        "zeros.jpg": bytes(4096),
        "ones.png": b"\xff" * 4096,
        "one byte.bmp": b"B",
        "escape.jpg": b"\x1b]0;title\x07\n\r",
        "program.jpg": b"\x7fELF" + bytes(60),
    }
    for name, data in starts.items():
        yield f"none/{name}", data, "is not an image"
    named = {
        "phone.jpg": (b"\x00\x00\x00\x18ftypheic" + bytes(64), "is HEIC, which is not read"),
        "newer.jpg": (b"\xff\x0a" + bytes(64), "is JPEG XL, which is not read"),
        "layers.jpg": (b"8BPS\0\1" + bytes(64), "is a Photoshop file, which is not read"),
    }
    for name, (data, reason) in named.items():
        yield f"none/{name}", data, reason
    for suffix in ("jpg", "png", "bmp", "webp", "tif", "gif"):
        yield f"none/empty.{suffix}", b"", "is empty"
    magic = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n", "bmp": b"BM", "gif": b"GIF89a"}
    magic |= {"tif": b"II*\0", "webp": b"RIFF\x24\0\0\0WEBP"}
    for suffix, data in magic.items():
        yield f"none/magic.{suffix}", data, "is truncated"
        noise = "has " if suffix in ("bmp", "gif") else "is "  # its size has many pixels
        yield f"none/noise.{suffix}", data + _noise(300), noise
        yield f"none/zeros after magic.{suffix}", data + bytes(300), "is "


def _noise(size: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8).tobytes()


def _bombs() -> Iterator[Hostile]:
    """Small files that ask for much memory or time."""
    good = encoded(Image.fromarray(picture()), "JPEG")
    frame = good.index(b"\xff\xc0") + 5
    yield "bombs/side.png", png_of_declared_size(30_000, 30_000), "has 900000000 pixels"
    yield "bombs/wide.png", png_of_declared_size(2**31 - 1, 1), "has 2147483647 pixels"
    yield "bombs/zero.png", png_of_declared_size(0, 7), "is corrupt (PNG): its size is 0x7"
    yield "bombs/side.jpg", good[:frame] + b"\xff" * 4 + good[frame + 4 :], "has 4294836225 pixels"
    yield "bombs/zero.jpg", good[:frame] + bytes(4) + good[frame + 4 :], "is corrupt (JPEG)"
    yield "bombs/scans.jpg", many_scans(2_000), "is corrupt (JPEG): its picture comes in 20"
    yield "bombs/side.gif", _gif(65_535, 65_535), "has 4294836225 pixels"
    yield "bombs/zero.gif", _gif(0, 0), "is corrupt (GIF): its size is 0x0"
    yield "bombs/side.tif", _tiff(100_000, 100_000), "has 10000000000 pixels"
    yield "bombs/wide.tif", _tiff(2**32 - 1, 2**32 - 1), "has 18446744065119617025 pixels"
    yield "bombs/side.bmp", _bmp(40_000, 40_000), "has 1600000000 pixels"
    yield "bombs/below.bmp", _bmp(-(2**31), 2), "has 4294967296 pixels"
    webp = bytearray(encoded(Image.fromarray(picture()), "WEBP", lossless=True, exif=exif(1)))
    webp[24:30] = b"\xff" * 6
    yield "bombs/side.webp", bytes(webp), "has 281474976710656 pixels"
    # Real pictures whose files are a thousandth of the size of their pixels.
    flat = Image.new("1", (6_000, 6_000))
    yield "bombs/flat.png", encoded(flat, "PNG"), None
    yield "bombs/flat.tif", encoded(flat, "TIFF", compression="group4"), None
    yield "bombs/flat.webp", encoded(Image.new("RGB", (6_000, 6_000)), "WEBP", lossless=True), None
    yield "bombs/texts.png", png_with_text(7_900_000, 900), None  # libpng would unpack 14 GB
    yield "bombs/segments.jpg", good[:2] + b"\xff\xe1\0\2" * 100_000 + good[2:], None
    yield "bombs/colours.jp2", _jp2_of_colours(16_384), "is corrupt (JPEG 2000): it has 16384 colo"
    yield "bombs/side.ppm", b"P6 40000 40000 255\n" + bytes(64), "has 1600000000 pixels"
    yield "bombs/side.avif", _avif(2**31, 2**31), "has 4611686018427387904 pixels"
    yield "bombs/text.png", png_with_text(60_000_000), None
    yield "bombs/nothing inside.png", png_of_declared_size(9_000, 9_000), "is corrupt (PNG)"
    many = [Image.fromarray(picture(9, 9, seed)) for seed in range(60)]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        frames = encoded(many[0], kind, save_all=True, append_images=many[1:] * 5)
        yield f"bombs/frames.{kind.lower()}", frames, None


def many_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated again and again."""
    data = encoded(Image.fromarray(picture()), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:-2] + data[last:-2] * count + data[-2:]


def _gif(width: int, height: int) -> bytes:
    data = encoded(Image.fromarray(picture()), "GIF")
    return data[:6] + struct.pack("<HH", width, height) + data[10:]


def _bmp(width: int, height: int) -> bytes:
    data = encoded(Image.fromarray(picture()), "BMP")
    return data[:18] + struct.pack("<ii", width, height) + data[26:]


def _jp2_of_colours(count: int) -> bytes:
    data = encoded(Image.fromarray(picture()), "JPEG2000")
    place = data.index(b"\xff\x4f\xff\x51") + 40
    return data[:place] + struct.pack(">H", count) + data[place + 2 :]


def _avif(width: int, height: int) -> bytes:
    data = every_kind()["rgb.avif"]
    place = data.index(b"ispe") + 8
    return data[:place] + struct.pack(">II", width, height) + data[place + 8 :]


def _tiff(width: int, height: int, first: int = 8) -> bytes:
    """A TIFF with a directory of its own and no pixels."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (278, 1), (279, 1)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    header = b"II*\0" + struct.pack("<IH", first, len(tags))
    return header + entries + struct.pack("<I", first)  # the next directory is this same one


def png_with_text(size: int, times: int = 1) -> bytes:
    """A small PNG with a compressed text of `size` letters, several times."""
    body = b"Comment\0\0" + zlib.compress(b"a" * size, 9)
    data = encoded(Image.fromarray(picture()), "PNG")
    return with_chunks(data, png_chunk(b"zTXt", body) * times)


def _other_suffixes() -> Iterator[Hostile]:
    """Good files of each format under the suffixes of the others."""
    image = Image.fromarray(picture())
    suffixes = {"JPEG": "jpg", "PNG": "png", "BMP": "bmp", "WEBP": "webp", "TIFF": "tif"}
    suffixes["GIF"] = "gif"
    for kind, own in suffixes.items():
        for other in suffixes.values():
            if other != own:
                yield f"suffixes/{own}.{other}", encoded(image, kind), None


def exif_files() -> Iterator[Hostile]:
    """Pictures that are turned, or whose EXIF data is damaged."""
    image = Image.fromarray(picture())
    for kind in ("JPEG", "PNG", "WEBP"):
        for orientation in range(1, 9):
            data = encoded(image, kind, exif=exif(orientation))
            yield f"exif/{orientation}.{kind.lower()}", data, None
    turned = encoded(image, "JPEG", exif=exif(6))
    segment = exif(6).tobytes()
    for orientation in (0, 9, 255, 65_535):
        data = encoded(image, "JPEG", exif=exif(orientation))
        yield f"exif/orientation {orientation}.jpg", data, None
    damaged = {
        "empty": b"Exif\0\0",
        "cut": segment[:-5],
        "other order": segment.replace(b"MM\0*", b"II\0*"),
        "no order": segment.replace(b"MM", b"XX"),
        "far directory": segment[:10] + b"\xff\xff\xff\xf0" + segment[14:],
        "own directory": segment[:10] + b"\0\0\0\0" + segment[14:],
        "many entries": segment[:14] + b"\xff\xff" + segment[16:],
        "noise": b"Exif\0\0MM\0*\0\0\0\x08\0\x20" + _noise(400),
        "long": segment + bytes(60_000),
    }
    for name, body in damaged.items():
        yield f"exif/{name}.jpg", _with_app1(body), None
    yield "exif/twice.jpg", turned[:2] + _app1(exif(3).tobytes()) + turned[2:], None
    xmp = _app1(b"http://ns.adobe.com/xap/1.0/\0<x/>")
    yield "exif/behind xmp.jpg", turned[:2] + xmp + turned[2:], None


def _app1(body: bytes) -> bytes:
    return b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body


def _with_app1(body: bytes) -> bytes:
    data = encoded(Image.fromarray(picture()), "JPEG")
    return data[:2] + _app1(body) + data[2:]


def odd_pictures() -> Iterator[Hostile]:
    """Unusual but complete pictures, and complete files whose picture makes no sense."""
    for name, data in every_kind().items():
        yield f"kinds/{name}", data, None
    image = Image.fromarray(picture())
    for width, height in ((1, 1), (1, 60), (60, 1), (2, 3)):
        for kind in ("JPEG", "PNG", "GIF"):
            data = encoded(Image.fromarray(picture(width, height)), kind)
            yield f"sizes/{width}x{height}.{kind.lower()}", data, None
    line = encoded(Image.new("RGB", (30_000, 1)), "PNG")
    yield "sizes/30000x1.png", line, "30000x1 (width x height) is too long for resize_short"
    cmyk = encoded(image.convert("CMYK"), "JPEG")
    adobe = cmyk.index(b"Adobe")
    yield "kinds/ycck.jpg", cmyk[: adobe + 11] + b"\x02" + cmyk[adobe + 12 :], None
    yield "kinds/rgb inside.jpg", encoded(image, "JPEG", keep_rgb=True), None
    yield "kinds/float.tif", encoded(image.convert("F"), "TIFF"), "is a TIFF with 32-bit floating"
    rgb16 = cv2.imencode(".png", picture().astype(np.uint16) * 257)[1].tobytes()
    yield "kinds/rgb16.png", rgb16, None
    jpeg = encoded(image, "JPEG")
    frame = jpeg.index(b"\xff\xc0")
    twelve = jpeg[: frame + 4] + b"\x0c" + jpeg[frame + 5 :]
    yield "kinds/twelve bits.jpg", twelve, "is a JPEG with 12-bit samples"
    lossless = jpeg[: frame + 1] + b"\xc3" + jpeg[frame + 2 :]
    yield "kinds/lossless.jpg", lossless, "is a JPEG with lossless coding"
    arithmetic = jpeg[: frame + 1] + b"\xcb" + jpeg[frame + 2 :]
    yield "kinds/arithmetic.jpg", arithmetic, "is a JPEG with lossless coding"
    yield "kinds/no tables.jpg", _without_segment(jpeg, 0xDB), "is corrupt (JPEG)"
    yield "kinds/no codes.jpg", _without_segment(jpeg, 0xC4), None  # as in films: standard codes
    yield "kinds/junk behind.jpg", jpeg + _noise(5_000), None
    png = encoded(image, "PNG")
    yield "kinds/wrong sum.png", png[:60] + bytes([png[60] ^ 1]) + png[61:], "is corrupt (PNG)"
    yield "kinds/no pixels.tif", _tiff(9, 9), "is truncated or corrupt (TIFF)"


def _without_segment(data: bytes, marker: int) -> bytes:
    while (start := data.find(bytes([0xFF, marker]))) >= 0:
        (length,) = struct.unpack_from(">H", data, start + 2)
        data = data[:start] + data[start + 2 + length :]
    return data


def _special_files(folder: Path) -> dict[str, str | None]:
    """Paths that are not regular files, and files that may not be read."""
    good = encoded(Image.fromarray(picture()), "JPEG")
    (folder / "special").mkdir()
    os.mkfifo(folder / "special" / "pipe.jpg")
    _socket(folder, "special/socket.jpg")
    links = {
        "loop.jpg": "loop.jpg",
        "ping.jpg": "pong.jpg",
        "pong.jpg": "ping.jpg",
        "gone.jpg": "nothing",
        "zeros.png": "/dev/zero",
        "good.jpg": "target",
        "same folder": ".",
        "up": "..",
    }
    for name, target in links.items():
        (folder / "special" / name).symlink_to(target)
    (folder / "special" / "target").write_bytes(good)
    (folder / "special" / "folder.jpg").mkdir()
    (folder / "special" / "folder.jpg" / "inside.jpg").write_bytes(good)
    locked = folder / "special" / "locked.jpg"
    locked.write_bytes(good)
    locked.chmod(0)
    endless = "cannot be read: too many levels of symbolic links"
    irregular = "is not a regular file but a pipe, socket or device"
    return {
        "special/pipe.jpg": irregular,
        "special/socket.jpg": irregular,
        "special/zeros.png": irregular,
        "special/loop.jpg": endless,
        "special/ping.jpg": endless,
        "special/pong.jpg": endless,
        "special/gone.jpg": "does not exist",
        "special/good.jpg": None,
        "special/folder.jpg/inside.jpg": None,
        # Root can read everything.
        "special/locked.jpg": None if os.geteuid() == 0 else "cannot be read: permission denied",
    }


def _socket(folder: Path, name: str) -> None:
    here = Path.cwd()
    os.chdir(folder)  # a socket's path may have at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(name)
    finally:
        os.chdir(here)
