# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation, against plain computations of the same."""

from __future__ import annotations

import numpy as np
import pytest

from hgdeploy.validation.evaluation import Evaluation, Share, TopkAcc, TprAtFpr


def rows(seed: int, images: int, classes: int) -> np.ndarray:
    raw = np.random.default_rng(seed).dirichlet(np.ones(classes), images)
    return raw.astype(np.float32)


def evaluated(scores: np.ndarray, labels: np.ndarray, *metrics, smoothing=None) -> Evaluation:
    evaluation = Evaluation(scores.shape[1], metrics, smoothing)
    for row, label in zip(scores, labels, strict=True):
        evaluation.add(row, int(label))
    return evaluation


def plain_tpr_at_fpr(scores: np.ndarray, labels: np.ndarray, most: float) -> str:
    """Every threshold in turn; a later one must find more to be taken."""
    found, best = "", 0.0
    own, others = scores[labels != 0, 1], scores[labels == 0, 1]
    for i in range(10_000):
        threshold = i / 10_000
        tpr = float((own > threshold).mean()) if len(own) else 0.0
        fpr = float((others > threshold).mean()) if len(others) else 0.0
        if fpr <= most and tpr > best:
            best, found = tpr, f"threshold: {threshold}, fpr: {fpr}, tpr: {tpr:.5f}"
    return found


@pytest.mark.parametrize("most", [0.0, 0.001, 0.2, 1.0])
@pytest.mark.parametrize("of", ["both", "own", "others"])
def test_true_positives_at_a_rate_of_false_ones(most, of):
    scores = rows(1, 60, 2)
    labels = (np.random.default_rng(2).random(60) < scores[:, 1]).astype(int)
    labels = {"both": labels, "own": labels * 0 + 1, "others": labels * 0}[of]
    line = evaluated(scores, labels, TprAtFpr(most), TopkAcc((1,))).paddleclas_line()
    top1 = (scores.argmax(1) == labels).mean()
    expected = plain_tpr_at_fpr(scores, labels, most)
    assert line == f"[Eval][Epoch 0][Avg], {expected}, top1: {top1:.5f}"


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_accuracy_and_cross_entropy(smoothing):
    scores, labels = rows(3, 50, 7), np.random.default_rng(4).integers(0, 7, 50)
    evaluation = evaluated(scores, labels, TopkAcc((1, 3, 9)), smoothing=smoothing)
    logs = np.log(scores.astype(np.float64))
    losses = (1 - smoothing) * logs[np.arange(50), labels] + smoothing * logs.mean(1)
    assert evaluation.loss == pytest.approx(-losses.mean())
    ranks = (scores > scores[np.arange(50), labels][:, None]).sum(1)
    assert evaluation.topk == (1, 3)
    assert evaluation.paddleclas_line() == (
        f"[Eval][Epoch 0][Avg]CELoss: {evaluation.loss:.5f}, loss: {evaluation.loss:.5f}, "
        f"top1: {(ranks < 1).mean():.5f}, top3: {(ranks < 3).mean():.5f}"
    )


def test_classes_are_counted_as_what_they_are_and_as_what_they_are_taken_for():
    scores = np.eye(4, dtype=np.float32)[[0, 0, 1, 2]]
    evaluation = evaluated(scores, np.array([0, 1, 1, 1]), TopkAcc((1,)))
    figures = {each.index: (each.recall, each.precision) for each in evaluation.per_class}
    assert figures == {
        0: (Share(1, 1), Share(1, 2)),
        1: (Share(1, 3), Share(1, 1)),
        2: (Share(0, 0), Share(0, 1)),
    }


def test_a_probability_of_zero_gives_a_finite_loss():
    evaluation = evaluated(np.array([[1.0, 0.0]], np.float32), np.array([1]), smoothing=0.0)
    assert evaluation.loss == pytest.approx(103.28, abs=0.01)


def test_a_share_of_nothing_is_a_dash():
    assert str(Share(0, 0)) == "-"
    assert str(Share(3, 5)) == "60.00% (23.07% to 88.24%)"
