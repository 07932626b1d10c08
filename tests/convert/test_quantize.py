# SPDX-License-Identifier: Apache-2.0
"""Quantization: recipes, the verdict on held-out images, the sidecar, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from photos import photographs

from conftest import IMAGES, MINI, require_engine
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.convert.int8 import qdq
from hgdeploy.convert.int8.from_onnx import int8_from_onnx
from hgdeploy.convert.int8.histogram import Histogram
from hgdeploy.convert.int8.options import QuantizeOptions, QuantizeReport, Try
from hgdeploy.convert.int8.variants import quantize as quantize_bundle
from hgdeploy.engines import engine_module, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, ConfigError, EngineError, HGDeployError, InputError
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import ImageFile, find_images
from hgdeploy.system.progress import nothing
from hgdeploy.transforms.operators_config import imagenet_ops
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.accuracy import wilson_interval
from hgdeploy.validation.compare import compare

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

PAIR = ("QuantizeLinear", "DequantizeLinear")
PREPROCESS = Preprocessor(imagenet_ops(72, 64))


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pphgnet_mini with its batch normalisation folded."""
    onnxslim = pytest.importorskip("onnxslim", reason="onnxslim is not installed")
    path = tmp_path_factory.mktemp("folded") / "inference.onnx"
    model = onnxslim.slim(onnx.load(MINI / "inference.onnx"))
    onnx.helper.set_model_props(
        model, {"hgdeploy.model_name": "mini", "hgdeploy.precision": "fp32"}
    )
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 pieces of real photographs, as files."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("crops")
    for path in sorted(IMAGES.glob("*.jpg")):
        with Image.open(path) as image:
            width, height = image.width // 4, image.height // 2
            for index in range(8):
                left, top = index % 4 * width, index // 4 * height
                piece = image.crop((left, top, left + width, top + height))
                piece.save(folder / f"{path.stem}{index}.png")
    return folder


def quantize(
    source: Path, target: Path, given: Path | list[ImageFile], **options: object
) -> tuple[QuantizeReport, list[str]]:
    lines: list[str] = []
    files = find_images(given) if isinstance(given, Path) else given
    wanted = QuantizeOptions(**{"min_agreement": 0.0, **options})
    return int8_from_onnx(source, target, files, PREPROCESS, wanted, lines.append), lines


def classes_of(run: Callable[[np.ndarray], np.ndarray], images: Path) -> list[int]:
    inputs = [PREPROCESS(read_image(file.path))[np.newaxis] for file in find_images(images)]
    return [int(run(x).argmax()) for x in inputs]


def in_onnxruntime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"x": x})[0]


