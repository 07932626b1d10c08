# SPDX-License-Identifier: Apache-2.0
"""The random inputs on which runs are compared, and how rows are fed to several engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import Engine, TensorSpec, infer_rows
from hgdeploy.engines.fit import channels_last
from hgdeploy.errors import BundleError, ValidationError
from hgdeploy.transforms.preprocess import Preprocessor

# Noise of full contrast drives many a network to a score of 1, which hides what goes on behind it.
_CONTRASTS = (1.0, 0.25, 0.0625)


def common_batch_size(engines: Sequence[Engine], most: int) -> int:
    """Return the largest batch size up to `most` that all engines can take."""
    fixed = [engine.inputs[0].shape[0] for engine in engines if engine.inputs[0].shape[0] > 0]
    return min([most, *fixed])


def infer_in_batches(engine: Engine, rows: NDArray[Any], batch_size: int) -> NDArray[Any]:
    """Run a model on any number of rows, in batches, and return its output for each."""
    starts = range(0, len(rows), batch_size)
    return np.concatenate([infer_rows(engine, rows[i : i + batch_size]) for i in starts])


def common_input(engines: Mapping[str, Engine]) -> TensorSpec:
    """Return the input that all runs have in common: one may leave open what another fixes.

    Args:
        engines: the loaded models by the run's name, at least one.

    Raises:
        ValidationError: no input fits all of them.
    """
    (first, one), *others = ((name, engine.inputs[0]) for name, engine in engines.items())
    common = one
    for name, spec in others:
        sizes = list(zip(common.shape[1:], spec.shape[1:], strict=True))
        if spec.dtype != one.dtype or any(a != b and -1 not in (a, b) for a, b in sizes):
            raise ValidationError(
                f"{first} takes {one.dtype} {list(one.shape)} and {name} {spec.dtype} "
                f"{list(spec.shape)}, so the same inputs do not fit both; convert the bundle again"
            )
        shape = (one.shape[0], *(max(pair) for pair in sizes))
        common = TensorSpec(one.name, one.dtype, shape)
    return common


def usual_image(bundle: ModelBundle | None) -> tuple[int, int, int]:
    """Return channels, height and width of what a bundle's preprocessing makes.

    Where nothing says so, images are in colour, of 224 x 224 pixels.
    """
    if bundle is None or bundle.preprocess is None:
        return 3, 224, 224
    preprocessor = Preprocessor(bundle.preprocess)
    return (preprocessor.channels, *(preprocessor.output_size or (224, 224)))


def random_rows(
    spec: TensorSpec, bundle: ModelBundle | None, count: int, seed: int
) -> NDArray[Any]:
    """Return random rows of three contrasts in turn: like normalised images, or like pixels.

    Args:
        spec: the model's input, NCHW or NHWC.
        bundle: gives what the model leaves open; without it, images are 224 x 224 and in colour.
        count: how many rows.
        seed: the same seed gives the same rows.

    Raises:
        BundleError: the model takes numbers of a type that numpy does not have.
    """
    channels, *size = usual_image(bundle)
    usual = (*size, channels) if channels_last(spec.shape) else (channels, *size)
    shape = [s if s > 0 else d for s, d in zip(spec.shape[1:], usual, strict=True)]
    random = np.random.default_rng(seed)
    if not hasattr(np, spec.dtype):
        raise BundleError(f"the model takes {spec.dtype}, of which no random input can be made")
    dtype = np.dtype(spec.dtype)
    middle = min(255, np.iinfo(dtype).max) // 2 if dtype.kind in "iu" else 0
    values = random.standard_normal((count, *shape))
    if middle:
        values = random.uniform(-middle, middle, values.shape)
    for i, contrast in enumerate(_CONTRASTS):
        values[i :: len(_CONTRASTS)] *= contrast
    return (middle + values).astype(dtype)
