# SPDX-License-Identifier: Apache-2.0
"""Verdicts that mean something: rounding passes on every network, and a real fault on none."""

from __future__ import annotations

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import paddle
import pytest
from broken_models import BREAKS
from foreign import MODELS, Net, description, save_network
from onnx import helper, numpy_helper
from paddle import nn
from paddle.vision.models import MobileNetV2

from conftest import IMAGES
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import sidecar_path
from hgdeploy.cli.main import main
from hgdeploy.convert import fp16_from_onnx
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines import TensorSpec, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import parse_runs
from hgdeploy.errors import ConfigError, ValidationError
from hgdeploy.images.find import find_images
from hgdeploy.system.progress import nothing
from hgdeploy.validation.compare import compare, kind_of
from hgdeploy.validation.inputs import infer_in_batches, random_rows
from hgdeploy.validation.noise import Noise
from hgdeploy.validation.pairs import PairReport
from hgdeploy.validation.report import as_markdown
from hgdeploy.validation.tolerance import TOLERANCES, tolerance_misses
from hgdeploy.validation.validate import ValidateOptions, validate
from hgdeploy.validation.verify import verify_conversion, verify_precision

Foreign = Callable[[str], Path]
SIZE = 64


def lively(network: nn.Layer) -> nn.Layer:
    """Give a network of random weights batch statistics and a head that tell images apart.

    Then it makes as much of rounding as a trained network does, or more.
    """
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((16, 3, SIZE, SIZE), "f4"))
    network.train()
    for layer in network.sublayers():
        if isinstance(layer, nn.Dropout):
            layer.eval()
        if isinstance(layer, nn.BatchNorm2D):
            layer._momentum = 0.0
    with paddle.no_grad():
        network(x)
        network.eval()
        spread = 2.5 / network(x).numpy().std(axis=0)
    dense = [layer for layer in network.sublayers() if isinstance(layer, nn.Linear)][-1]
    dense.weight.set_value(dense.weight.numpy() * spread)
    return nn.Sequential(network, nn.Softmax(axis=-1))


@pytest.fixture(scope="module")
def noisy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MobileNetV2 with random weights: a right conversion differs by more than 1e-5."""
    folder = tmp_path_factory.mktemp("noisy")
    paddle.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = lively(MobileNetV2(num_classes=5))
    spec = paddle.static.InputSpec([None, 3, SIZE, SIZE], "float32", name="x")
    save_network(network, folder, spec)
    (folder / "inference.yml").write_text(description(MODELS["plain"]), encoding="utf-8")
    convert_to_onnx(open_bundle(folder), ConvertOptions(), nothing)
    return folder


@pytest.fixture
def noisy(noisy_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(noisy_model, tmp_path / "noisy"))


def pairs_of(bundle: Path, engines: str = "paddle,onnxruntime,openvino") -> tuple[PairReport, ...]:
    images = tuple(find_images(IMAGES))
    return validate(open_bundle(bundle), ValidateOptions(parse_runs(engines), images)).pairs


def test_rounding_passes_and_is_reported_in_units_of_the_models_noise(noisy: Path, run_here):
    pairs = pairs_of(noisy)
    assert len(pairs) == 6
    assert not any(pair.misses for pair in pairs)
    # The old fixed limits would have refused it.
    assert max(pair.comparison.max_log for pair in pairs) > 1e-4
    assert all(0 < pair.times_noise < 10 for pair in pairs)
    sidecar = json.loads((noisy / "inference.onnx.meta.json").read_text())
    assert sidecar["verdict"]["noise"]["max_log"] > 1e-5
    shown = run_here(main, "validate", noisy, "--random", "4")
    assert "times noise" in shown.stdout


def save_alone(model: onnx.ModelProto, path: Path) -> None:
    """Write a model without the sidecar that would tell that it has changed."""
    onnx.save(model, str(path))
    sidecar_path(path).unlink()


def off_by_a_percent(model: onnx.ModelProto) -> None:
    """One layer's weights are 1 % too large."""
    weights = [t for t in model.graph.initializer if len(t.dims) == 4][5]
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1.01, weights.name))


