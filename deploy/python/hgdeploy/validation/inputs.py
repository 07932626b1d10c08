# SPDX-License-Identifier: Apache-2.0
"""The random inputs on which runs are compared, and how rows are fed to several engines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import Engine, TensorSpec, infer_rows
from hgdeploy.transforms.preprocess import Preprocessor


def common_batch_size(engines: Sequence[Engine], most: int) -> int:
    """Return the largest batch size up to `most` that all engines can take."""
    fixed = [engine.inputs[0].shape[0] for engine in engines if engine.inputs[0].shape[0] > 0]
    return min([most, *fixed])


def infer_in_batches(engine: Engine, rows: NDArray[Any], batch_size: int) -> NDArray[Any]:
    """Run a model on any number of rows, in batches, and return its output for each."""
    starts = range(0, len(rows), batch_size)
    return np.concatenate([infer_rows(engine, rows[i : i + batch_size]) for i in starts])


def random_rows(
    spec: TensorSpec, bundle: ModelBundle | None, count: int, seed: int
) -> NDArray[Any]:
    """Return standard normal rows, which resemble normalised images.

    Args:
        spec: the model's input.
        bundle: gives the image size if the model leaves it open; without it, the size is 224.
        count: how many rows.
        seed: the same seed gives the same rows.
    """
    size = None
    if bundle is not None and bundle.preprocess is not None:
        size = Preprocessor(bundle.preprocess).output_size
    height, width = size or (224, 224)
    shape = [s if s > 0 else d for s, d in zip(spec.shape[1:], (3, height, width), strict=True)]
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(spec.dtype)