def in_openvino(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    require_engine("openvino")
    try:
        engine = load_engine("openvino", path, EngineOptions(precision="int8"))
    except EngineError as error:
        if "wrongly on this CPU" not in str(error):
            raise
        pytest.skip(str(error))
    return lambda x: engine.infer({"x": x})[engine.outputs[0].name]


@pytest.mark.parametrize(
    ("method", "activations"),
    [
        ("minmax", "int8"),
        ("percentile", "uint8"),
        ("entropy", "int8"),
        pytest.param("minmax", "uint8", marks=pytest.mark.slow),
        pytest.param("percentile", "int8", marks=pytest.mark.slow),
        pytest.param("entropy", "uint8", marks=pytest.mark.slow),
    ],
)
def test_each_method_gives_a_model_that_mostly_agrees(folded, crops, tmp_path, method, activations):
    target = tmp_path / "inference.int8.onnx"
    report, _ = quantize(folded, target, crops, method=method, activations=activations)
    assert report.chosen.recipe.startswith(method)
    assert (report.calibration_images, report.held_out_images) == (30, 10)
    assert report.chosen.result.top1_agreement >= 0.8
    assert target.stat().st_size < 0.5 * folded.stat().st_size
    expected = classes_of(in_onnxruntime(folded), crops)
    found = classes_of(in_onnxruntime(target), crops)
    assert np.mean(np.equal(expected, found)) >= 0.8


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_onnx_runtime_and_openvino_choose_the_same_classes(folded, crops, tmp_path, activations):
    target = tmp_path / "inference.int8.onnx"
    quantize(folded, target, crops, activations=activations)
    ours = classes_of(in_onnxruntime(target), crops)
    theirs = classes_of(in_openvino(target), crops)
    assert np.mean(np.equal(ours, theirs)) >= 0.95


@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_this_cpu_computes_what_the_file_says(folded, crops, tmp_path, activations):
    """Unoptimised, ONNX Runtime takes each pair by itself, and computes in fp32 between them."""
    require_engine("onnxruntime")
    target = tmp_path / "inference.int8.onnx"
    quantize(folded, target, crops, activations=activations)
    x = np.stack([PREPROCESS(read_image(file.path)) for file in find_images(crops)])
    outputs = []
    for optimized in (False, True):
        options = EngineOptions(precision="int8", graph_optimization=optimized)
        with load_engine("onnxruntime", target, options) as engine:
            outputs += engine.infer({"x": x}).values()
    np.testing.assert_allclose(outputs[1], outputs[0], atol=0.003)


def test_a_cpu_without_vnni_takes_weights_of_7_bits_only(folded, crops, tmp_path, monkeypatch):
    require_engine("onnxruntime")
    options = EngineOptions(precision="int8")

    def pretend(saturates: bool) -> None:
        for module in ("convert.int8.options", "engines.onnxruntime"):
            monkeypatch.setattr(f"hgdeploy.{module}.int8_saturates", lambda: saturates)

    pretend(False)
    for bits, largest in ((7, 64), (8, 127)):
        quantize(folded, tmp_path / f"{bits}.onnx", crops, weight_bits=bits)
        tensors = onnx.load(tmp_path / f"{bits}.onnx").graph.initializer
        weights = [onnx.numpy_helper.to_array(t).astype(int) for t in tensors if t.data_type == 3]
        assert max(abs(w).max() for w in weights) == largest
        load_engine("onnxruntime", tmp_path / f"{bits}.onnx", options).close()
    pretend(True)
    load_engine("onnxruntime", tmp_path / "7.onnx", options).close()
    with pytest.raises(EngineError, match=r"8-bit weights.*overflow.*--weight-bits 7"):
        load_engine("onnxruntime", tmp_path / "8.onnx", options)
    (tmp_path / "8.onnx.meta.json").unlink()
    with pytest.raises(EngineError, match="does not say how many bits"):
        load_engine("onnxruntime", tmp_path / "8.onnx", options)
    assert QuantizeOptions().weight_bits == 7
    with pytest.raises(ConfigError, match="cannot be measured here"):
        QuantizeOptions(weight_bits=8)


def test_openvino_refuses_int8_where_it_computes_it_wrongly(folded, crops, tmp_path, monkeypatch):
    """What kind of activations it computes rightly differs between CPUs."""
    require_engine("openvino")
    options, target = EngineOptions(precision="int8"), tmp_path / "a.onnx"
    error = {True: 0.36, False: 1e-7}
    monkeypatch.setattr("hgdeploy.engines.openvino.engine.int8_error", lambda signed: error[signed])
    quantize(folded, target, crops, activations="uint8")
    load_engine("openvino", target, options).close()
    assert "--activations uint8" in engine_module("openvino").capability().notes[0]
    quantize(folded, target, crops, activations="int8")
    with pytest.raises(EngineError, match=r"with int8 activations wrongly.*use onnxruntime"):
        load_engine("openvino", target, options)
    (tmp_path / "a.onnx.meta.json").unlink()
    with pytest.raises(EngineError, match=r"a\.onnx may have them"):
        load_engine("openvino", target, options)
    error[False] = 0.08
    with pytest.raises(EngineError, match="with int8 and uint8 activations wrongly"):
        load_engine("openvino", target, options)
    assert "int8" not in engine_module("openvino").capability().precisions


def test_int8_activations_are_what_tensorrt_reads(folded, crops, tmp_path):
    """TensorRT takes int8 only, with zero points of 0; it reads no pair on a bias."""
    target = tmp_path / "inference.int8.onnx"
    quantize(folded, target, crops)
    graph = onnx.load(target).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in PAIR]
    assert len(pairs) > 100
    for node in pairs:
        assert tensors[node.input[2]].dtype == np.int8
        assert not tensors[node.input[2]].any()