def classes_swapped(model: onnx.ModelProto) -> None:
    """Two classes have changed places."""
    order = helper.make_tensor("swapped", onnx.TensorProto.INT64, [5], [1, 0, 2, 3, 4])
    model.graph.initializer.append(order)
    last = next(node for node in model.graph.node if model.graph.output[0].name in node.output)
    name = last.output[0]
    last.output[0] = "in_order"
    model.graph.node.append(helper.make_node("Gather", ["in_order", "swapped"], [name], axis=1))


@pytest.mark.parametrize("break_it", [*BREAKS, off_by_a_percent, classes_swapped])
def test_a_fault_never_passes_for_rounding(
    break_it: Callable[[onnx.ModelProto], None], noisy: Path
):
    path = noisy / "inference.onnx"
    model = onnx.load(str(path))
    break_it(model)
    save_alone(model, path)
    pairs = pairs_of(noisy, "paddle,onnxruntime")
    assert all(pair.misses for pair in pairs), break_it.__doc__
    assert all(pair.times_noise > 50 for pair in pairs)
    with pytest.raises(ValidationError, match="times what rounding alone does"):
        verify_conversion(noisy / "inference.json", path)


def test_a_fault_is_found_behind_scores_that_noise_drives_to_one(tmp_path: Path):
    """Networks of real size answer white noise with a 1, whatever their weights are off by."""
    network = Net()
    network.dense.weight.set_value(network.dense.weight * 60)
    spec = paddle.static.InputSpec([None, 3, SIZE, SIZE], "float32", name="x")
    save_network(network, tmp_path, spec)
    (tmp_path / "inference.yml").write_text(description(MODELS["plain"]), encoding="utf-8")
    path = convert_to_onnx(open_bundle(tmp_path), ConvertOptions(), nothing)
    noise = random_rows(TensorSpec("x", "float32", (-1, 3, SIZE, SIZE)), None, 1, 0)
    with contextlib.closing(load_engine("onnxruntime", path, EngineOptions())) as engine:
        assert infer_in_batches(engine, noise, 1).max() == 1.0
    model = onnx.load(str(path))
    weights = next(t for t in model.graph.initializer if len(t.dims) == 4)
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1.01, weights.name))
    save_alone(model, path)
    with pytest.raises(ValidationError, match="does not compute what"):
        verify_conversion(tmp_path / "inference.json", path)


def test_rounding_of_very_large_logits_passes_by_the_noise():
    """LeViT on noise: 0.22 in the logarithm of 4e-20, which nobody sees."""
    reference = np.array([[1.0, 4e-20]])
    found = compare(reference, np.array([[1.0, 5e-20]]))
    allowed = TOLERANCES["fp32"].with_noise(Noise(2e-5, 0.034), found.scale)
    assert found.max_log > 0.2
    assert not tolerance_misses(found, allowed, "random")
    seen = compare(np.array([[0.5, 0.5]]), np.array([[0.49, 0.51]]))
    assert tolerance_misses(seen, allowed, "random") == ["largest difference 0.01 > 0.0002"]


def test_the_noise_of_logits_widens_a_limit_that_is_relative_to_their_scale():
    reference = np.array([[100.0, -50.0, 3.0]])
    found = compare(reference, reference + 0.01, kind="logits")
    allowed = TOLERANCES["fp32"].with_noise(Noise(5e-4, 0.0), found.scale)
    assert allowed.max_abs * found.scale == pytest.approx(5e-3)
    assert tolerance_misses(found, allowed, "images") == ["largest difference 0.01 > 0.005"]


def test_a_model_that_fp16_is_too_coarse_for_is_refused_for_that_reason(noisy: Path):
    path = noisy / "inference.onnx"
    model = onnx.load(str(path))
    softmax = next(node for node in model.graph.node if node.op_type == "Softmax")
    model.graph.initializer.append(numpy_helper.from_array(np.float32(6), "gain"))
    scale = helper.make_node("Mul", [softmax.input[0], "gain"], ["sharp"])
    softmax.input[0] = "sharp"
    model.graph.node.insert(list(model.graph.node).index(softmax), scale)
    save_alone(model, path)
    target = noisy / "inference.fp16.onnx"
    rows = [np.random.default_rng(0).standard_normal((64, 3, SIZE, SIZE), np.float32)]
    with pytest.raises(ValidationError, match=r"fp16 is too coarse .* rounding alone .* use fp32"):
        fp16_from_onnx(path, target, rows, verify=verify_precision("fp16", rows))
    assert not target.exists()


