# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy eval BUNDLE`: accuracy on a user's own list, in any precision, beside another run."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import IMAGES, require_engine
from hgdeploy import Classifier
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.cli.main import main
from hgdeploy.transforms.postprocess import Postprocess, ScoreOutput

NAMES = ["camera", "chelsea", "coffee", "flower", "rocket"]


@pytest.fixture
def bundle(mini: Path) -> Path:
    """The small model, and the same in the place of fp16 with class 3 far more likely."""
    require_engine("onnxruntime")
    onnx = pytest.importorskip("onnx")
    model = onnx.load(mini / "inference.onnx")
    place, softmax = softmax_of(model)
    more = np.eye(10, dtype=np.float16)[3:4] * 2  # by which the file counts as fp16
    model.graph.initializer.append(onnx.numpy_helper.from_array(more, "half"))
    added = onnx.helper.make_node("Add", [softmax.input[0], "more"], ["moved"])
    softmax.input[0] = "moved"
    model.graph.node.insert(place, added)
    model.graph.node.insert(place, onnx.helper.make_node("Cast", ["half"], ["more"], to=1))
    onnx.save(model, mini / "inference.fp16.onnx")
    return mini


def softmax_of(model: Any) -> tuple[int, Any]:
    """The place and the node of a graph's only softmax."""
    nodes = enumerate(model.graph.node)
    ((place, node),) = [(i, node) for i, node in nodes if node.op_type == "Softmax"]
    return place, node


