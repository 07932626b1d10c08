# SPDX-License-Identifier: Apache-2.0
"""Small image files of every kind that the decoder may meet, made on the fly."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from PIL import Image

WIDTH, HEIGHT = 37, 25


def picture(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> np.ndarray:
    """A colourful uint8 RGB picture: gradients, so that codecs work as usual, plus noise."""
    y, x = np.mgrid[0:height, 0:width]
    gradients = np.stack([x * 3 + y, y * 5, x * y // 4], axis=-1) % 160
    noise = np.random.default_rng(seed).integers(0, 96, gradients.shape)
    return (gradients + noise).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """The bytes of a file of that kind, written by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def jpeg(width: int = WIDTH, height: int = HEIGHT, seed: int = 0) -> bytes:
    """A baseline JPEG."""
    return encoded(Image.fromarray(picture(width, height, seed)), "JPEG", quality=90)


def exif(orientation: int) -> Image.Exif:
    """EXIF data that says only how the picture is oriented (1..8)."""
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def tiff(
    sides: tuple[int, int],
    samples: int = 3,
    form: str = "H",
    first: Sequence[tuple[int, str, int]] = (),
) -> bytes:
    """A plain TIFF of bytes: its sides as values of a form, behind some `first` tags."""
    width, height = sides
    count, forms = width * height * samples, {"B": 1, "H": 3, "I": 4}
    tags = [*first, (256, form, width), (257, form, height), (258, "H", 8), (259, "H", 1)]
    tags += [(262, "H", 2), (273, "I", 0), (277, "H", samples), (278, "H", height)]
    tags.append((279, "I", count))
    pixels = 8 + 2 + 12 * len(tags) + 4
    entries = b""
    for tag, letter, value in tags:
        value = pixels if tag == 273 else value
        body = struct.pack(f"<{letter}", value).ljust(4, b"\0")
        entries += struct.pack("<HHI", tag, forms[letter], 1) + body
    head = b"II*\0" + struct.pack("<IH", 8, len(tags))
    return head + entries + bytes(4) + bytes(i % 251 for i in range(count))