def test_weights_of_another_training_never_pass(foreign: Foreign, foreign_onnx: Foreign):
    ours, other = foreign("plain"), foreign_onnx("other_weights")
    for name in ("inference.onnx",):
        shutil.copy(other / name, ours / name)
    assert all(pair.misses for pair in pairs_of(ours, "paddle,onnxruntime"))


@pytest.mark.parametrize("name", ["sigmoid", "logits", "one_score", "one_softmax"])
def test_scores_of_every_kind_are_converted_and_validated(name: str, foreign: Foreign):
    bundle = foreign(name)
    convert_to_onnx(open_bundle(bundle), ConvertOptions(), nothing)
    pairs = pairs_of(bundle, "paddle,onnxruntime")
    kinds = {"sigmoid": "independent", "logits": "logits", "one_score": "independent"}
    assert {pair.scores for pair in pairs} == {kinds.get(name, "probabilities")}
    assert not any(pair.misses for pair in pairs)


@pytest.mark.parametrize("name", ["sigmoid", "logits"])
def test_a_fault_in_scores_of_every_kind_is_found(name: str, foreign_onnx: Foreign):
    bundle = foreign_onnx(name)
    artifact = bundle / "inference.onnx"
    model = onnx.load(str(artifact))
    weights = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    weights.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weights) * 1.01, weights.name))
    save_alone(model, artifact)
    assert all(pair.misses for pair in pairs_of(bundle, "paddle,onnxruntime"))


def test_scores_themselves_say_what_they_are_where_the_graph_does_not():
    rows = np.array([[0.25, 0.75], [0.5, 0.5]])
    assert kind_of(None, rows) == "probabilities"
    assert kind_of(None, rows * 2) == "logits"
    assert kind_of(None, np.array([[-1.0, 2.0]])) == "logits"


def test_multi_label_agreement_is_by_threshold():
    a = np.array([[0.9, 0.8, 0.1], [0.2, 0.3, 0.1]])
    b = np.array([[0.8, 0.9, 0.1], [0.3, 0.2, 0.1]])
    assert compare(a, b, kind="independent").top1_agreement == 1.0
    assert compare(a, b).top1_agreement == 0.0


@pytest.mark.parametrize(
    ("reference", "near", "agreement"),
    [([100.0, 101.0], 0.04, 1.0), ([100.0, 101.0], 0.06, 0.0), ([7.0, 7.0], 0.3, 1.0)],
)
def test_single_values_agree_within_a_share_of_their_range(reference, near, agreement):
    a = np.array(reference)[:, None]
    found = compare(a, a + near, kind="logits")
    assert (found.agreement_by, found.top1_agreement) == ("distance", agreement)
    assert found.agreement == f"share of scores within 5 % {agreement:.4f}"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("sigmoid", "cosine | agreement on the labels from 0.5 on | verdict"),
        ("one_score", "cosine | share of scores within 5 % | verdict"),
        ("logits", "cosine | top-1 | top-5 | verdict"),
    ],
)
def test_the_report_says_what_agreement_means(name: str, head: str, foreign_onnx: Foreign):
    bundle = open_bundle(foreign_onnx(name))
    report = validate(bundle, ValidateOptions(parse_runs("paddle,onnxruntime"), random_rows=2))
    table = [line for line in as_markdown(report).splitlines() if line.startswith("| ")]
    assert head in table[0]
    assert len({line.count(" | ") for line in table[:2]}) == 1


def test_a_single_score_has_no_accuracy_on_labels(foreign: Foreign):
    images = tuple(find_images(IMAGES))
    wanted = ValidateOptions(parse_runs("paddle"), images, labels=(0,) * len(images))
    with pytest.raises(ConfigError, match="gives one score for each image and chooses no class"):
        validate(open_bundle(foreign("one_score")), wanted)


def test_one_run_alone_is_no_comparison(foreign: Foreign, run_here):
    done = run_here(main, "validate", foreign("plain"), "--engines", "paddle")
    assert (done.returncode, done.stdout) == (2, "")
    assert "paddle alone has nothing to be compared with" in done.stderr
