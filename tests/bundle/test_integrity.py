# SPDX-License-Identifier: Apache-2.0
"""A file that its sidecar does not describe is refused; a changed description is told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from conftest import IMAGES
from hgdeploy import Classifier
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import changed_source, sidecar_path, write_sidecar
from hgdeploy.cli.main import main
from hgdeploy.errors import BundleError
from hgdeploy.system.digests import file_sha256

PHOTO = str(IMAGES / "coffee.jpg")


@pytest.fixture
def described(mini: Path) -> Path:
    """A bundle whose `inference.meta.json` has the digest of every file."""
    write_sidecar(mini, {"model": "mini"})
    return mini


def spoil(path: Path) -> None:
    """Change some bytes in the middle, and neither size nor time."""
    times, data = path.stat(), bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("file", ["inference.pdmodel", "inference.pdiparams"])
def test_a_program_or_weights_that_changed_are_refused_in_every_verb(described, file, capsys):
    spoil(described / file)
    told = rf"{file} has changed since it was made: .* inference\.meta\.json describes"
    with pytest.raises(BundleError, match=told):
        Classifier(described)
    verbs = (
        ("predict", described, PHOTO),
        ("convert", described),
        ("validate", described, "--engines", "paddle,openvino", "--images", IMAGES),
    )
    for verb in verbs:
        assert main([str(word) for word in verb]) == BundleError.exit_code
        assert "has changed since it was made" in capsys.readouterr().err


def test_other_files_are_not_asked_for_what_does_not_concern_them(described):
    spoil(described / "inference.pdiparams")
    assert open_bundle(described).find(("inference.onnx",)).name == "inference.onnx"


def test_a_bundle_without_sidecar_is_used_as_it_is(described):
    spoil(described / "inference.pdiparams")
    (described / "inference.meta.json").unlink()
    assert open_bundle(described).find(("inference.pdmodel",)).is_file()


def test_a_changed_description_is_told_and_used(described, capsys):
    assert open_bundle(described).notes == ()
    text = (described / "inference.yml").read_text()
    (described / "inference.yml").write_text(text.replace("topk: 5", "topk: 2"))
    assert main(["predict", str(described), PHOTO]) == 0
    out, err = capsys.readouterr()
    assert err.count("inference.yml has changed since the bundle was made") == 1
    assert len(json.loads(out[out.index("[") : out.index("]") + 1])) == 2
    main(["validate", str(described), "--engines", "paddle,onnxruntime"])
    assert "inference.yml has changed since" in capsys.readouterr().err


def test_an_artifact_that_its_own_sidecar_does_not_describe_is_refused(mini):
    onnx = mini / "inference.onnx"
    (mini / "weights.bin").write_bytes(b"first")
    facts = {
        "sha256": file_sha256(onnx),
        "files": {"weights.bin": file_sha256(mini / "weights.bin")},
    }
    sidecar_path(onnx).write_text(json.dumps(facts))
    bundle = open_bundle(mini)
    assert bundle.find(("inference.onnx",)) == bundle.fresh("inference.onnx") == onnx
    (mini / "weights.bin").write_bytes(b"other")
    for ask in (bundle.find, lambda names: bundle.fresh(*names)):
        with pytest.raises(BundleError, match=r"weights\.bin has changed since it was made"):
            ask(("inference.onnx",))
    spoil(onnx)
    with pytest.raises(BundleError, match=r"inference\.onnx has changed since it was made"):
        bundle.find(("inference.onnx",))


@pytest.mark.parametrize("files", [{"inference.pdmodel": 7}, ["a"], {"../x": "y"}, 3])
def test_a_sidecar_of_nonsense_is_no_obstacle(mini, files):
    (mini / "inference.meta.json").write_text(json.dumps({"files": files}))
    assert open_bundle(mini).find(("inference.pdmodel",)).is_file()


def test_a_chain_is_known_where_its_middle_is_gone(tmp_path):
    for name in ("a.json", "c.onnx"):
        (tmp_path / name).write_text(name)
    facts = {
        "source": {"b.onnx": "of the past"},
        "origin": {"a.json": file_sha256(tmp_path / "a.json")},
    }
    sidecar_path(tmp_path / "c.onnx").write_text(json.dumps(facts))
    assert changed_source(tmp_path / "c.onnx") is None
    (tmp_path / "a.json").write_text("trained anew")
    assert changed_source(tmp_path / "c.onnx") == tmp_path / "a.json"


def test_a_sidecar_that_names_itself_ends(tmp_path):
    file = tmp_path / "c.onnx"
    file.write_text("c")
    sidecar_path(file).write_text(json.dumps({"source": {"c.onnx": file_sha256(file)}}))
    assert changed_source(file) is None


def test_which_of_two_programs_is_the_model_is_told(mini, capsys):
    (mini / "inference.json").write_text("{}")
    (note,) = open_bundle(mini).notes
    assert "inference.json and inference.pdmodel: inference.json is the model" in note
    (mini / "inference.onnx").unlink()
    assert main(["predict", str(mini), PHOTO, "--engine", "openvino"]) == BundleError.exit_code
    told = capsys.readouterr().err
    assert "has inference.json and inference.pdmodel: the first is the model" in told
