# SPDX-License-Identifier: Apache-2.0
# mypy: allow-subclassing-any
"""Swin Transformer tiny and base (patches of 4, windows of 7, images of 224), for inference.

Layer names follow PaddleClas's parameter tables, so an official `.pdparams` loads as it is.
Every size but the batch is a Python number, so that an exported graph computes no shapes and has
no branches: OpenVINO and TensorRT accept it. Importing this module imports Paddle; the registry
does so only when a model is built.
"""

from __future__ import annotations

import numpy as np
import paddle
from numpy.typing import NDArray
from paddle import nn
from paddle.nn import functional

_IMAGE = 224
_PATCH = 4
_WINDOW = 7
_TOKENS = _WINDOW * _WINDOW
_SHIFT = _WINDOW // 2
_MLP_RATIO = 4
# Added to the attention between two tokens that are only neighbours because of the cyclic shift.
_APART = -100.0


def _relative_position_index() -> NDArray[np.int64]:
    """Return the row of the bias table for each pair of a window's tokens: (49, 49)."""
    row, column = np.divmod(np.arange(_TOKENS, dtype=np.int64), _WINDOW)
    rows = row[:, None] - row + _WINDOW - 1
    columns = column[:, None] - column + _WINDOW - 1
    index: NDArray[np.int64] = rows * (2 * _WINDOW - 1) + columns
    return index


def _by_window(grid: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rearrange a square of tokens into (windows, 49)."""
    count = len(grid) // _WINDOW
    windows: NDArray[np.int64] = grid.reshape(count, _WINDOW, count, _WINDOW).swapaxes(1, 2)
    return windows.reshape(-1, _TOKENS)


def _token_order(size: int, shift: int) -> NDArray[np.int64]:
    """Return the tokens by window, after `shift` rows and columns have moved to the far side."""
    grid = np.arange(size * size, dtype=np.int64).reshape(size, size)
    return _by_window(np.roll(grid, (-shift, -shift), (0, 1))).reshape(-1)


def _shift_mask(size: int) -> NDArray[np.float32]:
    """Return what shifted windows add to their attention: (windows, 1, 49, 49).

    The windows at the bottom and right contain tokens from opposite borders; only tokens of the
    same region may attend to each other.
    """
    edge = np.zeros(size, np.int64)
    edge[-_WINDOW:-_SHIFT] = 1
    edge[-_SHIFT:] = 2
    region = _by_window(3 * edge[:, None] + edge)
    apart = region[:, None, :] != region[:, :, None]
    mask: NDArray[np.float32] = (apart[:, None] * _APART).astype(np.float32)
    return mask


class _Attention(nn.Layer):
    """Multi-head attention inside windows: (windows, 49, C) to the same shape."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.channels = channels
        self.relative_position_bias_table = self.create_parameter(
            [(2 * _WINDOW - 1) ** 2, heads],
            default_initializer=nn.initializer.TruncatedNormal(std=0.02),
        )
        self.register_buffer(
            "relative_position_index", paddle.to_tensor(_relative_position_index())
        )
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: paddle.Tensor, mask: paddle.Tensor | None) -> paddle.Tensor:
        head = self.channels // self.heads
        qkv = self.qkv(x).reshape([-1, _TOKENS, 3, self.heads, head]).transpose([2, 0, 3, 1, 4])
        q, k, v = paddle.unbind(qkv, axis=0)
        attention = paddle.matmul(q * head**-0.5, k, transpose_y=True) + self._bias()
        if mask is not None:
            by_image = attention.reshape([-1, mask.shape[0], self.heads, _TOKENS, _TOKENS]) + mask
            attention = by_image.reshape([-1, self.heads, _TOKENS, _TOKENS])
        attended = paddle.matmul(functional.softmax(attention, axis=-1), v)
        return self.proj(attended.transpose([0, 2, 1, 3]).reshape([-1, _TOKENS, self.channels]))

    def _bias(self) -> paddle.Tensor:
        """Return the bias of each head and pair of tokens: (heads, 49, 49)."""
        index = self.relative_position_index.reshape([-1])
        rows = paddle.index_select(self.relative_position_bias_table, index)
        return rows.transpose([1, 0]).reshape([self.heads, _TOKENS, _TOKENS])


