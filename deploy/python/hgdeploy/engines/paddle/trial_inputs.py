# SPDX-License-Identifier: Apache-2.0
"""Inputs on which a program is tried: seeded, like images, of the real size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import EngineError, HGDeployError
from hgdeploy.transforms.preprocess import Preprocessor

_SEED = 0
# A batch of one and, since kernels are chosen by shape, of several, where the model leaves it open.
_BATCHES = (1, 2)
_SIZE = 224  # of an image, where neither the model nor its bundle says it
_OTHER_SIZE = 8  # of an axis that is left open and none of an image's
_MOST_CHANNELS = 4
_PATCH = 16  # pixels of nearly one colour, as images have
# Images differ in contrast: an answer that one of them saturates would hide a difference.
_CONTRASTS = (1.0, 0.5, 2.0)


def trial_feeds(inputs: Sequence[TensorSpec], source: Path) -> list[dict[str, NDArray[Any]]]:
    """Return feeds with which to try a program; the same for the same program and bundle.

    Args:
        inputs: what it takes.
        source: its file; the `inference.yml` beside it may say the size of its images.

    Raises:
        EngineError: it takes numbers of a type that numpy does not know.
    """
    random = np.random.default_rng(_SEED)
    size = _bundle_size(source)
    fixed = all(spec.shape[:1] != (-1,) for spec in inputs)
    return [
        {spec.name: _array(random, spec.dtype, _shape(spec.shape, batch, size)) for spec in inputs}
        for batch in (_BATCHES[:1] if fixed else _BATCHES)
    ]


def _bundle_size(source: Path) -> tuple[int, int]:
    try:
        ops = open_bundle(source.parent).preprocess
        size = None if ops is None else Preprocessor(ops).output_size
    except HGDeployError:  # whoever opens the bundle is told
        size = None
    return size or (_SIZE, _SIZE)


def _shape(shape: tuple[int, ...], batch: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Return a shape without open axes."""
    usual = [batch] + [_OTHER_SIZE] * (len(shape) - 1)
    if len(shape) == 4:
        channels_last = 0 < shape[3] <= _MOST_CHANNELS and not 0 < shape[1] <= _MOST_CHANNELS
        usual[1:] = [*size, 3] if channels_last else [3, *size]
    return tuple(n if n > 0 else other for n, other in zip(shape, usual, strict=True))


def _array(random: np.random.Generator, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return numbers as a normalised image has: coarse patches, fine noise, about -2 to 2."""
    if not hasattr(np, dtype):
        raise EngineError(f"the program takes {dtype}, of which no test input can be made")
    coarse = random.standard_normal([-(-n // _PATCH) if n > _PATCH else n for n in shape])
    for axis, n in enumerate(shape):
        if n > _PATCH:
            coarse = np.repeat(coarse, _PATCH, axis).take(range(n), axis)
    values = 0.9 * coarse + 0.3 * random.standard_normal(shape)
    for row in range(len(values) if values.ndim > 1 else 0):
        values[row] *= _CONTRASTS[(row + len(values) - 1) % len(_CONTRASTS)]
    if dtype == "uint8":
        values = np.clip(128 + 58 * values, 0, 255)
    elif not dtype.startswith("float"):
        return (values > 0).astype(dtype)  # 0 and 1, which most meanings of whole numbers allow
    return values.astype(dtype)
