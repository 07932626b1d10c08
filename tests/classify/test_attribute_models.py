# SPDX-License-Identifier: Apache-2.0
"""Attribute models from the command and the API to lines, result files and the report."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from conftest import IMAGES, require_engine
from hgdeploy import Classifier
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.cli.main import main, predict_cls
from hgdeploy.errors import BundleError
from hgdeploy.transforms.attributes import VehicleAttribute
from hgdeploy.transforms.postprocess import Postprocess
from hgdeploy.transforms.prediction import text_line

SIZES = {"PersonAttribute": 26, "FaceAttribute": 40, "VehicleAttribute": 19, "TableAttribute": 6}


def model(folder: Path, output: str, *, sigmoid: bool = True) -> Path:
    """A bundle of an ONNX file that ends in the sigmoid of so many scores."""
    require_engine("onnxruntime")
    pytest.importorskip("onnx")
    from onnx_heads import CLASSES, DESCRIPTION, make_headed

    size = SIZES[output]
    spread = np.random.default_rng(1).normal(0, 3, (CLASSES, size)).astype(np.float32)
    head = [("MatMul", ["logits", "spread"], ["wide"], {})]
    head += [("Sigmoid", ["wide"], ["p"], {})] if sigmoid else []
    before = DESCRIPTION.partition("PostProcess")[0]
    return make_headed(
        folder, head, ["p" if sigmoid else "wide"], {"spread": spread},
        shape=("n", size),
        description=f"{before}PostProcess: {{{output}: {{}}}}\n",
    )  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two photographs, and one before them that cannot be read."""
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(b"no image")
    for name in ("coffee.jpg", "rocket.jpg"):
        shutil.copy(IMAGES / name, folder)
    return folder


@pytest.mark.parametrize("name", SIZES)
def test_lines_of_predict_cls_are_those_of_the_api(tmp_path, photos, name, capfd):
    bundle = model(tmp_path / "bundle", name)
    with Classifier(bundle) as classifier:
        failed, *found = classifier.predict(photos)
        assert [each for each in classifier.warnings if "probabilities" in each] == []
    assert (failed.attributes, failed.output) == ((), ())
    assert all(len(each.output) == SIZES[name] for each in found)
    assert len({each.attributes for each in found}) == 2
    given = (f"Global.inference_model_dir={bundle}", f"Global.infer_imgs={photos}")
    code = predict_cls([part for text in given for part in ("-o", text)])
    assert code == 3
    assert capfd.readouterr().out == "".join(f"{text_line(each)}\n" for each in found)


@pytest.mark.parametrize("name", ["PersonAttribute", "VehicleAttribute"])
def test_result_files_have_attributes_and_output_and_can_be_resumed(tmp_path, photos, name):
    bundle = model(tmp_path / "bundle", name)
    with Classifier(bundle) as classifier:
        found = list(classifier.predict(photos))
    jsonl, table = tmp_path / "x.jsonl", tmp_path / "x.csv"
    predict = ["predict", str(bundle), str(photos), "--output"]
    assert main([*predict, str(jsonl)]) == 3
    rows = [json.loads(line) for line in jsonl.read_text().splitlines()]
    for row, each in zip(rows, found, strict=True):
        attributes = each.attributes
        assert row["attributes"] == (attributes if isinstance(attributes, str) else [*attributes])
        assert row["output"] == list(each.output)
        assert row["scores"] == [round(score, 5) for score in each.scores]
        assert row["error"] == each.error
    assert main([*predict, str(table)]) == 3
    written = table.read_bytes()
    with table.open(encoding="utf-8", newline="") as file:
        for cells, each in zip(csv.DictReader(file), found, strict=True):
            attributes = each.attributes
            assert cells["output"] == " ".join(map(str, each.output))
            assert cells["attributes"] in (attributes, " | ".join(attributes))
    assert main([*predict, str(table), "--resume", "--report", str(tmp_path / "x.html")]) == 3
    assert table.read_bytes() == written
    shown = found[1].attributes
    assert (shown if isinstance(shown, str) else shown[0]) in (tmp_path / "x.html").read_text()


@pytest.mark.parametrize("name", ["TableAttribute", "VehicleAttribute"])
def test_parquet_has_lists_and_can_be_resumed(tmp_path, photos, name):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    bundle = model(tmp_path / "bundle", name)
    with Classifier(bundle) as classifier:
        found = list(classifier.predict(photos))
    command = ["predict", str(bundle), str(photos), "--output", str(tmp_path / "x.parquet")]
    for again in ([], ["--resume"]):
        assert main([*command, *again]) == 3
        rows = parquet.read_table(tmp_path / "x.parquet").to_pylist()
        for row, each in zip(rows, found, strict=True):
            one = isinstance(each.attributes, str)
            assert row["attributes"] == ([each.attributes] if one else [*each.attributes])
            assert row["output"] == list(each.output)


def test_another_number_of_scores_is_refused(tmp_path):
    settings = ClassifierSettings(postprocess=Postprocess(VehicleAttribute()))
    with pytest.raises(BundleError, match="has 6 classes, but VehicleAttribute is for 19"):
        Classifier(model(tmp_path / "a", "TableAttribute"), settings=settings)


def test_logits_and_thresholds_that_paddleclas_uses_in_part_are_told(tmp_path):
    bundle = model(tmp_path / "a", "TableAttribute", sigmoid=False)
    description = bundle / "inference.yml"
    text = description.read_text().replace("{}", "{angle_threshold: 0.2}")
    description.write_text(text)
    with Classifier(bundle) as classifier:
        told = " ".join(classifier.warnings)
    assert "no sigmoid at its end, so the thresholds of TableAttribute are compared" in told
    assert "TableAttribute.angle_threshold=0.2 decides output" in told
