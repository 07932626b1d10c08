# SPDX-License-Identifier: Apache-2.0
"""How far apart two engines' scores for the same inputs are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines.ending import Ending

Kind = Literal["probabilities", "independent", "logits"]
"""What scores are: probabilities that sum to one, independent ones, or logits."""

AgreementBy = Literal["top-1", "labels", "distance"]
"""What it means that two rows of scores agree; see `Comparison.top1_agreement`."""

# What each is called, in a line and at the head of a table.
AGREEMENT: Mapping[AgreementBy, str] = {
    "top-1": "top-1 agreement",
    "labels": "agreement on the labels from 0.5 on",
    "distance": "share of scores within 5 %",
}

# How far the sum of a row may be from 1 where only the scores say that they are probabilities.
_SUM_TOLERANCE = 1e-3
# A class of a multi-label model is seen in an image from this score on.
SEEN_FROM = 0.5
# Two single scores agree within this share of their range.
_SINGLE_SCORE = 0.05
# The logarithms of probabilities below this are not compared: no user sees them, and a float32
# softmax keeps few digits of them.
LOG_FLOOR = 1e-6
# A row in which one class alone is above that is compared down to this: its 1 says nothing of the
# logits behind it, the small ones do. Paddle's softmax ends at exp(-64).
_SATURATED_FLOOR = 1e-20
# Log-odds are compared this far from 0 and 1: libraries compute a sigmoid with an absolute error of
# 1e-7, and near 1 a float32 keeps few digits of the distance.
_ODDS_FLOOR = 1e-2


@dataclass(frozen=True)
class Comparison:
    """A candidate's scores against a reference's, over N rows of C classes.

    Attributes:
        rows: N.
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        max_rel: largest difference relative to the reference, where that is at least `LOG_FLOOR`.
        max_log: largest difference of the logits that probabilities show: of natural logarithms,
            or log-odds of independent ones, on the same entries; 0 for logits. A row with one such
            entry is compared further down.
        min_cosine: smallest cosine similarity of two rows.
        top1_agreement: share of rows that agree, by `agreement_by`: with the same best class
            (top-1); for independent probabilities, with the same classes from 0.5 on (labels); for
            a single score, within 5 % of the range of the reference's scores, which is 1 for a
            probability (distance).
        topk_agreement: mean share of the reference's k best classes that the candidate has too.
        topk: that k.
        max_sum_error: largest distance from 1 of the sum of a candidate's row of probabilities; 0
            for other scores.
        finite: neither side has NaN or infinity.
        scale: largest magnitude of the reference's logits; 1 for probabilities.
        agreement_by: what `top1_agreement` is a share of.
    """

    rows: int
    max_abs: float
    mean_abs: float
    max_rel: float
    max_log: float
    min_cosine: float
    top1_agreement: float
    topk_agreement: float
    topk: int
    max_sum_error: float
    finite: bool
    scale: float = 1.0
    agreement_by: AgreementBy = "top-1"

    @property
    def agreement(self) -> str:
        """The share of rows that agree, and what that means, for a line of text."""
        return f"{AGREEMENT[self.agreement_by]} {self.top1_agreement:.4f}"


def kind_of(ending: Ending | None, scores: NDArray[Any]) -> Kind:
    """Return what scores are.

    Args:
        ending: how the model's graph ends; None where that is not known, and the scores decide.
        scores: some of them, (N, C).
    """
    if ending is not None:
        by_name: dict[str | None, Kind] = {"softmax": "probabilities", "sigmoid": "independent"}
        return by_name.get(ending.activation, "logits")
    near_one = np.abs(scores.sum(axis=1, dtype=np.float64) - 1) <= _SUM_TOLERANCE
    return "probabilities" if near_one.all() and (scores >= 0).all() else "logits"


def compare(
    reference: NDArray[Any], candidate: NDArray[Any], topk: int = 5, kind: Kind = "probabilities"
) -> Comparison:
    """Compare two float arrays of scores of shape (N, C), N and C at least 1.

    Where either has NaN or infinity the differences are infinite and nothing agrees.

    Raises:
        ValueError: the shapes differ or are not (N, C).
    """
    if reference.shape != candidate.shape or reference.ndim != 2 or not reference.size:
        raise ValueError(f"shapes {reference.shape} and {candidate.shape}, expected one (N, C)")
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    rows, classes = a.shape
    k = min(topk, classes)
    by = agreement_by(kind, classes)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        far = float("inf")
        return Comparison(
            rows, far, far, far, far, -1.0, 0.0, 0.0, k, far, finite=False, agreement_by=by
        )
    difference = np.abs(a - b)
    seen = a >= LOG_FLOOR
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(axis=1), norms, out=np.zeros(rows), where=norms > 0)
    best_a, best_b = top_classes(a, k), top_classes(b, k)
    shared = [len(set(x) & set(y)) / k for x, y in zip(best_a, best_b, strict=True)]
    scale = float(np.abs(a).max()) if kind == "logits" else 1.0
    same = best_a[:, 0] == best_b[:, 0]
    if by == "distance":
        span = (float(np.ptp(a)) or scale) if kind == "logits" else 1.0
        same = difference[:, 0] <= _SINGLE_SCORE * span
    elif by == "labels":
        same = ~label_flips(a, b).any(axis=1)
    return Comparison(
        rows=rows,
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        max_rel=float((difference[seen] / a[seen]).max(initial=0.0)),
        max_log=_logit_difference(a, b, kind),
        min_cosine=float(cosine.min()),
        top1_agreement=float(np.mean(same)),
        topk_agreement=float(np.mean(shared)),
        topk=k,
        max_sum_error=float(np.abs(b.sum(axis=1) - 1).max()) if kind == "probabilities" else 0.0,
        finite=True,
        scale=scale,
        agreement_by=by,
    )


def agreement_by(kind: Kind, classes: int) -> AgreementBy:
    """Return what it means that two rows of so many scores agree."""
    if classes == 1:
        return "distance"
    return "labels" if kind == "independent" else "top-1"


def label_flips(a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which classes of a multi-label model are seen by one of two runs only."""
    return np.asarray((a >= SEEN_FROM) != (b >= SEEN_FROM))


def _logit_difference(a: NDArray[Any], b: NDArray[Any], kind: Kind) -> float:
    """Return the largest difference of the logits that probabilities show."""
    if kind == "logits":
        return 0.0
    seen = a >= LOG_FLOOR
    if kind == "probabilities":
        alone = seen.sum(axis=1, keepdims=True) == 1
        seen = seen | (alone & (a >= _SATURATED_FLOOR))
    # The logarithm of a candidate's zero is minus infinity.
    with np.errstate(divide="ignore"):
        differences = np.log(a[seen]) - np.log(np.maximum(b[seen], 0))
        if kind == "independent":
            seen = (a >= _ODDS_FLOOR) & (1 - a >= _ODDS_FLOOR)
            x, y = a[seen], np.clip(b[seen], 0, 1)
            differences = np.log(x / (1 - x)) - np.log(y) + np.log1p(-y)
    return float(np.abs(differences).max(initial=0.0))


def top_classes(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Return the k best classes of each row, best first; ties as in `postprocess.Topk`."""
    return np.argsort(scores, axis=1, kind="stable")[:, ::-1][:, :k]
