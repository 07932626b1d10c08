# SPDX-License-Identifier: Apache-2.0
"""The figures of an evaluation, against plain computations of the same."""

from __future__ import annotations

import numpy as np
import pytest

from hgdeploy.validation.evaluation import (
    AccuracyScore,
    AttributeEvaluation,
    ATTRMetric,
    Evaluation,
    HammingDistance,
    LabelShare,
    Share,
    TopkAcc,
    TprAtFpr,
)


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


def test_attributes_have_the_figures_of_their_formulas():
    """Each figure as PaddleClas defines it, over all images at once."""
    random = np.random.default_rng(6)
    logits, labels = random.normal(0, 2, (40, 5)), random.integers(-1, 2, (40, 5))
    labels[:, 3] = 0  # nobody has it
    labels[7] = 0
    logits[7] = -9  # nothing there and nothing found
    evaluation = AttributeEvaluation(5, [ATTRMetric()])
    for row, label in zip(1 / (1 + np.exp(-logits)), labels, strict=True):
        evaluation.add(row.astype(np.float32), label)
    found = np.where(labels == -1, -1, logits > 0.5)  # PaddleClas compares logits
    there, seen = labels == 1, found == 1
    both, either = there & seen, there | seen

    def share(part: np.ndarray, of: np.ndarray) -> np.ndarray:
        return np.divide(part, of, out=np.zeros(len(part)), where=of > 0)

    positive = share(both.sum(0), there.sum(0))
    negative = share(((labels == 0) & (found == 0)).sum(0), (labels == 0).sum(0))
    precision, recall = share(both.sum(0), seen.sum(0)), positive.mean()
    exact, complete = (
        share(both.sum(1), seen.sum(1)).mean(),
        share(both.sum(1), there.sum(1)).mean(),
    )
    expected = {
        "ma": ((positive + negative) / 2).mean(),
        "label_f1": share(2 * precision * recall, precision + recall).mean(),
        "label_pos_recall": recall,
        "label_neg_recall": negative.mean(),
        "instance_f1": 2 * exact * complete / (exact + complete),
        "instance_acc": share(both.sum(1), either.sum(1)).mean(),
        "instance_prec": exact,
        "instance_recall": complete,
    }
    assert evaluation.figures() == pytest.approx(expected)
    told = " ".join(f"{name}: {value:.5f}" for name, value in expected.items())
    assert evaluation.paddleclas_line() == f"[Eval][Epoch 0][Avg]evalres: {told}"
    figures = {each.index: each for each in evaluation.per_class}
    assert figures[0].recall == Share(int(both[:, 0].sum()), int(there[:, 0].sum()))
    assert figures[3].recall == Share(0, 0)
    assert figures[3].precision == Share(0, int(seen[:, 3].sum()))


@pytest.mark.parametrize("least", [-1, 0])  # some labels are not known, or all are
@pytest.mark.parametrize("smoothing", [None, 0.0, 0.2])
def test_wrong_and_right_labels_are_shares_of_those_known(least, smoothing):
    random = np.random.default_rng(8)
    scores = random.random((60, 5)).astype(np.float32)
    labels = np.where(random.random((60, 5)) < 0.8, scores > 0.5, scores < 0.5).astype(int)
    labels[random.random((60, 5)) < 0.2] = least
    known = labels != -1
    right = (scores > 0.5) == (labels == 1)
    metrics = [AccuracyScore(), HammingDistance()]
    found = attributes(scores, labels, metrics, smoothing)
    share = right[known].mean()
    assert found.figures() == pytest.approx({"AccuracyScore": share, "HammingDistance": 1 - share})
    exact = attributes(scores, labels, [AccuracyScore("sample")])
    complete = Share(int((right | ~known).all(1).sum()), 60)
    assert exact.figures() == {"AccuracyScore": pytest.approx(complete.value)}
    assert exact.shares["AccuracyScore"].interval == pytest.approx(complete.interval)
    epsilon = smoothing or 0.0
    wanted = (labels == 1) * (1 - epsilon) + epsilon / 5
    logs = wanted * np.log(scores) + (1 - wanted) * np.log(1 - scores.astype(float))
    loss = -logs[known].mean()
    told = "" if smoothing is None else f"MultiLabelLoss: {loss:.5f}, loss: {loss:.5f}"
    figures = f"AccuracyScore: {share:.5f}, HammingDistance: {1 - share:.5f}"
    assert found.paddleclas_line() == f"[Eval][Epoch 0][Avg]{told}, {figures}"


def attributes(scores, labels, metrics, smoothing=None) -> AttributeEvaluation:
    evaluation = AttributeEvaluation(scores.shape[1], metrics, smoothing)
    for row, label in zip(scores, labels, strict=True):
        evaluation.add(row, label)
    return evaluation


def share_of(counts: np.ndarray, labels: int) -> LabelShare:
    share = LabelShare()
    for hits in counts.tolist():
        share.add(hits, labels)
    return share


def test_the_interval_of_labels_covers_what_it_should():
    """Labels that go together are worth as many as there are images; independent ones more."""
    random = np.random.default_rng(9)
    alone = [share_of(random.binomial(10, 0.2, 80), 10) for _ in range(300)]
    together = [share_of(10 * random.binomial(1, 0.2, 80), 10) for _ in range(300)]
    for shares in (alone, together):
        covered = sum(low <= 0.2 <= high for low, high in (each.interval for each in shares))
        assert 0.92 <= covered / 300 <= 0.98
    assert share_of(np.full(80, 3), 10).interval == pytest.approx(Share(240, 800).interval)
    assert share_of(np.zeros(80, int), 10).interval == pytest.approx(Share(0, 80).interval)
    assert share_of(np.array([3]), 10).interval[1] > 0.8  # one image says next to nothing
    assert (LabelShare().value, LabelShare().interval, str(LabelShare())) == (0, (0, 1), "-")
