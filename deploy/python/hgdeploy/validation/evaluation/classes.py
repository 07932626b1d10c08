# SPDX-License-Identifier: Apache-2.0
"""The figures of a classifier on labelled images, gathered image by image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.validation.compare import top_classes
from hgdeploy.validation.evaluation.judged import Judged
from hgdeploy.validation.evaluation.share import Share

# A probability of 0 has no logarithm; float32's smallest, whose is -103, stands for it.
_THRESHOLDS = 10_000
_LEAST = float(np.finfo(np.float32).smallest_subnormal)
# How far the sum of probabilities may be from 1; bf16 and int8 softmax are well within it.
_SUM_TOLERANCE = 0.02


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


@dataclass(frozen=True)
class TopkAcc:
    """PaddleClas's metric of this name: the share of images whose class is among the best.

    Attributes:
        topk: among how many, one figure each.
    """

    topk: tuple[int, ...] = (1, 5)


@dataclass(frozen=True)
class TprAtFpr:
    """PaddleClas's metric of this name: how many of class 1 are found with few false alarms.

    Attributes:
        max_fpr: the share of images of class 0 that may be taken for class 1.
    """

    max_fpr: float = 0.001


@dataclass(frozen=True)
class ATTRMetric:
    """PaddleClas's metric of this name, for attribute models; see `AttributeEvaluation`.

    Attributes:
        threshold: what a logit must exceed.
    """

    threshold: float = 0.5


@dataclass(frozen=True)
class HammingDistance:
    """PaddleClas's metric of this name: the share of labels that are wrong; less is better."""


@dataclass(frozen=True)
class AccuracyScore:
    """PaddleClas's metric of this name, for images with several labels.

    Attributes:
        base: `label` for the share of labels that are right, `sample` for the share of images with
            all of them right.
    """

    base: str = "label"


LabelMetric = ATTRMetric | HammingDistance | AccuracyScore
"""A metric for images that may have several of the classes."""
Metric = TopkAcc | TprAtFpr | LabelMetric


def label_metrics(metrics: Sequence[Metric]) -> tuple[LabelMetric, ...]:
    """Return those of the metrics that are for images with several labels."""
    return tuple(each for each in metrics if isinstance(each, LabelMetric))


class Evaluation:
    """Gathers scores of labelled images; see `add`.

    Args:
        classes: how many the model has.
        metrics: what PaddleClas's line has, in order; a top-k of more than all classes is left out,
            as by PaddleClas.
        smoothing: of the labels in the cross entropy, as `CELoss.epsilon` of PaddleClas's; None
            where no loss is asked for.

    Attributes:
        images: how many were added.
        classes: how many the model has.
        topk: the top-k accuracies that are counted.
        probabilities: whether all scores so far were probabilities that sum to 1.
    """

    def __init__(
        self, classes: int, metrics: Sequence[Metric], smoothing: float | None = None
    ) -> None:
        self.images, self.classes, self.probabilities = 0, classes, True
        asked = [k for metric in metrics if isinstance(metric, TopkAcc) for k in metric.topk]
        self.topk = tuple(k for k in dict.fromkeys(asked) if k <= classes)
        self._metrics, self._smoothing, self._loss = metrics, smoothing, 0.0
        self._hits = dict.fromkeys(self.topk, 0)
        self._confusion = np.zeros((3, classes), np.int64)  # of the class, taken for it, and both
        self._of_class_1: tuple[list[float], list[float]] = ([], [])  # of other images, of its own

    def add(self, scores: NDArray[Any], label: int) -> Judged:
        """Take one image, and return what it is taken for.

        Args:
            scores: its probabilities, one a class.
            label: its class.
        """
        self.images += 1
        best = top_classes(scores[None], max(self.topk, default=1))[0]
        for k in self.topk:
            self._hits[k] += int(label in best[:k])
        self._confusion[0, label] += 1
        self._confusion[1, best[0]] += 1
        self._confusion[2, label] += int(best[0] == label)
        logs = np.log(np.maximum(scores.astype(np.float64), _LEAST))
        smoothing = self._smoothing or 0.0
        self._loss -= (1 - smoothing) * logs[label] + smoothing * logs.mean()
        if any(isinstance(metric, TprAtFpr) for metric in self._metrics):
            self._of_class_1[int(label != 0)].append(float(scores[1]))
        apart = abs(float(scores.sum(dtype=np.float64)) - 1)
        self.probabilities &= apart <= _SUM_TOLERANCE and float(scores.min()) >= 0
        return Judged((int(best[0]),), bool(best[0] == label), float(scores[best[0]]))

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

    def paddleclas_line(self) -> str:
        """Return the figures as PaddleClas's `tools/eval.py` prints them, with five decimals."""
        loss = f"CELoss: {self.loss:.5f}, loss: {self.loss:.5f}"
        figures = ", ".join(map(self._figure, self._metrics))
        return f"[Eval][Epoch 0][Avg]{'' if self._smoothing is None else loss}, {figures}"

    def figures(self) -> dict[str, float]:
        """Return the metrics' figures by name, in their order; of `TprAtFpr`, the share found."""
        found = {}
        for metric in self._metrics:
            if isinstance(metric, TprAtFpr):
                found["tpr"] = self._tpr_at_fpr(metric.max_fpr)[2]
            elif isinstance(metric, TopkAcc):
                counted = [k for k in metric.topk if k in self.topk]
                found |= {f"top{k}": self.accuracy(k).value for k in counted}
        return found

    def _figure(self, metric: Metric) -> str:
        if isinstance(metric, TprAtFpr):
            threshold, fpr, tpr = self._tpr_at_fpr(metric.max_fpr)
            return f"threshold: {threshold}, fpr: {fpr}, tpr: {tpr:.5f}" if tpr else ""
        topk = metric.topk if isinstance(metric, TopkAcc) else ()
        counted = [k for k in topk if k in self.topk]
        return ", ".join(f"top{k}: {self.accuracy(k).value:.5f}" for k in counted)

    def _tpr_at_fpr(self, most: float) -> tuple[float, float, float]:
        """Return the least of 10,000 thresholds by which most of class 1 are found, and shares.

        Returns:
            The threshold; the share of false alarms; the share found, 0 where no threshold does.
        """
        thresholds = np.arange(_THRESHOLDS) / _THRESHOLDS
        fpr, tpr = (_above(np.array(own, np.float32), thresholds) for own in self._of_class_1)
        allowed = np.where(fpr <= most, tpr, 0.0)
        best = int(allowed.argmax())
        return float(thresholds[best]), float(fpr[best]), float(allowed[best])


def _above(scores: NDArray[np.float32], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return which share of the scores is above each threshold; none of no scores."""
    below = np.searchsorted(np.sort(scores), thresholds.astype(np.float32), side="right")
    return (len(scores) - below) / max(len(scores), 1)