def test_uint8_activations_run_in_the_int8_kernels_of_onnx_runtime(folded, crops, tmp_path):
    target = tmp_path / "inference.int8.onnx"
    quantize(folded, target, crops, activations="uint8")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(target), options, providers=["CPUExecutionProvider"])
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds.count("QLinearConv") == 27
    assert kinds.count("FusedConv") == 5  # the gates, each of one pixel, with their sigmoid
    assert kinds.count("QLinearMatMul") == 1
    assert not {"Conv", "Gemm", "MatMul"} & set(kinds)


def test_the_end_of_the_model_stays_in_fp32(folded, crops, tmp_path):
    target = tmp_path / "inference.int8.onnx"
    quantize(folded, target, crops)
    nodes = list(onnx.load(target).graph.node)
    last = next(i for i, node in enumerate(nodes) if node.op_type == "MatMul")
    assert not [n for n in nodes[last:] if n.op_type in PAIR]


@pytest.mark.parametrize("symmetric", [True, False])
def test_layers_left_in_fp32_read_and_compute_in_fp32(folded, symmetric):
    """No pair stands before them: ONNX Runtime would quantize their weights on its own."""
    graph = qdq.load_folded(folded)
    kept = qdq.layer_names(graph)[3:6]
    nodes = [name for name in qdq.node_names(graph) if name not in kept]
    ranges = dict.fromkeys(qdq.activation_names(graph), (-4.0, 4.0))
    result = qdq.quantized_graph(graph, ranges, nodes, symmetric=symmetric, weight_bits=8)
    onnx.checker.check_model(result.model, full_check=True)
    makers = {name: node for node in result.nodes for name in node.output}
    for node in result.nodes:
        if node.name in kept:
            before = [makers[name].op_type for name in node.input if name in makers]
            assert "DequantizeLinear" not in before


def test_the_search_stops_at_the_first_recipe_that_agrees(folded, crops, tmp_path):
    report, lines = quantize(folded, tmp_path / "a.onnx", crops, min_agreement=0.1)
    assert [one.recipe for one in report.tries] == ["minmax"]
    assert report.chosen == report.tries[-1]
    assert any("calibrated on 30 of 30 images" in line for line in lines)
    assert not any("sensitive" in line for line in lines)


@pytest.mark.slow  # it tries all recipes, layer by layer
def test_what_no_recipe_reaches_is_an_error_that_leaves_nothing(folded, crops, tmp_path):
    lines: list[str] = []
    wanted = QuantizeOptions()
    object.__setattr__(wanted, "min_agreement", 1.01)  # which no recipe can reach
    target = tmp_path / "inference.int8.onnx"
    with pytest.raises(BundleError) as caught:
        int8_from_onnx(folded, target, find_images(crops), PREPROCESS, wanted, lines.append)
    assert "no recipe reaches min_agreement 1.01 with fp32 on 10 held-out images" in str(
        caught.value
    )
    assert "top-1 agreement" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    tried = [line for line in lines if ": top-1 agreement" in line]
    assert [line.split(":")[0] for line in tried] == [
        "minmax",
        "percentile 99.99",
        "percentile 99.9",
        "entropy",
        *[line.split(":")[0] for line in tried[4:]],
    ]
    assert [line.split(" + ")[1].split()[0] for line in tried[4:]] == ["1", "2", "4", "8"]


