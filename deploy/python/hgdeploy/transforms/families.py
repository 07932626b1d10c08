# SPDX-License-Identifier: Apache-2.0
"""How known networks are published to be fed, and where other preprocessing differs from that.

A network trained on one short side, mean and deviation answers worse on others, and nothing else
shows it: every engine agrees on the wrong answer.

Source: the `Eval` sections of PaddleClas's ppcls/configs/ImageNet, whose `Infer` sections mostly
resize, crop and normalise alike; of EfficientNet-Lite see `zoo.models`. Interpolation is not
compared, since it moves scores little and these sections differ in it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from hgdeploy.transforms.operators import (
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    table,
)
from hgdeploy.transforms.operators_config import imagenet_ops

# Normalised values that differ by less than this are rounding of a mean or a deviation.
_NEAR = 0.01
T = TypeVar("T")


class Published(NamedTuple):
    """How a network is published to be fed.

    Attributes:
        short: the short side after the resize, in pixels.
        crop: side of the square crop.
        normalize: what is done to its pixels.
        rgb: whether in RGB order; None where the sections of one config differ.
        pillow: the kernel with which Pillow resizes; empty where OpenCV does, bilinearly.
    """

    short: int
    crop: int
    normalize: NormalizeImage = NormalizeImage()
    rgb: bool | None = True
    pillow: str = ""


_HALVES = NormalizeImage(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
_LITE = NormalizeImage(scale=1.0, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0))
_NONE = NormalizeImage(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
_BICUBIC = "bicubic"
_WIDTH = r"(x\d+)?"  # a multiplier of channels, such as x1_0
# The networks of each way, as patterns of their names in lower case without separators.
_FAMILIES: tuple[tuple[Published, tuple[str, ...]], ...] = (
    (Published(232, 224, pillow=_BICUBIC), ("pphgnettiny", r"pphgnetv2b[0-6]")),
    (Published(236, 224, pillow=_BICUBIC), ("pphgnet(small|base)",)),
    *(
        (Published(crop + 32, crop), (f"efficientnetb{i}",))
        for i, crop in enumerate((224, 240, 260, 300, 380, 456, 528, 600))
    ),
    (Published(256, 224, _LITE, pillow=_BICUBIC), ("efficientnetlite0",)),
    (Published(274, 240, _LITE, pillow=_BICUBIC), ("efficientnetlite1",)),
    (Published(297, 260, _LITE, pillow=_BICUBIC), ("efficientnetlite2",)),
    (Published(320, 299), ("inceptionv[34]", "xception(41|65|71)(deeplab)?")),
    (Published(320, 320), ("fixresnet50vdssldv2", "fixresnext10132x48dwsl")),
    (Published(292, 256), ("darknet53",)),
    (Published(288, 256), ("cspdarknet53",)),
    (Published(292, 256, _NONE, None, "bilinear"), ("mobilevit(xxs|xs|s)",)),
    (Published(256, 224, _HALVES), (r"vit(small|base|large)patch(16|32)224",)),
    (Published(384, 384, _HALVES), (r"vit(base|large)patch(16|32)384",)),
    (Published(248, 224, _HALVES, pillow=_BICUBIC), ("tntsmall", "vanb0")),
    (Published(248, 224, pillow=_BICUBIC), ("cswintransformer(tiny|small|base|large)224",)),
    (Published(384, 384, pillow=_BICUBIC), ("cswintransformer(base|large)384",)),
    (
        Published(438, 384, pillow=_BICUBIC),
        (
            r"deitbase(distilled)?patch16384",
            r"swintransformer(base|large)patch4window12384(22kto1k)?",
        ),
    ),
    (
        Published(256, 224, pillow=_BICUBIC),
        (
            r"deit(tiny|small|base)(distilled)?patch16224",
            r"swintransformer(tiny|small|base|large)patch4window7224(22kto1k)?",
            r"convnext(tiny|small)",
            r"pvtv2b[0-5](linear)?",
            "(pcpvt|altgvt)(small|base|large)",
        ),
    ),
    (Published(256, 224, pillow="bilinear"), ("peleenet",)),
    (
        Published(256, 224),
        (
            "alexnet",
            "vgg(11|13|16|19)",
            r"squeezenet1[01]",
            "googlenet",
            r"densenet(121|161|169|201|264)",
            r"(se)?resnet(18|34|50|101|152|200)(v[bcd])?",
            r"resnet50vd(ssld)?v2",
            "resnet50acnetdeploy",
            "resnest50(fast1s1x64d)?",
            "rednet(26|38|50|101|152)",
            "regnetx4gf",
            r"rexnet\d\d",
            r"(se)?resnext(50|101|152)(vd)?\d+x\d+d(wsl)?",
            "senet154vd",
            r"res2net(50|101|200)(vd)?\d+w\d+s",
            r"dpn(68|92|98|107|131)",
            r"(se)?hrnetw\d+c?",
            "hardnet(39ds|68ds|68|85)",
            rf"mobilenet(v1|v2|v3small|v3large){_WIDTH}",
            rf"shufflenetv2(swish|{_WIDTH})",
            rf"(ghostnet|esnet){_WIDTH}",
            "efficientnetb0small",
            r"mixnet[sml]",
            r"repvgg[ab]\d(g[24])?",
            r"dla(34|46c|46xc|60|60x|60xc|102|102x|102x2|169)",
            r"levit(128s|128|192|256|384)",
            rf"pplcnet{_WIDTH}",
            r"pplcnetv2(small|base|large)",
        ),
    ),
)
# Other weights of the same network, and PaddleClas's folders.
_WEIGHTS = re.compile(r"(ssld|rsb|pretrained|infer)$")


def published_feed(model: str) -> Published | None:
    """Return how a network is published to be fed; None where that is not known.

    Args:
        model: its name, as PaddleClas (`PPHGNet_small`), PaddleX (`PP-HGNet_small`) or
            `paddle.vision` (`mobilenet_v2`) writes it.
    """
    name = re.sub(r"[-_. ]", "", model).lower()
    shorter = _WEIGHTS.sub("", name)
    for feed, patterns in _FAMILIES:
        if any(re.fullmatch(p, one) for p in patterns for one in (name, shorter)):
            return feed
    return None


def published_ops(feed: Published) -> tuple[Op, ...]:
    """Return the operators of how a network is published to be fed."""
    kernel = {"interpolation": feed.pillow, "backend": "pil"} if feed.pillow else {}
    one = feed.normalize
    return imagenet_ops(
        feed.short, feed.crop, scale=one.scale, mean=one.mean, std=one.std, **kernel
    )


def feed_differences(feed: Published, ops: Sequence[Op], *, sizes: bool = True) -> list[str]:
    """Name what operators do otherwise than a network is published to be fed.

    Args:
        feed: how it is published.
        ops: the operators.
        sizes: compare the sizes where the crop is another one; False where a user chose it, who
            is told about that already.

    Returns:
        Texts such as `short side 256 instead of 236`; empty when nothing differs.
    """
    return list(_differences(feed, ops, sizes))


def _differences(feed: Published, ops: Sequence[Op], sizes: bool) -> Iterator[str]:
    decode = _last(DecodeImage, ops) or DecodeImage()
    resize, crop = _last(ResizeImage, ops), _last(CropImage, ops)
    normalize = _last(NormalizeImage, ops)
    if feed.rgb not in (decode.to_rgb, None):
        yield "BGR instead of RGB" if feed.rgb else "RGB instead of BGR"
    size = crop.size if crop else resize.size if resize else None
    if sizes or size == (feed.crop, feed.crop):
        short = resize.resize_short if resize else None
        if short is None:
            yield f"no resize of the short side to {feed.short}"
        elif short != feed.short:
            yield f"short side {short:g} instead of {feed.short}"
        if size != (feed.crop, feed.crop):
            shown = f"crop {size[0]}x{size[1]}" if size else "no crop"
            yield f"{shown} instead of {feed.crop}x{feed.crop}"
    if normalize is None:
        yield f"no normalisation instead of {_shown(feed.normalize)}"
    elif np.abs(_ends(normalize) - _ends(feed.normalize)).max() > _NEAR:
        yield f"{_shown(normalize)} instead of {_shown(feed.normalize)}"


def _last(kind: type[T], ops: Sequence[Op]) -> T | None:
    return next((op for op in reversed(ops) if isinstance(op, kind)), None)


def _ends(op: NormalizeImage) -> NDArray[Any]:
    """Return what becomes of black and of white; all between lies on a line."""
    values: NDArray[Any] = table(dataclasses.replace(op, output_fp16=False))[:, [0, 255]]
    return values


def _shown(op: NormalizeImage) -> str:
    """Return mean and deviation, of pixels from 0 to 1."""
    one = 255 * op.scale
    mean, std = ([round(float(n) / one, 3) for n in values] for values in (op.mean, op.std))
    return f"mean {mean} and std {std}"