def png_of_declared_size(width: int, height: int) -> bytes:
    """A tiny PNG that says it is large, with valid checksums."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0),
        b"IDAT": zlib.compress(bytes(4096)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(png_chunk, chunks, chunks.values()))


def with_chunks(data: bytes, chunks: bytes) -> bytes:
    """A PNG file with more chunks behind the first one."""
    return data[:33] + chunks + data[33:]


def animated_png(data: bytes, hidden: bool, blend: int = 0) -> bytes:
    """A PNG as the default image of an animation: its first frame, or hidden behind its frames."""
    picture_at = data.index(b"IDAT") - 4
    (length,) = struct.unpack_from(">I", data, picture_at)
    pixels = data[picture_at + 8 : picture_at + 8 + length]
    sides = struct.unpack_from(">II", data, 16)
    frames = [
        png_chunk(b"fcTL", struct.pack(">IIIIIHHBB", 2 * n, *sides, 0, 0, 1, 10, 0, blend))
        for n in range(2)
    ]
    number = struct.pack(">I", 1)
    lines = zlib.decompress(pixels)
    length = len(lines) // sides[1]
    other = b"".join(lines[start : start + length] for start in range(0, len(lines), length)[::-1])
    second = frames[1] + png_chunk(b"fdAT", number + zlib.compress(other))
    control = png_chunk(b"acTL", struct.pack(">II", 2, 0))
    start = data[:33] + control + data[33:picture_at]
    return start + (b"" if hidden else frames[0]) + data[picture_at:-12] + second + data[-12:]


def bmp(bits: int, masks: Sequence[int] = (), header: int = 40, *, down: bool = False) -> bytes:
    """A BMP of noise, 6 x 5, with colour masks behind or inside its header."""
    row = (6 * bits + 31) // 32 * 4
    pixels = np.random.default_rng(0).integers(0, 256, row * 5, np.uint8).tobytes()
    masked = struct.pack(f"<{len(masks)}I", *masks).ljust(header - 40, b"\0")
    height, compression = (-5 if down else 5), (3 if masks else 0)
    fields = (header, 6, height, 1, bits, compression, len(pixels), 0, 0, 0, 0)
    start = 14 + 40 + len(masked)
    size = struct.pack("<IHHI", start + len(pixels), 0, 0, start)
    return b"BM" + size + struct.pack("<IiiHHIIiiII", *fields) + masked + pixels


def every_kind() -> dict[str, bytes]:
    """Good files by `NAME.SUFFIX`: all formats, with the colour modes and encodings of each."""
    rgb = Image.fromarray(picture())
    alpha = np.linspace(0, 255, WIDTH * HEIGHT).astype(np.uint8).reshape(HEIGHT, WIDTH, 1)
    rgba = Image.fromarray(np.concatenate([picture(), alpha], axis=-1))
    gray, palette, bilevel = rgb.convert("L"), rgb.quantize(64), rgb.convert("1")
    cmyk, second = rgb.convert("CMYK"), gray.convert("RGB")
    deep = Image.fromarray(picture()[..., 0].astype(np.uint16) * 251 + 7)
    frames = {"save_all": True, "append_images": [second]}
    files = {
        "baseline.jpg": encoded(rgb, "JPEG", quality=90),
        "progressive.jpeg": encoded(rgb, "JPEG", quality=90, progressive=True),
        "gray.jpg": encoded(gray, "JPEG"),
        "cmyk.jpg": encoded(cmyk, "JPEG"),
        "thumbnail.jpg": encoded(rgb, "JPEG", comment=encoded(gray, "JPEG")),
        "rgb.png": encoded(rgb, "PNG"),
        "rgba.png": encoded(rgba, "PNG"),
        "gray.png": encoded(gray, "PNG"),
        "gray-alpha.png": encoded(rgba.convert("LA"), "PNG"),
        "palette.png": encoded(palette, "PNG"),
        "palette-transparent.png": encoded(palette, "PNG", transparency=3),
        "bilevel.png": encoded(bilevel, "PNG"),
        "deep.png": encoded(deep, "PNG"),
        "rgb.bmp": encoded(rgb, "BMP"),
        "rgba.bmp": encoded(rgba, "BMP"),
        "palette.bmp": encoded(palette, "BMP"),
        "bilevel.bmp": encoded(bilevel, "BMP"),
        "lossy.webp": encoded(rgb, "WEBP"),
        "lossless.webp": encoded(rgb, "WEBP", lossless=True),
        "alpha.webp": encoded(rgba, "WEBP"),
        "animated.webp": encoded(rgb, "WEBP", **frames),
        "rgb.tif": encoded(rgb, "TIFF"),
        "rgba.tiff": encoded(rgba, "TIFF"),
        "gray.tif": encoded(gray, "TIFF"),
        "cmyk.tif": encoded(cmyk, "TIFF"),
        "deep.tif": encoded(deep, "TIFF"),
        "palette.tif": encoded(palette, "TIFF"),
        "pages.tif": encoded(rgb, "TIFF", **frames),
        "big.tif": encoded(rgb, "TIFF", big_tiff=True),
        "rgb.gif": encoded(rgb, "GIF"),
        "transparent.gif": encoded(palette, "GIF", transparency=5),
        "animated.gif": encoded(rgb, "GIF", duration=10, **frames),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        files[f"{compression}.tif"] = encoded(rgb, "TIFF", compression=compression)
    files["group4.tif"] = encoded(bilevel, "TIFF", compression="group4")
    files |= _newer_kinds(rgba)
    for name in ("rgb.png", "rgba.png", "gray.png", "palette-transparent.png", "deep.png"):
        files[f"default image of {name}"] = animated_png(files[name], hidden=True)
        files[f"first frame of {name}"] = animated_png(files[name], hidden=False, blend=1)
    return files


RGB565, RGB555, RGB888 = (0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xFF0000, 0xFF00, 0xFF)


def _newer_kinds(rgba: Image.Image) -> dict[str, bytes]:
    """AVIF, JPEG 2000 and PNM, with the colour modes of each."""
    rgb, gray = rgba.convert("RGB"), rgba.convert("L")
    deep = Image.fromarray(picture()[..., 0].astype(np.uint16) * 251 + 7)
    avif = {"rgb": picture()[..., ::-1], "rgba": np.asarray(rgba)[..., [2, 1, 0, 3]]}
    numbers = b" ".join(b"%d" % value for value in picture().ravel())
    return {
        **{f"{n}.avif": cv2.imencode(".avif", pixels)[1].tobytes() for n, pixels in avif.items()},
        **{f"{i.mode}.jp2": encoded(i, "JPEG2000") for i in (rgb, rgba, gray, deep)},
        "codestream.j2k": encoded(rgb, "JPEG2000", no_jp2=True),
        "lossy.jp2": encoded(rgb, "JPEG2000", irreversible=True, quality_layers=[9]),
        "tiles.jp2": encoded(rgb, "JPEG2000", tile_size=(16, 16)),
        **{f"{i.mode}.ppm": encoded(i, "PPM") for i in (rgb, gray, deep, rgba.convert("1"))},
        "text.ppm": b"P3 # a comment\n%d %d\n255\n%b\n" % (*rgb.size, numbers),
    }


def mutated(files: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """Damaged copies of files, the same each time; most damage is near the start."""
    random = np.random.default_rng(seed)
    for index in range(count):
        data = bytearray(files[index % len(files)])
        for _ in range(random.integers(1, 4)):
            reach = min(len(data), 600) if random.random() < 0.7 else len(data)
            place = int(random.integers(2, reach))
            match random.integers(4):
                case 0:
                    data[place] = random.integers(256)
                case 1:
                    data[place] ^= 1 << int(random.integers(8))
                case 2:
                    del data[place : min(place + int(random.integers(1, 30)), len(data) - 20)]
                case 3:
                    start = int(random.integers(len(data)))
                    data[place:place] = data[start : start + int(random.integers(1, 200))]
        yield bytes(data)
