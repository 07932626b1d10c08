# SPDX-License-Identifier: Apache-2.0
"""Weights that anyone can reproduce from names and shapes alone."""

from __future__ import annotations

import zlib

import numpy as np


def golden_fill(name: str, shape: tuple[int, ...], gain: float = 1.0) -> np.ndarray:
    """Return the float32 values of the parameter `name`; the golden logits were computed with them.

    The name is the seed. Batch-norm statistics and scales are positive, and weights keep the size
    of the signal from layer to layer. Where activations shrink it until all images have the same
    logits, `gain` on the convolutions makes up for that.
    """
    rng = np.random.RandomState(zlib.crc32(name.encode()) & 0x7FFFFFFF)
    last = name.rpartition(".")[2]
    if last in ("_variance", "scale") or (last == "weight" and len(shape) == 1):
        values = rng.uniform(0.5, 1.5, shape)
    elif last in ("_mean", "bias", "relative_position_bias_table"):
        values = 0.1 * rng.standard_normal(shape)
    else:
        fan = np.prod(shape[1:]) if len(shape) == 4 else shape[0]
        values = rng.standard_normal(shape) * np.sqrt(1 / fan)
        if len(shape) == 4:
            values = values * gain
    return values.astype(np.float32)
