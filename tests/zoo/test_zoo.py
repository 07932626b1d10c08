# SPDX-License-Identifier: Apache-2.0
"""The zoo: what is listed, and that every network computes what its architecture says."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_fill import golden_fill

from hgdeploy import zoo
from hgdeploy.errors import ConfigError
from hgdeploy.images.decode import read_image
from hgdeploy.transforms.operators import CropImage, NormalizeImage, ResizeImage
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.zoo.models import OFFICIAL_URL
from hgdeploy.zoo.random_weights import random_layer
from hgdeploy.zoo.weights.load import load_into, read_weights

paddle = pytest.importorskip("paddle")
functional = paddle.nn.functional

DATA = Path(__file__).parents[1] / "data" / "zoo"
IMAGES = Path(__file__).parents[2] / "deploy" / "images"
PPHGNETS = ("PPHGNet_tiny", "PPHGNet_small", "PPHGNet_base")
PPHGNETS_V2 = tuple(f"PPHGNetV2_B{variant}" for variant in range(7))
PPLCNETS = tuple(
    f"PPLCNet_{width}"
    for width in ("x0_25", "x0_35", "x0_5", "x0_75", "x1_0", "x1_5", "x2_0", "x2_5")
)
LITES = ("EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2")
SWINS = ("SwinTransformer_tiny_patch4_window7_224", "SwinTransformer_base_patch4_window7_224")
RESNETS = ("ResNet34", "ResNet34_vd", "ResNet50", "ResNet50_vd")
EFFICIENTNETS = ("EfficientNetB0", "EfficientNetB1")
RES2NET = "Res2Net200_vd_26w_4s"
RESNEXT = "ResNeXt101_32x48d_wsl"
TABLES = (
    *(*PPHGNETS, PPHGNETS_V2[0], PPLCNETS[0]),
    *(*RESNETS, *EFFICIENTNETS, *SWINS, RES2NET, RESNEXT),
)
ARCHITECTURES = (*TABLES, *PPHGNETS_V2[1:], *PPLCNETS[1:], *LITES)
# 829 million parameters: minutes and 10 GB of memory wherever they are needed. A narrow one of its
# kind is tried in its place, and in that of the others the smallest one, which is the same code.
SLOW = (RESNEXT, SWINS[1], *PPHGNETS_V2[1:], *PPLCNETS[1:])
# Where the golden weights have a gain: see `golden_fill`.
GAINS = {"PPHGNetV2": 1.25, "PPLCNet": 1.6}

# Stem channels; (in, mid, out, blocks, downsample) of each stage; convolutions a block; dropout.
PPHGNET_FACTS = {
    "PPHGNet_tiny": (
        ((96, 96, 224, 1, 0), (224, 128, 448, 1, 1), (448, 160, 512, 2, 1), (512, 192, 768, 1, 1)),
        5,
        0.0,
    ),
    "PPHGNet_small": (
        (
            (128, 128, 256, 1, 0),
            (256, 160, 512, 1, 1),
            (512, 192, 768, 2, 1),
            (768, 224, 1024, 1, 1),
        ),
        6,
        0.0,
    ),
    "PPHGNet_base": (
        (
            (160, 192, 320, 1, 0),
            (320, 224, 640, 2, 1),
            (640, 256, 960, 3, 1),
            (960, 288, 1280, 2, 1),
        ),
        7,
        0.2,
    ),
}
# Blocks of each stage, heads of each stage.
SWIN_FACTS = {
    SWINS[0]: ((2, 2, 6, 2), (3, 6, 12, 24)),
    SWINS[1]: ((2, 2, 18, 2), (4, 8, 16, 32)),
}
# Repeats of each stage as the published weights have them; strides are EfficientNet's.
EFFICIENTNET_REPEATS = {
    "EfficientNetB0": (1, 2, 2, 3, 3, 4, 1),
    "EfficientNetB1": (2, 3, 3, 4, 4, 5, 2),
    "EfficientNetLite0": (1, 2, 2, 3, 3, 4, 1),
    "EfficientNetLite1": (1, 3, 3, 4, 4, 5, 1),
    "EfficientNetLite2": (1, 3, 3, 4, 4, 5, 1),
}
STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)
# Millions of trained parameters, from the model cards of timm's copies.
TIMM_PARAMS = dict(zip(PPHGNETS_V2, (6.0, 6.34, 11.22, 16.29, 19.8, 39.57, 75.26), strict=True))


def filled(name: str) -> Any:
    return fill(zoo.build(name), name)


def fill(layer: Any, name: str) -> Any:
    """Give a layer the weights of the golden logits; integers stay as they were built."""
    gain = GAINS.get(name.partition("_")[0], 1.0)
    values = {
        key: tensor.numpy()
        if tensor.dtype == paddle.int64
        else golden_fill(key, tuple(tensor.shape), gain)
        for key, tensor in layer.state_dict().items()
    }
    load_into(layer, values, "recipe")
    return layer


@functools.cache
def lazy_table(name: str) -> list[list[Any]]:
    """Names, shapes and types in order, as the tables of `DATA` have them."""
    state = lazy_state(name)
    return [[key, list(t.shape), str(t.dtype).rpartition(".")[2]] for key, t in state.items()]


def lazy_state(name: str) -> dict[str, Any]:
    """Names and shapes alone, without values, which takes no time even for a large model."""
    with paddle.LazyGuard():
        return dict(zoo.build(name).state_dict())


def run(layer: Any, x: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return np.array(layer(paddle.to_tensor(x)).numpy())


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.RandomState(0).standard_normal((count, 3, size, size)).astype(np.float32)


def assert_logits_agree(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


class Reference:
    """Layers as plain functions of a state dict, written from the papers and not from the zoo."""

    def __init__(self, layer: Any, epsilon: float) -> None:
        self.state = layer.state_dict()
        self.epsilon = epsilon

    def conv(self, x: Any, name: str, stride: int = 1, padding: Any = 0) -> Any:
        weight = self.state[f"{name}.weight"]
        return functional.conv2d(
            x,
            weight,
            bias=self.state.get(f"{name}.bias"),
            stride=stride,
            padding=padding,
            groups=x.shape[1] // weight.shape[1],
        )

    def norm(self, x: Any, name: str) -> Any:
        gain, bias, mean, variance = (
            self.state[f"{name}.{part}"].reshape([1, -1, 1, 1])
            for part in ("weight", "bias", "_mean", "_variance")
        )
        return (x - mean) / paddle.sqrt(variance + self.epsilon) * gain + bias


class PPHGNetReference(Reference):
    """PP-HGNet from its table of facts."""

    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, 1e-5)
        self.stages, self.depth, self.dropout = PPHGNET_FACTS[name]

    def conv_bn(self, x: Any, name: str, stride: int = 1) -> Any:
        kernel = self.state[f"{name}.conv.weight"].shape[-1]
        return self.norm(self.conv(x, f"{name}.conv", stride, kernel // 2), f"{name}.bn")

    def block(self, x: Any, name: str) -> Any:
        outputs = [x]
        for index in range(self.depth):
            outputs.append(self.conv_bn(outputs[-1], f"{name}.layers.{index}").clip(min=0))
        y = self.conv_bn(paddle.concat(outputs, 1), f"{name}.aggregation_conv").clip(min=0)
        squeezed = self.conv(y.mean([2, 3], keepdim=True), f"{name}.att.conv")
        return y / (1 + paddle.exp(-squeezed))

    def __call__(self, x: Any) -> Any:
        for index, stride in enumerate((2, 1, 1)):
            x = self.conv_bn(x, f"stem.{index}", stride).clip(min=0)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for number, (_, mid, out, blocks, downsample) in enumerate(self.stages):
            if downsample:
                x = self.conv_bn(x, f"stages.{number}.downsample", 2)
            for index in range(blocks):
                y = self.block(x, f"stages.{number}.blocks.{index}")
                x = y + x if index else y
            last = self.state[f"stages.{number}.blocks.0.layers.1.conv.weight"]
            assert (last.shape[0], x.shape[1]) == (mid, out)
        x = self.conv(x.mean([2, 3], keepdim=True), "last_conv").clip(min=0) * (1 - self.dropout)
        return x.flatten(1) @ self.state["fc.weight"] + self.state["fc.bias"]


class PPHGNetV2Reference(Reference):
    """PP-HGNetV2: how many of each part there are is read from the names."""

    def __init__(self, layer: Any, _: str) -> None:
        super().__init__(layer, 1e-5)

    def parts(self, name: str) -> list[str]:
        numbers = {key.removeprefix(f"{name}.").split(".")[0] for key in self.below(name)}
        return [f"{name}.{number}" for number in sorted(numbers, key=int)]

    def below(self, name: str) -> list[str]:
        return [key for key in self.state if key.startswith(f"{name}.")]

    def conv_bn(self, x: Any, name: str, stride: int = 1) -> Any:
        kernel = self.state[f"{name}.conv.weight"].shape[-1]
        padding = "SAME" if kernel == 2 else kernel // 2
        return self.norm(self.conv(x, f"{name}.conv", stride, padding), f"{name}.bn")

    def affine(self, x: Any, name: str) -> Any:
        scale = self.state.get(f"{name}.scale")
        return x if scale is None else scale * x + self.state[f"{name}.bias"]

    def unit(self, x: Any, name: str, stride: int = 1) -> Any:
        if self.below(f"{name}.conv1"):
            x, name = self.conv_bn(x, f"{name}.conv1"), f"{name}.conv2"
        return self.affine(self.conv_bn(x, name, stride).clip(min=0), f"{name}.lab")

    def stem(self, x: Any) -> Any:
        x = self.unit(x, "stem.stem1", 2)
        y = self.unit(self.unit(x, "stem.stem2a"), "stem.stem2b")
        # The largest of 2x2 pixels, written without a pooling operator.
        rows = paddle.concat([paddle.maximum(x[:, :, :-1], x[:, :, 1:]), x[:, :, -1:]], 2)
        x = paddle.concat([paddle.maximum(rows[..., :-1], rows[..., 1:]), rows[..., -1:]], 3)
        x = self.unit(paddle.concat([x, y], 1), "stem.stem3", 2)
        return self.unit(x, "stem.stem4")

    def block(self, x: Any, name: str) -> Any:
        outputs = [x]
        for layer in self.parts(f"{name}.layers"):
            outputs.append(self.unit(outputs[-1], layer))
        y = self.unit(paddle.concat(outputs, 1), f"{name}.aggregation_squeeze_conv")
        return self.unit(y, f"{name}.aggregation_excitation_conv")

    def __call__(self, x: Any) -> Any:
        x = self.stem(x)
        for stage in self.parts("stages"):
            if self.below(f"{stage}.downsample"):
                x = self.conv_bn(x, f"{stage}.downsample", 2)
            for index, block in enumerate(self.parts(f"{stage}.blocks")):
                y = self.block(x, block)
                x = y + x if index else y
        x = self.conv(x.mean([2, 3], keepdim=True), "last_conv").clip(min=0)
        x = self.affine(x, "lab").flatten(1)
        return x @ self.state["fc.weight"] + self.state["fc.bias"]


class PPLCNetReference(Reference):
    """PP-LCNet: the first block of each stage but one halves the size."""

    def __init__(self, layer: Any, _: str) -> None:
        super().__init__(layer, 1e-5)

    @staticmethod
    def swish(x: Any) -> Any:
        return x * (x + 3).clip(0, 6) / 6

    def unit(self, x: Any, name: str, stride: int = 1) -> Any:
        kernel = self.state[f"{name}.conv.weight"].shape[-1]
        x = self.norm(self.conv(x, f"{name}.conv", stride, kernel // 2), f"{name}.bn")
        return self.swish(x)

    def __call__(self, x: Any) -> Any:
        x = self.unit(x, "conv1", 2)
        for stage, blocks in (("2", 1), ("3", 2), ("4", 2), ("5", 6), ("6", 2)):
            for index in range(blocks):
                name = f"blocks{stage}.{index}"
                x = self.unit(x, f"{name}.dw_conv", 1 if index or stage == "2" else 2)
                if stage == "6":
                    y = self.conv(x.mean([2, 3], keepdim=True), f"{name}.se.conv1").clip(min=0)
                    x = x * (self.conv(y, f"{name}.se.conv2") / 6 + 0.5).clip(0, 1)
                x = self.unit(x, f"{name}.pw_conv")
        x = self.swish(self.conv(x.mean([2, 3], keepdim=True), "last_conv")).flatten(1) * 0.8
        return x @ self.state["fc.weight"] + self.state["fc.bias"]


class LiteReference(Reference):
    """EfficientNet-Lite with Paddle's own SAME padding, which is computed at run time."""

    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, 1e-3)
        self.strides = [
            stride if index == 0 else 1
            for repeats, stride in zip(EFFICIENTNET_REPEATS[name], STAGE_STRIDES, strict=True)
            for index in range(repeats)
        ]

    def conv_bn(self, x: Any, conv: str, norm: str, stride: int = 1) -> Any:
        return self.norm(self.conv(x, conv, stride, "SAME"), norm)

    def __call__(self, x: Any) -> Any:
        x = self.conv_bn(x, "_conv_stem", "_bn0", 2).clip(0, 6)
        for index, stride in enumerate(self.strides):
            name = f"_blocks.{index}"
            y = x
            if index:
                y = self.conv_bn(y, f"{name}._expand_conv", f"{name}._bn0").clip(0, 6)
            y = self.conv_bn(y, f"{name}._depthwise_conv", f"{name}._bn1", stride).clip(0, 6)
            y = self.conv_bn(y, f"{name}._project_conv", f"{name}._bn2")
            x = y + x if y.shape == x.shape else y
        x = self.conv_bn(x, "_conv_head", "_bn1").clip(0, 6).mean([2, 3])
        return x @ self.state["_fc.weight"] + self.state["_fc.bias"]


