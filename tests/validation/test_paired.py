# SPDX-License-Identifier: Apache-2.0
"""Two runs compared image by image, and calibration, against plain computations of the same."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hgdeploy.validation.evaluation import (
    Evaluation,
    Judged,
    Paired,
    Share,
    TopkAcc,
    calibration,
    changes,
    confusion,
    paired,
)
from hgdeploy.validation.evaluation.plot import confusion_png


def judged(answers: list[int], labels: list[int]) -> dict[int, Judged]:
    pairs = enumerate(zip(answers, labels, strict=True))
    return {n: Judged((answer,), answer == label, 0.5) for n, (answer, label) in pairs}


def test_each_image_is_what_it_is_beside_the_reference():
    labels = [0, 0, 0, 0, 0]
    own, reference = judged([0, 1, 0, 1, 2], labels), judged([0, 0, 1, 1, 1], labels)
    assert list(changes(own, reference).values()) == ["", "lost", "gained", "", "other"]
    found = paired(own, reference)
    assert (found.both, found.lost, found.gained, found.neither) == (1, 1, 1, 2)
    assert found.same == Share(2, 5)
    assert found.difference == 0
    assert found.p_value == 1
    assert confusion(labels, own) == {(0, 0): 2, (0, 1): 2, (0, 2): 1}


def test_only_images_that_both_runs_classify_are_compared():
    own, reference = judged([0, 1, 0], [0, 0, 0]), judged([0, 0, 0], [0, 0, 0])
    del own[0], reference[2]
    assert changes(own, reference) == {1: "lost"}
    assert paired(own, reference).images == 1


@pytest.mark.parametrize(("lost", "gained"), [(0, 0), (0, 7), (5, 1), (30, 41), (700, 600)])
def test_mcnemar_s_test_is_that_of_a_fair_coin(lost, gained):
    trials = lost + gained
    tail = sum(math.comb(trials, k) for k in range(min(lost, gained) + 1)) / 2**trials
    found = Paired(Share(1000, 1000 + trials), 1000, lost, gained, 0)
    assert found.p_value == pytest.approx(min(1.0, 2 * tail))


@pytest.mark.parametrize("odds", [(0.85, 0.02, 0.03, 0.10), (0.5, 0.1, 0.05, 0.35)])
def test_the_interval_of_a_difference_covers_it_as_often_as_it_says(odds):
    counts = np.random.default_rng(0).multinomial(400, odds, 2000)
    true, inside = odds[2] - odds[1], 0
    for both, lost, gained, neither in counts.tolist():
        low, high = Paired(Share(0, 400), both, lost, gained, neither).interval
        inside += low <= true <= high
    assert 0.935 < inside / 2000 < 0.985


def test_the_interval_of_equal_runs_holds_no_difference_and_of_two_opposites_is_within_bounds():
    low, high = Paired(Share(100, 100), 90, 0, 0, 10).interval
    assert low < 0 < high
    assert high - low < 0.1
    low, high = Paired(Share(0, 10), 0, 10, 0, 0).interval
    assert -1 <= low < -0.5
    assert low <= high < 0


def test_calibration_is_the_mean_gap_of_fifteen_bins():
    random = np.random.default_rng(1)
    scores = random.uniform(0.1, 1, 500).astype(np.float32)
    right = random.random(500) < scores**2
    found = calibration(
        [Judged((0,), bool(r), float(s)) for s, r in zip(scores, right, strict=True)]
    )
    gap, images = 0.0, 0
    for i in range(15):
        inside = (scores.astype(float) > i / 15) & (scores.astype(float) <= (i + 1) / 15)
        if inside.any():
            gap += inside.mean() * abs(right[inside].mean() - scores[inside].mean())
            images += int(inside.sum())
    assert images == 500
    assert found.error == pytest.approx(gap, abs=1e-6)
    assert sum(each.images for each in found.bins) == 500
    low, high = found.interval
    assert low < found.error < high


def test_scores_of_zero_and_one_have_a_bin():
    found = calibration([Judged((0,), True, 1.0), Judged((0,), False, 0.0)])
    assert found.error == 0
    assert [each.high for each in found.bins] == [pytest.approx(1 / 15), 1.0]


def test_an_evaluation_knows_whether_scores_are_probabilities():
    evaluation = Evaluation(3, (TopkAcc(),))
    evaluation.add(np.array([0.2, 0.5, 0.3], np.float32), 1)
    assert evaluation.probabilities
    evaluation.add(np.array([2.0, -1.5, 0.5], np.float32), 0)
    assert not evaluation.probabilities


def test_the_same_matrix_is_the_same_picture():
    pytest.importorskip("matplotlib")
    pairs = {(0, 0): 3, (0, 1): 1, (1, 1): 4}
    first = confusion_png(pairs, ["a $x$ b", "名"], "title")
    assert first.startswith(b"\x89PNG")
    assert first == confusion_png(pairs, ["a $x$ b", "名"], "title")
