# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation on labelled images: PaddleClas's own, and those of each class."""

from hgdeploy.validation.evaluation.attributes import AttributeEvaluation
from hgdeploy.validation.evaluation.calibration import Calibration, calibration
from hgdeploy.validation.evaluation.classes import (
    ATTRMetric,
    ClassFigures,
    Evaluation,
    Metric,
    TopkAcc,
    TprAtFpr,
)
from hgdeploy.validation.evaluation.judged import Judged, Paired, changes, confusion, paired
from hgdeploy.validation.evaluation.share import Share

__all__ = [
    "ATTRMetric",
    "AttributeEvaluation",
    "Calibration",
    "ClassFigures",
    "Evaluation",
    "Judged",
    "Metric",
    "Paired",
    "Share",
    "TopkAcc",
    "TprAtFpr",
    "calibration",
    "changes",
    "confusion",
    "paired",
]