class EfficientNetReference(LiteReference):
    """EfficientNet-B under PaddleClas's names: swish, squeeze-and-excitation."""

    def unit(self, x: Any, name: str, stride: int = 1) -> Any:
        return self.norm(self.conv(x, f"{name}._conv._conv", stride, "SAME"), f"{name}._bn")

    def squeeze_excite(self, x: Any, name: str) -> Any:
        y = self.conv(x.mean([2, 3], keepdim=True), f"{name}._conv1._conv")
        return x * functional.sigmoid(self.conv(functional.swish(y), f"{name}._conv2._conv"))

    def __call__(self, x: Any) -> Any:
        x = functional.swish(self.unit(x, "_ef._conv_stem._conv", stride=2))
        for index, stride in enumerate(self.strides):
            name = f"_ef._blocks.{index}."
            if f"{name}._dcn._conv._bn.weight" not in self.state:
                name = f"_ef.block.{index}."
            y = x
            if index and f"{name}._ecn._conv._bn.weight" in self.state:
                y = functional.swish(self.unit(y, f"{name}._ecn._conv"))
            y = functional.swish(self.unit(y, f"{name}._dcn._conv", stride=stride))
            y = self.unit(self.squeeze_excite(y, f"{name}._se"), f"{name}._pcn._conv")
            x = y + x if y.shape == x.shape else y
        x = functional.swish(self.unit(x, "_conv")).mean([2, 3])
        return x @ self.state["_fc.weight"] + self.state["_fc.bias"]


