# SPDX-License-Identifier: Apache-2.0
"""Bundles: what is read, and what is refused."""

from __future__ import annotations

import os
import shutil

import pytest

from conftest import IMAGES
from hgdeploy.bundle.model_bundle import open_bundle, open_model
from hgdeploy.cli.main import main
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.transforms.operators import CropImage


def test_a_description_is_read(mini):
    bundle = open_bundle(mini)
    assert bundle.model_name == "pphgnet_mini"
    assert bundle.preprocess[1] == CropImage(size=(64, 64))
    assert bundle.postprocess.output.labels[9] == "name 9, the"


def test_a_bundle_without_description_is_a_bundle(mini):
    (mini / "inference.yml").unlink()
    bundle = open_bundle(mini)
    assert (bundle.model_name, bundle.preprocess, bundle.postprocess) == (None, None, None)


def test_a_missing_folder_and_a_file_are_told_apart(mini):
    with pytest.raises(BundleError, match="does not exist"):
        open_bundle(mini / "none")
    with pytest.raises(BundleError, match="is a file, expected the folder"):
        open_bundle(mini / "inference.onnx")


@pytest.mark.parametrize(
    ("file", "name", "place"),
    [
        ("net.onnx", "inference.onnx", "net.onnx"),
        ("net.onnx", "inference.fp16.onnx", "net.fp16.onnx"),
        ("net.onnx", "inference.fp16.rtx.engine", "net.fp16.rtx.engine"),
        # The end of its stem says which precision an ONNX file is for,
        ("net_fp16.onnx", "inference.fp16.onnx", "net_fp16.onnx"),
        ("net.fp16.onnx", "inference.onnx", "net.onnx"),
        ("inference.int8.onnx", "inference.int8.onnx", "inference.int8.onnx"),
        # and an engine serves whichever is asked for.
        ("net.plan", "inference.fp16.engine", "net.plan"),
        ("net_fp16.engine", "inference.engine", "net_fp16.engine"),
        ("net.engine", "inference.rtx.engine", "net.rtx.engine"),
        ("net.rtx.engine", "inference.bf16.rtx.engine", "net.rtx.engine"),
        ("net.fp16.plan", "inference.onnx", "net.onnx"),
    ],
)
def test_a_model_file_alone_stands_for_a_bundle(tmp_path, file, name, place):
    (tmp_path / file).write_bytes(b"model")
    bundle = open_model(tmp_path / file)
    assert bundle.path(name) == tmp_path / place
    assert bundle.place == tmp_path / file


def test_a_file_that_is_no_model_does_not_stand_for_one(mini):
    with pytest.raises(BundleError, match=r"ends with \.onnx, \.engine, \.plan"):
        open_model(mini / "inference.yml")
    with pytest.raises(BundleError, match="does not exist"):
        open_model(mini / "none.onnx")
    assert open_model(mini) == open_bundle(mini)


def test_a_missing_artifact_lists_what_is_there(mini):
    with pytest.raises(BundleError) as caught:
        open_bundle(mini).find(("inference.fp16.onnx",))
    assert "has no inference.fp16.onnx; it has inference.mnn, inference.nc" in str(caught.value)


def test_an_empty_folder_says_so(tmp_path):
    with pytest.raises(BundleError, match="there are no model files in it"):
        open_bundle(tmp_path).find(("inference.json", "inference.pdmodel"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [", "expected"),
        ("7", "has no keys"),
        ("a: 2024-13-45", "is not valid YAML: month must be in 1..12"),
    ],
)
def test_a_wrong_description_is_refused_by_name(mini, text, told):
    (mini / "inference.yml").write_text(text)
    with pytest.raises(BundleError) as caught:
        open_bundle(mini)
    assert told in str(caught.value)
    assert str(mini / "inference.yml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("PreProcess: {transform_ops: [{Resize: {}}]}", "Resize"),
        ("PreProcess: {transform_ops: [{DecodeImage: {backend: pil}}]}", "backend is 'pil'"),
        ("PreProcess: {transform_ops: 3}", "PreProcess.transform_ops is 3"),
        ("PostProcess: {Topk: {topk: x}}", "PostProcess.Topk.topk"),
        ("PostProcess: {MultiLabelTopk: {topk: 5}}", "MultiLabelTopk"),
        ("PostProcess: 3", "PostProcess is 3"),
    ],
)
def test_a_section_that_is_not_served_is_refused_where_it_is_needed(mini, text, told):
    (mini / "inference.yml").write_text(text)
    bundle = open_bundle(mini)
    needed = bundle.own_preprocess if text.startswith("Pre") else bundle.own_postprocess
    with pytest.raises(BundleError) as caught:
        needed()
    assert told in str(caught.value)
    assert str(mini / "inference.yml") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["Global: {model_name: x}", "PreProcess: 3", "PreProcess: {}"])
def test_a_description_without_preprocessing_says_so(mini, text):
    (mini / "inference.yml").write_text(text)
    with pytest.raises(ConfigError, match=r"no inference\.yml with PreProcess\.transform_ops"):
        open_bundle(mini).own_preprocess()


@pytest.mark.parametrize("place", [".", "names"])
def test_a_label_file_is_the_bundle_s_own_wherever_it_is_used(mini, tmp_path, monkeypatch, place):
    (mini / "inference.yml").write_text(
        f"PostProcess: {{Topk: {{class_id_map_file: {place}/l.txt}}}}"
    )
    elsewhere = tmp_path / "elsewhere"
    for folder, name in ((mini, "own"), (elsewhere, "other")):
        (folder / place).mkdir(parents=True, exist_ok=True)
        (folder / place / "l.txt").write_text(f"0 {name}\n")
    monkeypatch.chdir(elsewhere)
    assert open_bundle(mini).postprocess.output.labels == {0: "own"}
    monkeypatch.chdir(mini.parent)
    assert open_bundle(mini.name).postprocess.output.labels == {0: "own"}
    (mini / place / "l.txt").unlink()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(BundleError, match=r"label file .*/l\.txt cannot be read: No such file"):
        open_bundle(mini).own_postprocess()


def test_labels_of_a_bundle_stay_as_they_are_written(mini):
    (mini / "inference.yml").write_text("PostProcess: {Topk: {label_list: [no, 010, 12:30, 1.10]}}")
    labels = open_bundle(mini).postprocess.output.labels
    assert labels == {0: "no", 1: "010", 2: "12:30", 3: "1.10"}


def test_a_folder_whose_name_is_not_utf_8_is_refused_in_one_readable_line(mini, capsys):
    name = os.fsencode(mini.parent) + b"/" + "\u6a21\u578b".encode("gbk")
    shutil.copytree(os.fsencode(mini), name)
    for engine in ("paddle", "onnxruntime", "openvino"):
        words = ["predict", os.fsdecode(name), str(IMAGES / "coffee.jpg"), "--engine", engine]
        assert main(words) == BundleError.exit_code
        error = capsys.readouterr().err
        assert "has a name that is not UTF-8" in error
        assert error.count("\n") == 1
        assert error.encode()  # readable
