# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's postprocessing: from a row of scores to classes, labels, and the printed line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import whole
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.attributes import Attributes
from hgdeploy.transforms.prediction import Prediction

Labels = Mapping[int, str]
# PaddleClas rounds Top-k and multi-label scores to this many decimals before it prints them.
_SCORE_DECIMALS = 5


@dataclass(frozen=True)
class Topk:
    """The `topk` best classes.

    Attributes:
        topk: how many; a model with fewer classes gives them all.
        labels: names by class id; None for no names.
    """

    topk: int = 1
    labels: Labels | None = None
    probabilities: ClassVar[bool] = True

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction; equal scores rank the higher class first."""
        order = np.argsort(scores, kind="stable")[-self.topk :][::-1]
        return _listed(path, order, scores, self.labels)


@dataclass(frozen=True)
class ThreshOutput:
    """The best class if its score passes a threshold, else a default one.

    A model of two classes answers `label_1` when the second score reaches `threshold`, else
    `label_0` with the complement of that score.
    """

    threshold: float = 0.0
    default_label_index: int = 0
    label_0: str = "0"
    label_1: str = "1"
    labels: Labels | None = None
    probabilities: ClassVar[bool] = True

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction."""
        if len(scores) == 2:
            if scores[1] < self.threshold:
                return Prediction(path, (0,), (float(1 - scores[1]),), (self.label_0,))
            return Prediction(path, (1,), (float(scores[1]),), (self.label_1,))
        best = int(np.argsort(scores, kind="stable")[-1])
        chosen = best if scores[best] > self.threshold else self.default_label_index
        label = self.labels[chosen] if self.labels is not None else ""
        return Prediction(path, (chosen,), (float(scores[chosen]),), (label,))


@dataclass(frozen=True)
class MultiLabelThreshOutput:
    """Every class whose score reaches a threshold, in order of class id."""

    threshold: float = 0.5
    labels: Labels | None = None
    probabilities: ClassVar[bool] = False

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction."""
        return _listed(path, np.flatnonzero(scores >= self.threshold), scores, self.labels)


@dataclass(frozen=True)
class ScoreOutput:
    """The model's output itself; for models that grade rather than classify.

    Attributes:
        decimal_places: to which it is rounded; None leaves it as it is.
    """

    decimal_places: int | None
    labels: ClassVar[Labels | None] = None
    probabilities: ClassVar[bool] = False

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction."""
        places = self.decimal_places
        given = scores if places is None else np.around(scores, places)
        return Prediction(path, None, tuple(given.tolist()), ())


Output = Topk | ThreshOutput | MultiLabelThreshOutput | ScoreOutput | Attributes


@dataclass(frozen=True)
class Postprocess:
    """What is made of a row of scores.

    Attributes:
        output: the function that makes the prediction.
        labels_given: the config spoke of labels itself, so that the bundle's are not used.
        usual_labels: names for a model that has as many classes, where nobody has others.
    """

    output: Output
    labels_given: bool = True
    usual_labels: Labels | None = None

    def with_topk(self, topk: int) -> Postprocess:
        """Return the same with another Top-k.

        Raises:
            ConfigError: the output is no Top-k, or `topk` is below 1.
        """
        if not isinstance(self.output, Topk):
            raise ConfigError(
                f"topk does not apply: this model's output is {type(self.output).__name__}"
            )
        topk = check("topk", topk, whole(1))
        return dataclasses.replace(self, output=dataclasses.replace(self.output, topk=topk))

    def with_labels(self, labels: Labels) -> Postprocess:
        """Return the same with names for the classes; an output without classes stays as it is."""
        if isinstance(self.output, ScoreOutput | Attributes):
            return self
        return dataclasses.replace(self, output=dataclasses.replace(self.output, labels=labels))

    def fitted(self, classes: int, model: Path, on_warning: OnLine) -> Postprocess:
        """Return this for a model of so many classes, with the usual labels where they fit.

        Args:
            classes: how many classes the model has; -1 where it does not say.
            model: the model's file, for messages.
            on_warning: called with a line where the usual labels do not fit.

        Raises:
            BundleError: see `check_classes`.
        """
        self.check_classes(classes, model)
        usual, alone = self.usual_labels, dataclasses.replace(self, usual_labels=None)
        if usual is None or self.labels_given or self.output.labels is not None:
            return alone
        if classes == len(usual):
            return alone.with_labels(usual)
        if isinstance(self.output, Topk | MultiLabelThreshOutput):
            on_warning(
                f"{model} has {classes} classes and not {len(usual)}, so the usual names do not "
                "fit, and its classes have none; give its own class_id_map_file"
            )
        return alone

    def check_classes(self, classes: int, model: Path) -> None:
        """Refuse labels that are not one for each of the model's classes.

        Args:
            classes: how many classes the model has; -1 where it does not say.
            model: the model's file, for the error.

        Raises:
            BundleError: how many labels there are, or how many attributes, and how many classes.
        """
        labels, output = self.output.labels, self.output
        if classes == -1:
            return
        if isinstance(output, Attributes) and output.classes != classes:
            raise BundleError(
                f"{model} has {classes} classes, but {type(output).__name__} is for "
                f"{output.classes}; give the PostProcess that belongs to the model"
            )
        if labels is not None and set(labels) != set(range(classes)):
            raise BundleError(
                f"{model} has {classes} classes, but the label list has {len(labels)} (ids "
                f"{min(labels)} to {max(labels)}); give the model's own class_id_map_file, or null "
                "for no names"
            )
        if isinstance(output, ThreshOutput) and output.default_label_index >= classes:
            raise BundleError(
                f"{model} has {classes} classes, but ThreshOutput.default_label_index is "
                f"{output.default_label_index}"
            )


def _listed(
    path: str, ids: NDArray[np.intp], scores: NDArray[np.float32], labels: Labels | None
) -> Prediction:
    rounded = np.around([float(scores[i]) for i in ids], _SCORE_DECIMALS)
    return Prediction(
        path,
        tuple(int(i) for i in ids),
        tuple(float(score) for score in rounded),
        tuple(labels[int(i)] for i in ids) if labels is not None else (),
    )