class ResidualReference(Reference):
    """What the networks with residual stages of (3, n, m, 3) blocks share."""

    def __init__(self, layer: Any, name: str, names: tuple[str, str], depths: Any) -> None:
        super().__init__(layer, 1e-5)
        self.names = names
        self.vd = "_vd" in name
        # The stride of each block, with its stage and its number in it.
        self.blocks = [
            (stage, index, 2 if stage and not index else 1)
            for stage, depth in enumerate(depths)
            for index in range(depth)
        ]

    def conv_bn(self, x: Any, name: str, stride: int = 1) -> Any:
        conv, norm = (f"{name}.{part}" for part in self.names)
        kernel = self.state[f"{conv}.weight"].shape[-1]
        return self.norm(self.conv(x, conv, stride, kernel // 2), norm)

    def shortcut(self, x: Any, name: str, stride: int) -> Any:
        conv, _ = self.names
        if f"{name}.{conv}.weight" not in self.state:
            return x
        if self.vd and stride == 2:
            # Averages of 2x2 pixels, written without a pooling operator.
            return self.conv_bn(
                (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4,
                name,
            )
        return self.conv_bn(x, name, stride)

    def head(self, x: Any, name: str) -> Any:
        return x.mean([2, 3]) @ self.state[f"{name}.weight"] + self.state[f"{name}.bias"]


class ResNetReference(ResidualReference):
    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, name, ("conv", "bn"), (3, 4, 6, 3))
        self.bottleneck = "50" in name

    def __call__(self, x: Any) -> Any:
        for index in range(3 if self.vd else 1):
            x = self.conv_bn(x, f"stem.{index}", 1 if index else 2).clip(min=0)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for number, (_, _, stride) in enumerate(self.blocks):
            name = f"blocks.{number}"
            strides = (1, stride, 1) if self.bottleneck else (stride, 1)
            y = x
            for index, step in enumerate(strides):
                y = self.conv_bn(y, f"{name}.conv{index}", step)
                y = y.clip(min=0) if index + 1 < len(strides) else y
            x = (y + self.shortcut(x, f"{name}.short", stride)).clip(min=0)
        return self.head(x, "fc")


class Res2NetReference(ResidualReference):
    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, name, ("_conv", "_batch_norm"), (3, 12, 48, 3))

    def __call__(self, x: Any) -> Any:
        for index in (1, 2, 3):
            x = self.conv_bn(x, f"conv1_{index}", 2 if index == 1 else 1).clip(min=0)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for stage, index, stride in self.blocks:
            x = self.block(x, f"bb_{stage}_{index}", stride)
        return self.head(x, "out")

    def block(self, x: Any, name: str, stride: int) -> Any:
        first, second, third, fourth = self.conv_bn(x, f"{name}.conv0").clip(min=0).chunk(4, 1)
        # The middle of the names differs from block to block, so they are found by their end.
        convs = {
            key.removesuffix("._conv.weight")[-1]: key.removesuffix("._conv.weight")
            for key in self.state
            if key.startswith(f"{name}.") and "branch2b" in key and key.endswith("_conv.weight")
        }
        a = self.conv_bn(first, convs["1"], stride).clip(min=0)
        b = self.conv_bn(second if stride == 2 else second + a, convs["2"], stride).clip(min=0)
        c = self.conv_bn(third if stride == 2 else third + b, convs["3"], stride).clip(min=0)
        if stride == 2:
            ones = paddle.ones_like(fourth)
            fourth, counts = (
                functional.avg_pool2d(t, 3, 2, 1, exclusive=False) for t in (fourth, ones)
            )
            fourth = fourth / counts
        y = self.conv_bn(paddle.concat([a, b, c, fourth], 1), f"{name}.conv2")
        return (y + self.shortcut(x, f"{name}.short", stride)).clip(min=0)


class ResNeXtReference(ResidualReference):
    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, name, ("_conv", "_bn"), (3, 4, 23, 3))

    def __call__(self, x: Any) -> Any:
        x = self.conv_bn(x, "_conv_stem", 2).clip(min=0)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for stage, index, stride in self.blocks:
            name = f"_conv{stage + 1}_{index}"
            y = self.conv_bn(x, f"{name}._conv0").clip(min=0)
            y = self.conv_bn(y, f"{name}._conv1", stride).clip(min=0)
            y = self.conv_bn(y, f"{name}._conv2")
            x = (y + self.shortcut(x, f"{name}._short._conv", stride)).clip(min=0)
        return self.head(x, "_out")