def test_unreadable_images_are_named_and_counted(folded, crops, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    (tmp_path / "text.png").write_bytes(b"no image")
    bad = [ImageFile(str(tmp_path / name), name) for name in ("bad.jpg", "text.png", "missing.jpg")]
    report, lines = quantize(folded, tmp_path / "a.onnx", [*find_images(crops), *bad])
    assert sorted(one.split(":")[0] for one in report.skipped) == [
        "bad.jpg",
        "missing.jpg",
        "text.png",
    ]
    assert report.calibration_images + report.held_out_images == 40
    assert len([line for line in lines if line.startswith("skipped ")]) == 3
    sidecar = json.loads((tmp_path / "a.onnx.meta.json").read_text(encoding="utf-8"))
    assert sidecar["quantization"]["skipped_images"] == list(report.skipped)


def test_too_few_readable_images_are_an_error(folded, crops, tmp_path):
    files = [*find_images(crops)[:9], ImageFile(str(tmp_path / "missing.jpg"), "missing.jpg")]
    with pytest.raises(InputError, match=r"9 of 10 images.*at least 10.*missing.jpg: does not"):
        quantize(folded, tmp_path / "a.onnx", files)
    assert not list(tmp_path.iterdir())


def test_the_sidecar_and_the_file_say_how_it_was_made(folded, crops, tmp_path):
    target = tmp_path / "inference.int8.onnx"
    report, _ = quantize(folded, target, crops, images=20)
    facts = json.loads((tmp_path / "inference.int8.onnx.meta.json").read_text(encoding="utf-8"))
    assert facts["precision"] == "int8"
    assert list(facts["source"]) == ["inference.onnx"]
    assert facts["converter"]["onnxruntime"] == onnxruntime.__version__
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 3, 64, 64]}]
    assert facts["ending"] == ["softmax"]
    assert facts["quantization"]["recipe"] == report.chosen.recipe
    assert facts["quantization"]["calibration_images"] == 15
    assert len(facts["quantization"]["calibration_sha256"]) == 64
    assert facts["verdict"]["held_out_images"] == 5
    assert facts["verdict"]["top1_agreement"] == report.chosen.result.top1_agreement
    content = {item.key: item.value for item in onnx.load(target).metadata_props}
    assert content["hgdeploy.precision"] == "int8"
    assert content["hgdeploy.model_name"] == "mini"


def test_the_same_seed_gives_the_same_file_and_another_seed_other_images(folded, crops, tmp_path):
    digests, images = [], []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        quantize(folded, tmp_path / f"{name}.onnx", crops, seed=seed, images=20)
        facts = json.loads((tmp_path / f"{name}.onnx.meta.json").read_text(encoding="utf-8"))
        digests.append(facts["sha256"])
        images.append(facts["quantization"]["calibration_sha256"])
    assert digests[0] == digests[1]
    assert images[0] == images[1] != images[2]


def test_an_unfolded_model_is_folded_first(crops, tmp_path):
    quantize(MINI / "inference.onnx", tmp_path / "a.onnx", crops)
    kinds = [node.op_type for node in onnx.load(tmp_path / "a.onnx").graph.node]
    assert "QuantizeLinear" in kinds
    assert "BatchNormalization" not in kinds


@pytest.mark.parametrize("name", ["n_c_1_1", "class_token", "dense_norm", "fixed_batch_3"])
def test_foreign_models_are_quantized(name, foreign_onnx, crops):
    """Outputs with axes of 1, shapes in whole numbers, batch norms of their own, a fixed batch."""
    bundle = open_bundle(foreign_onnx(name))
    options = QuantizeOptions(method="minmax", min_agreement=0.5)
    report = quantize_bundle(bundle, find_images(crops), options, nothing, nothing)
    kinds = [node.op_type for node in onnx.load(str(report.path)).graph.node]
    assert "QuantizeLinear" in kinds
    assert report.chosen.result.top1_agreement >= 0.5


