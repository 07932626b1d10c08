# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's losses: of hard, soft and several labels, and of a teacher's answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hgdeploy.system.libraries import import_library

STUDENT, TEACHER = "Student", "Teacher"
LABEL_LOSSES = ("CELoss", "MultiLabelLoss")
TEACHER_LOSSES = ("DistillationCELoss", "DistillationDMLLoss", "DistillationKLDivLoss")


@dataclass(frozen=True)
class LossTerm:
    """One of the losses that are added up.

    Attributes:
        kind: PaddleClas's name: one of `LABEL_LOSSES`, which look at the labels, or of
            `TEACHER_LOSSES`, which look at the teacher's logits instead.
        weight: what it is multiplied by.
        smoothing: how much of each label is spread over all classes, 0 to 1; only of
            `LABEL_LOSSES`.
        size_sum: the classes' losses are added up and not averaged; only of `MultiLabelLoss`.
        weighted: rare classes count for more; only of `MultiLabelLoss`.
        temperature: what both logits are divided by; only of `DistillationKLDivLoss`.
    """

    kind: str
    weight: float = 1.0
    smoothing: float = 0.0
    size_sum: bool = False
    weighted: bool = False
    temperature: float = 4.0


def total_loss(
    terms: Sequence[LossTerm], logits: Any, labels: Any, teacher: Any = None, shares: Any = None
) -> Any:
    """Return the sum of some losses.

    Args:
        terms: the losses.
        logits: the network's, a float tensor (N, classes).
        labels: an int64 tensor (N,), or a float one (N, classes) of soft or of several labels.
        teacher: the teacher's logits, as the network's; None without one.
        shares: the share of images that have each class, for `LossTerm.weighted`.

    Returns:
        A tensor of one number, the mean over the images.
    """
    parts = [
        _TEACHER[term.kind](term, logits, teacher)
        if term.kind in _TEACHER
        else _LABELS[term.kind](term, logits, labels, shares)
        for term in terms
    ]
    return sum(part * term.weight for part, term in zip(parts, terms, strict=True))


def _cross_entropy(term: LossTerm, logits: Any, labels: Any, _: Any) -> Any:
    """Return `CELoss`.

    PaddleClas takes the softmax of soft labels where it does not smooth them, so Mixup's 1 and 0
    become 0.73 and 0.27 of two classes. Here soft labels stay what they are.
    """
    functional = import_library("paddle", "cpu").nn.functional
    if term.smoothing:
        labels = _smoothed(labels, int(logits.shape[-1]), term.smoothing)
    soft = len(labels.shape) > 1
    return functional.cross_entropy(logits, labels, soft_label=soft)


def _multi_label(term: LossTerm, logits: Any, labels: Any, shares: Any) -> Any:
    """Return `MultiLabelLoss`.

    With `weight_ratio`, PaddleClas multiplies the loss of a class that an image has by e to the
    share of images without it, and of one that it has not by e to the share of those with it.
    """
    paddle = import_library("paddle", "cpu")
    functional = paddle.nn.functional
    if len(labels.shape) == 1:  # one label each
        labels = functional.one_hot(labels, int(logits.shape[-1]))
    there = labels
    if term.smoothing:
        labels = _smoothed(labels, int(logits.shape[-1]), term.smoothing)
    each = functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    if term.weighted:
        shares = paddle.to_tensor(shares, dtype="float32")
        each = each * paddle.exp(there * (1 - shares) + (1 - there) * shares)
    return each.sum(axis=1).mean() if term.size_sum else each.mean()


def _smoothed(labels: Any, classes: int, share: float) -> Any:
    functional = import_library("paddle", "cpu").nn.functional
    if len(labels.shape) == 1:
        labels = functional.one_hot(labels, classes)
    return functional.label_smooth(labels, epsilon=share)


def _like_teacher(_: LossTerm, logits: Any, teacher: Any) -> Any:
    """Return the cross entropy to the teacher's probabilities: the soft labels of SSLD."""
    functional = import_library("paddle", "cpu").nn.functional
    return functional.cross_entropy(logits, functional.softmax(teacher), soft_label=True)


def _mutual(_: LossTerm, logits: Any, teacher: Any) -> Any:
    """Return the mean of the Kullback-Leibler divergences in both directions."""
    functional = import_library("paddle", "cpu").nn.functional
    logs = functional.log_softmax(logits), functional.log_softmax(teacher)
    there, back = (
        functional.kl_div(first, second.exp(), reduction="batchmean")
        for first, second in (logs, logs[::-1])
    )
    return (there + back) / 2


def _divergence(term: LossTerm, logits: Any, teacher: Any) -> Any:
    functional = import_library("paddle", "cpu").nn.functional
    logs = functional.log_softmax(logits / term.temperature)
    wanted = functional.softmax(teacher / term.temperature)
    return functional.kl_div(logs, wanted, reduction="batchmean") * term.temperature**2


_LABELS = {"CELoss": _cross_entropy, "MultiLabelLoss": _multi_label}
_TEACHER = {
    "DistillationCELoss": _like_teacher,
    "DistillationDMLLoss": _mutual,
    "DistillationKLDivLoss": _divergence,
}
