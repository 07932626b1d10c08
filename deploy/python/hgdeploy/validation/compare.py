# SPDX-License-Identifier: Apache-2.0
"""How far apart two engines' probabilities for the same inputs are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The logarithms of probabilities below this are not compared: no user sees them, and a float32
# softmax keeps few digits of them.
LOG_FLOOR = 1e-6


@dataclass(frozen=True)
class Comparison:
    """A candidate's probabilities against a reference's, over N rows of C classes.

    Attributes:
        rows: N.
        max_abs: largest absolute difference.
        mean_abs: mean absolute difference.
        max_rel: largest difference relative to the reference, where that is at least `LOG_FLOOR`.
        max_log: largest difference of natural logarithms, on the same entries.
        min_cosine: smallest cosine similarity of two rows.
        top1_agreement: share of rows with the same best class.
        topk_agreement: mean share of the reference's k best classes that the candidate has too.
        topk: that k.
        max_sum_error: largest distance from 1 of the sum of a candidate's row.
        finite: neither side has NaN or infinity.
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


def compare(reference: NDArray[Any], candidate: NDArray[Any], topk: int = 5) -> Comparison:
    """Compare two float arrays of probabilities of shape (N, C), N and C at least 1.

    Where either has NaN or infinity the differences are infinite and nothing agrees.

    Raises:
        ValueError: the shapes differ or are not (N, C).
    """
    if reference.shape != candidate.shape or reference.ndim != 2 or not reference.size:
        raise ValueError(f"shapes {reference.shape} and {candidate.shape}, expected one (N, C)")
    a, b = reference.astype(np.float64), candidate.astype(np.float64)
    rows, classes = a.shape
    k = min(topk, classes)
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        far = float("inf")
        return Comparison(rows, far, far, far, far, -1.0, 0.0, 0.0, k, far, finite=False)
    difference = np.abs(a - b)
    seen = a >= LOG_FLOOR
    with np.errstate(divide="ignore"):  # the logarithm of a candidate's zero is minus infinity
        logs = np.abs(np.log(a[seen]) - np.log(np.maximum(b[seen], 0)))
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosine = np.divide((a * b).sum(axis=1), norms, out=np.zeros(rows), where=norms > 0)
    best_a, best_b = top_classes(a, k), top_classes(b, k)
    shared = [len(set(x) & set(y)) / k for x, y in zip(best_a, best_b, strict=True)]
    return Comparison(
        rows=rows,
        max_abs=float(difference.max()),
        mean_abs=float(difference.mean()),
        max_rel=float((difference[seen] / a[seen]).max(initial=0.0)),
        max_log=float(logs.max(initial=0.0)),
        min_cosine=float(cosine.min()),
        top1_agreement=float(np.mean(best_a[:, 0] == best_b[:, 0])),
        topk_agreement=float(np.mean(shared)),
        topk=k,
        max_sum_error=float(np.abs(b.sum(axis=1) - 1).max()),
        finite=True,
    )


def top_classes(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Return the k best classes of each row, best first; ties as in `postprocess.Topk`."""
    return np.argsort(scores, axis=1, kind="stable")[:, ::-1][:, :k]
