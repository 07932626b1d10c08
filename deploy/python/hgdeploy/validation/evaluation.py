# SPDX-License-Identifier: Apache-2.0
"""The figures of a labelled evaluation, gathered image by image: PaddleClas's, and each class's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.validation.accuracy import wilson_interval
from hgdeploy.validation.compare import top_classes

# A probability of 0 has no logarithm; float32's smallest, whose is -103, stands for it.
_LEAST = float(np.finfo(np.float32).smallest_subnormal)


@dataclass(frozen=True)
class Share:
    """A share of images, with its 95 % Wilson interval.

    Attributes:
        hits: how many of them.
        images: of how many.
    """

    hits: int
    images: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; 0 where there are no images, as in PaddleClas."""
        return self.hits / self.images if self.images else 0.0

    def __str__(self) -> str:
        """Return it in per cent with its interval; `-` where there are no images."""
        if not self.images:
            return "-"
        low, high = wilson_interval(self.hits, self.images)
        return f"{self.value:.2%} ({low:.2%} to {high:.2%})"


@dataclass(frozen=True)
class ClassFigures:
    """How one class is told from the others.

    Attributes:
        index: the class.
        recall: the share of its images that are taken for it.
        precision: the share of those taken for it that are of it.
    """

    index: int
    recall: Share
    precision: Share


class Evaluation:
    """Gathers scores of labelled images; see `add`.

    Args:
        classes: how many the model has.
        topk: which top-k accuracies to count.
        smoothing: of the labels in the cross entropy, as `CELoss.epsilon` of PaddleClas's.

    Attributes:
        images: how many were added.
        classes: how many the model has.
    """

    def __init__(self, classes: int, topk: Sequence[int], smoothing: float = 0.0) -> None:
        self.images, self.classes = 0, classes
        self._smoothing, self._loss = smoothing, 0.0
        self._hits = dict.fromkeys(topk, 0)
        self._confusion = np.zeros((3, classes), np.int64)  # of the class, taken for it, and both

    def add(self, scores: NDArray[Any], label: int) -> None:
        """Take one image.

        Args:
            scores: its probabilities, one a class.
            label: its class.
        """
        self.images += 1
        best = top_classes(scores[None], max(self._hits, default=1))[0]
        for k in self._hits:
            self._hits[k] += int(label in best[:k])
        self._confusion[0, label] += 1
        self._confusion[1, best[0]] += 1
        self._confusion[2, label] += int(best[0] == label)
        logs = np.log(np.maximum(scores.astype(np.float64), _LEAST))
        self._loss -= (1 - self._smoothing) * logs[label] + self._smoothing * logs.mean()

    @property
    def loss(self) -> float:
        """The mean cross entropy."""
        return float(self._loss) / self.images if self.images else 0.0

    def accuracy(self, k: int) -> Share:
        """Return the share of images whose class is among the best `k`."""
        return Share(self._hits[k], self.images)

    @property
    def per_class(self) -> list[ClassFigures]:
        """The figures of each class that an image is of, or is taken for."""
        return [
            ClassFigures(index, Share(hits, own), Share(hits, taken))
            for index, (own, taken, hits) in enumerate(self._confusion.T.tolist())
            if own or taken
        ]


def paddleclas_figures(evaluation: Evaluation, topk: Sequence[int], *, loss: bool) -> str:
    """Return the figures as PaddleClas's `tools/eval.py` prints them, with five decimals.

    Args:
        evaluation: all images of a run.
        topk: which accuracies, in order.
        loss: the config asks for the loss.
    """
    losses = {"CELoss": evaluation.loss, "loss": evaluation.loss} if loss else {}
    head = ", ".join(f"{name}: {value:.5f}" for name, value in losses.items())
    tail = ", ".join(f"top{k}: {evaluation.accuracy(k).value:.5f}" for k in topk)
    return f"[Eval][Epoch 0][Avg]{head}, {tail}"
