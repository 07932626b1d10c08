# SPDX-License-Identifier: Apache-2.0
"""What a step of training takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Batch:
    """Images with their labels.

    An image that cannot be read is left out, so a batch may have fewer images than were asked for;
    it may even have none. Such a batch is yielded all the same, so that every rank takes the same
    number of steps.

    Attributes:
        number: its place in the epoch of this rank, from 0. To go on after it, skip `number + 1`.
        images: float32 of shape (n, 3, height, width).
        labels: int64 of shape (n,), the class of each image; or float32 of shape (n, classes), how
            much of each class an image has: of several labels 0 or 1, and of mixed images parts
            with the sum 1. `TrainingData.soft` says which; it never changes between batches.
        paths: the files, in the images' order.
        indices: int64 of shape (n,), their places in the data set. Some images are in an epoch
            twice where there are several ranks, so that all have as many.
    """

    number: int
    images: NDArray[np.float32]
    labels: NDArray[np.int64] | NDArray[np.float32]
    paths: tuple[str, ...]
    indices: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.paths)
