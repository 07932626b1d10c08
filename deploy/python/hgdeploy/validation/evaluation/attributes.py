# SPDX-License-Identifier: Apache-2.0
"""The figures of a model for several labels, as PaddleClas's metrics for these have them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.validation.evaluation.classes import (
    AccuracyScore,
    ATTRMetric,
    ClassFigures,
    LabelMetric,
)
from hgdeploy.validation.evaluation.judged import Judged
from hgdeploy.validation.evaluation.share import LabelShare, Share

_HALF = 0.5  # what a score must exceed, but for ATTRMetric
_LEAST = float(np.finfo(np.float32).smallest_subnormal)  # whose logarithm stands for that of 0
_EPSILON = 1e-20  # PaddleClas's, so that what there is none of counts as 0
_NAMES = (
    *("ma", "label_f1", "label_pos_recall", "label_neg_recall"),
    *("instance_f1", "instance_acc", "instance_prec", "instance_recall"),
)


class AttributeEvaluation:
    """Gathers scores of images whose attributes are known; see `add`.

    PaddleClas's `ATTRMetric` compares the logits with the threshold, and not what the sigmoid makes
    of them: an attribute counts as found from a score of 0.62 on where the threshold is 0.5. So it
    does here. For the other metrics it is found where its score exceeds 0.5.

    Args:
        classes: how many attributes the model has.
        metrics: the config's: `ATTRMetric` alone, or others.
        smoothing: of the labels in the loss, as `MultiLabelLoss.epsilon` of PaddleClas's; None
            where no loss is asked for.

    Attributes:
        images: how many were added.
        classes: how many attributes the model has.
    """

    def __init__(
        self, classes: int, metrics: Sequence[LabelMetric], smoothing: float | None = None
    ) -> None:
        self.images, self.classes = 0, classes
        self._metrics, self._smoothing, self._loss = metrics, smoothing, [0.0, 0]
        limits = [each.threshold for each in metrics if isinstance(each, ATTRMetric)]
        self._limit = 1 / (1 + math.exp(-limits[0])) if limits else _HALF
        self._wrong, self._right, self._complete = LabelShare(), LabelShare(), LabelShare()
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
        labels, wrong = int(known.sum()), int((found != there)[known].sum())
        self._wrong.add(wrong, labels)
        self._right.add(labels - wrong, labels)
        self._complete.add(int(right), 1)
        if self._smoothing is not None:
            self._add_loss(scores[known], there[known], self._smoothing)
        return Judged(tuple(np.flatnonzero(seen).tolist()), right, math.nan)

    def _add_loss(self, scores: NDArray[Any], there: NDArray[np.bool_], smoothing: float) -> None:
        chances = scores.astype(np.float64)
        wanted = there * (1 - smoothing) + smoothing / self.classes
        logs, rest = (np.log(np.maximum(each, _LEAST)) for each in (chances, 1 - chances))
        self._loss[0] -= float((wanted * logs + (1 - wanted) * rest).sum())
        self._loss[1] += len(scores)

    @property
    def loss(self) -> float:
        """The mean of `MultiLabelLoss` over all known labels; 0 where none was asked for."""
        total, labels = self._loss
        return total / labels if labels else 0.0

    @property
    def shares(self) -> dict[str, LabelShare]:
        """What the metrics count, by PaddleClas's names; nothing of `ATTRMetric`'s means."""
        return {
            type(each).__name__: self._share(each)
            for each in self._metrics
            if not isinstance(each, ATTRMetric)
        }

    def _share(self, metric: LabelMetric) -> LabelShare:
        if isinstance(metric, AccuracyScore):
            return self._right if metric.base == "label" else self._complete
        return self._wrong

    def figures(self) -> dict[str, float]:
        """Return PaddleClas's figures, by its names and in the metrics' order."""
        if self.shares:
            return {name: share.value for name, share in self.shares.items()}
        return self._attribute_figures()

    def _attribute_figures(self) -> dict[str, float]:
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
        told = [f"{name}: {value:.5f}" for name, value in self.figures().items()]
        if self.shares:
            loss = f"MultiLabelLoss: {self.loss:.5f}, loss: {self.loss:.5f}"
            before = "" if self._smoothing is None else loss
            return f"[Eval][Epoch 0][Avg]{before}, {', '.join(told)}"
        return f"[Eval][Epoch 0][Avg]evalres: {' '.join(told)}"
