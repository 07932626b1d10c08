# SPDX-License-Identifier: Apache-2.0
"""An artifact whose source has changed is never used in silence."""

from __future__ import annotations

import json

import pytest

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import changed_source, sidecar_path
from hgdeploy.errors import BundleError
from hgdeploy.system.digests import file_sha256


@pytest.fixture
def chain(tmp_path):
    """`c.onnx` made from `b.onnx`, made from `a.pdmodel` and `a.pdiparams`."""
    made = {"b.onnx": ("a.pdmodel", "a.pdiparams"), "c.onnx": ("b.onnx",)}
    for name in ("a.pdmodel", "a.pdiparams", "b.onnx", "c.onnx"):
        (tmp_path / name).write_text(f"first {name}")
    for name, sources in made.items():
        facts = {"source": {source: file_sha256(tmp_path / source) for source in sources}}
        sidecar_path(tmp_path / name).write_text(json.dumps(facts))
    return tmp_path


def test_an_artifact_of_unchanged_sources_is_found(chain):
    assert changed_source(chain / "c.onnx") is None
    assert open_bundle(chain).find(("c.onnx",)) == chain / "c.onnx"


@pytest.mark.parametrize("changed", ["a.pdmodel", "a.pdiparams", "b.onnx"])
def test_a_change_anywhere_before_it_makes_an_artifact_stale(chain, changed):
    (chain / changed).write_text("second")
    with pytest.raises(BundleError, match=rf"c\.onnx is stale: {changed} has changed since"):
        open_bundle(chain).find(("c.onnx",))


def test_an_artifact_may_be_deployed_alone(chain):
    for name in ("a.pdmodel", "a.pdiparams", "b.onnx"):
        (chain / name).unlink()
    assert open_bundle(chain).find(("c.onnx",)) == chain / "c.onnx"


@pytest.mark.parametrize("text", ["", "[]", '{"source": 3}', "{"])
def test_a_sidecar_that_says_nothing_is_no_obstacle(chain, text):
    sidecar_path(chain / "c.onnx").write_text(text)
    assert changed_source(chain / "c.onnx") is None


@pytest.mark.parametrize(
    "text",
    [
        50_000 * "[",
        '{"source": {"": "x"}, "files": {"": "x"}}',
        '{"source": {"a/b": "x", "..": "x"}}',
        '{"source": {"\\u0000": "x"}}',
        '{"source": 5, "files": [1], "origin": "x"}',
    ],
)
def test_a_sidecar_of_anything_is_read_without_a_traceback(mini, text):
    sidecar_path(mini / "inference.onnx").write_text(text)
    assert changed_source(mini / "inference.onnx") is None
    assert open_bundle(mini).find(["inference.onnx"]) == mini / "inference.onnx"
