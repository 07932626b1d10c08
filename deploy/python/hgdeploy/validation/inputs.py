# SPDX-License-Identifier: Apache-2.0
"""The inputs that runs are compared on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import (
    Engine,
    TensorSpec,
    infer_rows,
)
from hgdeploy.transforms.preprocess import Preprocessor


def batch_of(engines: Sequence[Engine], wanted: int) -> int:
    """Return the batch all can take: the smallest fixed one, else what is wanted."""
    fixed = [engine.inputs[0].shape[0] for engine in engines if engine.inputs[0].shape[0] > 0]
    return min([wanted, *fixed])


def outputs(engine: Engine, rows: NDArray[Any], batch: int) -> NDArray[Any]:
    parts = [infer_rows(engine, rows[i : i + batch]) for i in range(0, len(rows), batch)]
    return np.concatenate(parts)


def random_rows(
    spec: TensorSpec, bundle: ModelBundle | None, count: int, seed: int
) -> NDArray[Any]:
    """Return standard normal rows, which is what normalised images look like.

    Args:
        spec: the model's input.
        bundle: tells the image size where the model leaves it open; else it is 224.
        count: how many rows.
        seed: the same seed gives the same rows.
    """
    size = None
    if bundle is not None and bundle.preprocess is not None:
        size = Preprocessor(bundle.preprocess).output_size
    height, width = size or (224, 224)
    shape = [s if s > 0 else d for s, d in zip(spec.shape[1:], (3, height, width), strict=True)]
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(spec.dtype)
