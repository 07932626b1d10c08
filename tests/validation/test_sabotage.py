# SPDX-License-Identifier: Apache-2.0
"""What no comparison of engines can see is told: other preprocessing, labels in another order.

All engines get the same tensors, so they agree on the wrong answer. What gives it away is how the
network is published to be fed, what the description said when the model was converted, and the
accuracy on labelled images. (Sabotage of the model itself is in test_noise.py.)
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
import pytest
from foreign import MODELS as FOREIGN
from foreign import SIZE, description, save_network, softmax
from paddle import nn

from conftest import IMAGES
from hgdeploy import Classifier, ClassifierSettings
from hgdeploy.bundle.description import usual_output, write_description
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.cli.main import main
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines.run import parse_runs
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import find_images
from hgdeploy.images.labelled import read_labelled_images
from hgdeploy.system.progress import nothing
from hgdeploy.transforms.operators_config import imagenet_ops
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.accuracy import Accuracy
from hgdeploy.validation.report import write_report
from hgdeploy.validation.validate import ValidateOptions, validate

Foreign = Callable[[str], Path]
PHOTO = IMAGES / "coffee.jpg"
MEAN, STD = "[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]"


def changed(bundle: Path, old: str, new: str) -> None:
    path = bundle / "inference.yml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def known(bundle: Path, name: str = "PP-LCNet_x1_0", short: int = 256) -> Path:
    """Say which network a bundle has, and that it is fed as it is published."""
    text = description(FOREIGN["any_size"])
    text = text.replace(f"resize_short: {SIZE + 8}", f"resize_short: {short}")
    text = text.replace(f"CropImage: {{size: {SIZE}}}", "CropImage: {size: 224}")
    text = text.replace("transform_ops:\n", "transform_ops:\n  - DecodeImage: {to_rgb: true}\n")
    head = f"Global:\n  model_name: {name}\n"
    (bundle / "inference.yml").write_text(head + text, encoding="utf-8")
    return bundle


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        (MEAN, "[0.5, 0.5, 0.5]", "mean [0.5, 0.5, 0.5] and std [0.229, 0.224, 0.225] instead of"),
        (STD, "[1.0, 1.0, 1.0]", "std [1.0, 1.0, 1.0] instead of mean [0.485, 0.456, 0.406]"),
        ("1.0/255.0", "1.0", "mean [0.002, 0.002, 0.002] and std [0.001, 0.001, 0.001] instead of"),
        ("resize_short: 256", "resize_short: 230", "short side 230 instead of 256"),
        ("resize_short: 256", "size: 224", "no resize of the short side to 256"),
        ("{size: 224}", "{size: 192}", "crop 192x192 instead of 224x224"),
        ("to_rgb: true", "to_rgb: false", "BGR instead of RGB"),
    ],
)
def test_preprocessing_that_is_not_the_networks_own_is_named(
    old: str, new: str, told: str, tmp_path: Path
):
    known(tmp_path)
    changed(tmp_path, old, new)
    bundle = open_bundle(tmp_path)
    (line,) = bundle.feed_notes(bundle.own_preprocess())
    assert line.startswith(f"{tmp_path}: PP-LCNet_x1_0 is published with other preprocessing")
    assert told in line


def test_predict_and_validate_name_it_once(foreign: Foreign, tmp_path: Path, run_here):
    bundle = known(foreign("any_size"), short=232)
    listed = tmp_path / "list.txt"
    listed.write_text("coffee.jpg 0\n")
    labelled = ("--engines", "paddle", "--images", IMAGES, "--labels", listed, "--random", 0)
    for verb, *given in (("predict", PHOTO), ("validate", *labelled)):
        done = run_here(main, verb, bundle, *given)
        assert done.returncode == 0, done.stderr
        (line,) = [line for line in done.stderr.splitlines() if "is published with" in line]
        assert line.startswith(f"hgdeploy: warning: {bundle}: PP-LCNet_x1_0 is published with")
        assert "short side 232 instead of 256" in line


@pytest.mark.parametrize(
    ("name", "short"), [("PP-LCNet_x1_0", 256), ("PPHGNet_small_ssld", 236), ("my_own", 300)]
)
def test_a_network_that_is_fed_as_published_or_unknown_is_not_warned_about(
    name: str, short: int, foreign: Foreign
):
    with Classifier(known(foreign("any_size"), name, short)) as classifier:
        assert classifier.warnings == []


def test_a_known_network_without_a_name_in_its_description_is_known_by_its_sidecar(
    foreign: Foreign,
):
    bundle = known(foreign("any_size"), "x", 236)
    changed(bundle, "model_name: x", "other: x")
    (bundle / "inference.meta.json").write_text('{"model": "PPHGNet_tiny"}')
    with Classifier(bundle) as classifier:
        (warning,) = classifier.warnings
    assert "PPHGNet_tiny is published with" in warning
    assert "short side 236 instead of 232;" in warning


def test_a_size_that_the_user_chose_is_told_once(foreign: Foreign):
    chosen = ClassifierSettings(preprocess=imagenet_ops(320, 288))
    bundle = known(foreign("any_size"))
    with Classifier(bundle, settings=chosen) as classifier:
        (warning,) = classifier.warnings
    assert "differs from the bundle's own" in warning
    (bundle / "inference.yml").write_text("Global: {model_name: PP-LCNet_x1_0}\n")
    with Classifier(bundle, settings=chosen) as classifier:
        assert classifier.warnings == []


def test_every_form_of_the_report_names_the_preprocessing(foreign: Foreign, tmp_path: Path):
    bundle = known(foreign("any_size"))
    convert_to_onnx(open_bundle(bundle), ConvertOptions(check=False), nothing)
    changed(bundle, "resize_short: 256", "resize_short: 232")
    told: list[str] = []
    options = ValidateOptions(parse_runs("paddle,onnxruntime"), random_rows=1)
    report = validate(open_bundle(bundle), options, on_warning=told.append)
    assert len(report.warnings) == 2
    assert told == list(
        report.warnings[1:]
    )  # the first is the bundle's own, told when it is opened
    for suffix in ("json", "md", "html"):
        path = tmp_path / f"r.{suffix}"
        write_report(report, path)
        text = path.read_text(encoding="utf-8")
        assert "PP-LCNet_x1_0 is published with other preprocessing than is used" in text
        assert "ResizeImage.resize_short: 232 (now), 256 (then)" in text


class Sharpness(nn.Layer):
    """Tells pictures by how bright and how sharp they are, so that all preprocessing counts."""

    def __init__(self, centres: list[float]) -> None:
        super().__init__()
        self.register_buffer("centres", paddle.to_tensor([centres]))
        self.register_buffer("colours", paddle.to_tensor([0.5, 0.25, -0.5]).reshape([1, 3, 1, 1]))

    def feature(self, x: Any) -> Any:
        steps = (x[:, :, :, 1:] - x[:, :, :, :-1]).abs()
        return (steps.mean([1, 2, 3]) + (x * self.colours).mean([1, 2, 3])).unsqueeze(1)

    def forward(self, x: Any) -> Any:
        return softmax(-400 * (self.feature(x) - self.centres).pow(2))


class Labelled:
    """A network of no known name that is right on each of some labelled images."""

    def __init__(self, folder: Path) -> None:
        self.bundle, self.images = folder / "bundle", folder / "images"
        pieces = self._pieces()
        preprocess = imagenet_ops(SIZE + 8, SIZE)
        tensors = np.stack([Preprocessor(preprocess)(p[:, :, ::-1]) for p in pieces])
        values = Sharpness([0.0]).feature(paddle.to_tensor(tensors)).numpy()[:, 0]
        order = np.array_split(np.argsort(values), 5)
        network = Sharpness([float(values[group].mean()) for group in order])
        right = network(paddle.to_tensor(tensors)).numpy().argmax(axis=1)
        for i, (piece, label) in enumerate(zip(pieces, right, strict=True)):
            (self.images / "abcde"[label]).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(self.images / "abcde"[label] / f"{i}.png"), piece)
        self.bundle.mkdir()
        spec = paddle.static.InputSpec([None, 3, SIZE, SIZE], "float32", name="x")
        save_network(network, self.bundle, spec)
        write_description(self.bundle, "my_own", preprocess, usual_output("abcde", 5))
        convert_to_onnx(open_bundle(self.bundle), ConvertOptions(), nothing)

    @staticmethod
    def _pieces() -> list[Any]:
        pieces = []
        for file in find_images(IMAGES):
            image = read_image(file.path)[:, :, ::-1]
            height, width = image.shape[0] // 2, image.shape[1] // 4
            corners = [(i // 4 * height, i % 4 * width) for i in range(8)]
            pieces += [image[y : y + height, x : x + width] for y, x in corners]
        return [np.ascontiguousarray(piece) for piece in pieces]


@pytest.fixture(scope="module")
def labelled_model(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return Labelled(tmp_path_factory.mktemp("labelled"))


def accuracy(bundle: Path, images: Path) -> tuple[Accuracy, tuple[str, ...]]:
    opened = open_bundle(bundle)
    files, labels = read_labelled_images(images, images, opened.labels)
    report = validate(opened, ValidateOptions(parse_runs("onnxruntime"), files, labels))
    return report.accuracies[0], report.warnings


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("- 0.485", "- 0.6", "NormalizeImage.mean: [0.6, "),
        ("- 0.229", "- 0.1", "NormalizeImage.std: [0.1, "),
        ("resize_short: 72", "resize_short: 144", "resize_short: 144 (now), 72 (then)"),
        ("  - ResizeImage", "  - DecodeImage: {to_rgb: false}\n  - ResizeImage", "DecodeImage"),
        ("- a\n    - b", "- b\n    - a", "other labels"),
    ],
)
def test_sabotage_of_an_unknown_network_shows_in_its_accuracy_and_is_told(
    old: str, new: str, told: str, labelled_model: Labelled, tmp_path: Path
):
    bundle = Path(shutil.copytree(labelled_model.bundle, tmp_path / "bundle"))
    before, quiet = accuracy(bundle, labelled_model.images)
    assert (before.rows, before.top1, quiet) == (40, 1.0, ())
    changed(bundle, old, new)
    after, warnings = accuracy(bundle, labelled_model.images)
    assert after.top1_interval[1] < before.top1_interval[0]
    (warning,) = warnings
    assert "has changed since inference.onnx was made" in warning
    assert told in warning


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("resize_short: 72", "resize_short: 80", "resize_short: 80 (now), 72 (then)"),
        ("order: ''", "std: [1, 1, 1], order: ''", "NormalizeImage.std: [1, 1, 1] (now)"),
        ("- name 0, the", "- name 9, the", "other labels"),
    ],
)
def test_sabotage_of_a_small_pp_hgnet_is_told(old: str, new: str, told: str, mini: Path):
    options = ConvertOptions(check=False)
    (mini / "inference.onnx").unlink()
    convert_to_onnx(open_bundle(mini), options, nothing)
    assert open_bundle(mini).notes == ()
    changed(mini, old, new)
    (note,) = open_bundle(mini).notes
    assert told in note
    convert_to_onnx(open_bundle(mini), options, nothing)
    assert open_bundle(mini).notes == ()