class _MLP(nn.Layer):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, _MLP_RATIO * channels)
        self.fc2 = nn.Linear(_MLP_RATIO * channels, channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class _Block(nn.Layer):
    """Attention inside windows, then an MLP, each with a norm before it and a shortcut around it.

    Args:
        channels: channels of the tokens.
        heads: attention heads.
        size: height and width in tokens, a multiple of the window.
        shifted: whether to move the windows by half a window, so that tokens of neighbours meet.
    """

    def __init__(self, channels: int, heads: int, size: int, *, shifted: bool) -> None:
        super().__init__()
        self.channels = channels
        self.size = size
        self.norm1 = nn.LayerNorm(channels)
        self.attn = _Attention(channels, heads)
        self.norm2 = nn.LayerNorm(channels)
        self.mlp = _MLP(channels)
        order = _token_order(size, _SHIFT if shifted else 0)
        # These follow from the size, so they do not belong to the weights.
        self.register_buffer("order", paddle.to_tensor(order), persistable=False)
        self.register_buffer("inverse", paddle.to_tensor(np.argsort(order)), persistable=False)
        mask = paddle.to_tensor(_shift_mask(size)) if shifted else None
        self.register_buffer("mask", mask, persistable=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        # One gather shifts the tokens and splits them into windows. Rolls and transpositions would
        # be many more nodes, and Paddle's oneDNN passes break on the latter before a linear layer.
        y = paddle.index_select(self.norm1(x), self.order, axis=1)
        y = self.attn(y.reshape([-1, _TOKENS, self.channels]), self.mask)
        y = y.reshape([-1, self.size * self.size, self.channels])
        x = x + paddle.index_select(y, self.inverse, axis=1)
        return x + self.mlp(self.norm2(x))


class _PatchMerging(nn.Layer):
    """Joins every 2x2 tokens, column by column, into one token with twice the channels."""

    def __init__(self, channels: int, size: int) -> None:
        super().__init__()
        self.channels = channels
        self.size = size
        self.reduction = nn.Linear(4 * channels, 2 * channels, bias_attr=False)
        self.norm = nn.LayerNorm(4 * channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        half = self.size // 2
        x = x.reshape([-1, half, 2, half, 2, self.channels]).transpose([0, 1, 3, 4, 2, 5])
        return self.reduction(self.norm(x.reshape([-1, half * half, 4 * self.channels])))


class _PatchEmbed(nn.Layer):
    """Turns patches of 4x4 pixels into tokens: (N, 3, 224, 224) to (N, 3136, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.proj = nn.Conv2D(3, channels, _PATCH, stride=_PATCH)
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.norm(paddle.flatten(self.proj(x), start_axis=2).transpose([0, 2, 1]))


class _Stage(nn.Layer):
    """Blocks, every second one shifted, then a merging of patches in all stages but the last."""

    def __init__(self, channels: int, depth: int, heads: int, size: int) -> None:
        super().__init__()
        self.blocks = nn.LayerList(
            # Also in the last stage, which is a single window: there the mask splits it into four.
            _Block(channels, heads, size, shifted=index % 2 == 1)
            for index in range(depth)
        )
        self.downsample = _PatchMerging(channels, size) if size > _WINDOW else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        for block in self.blocks:
            x = block(x)
        return x if self.downsample is None else self.downsample(x)


class SwinTransformer(nn.Layer):
    """A Swin classifier: float32 images (N, 3, 224, 224) to logits (N, num_classes).

    Args:
        channels: channels of the first stage; each stage has twice as many as the one before it.
        depths: blocks of each stage.
        heads: attention heads of each stage.
        num_classes: classes of the linear layer.
    """

    def __init__(
        self, channels: int, depths: tuple[int, ...], heads: tuple[int, ...], num_classes: int
    ) -> None:
        super().__init__()
        self.patch_embed = _PatchEmbed(channels)
        size = _IMAGE // _PATCH
        self.layers = nn.LayerList(
            _Stage(channels << stage, depth, heads[stage], size >> stage)
            for stage, depth in enumerate(depths)
        )
        self.features = channels << len(depths) - 1
        self.norm = nn.LayerNorm(self.features)
        self.head = nn.Linear(self.features, num_classes)

    # Paddle's to_static drops the first argument only if it is called `self`.
    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Return logits (N, num_classes) for float32 images (N, 3, 224, 224)."""
        x = self.patch_embed(x)
        for layer in self.layers:
            x = layer(x)
        # Paddle Inference prints a line at each mean over an axis.
        x = functional.adaptive_avg_pool1d(self.norm(x).transpose([0, 2, 1]), 1)
        return self.head(x.reshape([-1, self.features]))


def swin_tiny(num_classes: int) -> SwinTransformer:
    """SwinTransformer_tiny_patch4_window7_224: 28.29 M parameters, 4.35 GMAC."""
    return SwinTransformer(96, (2, 2, 6, 2), (3, 6, 12, 24), num_classes)


def swin_base(num_classes: int) -> SwinTransformer:
    """SwinTransformer_base_patch4_window7_224: 87.77 M parameters, 15.13 GMAC."""
    return SwinTransformer(128, (2, 2, 18, 2), (4, 8, 16, 32), num_classes)
