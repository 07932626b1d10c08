# SPDX-License-Identifier: Apache-2.0
"""Mixup, Cutmix and the choice between them, against the formulas of their papers."""

from __future__ import annotations

import numpy as np
import pytest
from scripted_chance import ScriptedChance

from hgdeploy.errors import ConfigError
from hgdeploy.training.data.operators.mixing import CutmixOperator, MixupOperator, OpSampler


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(2).standard_normal((3, 3, 20, 30)).astype(np.float32)


@pytest.fixture
def labels() -> np.ndarray:
    return np.eye(4, dtype=np.float32)[[2, 0, 2]]


def test_mixup_lays_another_image_over_each(images, labels):
    before = images.copy()
    chance = ScriptedChance([2, 0, 1], 0.7)
    mixed = MixupOperator(0.2)(images, labels, chance)
    assert chance.asked == [(3,), (0.2, 0.2)]
    np.testing.assert_allclose(images, 0.7 * before + 0.3 * before[[2, 0, 1]], atol=1e-6)
    np.testing.assert_allclose(mixed, [[0, 0, 1, 0], [0.7, 0, 0.3, 0], [0.3, 0, 0.7, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("middle", "rows", "columns"),
    [
        ((10, 15), (6, 14), (9, 21)),  # half of 20 and 30 would be 10 and 15; sqrt(0.16) is 0.4
        ((1, 28), (0, 5), (22, 30)),  # cut off by the border
    ],
)
def test_cutmix_puts_a_rectangle_of_another_image_into_each(images, labels, middle, rows, columns):
    before = images.copy()
    chance = ScriptedChance([1, 2, 0], 1 - 0.4**2 - 1e-9, *middle)
    mixed = CutmixOperator(1.0)(images, labels, chance)
    assert chance.asked[2:] == [(20, None, False), (30, None, False)]
    expected = before.copy()
    inside = np.s_[:, :, slice(*rows), slice(*columns)]
    expected[inside] = before[[1, 2, 0]][inside]
    np.testing.assert_array_equal(images, expected)
    part = (rows[1] - rows[0]) * (columns[1] - columns[0]) / 600
    np.testing.assert_allclose(
        mixed, (1 - part) * labels + part * labels[[1, 2, 0]], rtol=0, atol=1e-6
    )


def test_of_several_operators_one_is_chosen_by_its_chance_or_none(images, labels):
    sampler = OpSampler(((MixupOperator(0.2), 0.5), (CutmixOperator(1.0), 0.25)))
    for drawn, changed in ((0.49, "mixup"), (0.5, "cutmix"), (0.74, "cutmix"), (0.75, None)):
        mine = images.copy()
        result = sampler(mine, labels, ScriptedChance(drawn, [1, 2, 0], 0.5, 10, 15))
        # Mixup draws no middle, so the rest of the script tells them apart.
        part = np.abs(result - labels).max()
        assert part == {"mixup": 0.5, "cutmix": pytest.approx(14 * 20 / 600), None: 0}[changed]
        assert (mine == images).all() == (changed is None)


def test_labels_keep_the_sum_of_one(images, labels):
    rng = np.random.default_rng(0)
    sampler = OpSampler(((MixupOperator(0.4), 0.5), (CutmixOperator(1.0), 0.5)))
    for _ in range(50):
        mixed = sampler(images, labels, rng)
        np.testing.assert_allclose(mixed.sum(axis=1), 1, atol=1e-6)
        assert mixed.dtype == images.dtype == np.float32


def test_chances_of_more_than_one_and_no_alpha_are_refused():
    with pytest.raises(ConfigError, match=r"OpSampler: .* sum 1\.2, more than 1"):
        OpSampler(((MixupOperator(), 0.6), (CutmixOperator(), 0.6)))
    with pytest.raises(ConfigError, match=r"MixupOperator\.alpha is 0, expected a number above 0"):
        MixupOperator(0)