class SwinReference(Reference):
    """Swin with rolls and explicit windows, where the zoo gathers tokens."""

    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, 1e-5)
        self.depths, self.heads = SWIN_FACTS[name]

    def linear(self, x: Any, name: str) -> Any:
        bias = self.state.get(f"{name}.bias")
        y = x @ self.state[f"{name}.weight"]
        return y if bias is None else y + bias

    def layer_norm(self, x: Any, name: str) -> Any:
        x = x - x.mean(-1, keepdim=True)
        x = x / paddle.sqrt((x * x).mean(-1, keepdim=True) + self.epsilon)
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def bias(self, name: str) -> Any:
        """By pairs of tokens, from the definition: distance in rows and in columns."""
        grid = self.state[f"{name}.relative_position_bias_table"].numpy().reshape(13, 13, -1)
        places = [divmod(token, 7) for token in range(49)]
        pairs = [[grid[a - c + 6, b - d + 6] for c, d in places] for a, b in places]
        return paddle.to_tensor(np.array(pairs)).transpose([2, 0, 1])

    def attend(self, window: Any, name: str, heads: int, mask: Any) -> Any:
        batch, _, channels = window.shape
        q, k, v = (
            part.reshape([batch, 49, heads, -1]).transpose([0, 2, 1, 3])
            for part in self.linear(window, f"{name}.qkv").chunk(3, -1)
        )
        scores = q @ k.transpose([0, 1, 3, 2]) / math.sqrt(channels // heads)
        scores = functional.softmax(scores + self.bias(name) + mask, -1)
        y = (scores @ v).transpose([0, 2, 1, 3]).reshape([batch, 49, channels])
        return self.linear(y, f"{name}.proj")

    def windows(self, x: Any, name: str, heads: int, *, shifted: bool) -> Any:
        size = x.shape[1]
        # The two sides of each border that the roll brings together get different labels.
        label = np.digitize(np.arange(size), [size - 7, size - 3]) if shifted else np.zeros(size)
        labels = label[:, None] * 3 + label
        y = paddle.roll(x, (-3, -3), (1, 2)) if shifted else x
        rows = []
        for i in range(0, size, 7):
            row = []
            for j in range(0, size, 7):
                here = labels[i : i + 7, j : j + 7].reshape(-1)
                mask = np.where(here[:, None] == here, 0, -100).astype(np.float32)
                part = y[:, i : i + 7, j : j + 7].reshape([len(x), 49, -1])
                part = self.attend(part, f"{name}.attn", heads, paddle.to_tensor(mask))
                row.append(part.reshape([len(x), 7, 7, -1]))
            rows.append(paddle.concat(row, 2))
        y = paddle.concat(rows, 1)
        return paddle.roll(y, (3, 3), (1, 2)) if shifted else y

    def __call__(self, x: Any) -> Any:
        x = self.conv(x, "patch_embed.proj", 4).transpose([0, 2, 3, 1])
        x = self.layer_norm(x, "patch_embed.norm")
        for stage, (depth, heads) in enumerate(zip(self.depths, self.heads, strict=True)):
            for index in range(depth):
                name = f"layers.{stage}.blocks.{index}"
                y = self.layer_norm(x, f"{name}.norm1")
                x = x + self.windows(y, name, heads, shifted=bool(index % 2))
                y = self.linear(self.layer_norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
                y = y * (1 + paddle.erf(y / math.sqrt(2))) / 2
                x = x + self.linear(y, f"{name}.mlp.fc2")
            if stage < 3:
                corners = [x[:, i::2, j::2] for i, j in ((0, 0), (1, 0), (0, 1), (1, 1))]
                name = f"layers.{stage}.downsample"
                x = self.layer_norm(paddle.concat(corners, -1), f"{name}.norm")
                x = self.linear(x, f"{name}.reduction")
        return self.linear(self.layer_norm(x, "norm").mean([1, 2]), "head")


REFERENCES: dict[str, Callable[[Any, str], Any]] = {
    "PPHGNetV2": PPHGNetV2Reference,
    "PPLCNet": PPLCNetReference,
    "PPHGNet": PPHGNetReference,
    "EfficientNetLite": LiteReference,
    "EfficientNetB": EfficientNetReference,
    "ResNet": ResNetReference,
    "Res2Net": Res2NetReference,
    "ResNeXt": ResNeXtReference,
    "SwinTransformer": SwinReference,
}


def reference_of(layer: Any, name: str) -> Any:
    return next(REFERENCES[start] for start in REFERENCES if name.startswith(start))(layer, name)


@pytest.mark.parametrize("name", TABLES)
def test_parameter_names_shapes_and_order_are_paddleclas_s(name: str) -> None:
    table = json.loads((DATA / f"{name}.json").read_text())["parameters"]
    assert lazy_table(name) == table


@pytest.mark.parametrize("name", [*PPHGNETS_V2, *PPLCNETS])
def test_parameter_tables_have_the_digests_of_paddleclas_s(name: str) -> None:
    known = json.loads((DATA / "digests.json").read_text())[name]
    table = lazy_table(name)
    assert len(table) == known["count"]
    assert hashlib.sha256(json.dumps(table).encode()).hexdigest() == known["sha256"]


@pytest.mark.parametrize("name", PPHGNETS_V2)
def test_trained_parameters_are_as_many_as_in_timm_s_copies(name: str) -> None:
    statistics = ("._mean", "._variance")
    count = sum(
        math.prod(shape) for key, shape, _ in lazy_table(name) if not key.endswith(statistics)
    )
    assert count / 1e6 == pytest.approx(TIMM_PARAMS[name], abs=0.005)


@pytest.mark.parametrize(
    "name",
    ["PPHGNet_tiny", "PPHGNetV2_B0", "PPLCNet_x0_25", "ResNet50_vd", "EfficientNetB0", SWINS[0]],
)
def test_logits_are_paddleclas_s(name: str) -> None:
    with np.load(DATA / f"{name}.npz") as file:
        expected = file["logits"]
    assert_logits_agree(run(filled(name), images(zoo.info(name).input_size)), expected)


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n in SLOW)) for n in ARCHITECTURES],
)
def network(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """The name of a network, and the network with the weights of the golden logits."""
    return request.param, filled(request.param)


def test_logits_are_those_of_an_independent_forward(network: tuple[str, Any]) -> None:
    name, layer = network
    # These networks take any size, and a small one is as telling.
    small = name in (*PPHGNETS, *PPHGNETS_V2, *PPLCNETS, *RESNETS, RES2NET, RESNEXT)
    x = images(64 if small else zoo.info(name).input_size)
    assert_logits_agree(run(layer, x), run(reference_of(layer, name), x))


def test_a_narrow_resnext_computes_what_the_independent_forward_does() -> None:
    from hgdeploy.zoo.networks.resnext import ResNeXt

    layer = fill(ResNeXt(2, 10), RESNEXT)
    layer.eval()
    x = images(64)
    assert_logits_agree(run(layer, x), run(reference_of(layer, RESNEXT), x))


def test_a_narrow_pphgnet_v2_without_affines_computes_what_the_independent_forward_does() -> None:
    from hgdeploy.zoo.networks.pphgnet_v2 import PPHGNetV2, Stage

    stages = (Stage(8, 16, 2), Stage(8, 16, 1), Stage(8, 16, 2), Stage(8, 16, 1))
    layer = fill(PPHGNetV2((8, 8), stages, 2, 10, affine=False), "PPHGNetV2")
    layer.eval()
    x = images(64)
    assert_logits_agree(run(layer, x), run(reference_of(layer, "PPHGNetV2"), x))


@pytest.mark.parametrize("name", zoo.names())
def test_a_model_has_the_published_size_of_its_architecture(name: str) -> None:
    info = zoo.info(name)
    assert info.architecture in ARCHITECTURES
    assert info.params_m == zoo.info(info.architecture).params_m
    assert info.macs_g == zoo.info(info.architecture).macs_g


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_published_parameters_are_those_of_the_network(name: str) -> None:
    count = sum(
        math.prod(shape)
        for key, shape, _ in lazy_table(name)
        # The published count of Swin leaves out the position biases and their index.
        if "relative_position" not in key
    )
    assert count / 1e6 == pytest.approx(zoo.info(name).params_m, abs=0.01)


def test_published_products_are_those_of_the_network(network: tuple[str, Any]) -> None:
    name, layer = network
    macs = 0

    def add(part: Any, _: Any, output: Any) -> None:
        nonlocal macs
        weight = part.weight.shape
        # Of convolutions, linear layers and, in the counts that have them, normalisations.
        each = {4: weight[1:], 2: weight[:1], 1: [2]}[len(weight)]
        macs += math.prod(output.shape) * math.prod(each)

    # EfficientNet's published counts include the products by single factors.
    tolerance = {"rel": 0.04 if name in EFFICIENTNETS else 0.01}
    counted: Any = paddle.nn.Conv2D | paddle.nn.Linear
    if name in (*PPHGNETS_V2, *PPLCNETS):
        tolerance = {"rel": 0.002} if name in PPLCNETS else {"abs": 0.005}
        counted |= paddle.nn.BatchNorm2D
    hooks = [
        part.register_forward_post_hook(add)
        for part in layer.sublayers()
        if isinstance(part, counted)
    ]
    run(layer, images(zoo.info(name).input_size, 1))
    for hook in hooks:
        hook.remove()
    assert macs / 1e9 == pytest.approx(zoo.info(name).macs_g, **tolerance)


@pytest.mark.parametrize(
    "name",
    [
        *("PPHGNet_tiny", "PPHGNetV2_B0", "PPLCNet_x0_25"),
        *("ResNet34", "EfficientNetB0", SWINS[0], "EfficientNetLite0"),
    ],
)
def test_another_number_of_classes_changes_only_the_last_layer(name: str) -> None:
    layer = zoo.build(name, 10)
    thousand = {key: t.shape for key, t in lazy_state(name).items()}
    ten = {key: t.shape for key, t in layer.state_dict().items()}
    assert thousand.keys() == ten.keys()
    changed = [key for key in ten if ten[key] != thousand[key]]
    assert changed == list(ten)[-2:]
    assert run(layer, images(224)).shape == (2, 10)


@pytest.mark.parametrize(
    ("name", "architecture"),
    [
        ("PPHGNet_tiny_ssld", "PPHGNet_tiny"),
        ("ResNet50_rsb", "ResNet50"),
        (f"{SWINS[1]}_22kto1k", SWINS[1]),
        (f"{RES2NET}_ssld", RES2NET),
        ("PPLCNet_x2_5_ssld", "PPLCNet_x2_5"),
    ],
)
def test_a_model_with_other_weights_is_built_with_its_own_name(
    name: str, architecture: str
) -> None:
    assert zoo.info(name).architecture == architecture
    assert list(lazy_state(name)) == list(lazy_state(architecture))


def test_a_built_model_is_in_eval_mode() -> None:
    assert not any(part.training for part in zoo.build("PPHGNet_tiny").sublayers(True))


def test_importing_and_listing_the_zoo_loads_no_heavy_library() -> None:
    code = (
        "import sys; from hgdeploy import zoo; [zoo.info(name) for name in zoo.names()]; "
        "zoo.imagenet_labels(); "
        "print(sorted({'paddle', 'cv2', 'PIL', 'rich'} & set(sys.modules))); "
        "zoo.build('PPHGNet_tiny'); "
        "print([n for n in ('resnet', 'swin') if f'hgdeploy.zoo.networks.{n}' in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


def test_random_weights_leave_photographs_undecided() -> None:
    name = "PPLCNet_x0_25"
    preprocess = Preprocessor(zoo.info(name).preprocess)
    photographs = [read_image(path) for path in sorted(IMAGES.glob("*.jpg"))]
    logits = run(random_layer(name, 1000), np.stack([preprocess(one) for one in photographs]))
    assert 0.5 < logits.std(1).min() <= logits.std(1).max() < 5


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'PPHGNet_tinny', did you mean 'PPHGNet_tiny'\?"):
        zoo.build("PPHGNet_tinny")


@pytest.mark.parametrize("count", [0, -3])
def test_a_model_without_classes_is_refused(count: int) -> None:
    with pytest.raises(
        ConfigError, match=f"num_classes is {count}, expected a whole number from 1"
    ):
        zoo.build("PPHGNet_tiny", count)


@pytest.mark.parametrize(
    ("name", "top1", "top5", "v100_ms"),
    [
        ("PPHGNet_tiny", 79.83, 95.04, 1.77),
        ("PPHGNet_tiny_ssld", 81.95, 96.12, 1.77),
        ("PPHGNet_small", 81.51, 95.82, 2.52),
        ("PPHGNet_small_ssld", 83.82, 96.81, 2.52),
        ("PPHGNet_base", None, None, None),
        ("PPHGNet_base_ssld", 85.00, 97.35, 5.97),
        ("PPHGNetV2_B0", 77.77, 93.91, 0.52),
        ("PPHGNetV2_B1", 79.18, 94.57, 0.58),
        ("PPHGNetV2_B2", 81.74, 95.88, 0.95),
        ("PPHGNetV2_B3", 82.98, 96.43, 1.18),
        ("PPHGNetV2_B4", 83.57, 96.72, 1.46),
        ("PPHGNetV2_B5", 84.75, 97.32, 2.84),
        ("PPHGNetV2_B6", 86.30, 97.84, 5.29),
        ("PPLCNet_x0_25", 51.86, 75.65, 0.72),
        ("PPLCNet_x0_35", 58.09, 80.83, 0.69),
        ("PPLCNet_x0_5", 63.14, 84.66, 0.70),
        ("PPLCNet_x0_5_ssld", 66.10, 86.46, None),
        ("PPLCNet_x0_75", 68.18, 88.30, 0.71),
        ("PPLCNet_x1_0", 71.32, 90.03, 0.73),
        ("PPLCNet_x1_0_ssld", 74.39, 92.09, None),
        ("PPLCNet_x1_5", 73.71, 91.53, 0.82),
        ("PPLCNet_x2_0", 75.18, 92.27, 0.94),
        ("PPLCNet_x2_5", 76.60, 93.00, None),
        ("PPLCNet_x2_5_ssld", 80.82, 95.33, None),
        ("ResNet34", 74.57, 92.14, 1.97),
        ("ResNet34_vd", 75.98, 92.98, 2.00),
        ("ResNet50", 76.50, 93.00, 2.54),
        ("ResNet50_vd", 79.12, 94.44, 2.60),
        ("ResNet50_rsb", 80.40, None, 2.54),
        ("EfficientNetB0", 77.38, 93.31, 1.96),
        ("EfficientNetB1", 79.15, 94.41, 2.88),
        (SWINS[0], 81.2, 95.5, 6.59),
        (SWINS[1], None, None, None),
        (f"{SWINS[1]}_22kto1k", 85.2, 97.5, 13.53),
        (RES2NET, None, None, None),
        (f"{RES2NET}_ssld", 85.13, 97.42, 11.45),
        (RESNEXT, 85.37, 97.69, 55.07),
        ("EfficientNetLite0", 75.1, None, None),
        ("EfficientNetLite1", 76.7, None, None),
        ("EfficientNetLite2", 77.6, None, None),
    ],
)
def test_published_figures_are_listed(
    name: str, top1: float | None, top5: float | None, v100_ms: float | None
) -> None:
    info = zoo.info(name)
    assert (info.top1, info.top5, info.v100_ms) == (top1, top5, v100_ms)


def test_each_published_model_can_be_fetched_from_one_place() -> None:
    root = (*EFFICIENTNETS, f"{RES2NET}_ssld", RESNEXT)
    for name in zoo.names():
        info = zoo.info(name)
        official = (info.weights_url, info.inference_url)
        if name in ("PPHGNet_base", "ResNet50_rsb", SWINS[1], RES2NET):
            assert (*official, info.package) == (None, None, None)
        elif name in LITES:
            assert official == (None, None)
            assert info.package is not None
            assert info.package.sha256[:8] in info.package.member
        else:
            folder = "" if name in root else "/legendary_models"
            file = f"{name}_ssld" if name in PPHGNETS_V2 else name
            assert official == (
                f"{OFFICIAL_URL}{folder}/{file}_pretrained.pdparams",
                f"{OFFICIAL_URL}/inference/{file}_infer.tar",
            )


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PPHGNet_tiny", "232 -> 224 pil bicubic"),
        ("PPHGNet_small_ssld", "236 -> 224 pil bicubic"),
        ("PPHGNetV2_B4", "232 -> 224 pil bicubic"),
        ("PPLCNet_x1_0_ssld", "256 -> 224 cv2 bilinear"),
        ("ResNet50_rsb", "256 -> 224 cv2 bilinear"),
        ("EfficientNetB1", "272 -> 240 cv2 bilinear"),
        (SWINS[0], "256 -> 224 pil bicubic"),
        ("EfficientNetLite1", "274 -> 240 pil bicubic"),
        ("EfficientNetLite2", "297 -> 260 pil bicubic"),
    ],
)
def test_preprocessing_is_described_in_a_few_words(name: str, words: str) -> None:
    assert zoo.info(name).describe_preprocess() == words


