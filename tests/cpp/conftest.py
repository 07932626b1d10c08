# SPDX-License-Identifier: Apache-2.0
"""What the tests of the C++ part share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from conftest import REPO


@pytest.fixture(scope="session")
def cpp_build() -> Path:
    """The folder in which `make cpp` has built; another in HGDEPLOY_CPP_BUILD."""
    build = Path(os.environ.get("HGDEPLOY_CPP_BUILD", REPO / "build" / "cpp"))
    if not (build / "hgdeploy-predict").is_file():
        if "cpp" in os.environ.get("HGDEPLOY_REQUIRED_ENGINES", "").split(","):
            pytest.fail(f"the C++ part is required here, and is not built in {build}")
        pytest.skip(
            f"the C++ part is not built in {build}: `make cpp` builds it where the packages of "
            "deploy/cpp/packages.txt are installed"
        )
    return build
