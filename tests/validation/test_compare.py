# SPDX-License-Identifier: Apache-2.0
"""The figures of a comparison, on rows whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from hgdeploy.validation.accuracy import wilson_interval
from hgdeploy.validation.compare import compare


def test_equal_rows_have_no_difference():
    rows = np.array([[0.7, 0.2, 0.1]], np.float32)
    found = compare(rows, rows)
    assert (found.max_abs, found.max_log, found.top1_agreement, found.finite) == (0, 0, 1, True)
    assert found.min_cosine == pytest.approx(1)


def test_figures_are_those_computed_by_hand():
    a = np.array([[0.5, 0.25, 0.25, 0.0], [0.1, 0.2, 0.3, 0.4]])
    b = np.array([[0.4, 0.35, 0.25, 0.0], [0.1, 0.2, 0.5, 0.2]])
    found = compare(a, b, topk=2)
    assert found.rows == 2
    assert found.max_abs == pytest.approx(0.2)
    assert found.mean_abs == pytest.approx(0.6 / 8)
    assert found.max_rel == pytest.approx(0.2 / 0.3)
    assert found.max_log == pytest.approx(math.log(2))
    assert found.top1_agreement == 0.5
    # Row 1: {0, 2} (the higher class wins a tie) against {0, 1}; row 2: {3, 2} against {2, 3}.
    # Ties rank the higher class first: {0, 2} against {0, 1}, and {3, 2} against {2, 3}.
    assert found.topk_agreement == pytest.approx((0.5 + 1) / 2)
    assert found.max_sum_error == pytest.approx(0)


def test_what_nobody_sees_is_not_compared_as_logarithm():
    a = np.array([[0.9, 0.1 - 1e-9, 1e-9]])
    assert compare(a, np.array([[0.9, 0.1, 0.0]])).max_log < 1e-7
    assert compare(np.array([[0.9, 0.1]]), np.array([[1.0, 0.0]])).max_log == math.inf


def test_a_row_of_one_certain_class_is_compared_by_its_small_scores():
    right = np.array([[1.0, 1e-12, 1e-25]])
    assert compare(right, np.array([[1.0, 2e-12, 9e-25]])).max_log == pytest.approx(np.log(2))
    # In a row with two classes that a user sees, they alone count.
    two = np.array([[0.5, 0.5, 1e-12]])
    assert compare(two, np.array([[0.5, 0.5, 9e-12]])).max_log == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_agrees_with_nothing(bad):
    found = compare(np.array([[0.5, 0.5]]), np.array([[0.5, bad]]))
    assert not found.finite
    assert (found.top1_agreement, found.max_abs) == (0, math.inf)


@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 3)])
def test_shapes_must_be_one(shape):
    with pytest.raises(ValueError, match="expected one"):
        compare(np.zeros((1, 3)) if shape == (2, 3) else np.zeros(shape), np.zeros(shape))


def test_the_interval_is_wilsons():
    """The interval of 8 in 10 as tables of the Wilson score give it."""
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson_interval(0, 10)[0] == 0
    assert wilson_interval(10, 10)[1] == pytest.approx(1)