@pytest.mark.parametrize("name", zoo.names())
def test_preprocessing_ends_in_the_network_s_input(name: str) -> None:
    info = zoo.info(name)
    resize, crop, normalize, _ = info.preprocess
    assert isinstance(resize, ResizeImage)
    assert isinstance(crop, CropImage)
    assert isinstance(normalize, NormalizeImage)
    assert crop.size == (info.input_size, info.input_size)
    if name in LITES:
        assert resize.resize_short == round(info.input_size / 0.875)
        assert (normalize.scale, normalize.mean[0], normalize.std[0]) == (1.0, 127.0, 128.0)


def test_labels_are_imagenet_s_in_order() -> None:
    labels = zoo.imagenet_labels()
    assert len(labels) == 1000
    assert labels[0] == "tench, Tinca tinca"
    assert labels[967] == "espresso"
    assert labels[999] == "toilet tissue, toilet paper, bathroom tissue"
    lines = (Path(zoo.__file__).parent / "imagenet1k_label_list.txt").read_text().splitlines()
    assert lines == [f"{index} {label}" for index, label in enumerate(labels)]


@pytest.mark.parametrize("name", LITES)
def test_real_weights_recognise_real_photographs(
    name: str, registry_weights: Callable[[str], Path]
) -> None:
    cv2 = pytest.importorskip("cv2")
    layer = zoo.build(name)
    source = registry_weights(name)
    load_into(layer, read_weights(source), source)
    preprocess = Preprocessor(zoo.info(name).preprocess)
    expected = {"coffee": {967}, "chelsea": {281, 282, 285}, "camera": {872}}
    for image, classes in expected.items():
        rgb = cv2.cvtColor(cv2.imread(str(IMAGES / f"{image}.jpg")), cv2.COLOR_BGR2RGB)
        assert int(run(layer, preprocess(rgb)[None]).argmax()) in classes, image
