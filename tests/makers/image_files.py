# SPDX-License-Identifier: Apache-2.0
"""Small image files of every kind that the decoder may meet, made on the fly."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Sequence

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


def png_of_declared_size(width: int, height: int) -> bytes:
    """A tiny PNG that says it is large, with valid checksums."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(4096))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


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
    return files


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
