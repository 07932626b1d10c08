# SPDX-License-Identifier: Apache-2.0
"""Fixtures of PaddleClas's package: a home folder, with models in the cache of that package."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

MINI = Path(__file__).parents[1] / "data" / "pphgnet_mini"
MODEL = (MINI / "inference.pdmodel", MINI / "inference.pdiparams")
"""What PaddleClas's package keeps of an archive: here a small model of 10 classes."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without anything in it; nothing is downloaded but from where a test says."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("USERPROFILE" if os.name == "nt" else "HOME", str(folder))
    monkeypatch.setenv("HGDEPLOY_MODELS_URL", "http://127.0.0.1:9")
    return folder


@pytest.fixture
def cached(home: Path) -> Callable[[str], Path]:
    """Put a model into the cache under a name, such as `IMN/ResNet50`."""

    def put(name: str) -> Path:
        folder = home / ".paddleclas" / "inference_model" / name
        folder.mkdir(parents=True)
        for file in MODEL:
            shutil.copy(file, folder)
        return folder

    return put