@pytest.fixture
def listed(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Photographs and their list, in which the first is wrong; returns the fp32 scores."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(IMAGES, tmp_path / "photos", ignore=shutil.ignore_patterns("*.md"))
    settings = ClassifierSettings("onnxruntime", postprocess=Postprocess(ScoreOutput(None)))
    with Classifier(bundle, settings=settings) as classifier:
        scores = np.array([p.scores for p in classifier.predict("photos")])
    labels = scores.argmax(1)
    labels[0] = scores[0].argsort()[-2]
    lines = [f"{name}.jpg {label}\n" for name, label in zip(NAMES, labels, strict=True)]
    Path("val.txt").write_text("".join(lines))
    return scores


ON_LIST = ("--images", "photos", "--labels", "val.txt", "--engine", "onnxruntime")


def test_a_bundle_is_measured_on_a_list(bundle, listed, run_here):
    done = run_here(main, "eval", bundle, *ON_LIST, "--report", "found.json")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "5 images with onnxruntime, with 95 % intervals:"
    assert lines[1] == "top-1  80.00% (37.55% to 96.38%)"  # Wilson's interval of 4 of 5
    assert lines[2].startswith("top-5  100.00%")
    found = json.loads(Path("found.json").read_text())
    first = found["topk"]["1"]
    assert (first["hits"], first["images"], first["share"]) == (4, 5, 0.8)
    assert first["interval"] == pytest.approx([0.37553, 0.96377], abs=1e-4)
    best, right = listed.max(1), np.array([0, 1, 1, 1, 1])
    places = np.ceil(best * 15)
    gaps = [abs((best - right)[places == place].sum()) for place in set(places)]
    assert found["calibration"]["error"] == pytest.approx(sum(gaps) / 5, abs=1e-6)
    assert f"calibration error  {sum(gaps) / 5:.2%} (" in done.stdout
    assert sum(count for _, _, count in found["confusion"]) == 5
    assert found["runtime"]["precision"] == "fp32"


def test_two_runs_are_compared_image_by_image(bundle, listed, run_here):
    done = run_here(
        main, "eval", bundle, *ON_LIST, "--precision", "fp16", "--against", "onnxruntime",
        "--answers", "answers.csv", "--confusion", "matrix.csv", "--confusion", "matrix.png",
        "--classes", "classes.csv", "--report", "found.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(Path("answers.csv").read_text().splitlines()))
    before = listed.argmax(1).tolist()
    assert [int(row["reference"]) for row in rows] == before
    now = [int(row["answer"]) for row in rows]
    assert now != before
    labels = [int(row["label"]) for row in rows]
    changed = [
        "" if new == old else "gained" if new == label else "lost" if old == label else "other"
        for new, old, label in zip(now, before, labels, strict=True)
    ]
    assert [row["change"] for row in rows] == changed
    found = json.loads(Path("found.json").read_text())
    pair = found["against"]["paired"]
    assert pair["same"]["hits"] == changed.count("")
    assert (pair["lost"], pair["gained"]) == (changed.count("lost"), changed.count("gained"))
    assert found["run"] == "onnxruntime:fp16"
    assert found["against"]["run"] == "onnxruntime"
    assert "against onnxruntime, on 5 images:" in done.stdout
    assert f"{5 - changed.count('')} images whose answer changes:" in done.stdout
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (labels, now), 1)
    table = list(csv.reader(Path("matrix.csv").read_text().splitlines()))
    assert table[0][1:3] == ["name 0, the", "name 1, the"]
    assert np.array([row[1:] for row in table[1:]], int).tolist() == matrix.tolist()
    with Image.open("matrix.png") as image:
        assert image.format == "PNG"
    assert Path("classes.csv").read_text().startswith("class,name,images,")


def test_a_folder_for_each_class_needs_no_list(bundle, listed, run_here):
    for name, label in zip(NAMES, listed.argmax(1), strict=True):
        folder = Path("sorted", f"name {label}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(f"photos/{name}.jpg", folder)
    (folder / "broken.jpg").write_text("no image")
    on_folder = ("--images", "sorted", "--engine", "onnxruntime", "--against", "openvino")
    require_engine("openvino")
    done = run_here(main, "eval", bundle, *on_folder)
    assert done.returncode == 3
    assert done.stderr.count("broken.jpg: ") == 1
    assert "same answers     100.00%" in done.stdout
    assert "5 images with onnxruntime" in done.stdout
    assert "top-1  100.00%" in done.stdout


def test_a_model_of_several_labels_is_measured_on_its_list(bundle, listed, run_here):
    description = (bundle / "inference.yml").read_text()
    names = description.partition("label_list:\n")[2]
    start = description.partition("PostProcess")[0]
    (bundle / "inference.yml").write_text(
        f"{start}PostProcess:\n  MultiLabelThreshOutput:\n    threshold: 0.5\n"
        f"    label_list:\n{names}"
    )
    seen = (listed > 1 / (1 + np.exp(-0.5))).astype(int)
    lines = [f"{n}.jpg\t{','.join(map(str, row))}\n" for n, row in zip(NAMES, seen, strict=True)]
    Path("val.txt").write_text("".join(lines))
    done = run_here(
        main, "eval", bundle, *ON_LIST, "--precision", "fp16", "--against", "onnxruntime",
        "--answers", "answers.csv",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "\nall labels right" in done.stdout
    assert "its accuracy     100.00%" in done.stdout
    rows = list(csv.DictReader(Path("answers.csv").read_text().splitlines()))
    assert [row["reference"] for row in rows] == [
        " ".join(map(str, np.flatnonzero(row))) or "none" for row in seen
    ]
    refused = run_here(main, "eval", bundle, *ON_LIST, "--confusion", "x.png")
    assert refused.returncode == 2
    assert "--confusion needs one class for an image" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        ((), 2, "name a bundle and --images, or PaddleClas's training config with -c"),
        (("BUNDLE",), 2, "--images is missing"),
        (("BUNDLE", "-o", "Global.device=cpu", "--images", "photos"), 2, "-o has no effect"),
        (("BUNDLE", "-c", "x.yaml", "--images", "photos"), 2, "--images has no effect with -c"),
        (("BUNDLE", *ON_LIST, "--against", "onnxruntime"), 2, "that is the run itself"),
        (("BUNDLE", *ON_LIST, "--against", "onnx"), 2, "--against onnx: unknown engine"),
        (("BUNDLE", *ON_LIST, "--confusion", "x.txt"), 2, "--confusion x.txt: unknown suffix"),
        (("BUNDLE", *ON_LIST, "--report", "x.csv"), 2, "--report x.csv: unknown suffix"),
        (("BUNDLE", *ON_LIST, "--answers", "gone/x.csv"), 10, "gone/x.csv"),
        (("BUNDLE", *ON_LIST, "--precision", "fp17"), 2, "fp17"),
        (("BUNDLE", *ON_LIST, "--softmax"), 2, "ends in a softmax already"),
        (("BUNDLE", "--images", "photos", "--labels", "gone.txt"), 4, "label list gone.txt"),
    ],
)
def test_mistakes_of_a_bundle_s_evaluation_are_one_line(
    bundle, listed, run_here, arguments, code, told
):
    given = [bundle if word == "BUNDLE" else word for word in arguments]
    done = run_here(main, "eval", *given)
    (error,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert told in error
    assert done.returncode == code
    assert done.stdout == ""


def test_scores_that_are_no_probabilities_have_no_calibration(bundle, listed, run_here):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(bundle / "inference.onnx")
    _, last = softmax_of(model)
    last.op_type = "Identity"
    del last.attribute[:]
    onnx.save(model, bundle / "inference.onnx")
    done = run_here(main, "eval", bundle, *ON_LIST)
    assert "--softmax makes probabilities of logits" in done.stderr
    assert "calibration" not in done.stdout
    done = run_here(main, "eval", bundle, *ON_LIST, "--softmax")
    assert "calibration error  " in done.stdout
    assert "top-1  80.00%" in done.stdout
