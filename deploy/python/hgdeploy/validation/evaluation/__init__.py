# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation on labelled images: PaddleClas's own, and those of each class."""

from hgdeploy.validation.evaluation.attributes import AttributeEvaluation
from hgdeploy.validation.evaluation.classes import (
    ATTRMetric,
    ClassFigures,
    Evaluation,
    Metric,
    Share,
    TopkAcc,
    TprAtFpr,
)

__all__ = [
    "ATTRMetric",
    "AttributeEvaluation",
    "ClassFigures",
    "Evaluation",
    "Metric",
    "Share",
    "TopkAcc",
    "TprAtFpr",
]