@pytest.mark.parametrize("name", ["sigmoid", "logits", "one_score"])
def test_scores_of_every_kind_are_compared_as_what_they_are(name, foreign_onnx, crops):
    options = QuantizeOptions(method="minmax", min_agreement=0.0)
    bundle, lines = open_bundle(foreign_onnx(name)), []
    report = quantize_bundle(bundle, find_images(crops), options, lines.append, nothing)
    result = report.chosen.result
    assert result.max_sum_error == 0
    assert (result.scale > 1) is (name == "logits")
    by = {"sigmoid": "labels", "logits": "top-1", "one_score": "distance"}[name]
    assert result.agreement_by == by
    sidecar = json.loads((bundle.root / "inference.int8.onnx.meta.json").read_text("utf-8"))
    assert sidecar["verdict"]["agreement_by"] == by
    said = {"labels": "agreement on the labels from 0.5 on", "distance": "share of scores within"}
    assert any(said.get(by, "top-1 agreement") in line for line in lines)
    assert any("top-" in line for line in lines) is (by == "top-1")


def test_images_that_say_nothing_are_refused(foreign_onnx, tmp_path):
    import cv2

    for i in range(12):
        cv2.imwrite(str(tmp_path / f"{i:02}.png"), np.full((80, 80, 3), i, np.uint8))
    bundle = open_bundle(foreign_onnx("plain"))
    with pytest.raises(InputError, match="has one colour only"):
        quantize_bundle(bundle, find_images(tmp_path), QuantizeOptions(), nothing, nothing)
    noise = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    for path in tmp_path.glob("*.png"):
        cv2.imwrite(str(path), noise)
    with pytest.raises(InputError, match="all 12 images are the same"):
        quantize_bundle(bundle, find_images(tmp_path), QuantizeOptions(), nothing, nothing)


@pytest.mark.parametrize(
    ("same", "rows", "least", "agrees"),
    [(3, 3, 0.99, True), (2, 3, 0.9, True), (1, 3, 0.9, False), (90, 100, 0.99, False)],
)
def test_an_interval_decides_about_agreement(same, rows, least, agrees):
    a = np.eye(rows, 2)[:, ::-1] * 0 + np.array([0.9, 0.1])
    b = a.copy()
    b[same:] = [0.1, 0.9]
    assert Try("minmax", (), compare(a, b), 0.0).agrees(least) is agrees


@pytest.mark.parametrize(
    ("same", "rows", "least", "needed"),
    [(3, 3, 0.99, 381), (5, 5, 0.5, None), (9, 10, 0.95, 73), (64, 64, 1.0, 0)],
)
def test_what_too_few_images_leave_open_is_told_with_how_many_decide(same, rows, least, needed):
    a = np.tile([0.9, 0.1], (rows, 1))
    b = a.copy()
    b[same:] = [0.1, 0.9]
    one = Try("minmax", (), compare(a, b), 0.0)
    told = one.undecided(QuantizeOptions(min_agreement=least, held_out=0.25))
    if needed is None:
        assert told is None
    elif not needed:
        assert "which no number of images shows" in told
    else:
        assert f"{needed} held-out images of the same share would decide: {4 * needed} im" in told
        share = same / rows
        for count, decides in ((needed + 20, True), (needed - 20, False)):
            low, high = wilson_interval(round(share * count), count)
            assert (low >= least or high < least) is decides


def test_few_held_out_images_are_told_with_how_many_would_decide(folded, crops, tmp_path):
    _, lines = quantize(folded, tmp_path / "a.onnx", crops, images=12, min_agreement=0.99)
    (told,) = [line for line in lines if line.startswith("warning: 3 held-out images")]
    assert "381 held-out images of the same share would decide" in told
    assert "with --images 1524" in told


