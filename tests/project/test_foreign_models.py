# SPDX-License-Identifier: Apache-2.0
"""Models that are not of our zoo are served rightly, or refused in one line; docs/models.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from foreign import MODELS
from foreign_matrix import PAGE, VERBS, VISION, YES, crops, make_vision, outcomes, served

QUICK_VERBS = ("paddle", "onnxruntime", "openvino", "convert")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return crops(tmp_path_factory.mktemp("crops"))


@pytest.fixture(scope="module")
def table() -> dict[str, dict[str, bool]]:
    return served(PAGE.read_text(encoding="utf-8"))


def made(name: str, foreign: Callable[[str], Path], folder: Path) -> Path:
    return foreign(name) if name in MODELS else make_vision(name, folder / name)


def test_the_page_has_every_architecture(table):
    assert list(table) == [*MODELS, *VISION]
    assert len(table) >= 25
    assert sum(table["plain"].values()) == len(VERBS)


@pytest.mark.parametrize("name", MODELS)
def test_predictions_and_conversions(name, foreign, images, tmp_path, table):
    found = outcomes(made(name, foreign, tmp_path), images, QUICK_VERBS)
    assert {verb: text == YES for verb, text in found.items()} == {
        verb: table[name][verb] for verb in QUICK_VERBS
    }, found


@pytest.mark.slow
@pytest.mark.parametrize("name", [*MODELS, *VISION])
def test_every_verb(name, foreign, images, tmp_path, table):
    found = outcomes(made(name, foreign, tmp_path), images)
    assert {verb: text == YES for verb, text in found.items()} == table[name], found
