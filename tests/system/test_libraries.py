# SPDX-License-Identifier: Apache-2.0
"""The import of heavy libraries, which may fail or be interrupted."""

from __future__ import annotations

import pytest

from hgdeploy.errors import EngineError
from hgdeploy.system.libraries import import_library


def test_an_interruption_while_a_library_starts_stays_one(tmp_path, monkeypatch):
    """A C++ library raises ImportError from whatever is raised while it starts."""
    (tmp_path / "interrupted_library.py").write_text("raise ImportError from KeyboardInterrupt()\n")
    (tmp_path / "broken_library.py").write_text("raise ImportError('no symbol')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        import_library("interrupted_library", "cpu")
    with pytest.raises(EngineError, match=r"broken_library does not import here .*no symbol"):
        import_library("broken_library", "cpu")
