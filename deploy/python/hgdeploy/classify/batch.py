# SPDX-License-Identifier: Apache-2.0
"""One batch: images become tensors, and tensors what the model gives for each of them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.classify.settings import StageTimes
from hgdeploy.engines import Engine, infer_rows
from hgdeploy.engines.fit import check_image
from hgdeploy.errors import ImageError
from hgdeploy.images.reader import ReadImage
from hgdeploy.transforms.prediction import Prediction
from hgdeploy.transforms.preprocess import Preprocessor


@dataclass(frozen=True)
class Image:
    """One image to classify.

    Attributes:
        name: what it is called in its prediction.
        read: makes its tensor, in the array that it is given, if any; raises an `ImageError` where
            it cannot.
    """

    name: str
    read: Callable[[NDArray[Any] | None], ReadImage]


@dataclass(frozen=True)
class Answer:
    """What is known of one image.

    Attributes:
        prediction: what was found in it, or why nothing was.
        row: what the model gave for it, (classes,); None if it failed.
    """

    prediction: Prediction
    row: NDArray[Any] | None


def rows_of(
    images: Sequence[Image],
    engine: Engine,
    preprocessor: Preprocessor,
    times: StageTimes,
    batch_size: int = 1,
) -> list[NDArray[Any] | ImageError]:
    """Return what the model gives for each image, (classes,), or why the image cannot be read.

    Args:
        images: at most one batch.
        engine: the loaded model.
        preprocessor: what makes the images' tensors; says their shape, where they have one.
        times: the seconds of each stage are added to it.
        batch_size: the images of a full batch.

    Raises:
        EngineError: the engine failed.
    """
    rows: dict[int, NDArray[Any] | ImageError] = {}
    tensors: dict[int, NDArray[Any]] = {}
    shape = preprocessor.output_shape
    batch = None if shape is None else np.empty((len(images), *shape), preprocessor.dtype)
    for place, image in enumerate(images):
        start = time.perf_counter()
        try:
            read = image.read(None if batch is None else batch[len(tensors)])
            if batch is None:
                check_image(engine.inputs[0], read.tensor)
            tensors[place] = read.tensor
            times.decode += read.decode
            times.preprocess += read.preprocess
        except ImageError as error:
            rows[place] = error
        times.slowest.append((time.perf_counter() - start, image.name))
    # Tensors of different shapes (no crop, and a model of any size) need separate inferences.
    for _, group in itertools.groupby(tensors, lambda place: tensors[place].shape):
        places = list(group)
        start = time.perf_counter()
        same = np.stack([tensors[i] for i in places]) if batch is None else batch[: len(places)]
        rows.update(zip(places, infer_rows(engine, same, batch_size), strict=True))
        times.infer += time.perf_counter() - start
    return [rows[place] for place in range(len(images))]
