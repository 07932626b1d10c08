# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation on labelled images: PaddleClas's own, and those of each class."""

from hgdeploy.validation.evaluation.attributes import AttributeEvaluation
from hgdeploy.validation.evaluation.calibration import Calibration, calibration
from hgdeploy.validation.evaluation.classes import (
    AccuracyScore,
    ATTRMetric,
    ClassFigures,
    Evaluation,
    HammingDistance,
    LabelMetric,
    Metric,
    TopkAcc,
    TprAtFpr,
    label_metrics,
)
from hgdeploy.validation.evaluation.judged import Judged, Paired, changes, confusion, paired
from hgdeploy.validation.evaluation.share import LabelShare, Share

__all__ = [
    "ATTRMetric",
    "AccuracyScore",
    "AttributeEvaluation",
    "Calibration",
    "ClassFigures",
    "Evaluation",
    "HammingDistance",
    "Judged",
    "LabelMetric",
    "LabelShare",
    "Metric",
    "Paired",
    "Share",
    "TopkAcc",
    "TprAtFpr",
    "calibration",
    "changes",
    "confusion",
    "label_metrics",
    "paired",
]