def test_a_quantized_model_is_not_quantized_again(folded, crops, tmp_path):
    quantize(folded, tmp_path / "a.onnx", crops)
    with pytest.raises(BundleError, match="quantized already"):
        quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", crops)
    assert not (tmp_path / "b.onnx").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "minmaks"}, "did you mean 'minmax'?"),
        ({"activations": "float"}, "expected one of: int8, uint8"),
        ({"images": 9}, "images is 9, expected a whole number from 10"),
        ({"held_out": 1.0}, "held_out is 1.0, expected a number above 0 and below 1"),
        ({"weight_bits": 6}, "weight_bits is 6, expected 7 or 8"),
    ],
)
def test_wrong_options_are_refused_with_what_is_allowed(options, message):
    with pytest.raises(ConfigError) as caught:
        QuantizeOptions(**options)
    assert message in str(caught.value)


def test_images_of_another_size_are_one_line(folded, crops, tmp_path):
    other = Preprocessor(imagenet_ops(256, 224))
    with pytest.raises(HGDeployError, match=r"takes images of 64x64, but the preprocessing makes"):
        int8_from_onnx(
            folded, tmp_path / "a.onnx", find_images(crops), other, QuantizeOptions(), print
        )
    assert not list(tmp_path.iterdir())


def test_a_histogram_counts_every_value_however_they_come():
    rng = np.random.default_rng(0)
    values = rng.standard_normal(100_000).astype(np.float32) * 3
    whole, parts = Histogram(), Histogram()
    whole.add(values)
    for part in np.split(np.sort(values), 10):
        parts.add(part)
    assert whole.extremes() == parts.extremes() == (values.min(), values.max())
    for percent in (50, 99, 99.9):
        assert whole.percentile(percent) == parts.percentile(percent)
        expected = np.percentile(np.abs(values), percent)
        assert whole.percentile(percent)[1] == pytest.approx(expected, abs=0.01)


def test_entropy_clips_a_lonely_outlier_and_keeps_a_full_range():
    spread = np.linspace(-1, 1, 100_000, dtype=np.float32)
    plain, outlier = Histogram(), Histogram()
    plain.add(spread)
    outlier.add(np.append(spread, np.float32(50)))
    assert plain.entropy() == pytest.approx((-1, 1), abs=0.05)
    assert outlier.entropy() == pytest.approx((-1, 1.5), abs=0.6)


@pytest.mark.parametrize("values", [np.zeros(10), np.full(10, -2.0)])
def test_a_histogram_of_one_value_has_a_range(values):
    histogram = Histogram()
    histogram.add(values.astype(np.float32))
    for low, high in (histogram.extremes(), histogram.percentile(99.9), histogram.entropy()):
        assert low <= values.min()
        assert high == 0


@pytest.mark.slow
@pytest.mark.parametrize("activations", ["int8", "uint8"])
def test_efficientnet_lite0_on_real_photographs(registry_weights, tmp_path, capsys, activations):
    for library in ("paddle", "paddle2onnx", "onnxslim"):
        pytest.importorskip(library, reason=f"{library} is not installed")
    from hgdeploy.convert.onnx.from_paddle import onnx_from_paddle
    from hgdeploy.zoo.export import bundle_from_weights

    files = [ImageFile(str(path), path.name) for path in photographs()]
    weights = registry_weights("EfficientNetLite0")
    bundle = open_bundle(bundle_from_weights("EfficientNetLite0", weights, tmp_path / "lite0"))
    source = onnx_from_paddle(bundle, verify=None)
    preprocess = Preprocessor(bundle.preprocess)
    # Many of these photographs show nothing of ImageNet: fp32 itself is torn between classes.
    wanted = QuantizeOptions(min_agreement=0.9, activations=activations)
    target = bundle.root / "inference.int8.onnx"
    with capsys.disabled():
        report = int8_from_onnx(source, target, files, preprocess, wanted, print)
    assert report.calibration_images + report.held_out_images >= 100
    assert report.chosen.flip_margin < 0.15
    inputs = [preprocess(read_image(file.path))[np.newaxis] for file in files]
    ours, theirs = in_onnxruntime(target), in_openvino(target)
    same = [ours(x).argmax() == theirs(x).argmax() for x in inputs]
    assert np.mean(same) >= 0.95
