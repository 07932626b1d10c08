# SPDX-License-Identifier: Apache-2.0
"""The figures of an attribute model on labelled images, as PaddleClas's `ATTRMetric` has them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.validation.evaluation.classes import ATTRMetric, ClassFigures
from hgdeploy.validation.evaluation.judged import Judged
from hgdeploy.validation.evaluation.share import Share

_EPSILON = 1e-20  # PaddleClas's, so that what there is none of counts as 0
_NAMES = (
    *("ma", "label_f1", "label_pos_recall", "label_neg_recall"),
    *("instance_f1", "instance_acc", "instance_prec", "instance_recall"),
)


class AttributeEvaluation:
    """Gathers scores of images whose attributes are known; see `add`.

    PaddleClas compares the logits with the threshold, and not what the sigmoid makes of them: an
    attribute counts as found from a score of 0.62 on where the threshold is 0.5. So it does here.

    Args:
        classes: how many attributes the model has.
        metric: the config's.

    Attributes:
        images: how many were added.
        classes: how many attributes the model has.
    """

    def __init__(self, classes: int, metric: ATTRMetric) -> None:
        self.images, self.classes = 0, classes
        self._limit = 1 / (1 + math.exp(-metric.threshold))
        # Of each attribute: it is there, it is not, and both found so; then found where it is not.
        self._counts = np.zeros((5, classes), np.int64)
        self._sums = np.zeros(3)  # of the images' accuracies, precisions and recalls

    def add(self, scores: NDArray[Any], label: NDArray[np.int64]) -> Judged:
        """Take one image, and return which attributes are found in it.

        Args:
            scores: what the sigmoid gives, one an attribute.
            label: 1 for each attribute that it has, 0 for one that it has not, -1 for an unknown.
        """
        self.images += 1
        known, there, seen = label != -1, label == 1, scores > self._limit
        found = known & seen
        away = label == 0
        self._counts += (there, away, there & found, away & ~found, away & found)
        both, either = int((there & found).sum()), int((there | found).sum())
        self._sums += [both / max(n, _EPSILON) for n in (either, found.sum(), there.sum())]
        right = bool((found == there)[known].all())
        return Judged(tuple(np.flatnonzero(seen).tolist()), right, math.nan)

    def figures(self) -> dict[str, float]:
        """Return PaddleClas's figures, by its names and in its order."""
        there, away, hits, rejected, alarms = self._counts.astype(float)
        positive, negative = hits / (there + _EPSILON), rejected / (away + _EPSILON)
        precision = hits / (hits + alarms + _EPSILON)
        recall = positive.mean()  # PaddleClas takes the mean for the recall of each attribute
        f1 = (2 * precision * recall / (precision + recall + _EPSILON)).mean()
        accuracy, exact, complete = self._sums / max(self.images, 1)
        both = 2 * exact * complete / (exact + complete + _EPSILON)
        middle = ((positive + negative) / 2).mean()
        values = (middle, f1, recall, negative.mean(), both, accuracy, exact, complete)
        return dict(zip(_NAMES, map(float, values), strict=True))

    @property
    def per_class(self) -> list[ClassFigures]:
        """The figures of each attribute that an image has, or seems to have."""
        return [
            ClassFigures(index, Share(hits, there), Share(hits, hits + alarms))
            for index, (there, _, hits, _, alarms) in enumerate(self._counts.T.tolist())
            if there or hits + alarms
        ]

    def paddleclas_line(self) -> str:
        """Return the figures as PaddleClas's `tools/eval.py` prints them."""
        told = " ".join(f"{name}: {value:.5f}" for name, value in self.figures().items())
        return f"[Eval][Epoch 0][Avg]evalres: {told}"
