# SPDX-License-Identifier: Apache-2.0
"""The one door through which scores come out of a model, checked when it is opened and used.

A model may have several outputs, give class numbers instead of scores, or lose the batch axis for
one image. Every engine's scores pass here, so that none of these becomes a wrong answer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines.base import Engine, TensorSpec
from hgdeploy.errors import BundleError

_FLOATS = ("float16", "float32", "float64", "bfloat16")


def score_output(outputs: Sequence[TensorSpec], source: Path, name: str | None) -> TensorSpec:
    """Return the output of an image classifier that has its scores.

    Args:
        outputs: the model's outputs.
        source: its file, for the error.
        name: the one that the user chose; None to take the only one.

    Raises:
        BundleError: there are several and none was chosen, or none of that name, or it does not
            give one row of scores for each image.
    """
    listed = "; ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in outputs)
    found = [spec for spec in outputs if name in (None, spec.name)]
    if not found:
        raise BundleError(f"{source} has no output {name!r}; it has {listed}")
    if len(found) > 1:
        raise BundleError(
            f"{source} has {len(found)} outputs, and nothing says which has the scores; write its "
            f"name as output_name under Global in inference.yml, or in the config: {listed}"
        )
    spec = found[0]
    if spec.dtype not in _FLOATS:
        raise BundleError(
            f"{source} gives {spec.dtype} values ({spec.name}), not scores; export it without the "
            "argmax or topk at its end"
        )
    if class_count(spec.shape) is None:
        raise BundleError(f"{source} {_shaped(spec.shape, spec.name)}; {_HINT}")
    return spec


_HINT = (
    "expected one row of scores for each image: (images, classes), or with further axes of size 1; "
    "a squeeze in the model needs its axes named, so that it keeps the batch"
)


def _shaped(shape: Sequence[int], name: str) -> str:
    return f"gives {name} of shape {list(shape)}"


def class_count(shape: Sequence[int]) -> int | None:
    """Return how many scores an output of this shape has for each image.

    Args:
        shape: the output's; -1 for an axis of any size.

    Returns:
        The number, -1 where the shape leaves it open, None where it is no row of scores.
    """
    if len(shape) < 2:
        return None
    sizes = [size for size in shape[1:] if size != 1]
    known = [size for size in sizes if size != -1]
    if len(known) > 1:
        return None
    # An axis of any size beside one of known size is taken to be 1, which each answer must show.
    return known[0] if known else (-1 if sizes else 1)


def infer_rows(engine: Engine, rows: NDArray[Any], batch_size: int = 1) -> NDArray[Any]:
    """Run a model of one input and one output on `rows` and return the scores of each.

    A model of a larger fixed batch gets zeros after the real rows, as does an engine to which a
    batch of another size costs more than a full one.

    Args:
        engine: the loaded model.
        rows: shape (n, ...), with the input's dtype; n is at most a fixed batch.
        batch_size: the rows of a full batch.

    Returns:
        The scores as (n, classes); the caller owns them.

    Raises:
        TensorError: the rows do not fit the input.
        BundleError: the model does not answer with one row of scores for each of its images.
        EngineError: the engine failed.
    """
    given, declared, count = engine.inputs[0], engine.outputs[0], len(rows)
    missing = max(given.shape[0], batch_size if engine.fills_batches else 0) - count
    if missing > 0:
        rows = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])
    output = engine.infer({given.name: rows})[declared.name]
    wanted, found = class_count(declared.shape), class_count(output.shape)
    fits = output.shape[:1] == rows.shape[:1] and found == math.prod(output.shape[1:])
    # An answer for as many images as there are classes would fit by chance.
    swapped = given.shape[0] == -1 and declared.shape[0] > 1 and wanted == -1
    if swapped or not fits or wanted not in (None, -1, found):
        raise BundleError(
            f"the model {_shaped(output.shape, declared.name)} for {len(rows)} images, and "
            f"declares {list(declared.shape)}; {_HINT}"
        )
    return output.reshape(len(rows), -1)[:count]
