# SPDX-License-Identifier: Apache-2.0
"""Paddle to ONNX: right answers under the right names, or one line and nothing left behind."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import DATA, IMAGES, REPO, run_command
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.paddle_params import read_params
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.classify.classifier import Classifier
from hgdeploy.cli.make.paddle2onnx import paddle2onnx_command
from hgdeploy.convert import OnnxOptions, fp16_from_onnx, onnx_from_paddle, onnx_notes
from hgdeploy.convert.artifact import write_artifact
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import dims_of
from hgdeploy.convert.onnx import large, paddle2onnx_process
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, ConfigError, EngineError, OutputError
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.libraries import installed_version
from hgdeploy.validation.compare import compare
from hgdeploy.zoo.export import bundle_from_weights

pytestmark = pytest.mark.skipif(
    installed_version("paddle2onnx") is None or installed_version("onnxslim") is None,
    reason="needs paddle2onnx and onnxslim: pip install -e '.[cpu,convert]' (Python 3.10, 3.11)",
)

FORMATS = ("pphgnet_mini", "pphgnet_mini_pir")
DESCRIPTION = """\
Global: {model_name: pphgnet_mini}
PreProcess:
  transform_ops:
    - ResizeImage: {resize_short: 72}
    - CropImage: {size: 64}
    - NormalizeImage: {scale: 1.0/255.0, order: ''}
    - ToCHWImage:
PostProcess:
  Topk:
    topk: 5
    label_list: [a, b, c, d, e, f, g, h, i, "é, ü"]
"""


def copy_model(name: str, folder: Path) -> Path:
    """A bundle of one of the two formats, without an ONNX file."""
    folder.mkdir()
    for path in (DATA / name).glob("inference.pd*"):
        shutil.copy(path, folder)
    for path in (DATA / name).glob("inference.json"):
        shutil.copy(path, folder)
    (folder / "inference.yml").write_text(DESCRIPTION, encoding="utf-8")
    return folder


def verify(paddle: Path, onnx: Path) -> dict[str, Any]:
    """Compare two models on random inputs of batch 1 and 3, or of the batch the ONNX file has."""
    options = EngineOptions(threads=1)
    worst: dict[str, Any] = {}
    with (
        load_engine("paddle", paddle, options) as a,
        load_engine("onnxruntime", onnx, options) as b,
    ):
        (spec,) = b.inputs
        size = a.inputs[0].shape[1:]
        for batch in (1, 3) if spec.shape[0] == -1 else (spec.shape[0],):
            x = np.random.default_rng(batch).standard_normal((batch, *size), dtype=np.float32)
            expected = next(iter(a.infer({a.inputs[0].name: x}).values()))
            result = compare(expected, next(iter(b.infer({spec.name: x}).values())))
            if not (result.max_abs <= 1e-5 and result.max_log <= 5e-5):
                raise BundleError(f"{onnx.name} differs by {result.max_abs:.1e}")
            if result.max_abs >= worst.get("max_abs", 0):
                worst = dataclasses.asdict(result)
    return worst


def run_onnx(path: Path, x: np.ndarray) -> np.ndarray:
    with load_engine("onnxruntime", path, EngineOptions(threads=1)) as engine:
        (output,) = engine.infer({"x": x}).values()
    return output


def load_onnx(path: Path) -> Any:
    return pytest.importorskip("onnx").load(str(path))


def shape_of(value: Any) -> list[int | str]:
    return dims_of(value)


@pytest.fixture(scope="module", params=FORMATS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of each format, converted with the defaults."""
    folder = copy_model(request.param, tmp_path_factory.mktemp("convert") / request.param)
    onnx_from_paddle(open_bundle(folder), verify=verify)
    return folder


@pytest.fixture
def mini_pir(tmp_path: Path) -> Path:
    return copy_model("pphgnet_mini_pir", tmp_path / "model")


def test_the_golden_answers_come_out_in_both_formats(bundle, golden):
    found = run_onnx(bundle / "inference.onnx", golden["x"])
    np.testing.assert_allclose(found, golden["probabilities"], rtol=0, atol=1e-6)


def test_names_and_one_batch_dimension(bundle):
    model = load_onnx(bundle / "inference.onnx")
    (x,), (output,) = model.graph.input, model.graph.output
    assert (x.name, shape_of(x)) == ("x", ["batch", 3, 64, 64])
    assert (output.name, shape_of(output)) == ("probabilities", ["batch", 10])
    assert OnnxGraph(model, "the model").opset == 17


def test_batch_normalisation_and_constants_are_folded(bundle):
    operators = {node.op_type for node in load_onnx(bundle / "inference.onnx").graph.node}
    assert "Conv" in operators
    assert not operators & {"BatchNormalization", "Constant", "Identity"}
    assert read_sidecar(bundle / "inference.onnx")["folded"] is True


def test_dropout_that_scales_at_inference_keeps_its_factor(bundle):
    onnx = pytest.importorskip("onnx")
    model = load_onnx(bundle / "inference.onnx")
    values = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    factors = [
        values[name].item()
        for node in model.graph.node
        if node.op_type == "Mul"
        for name in node.input
        if name in values and values[name].size == 1
    ]
    assert factors == [pytest.approx(0.8)]


def test_the_file_carries_what_is_needed_to_use_it_alone(bundle):
    metadata = {p.key: p.value for p in load_onnx(bundle / "inference.onnx").metadata_props}
    assert metadata["hgdeploy.model_name"] == "pphgnet_mini"
    assert metadata["hgdeploy.precision"] == "fp32"
    assert json.loads(metadata["hgdeploy.labels"])[-1] == "é, ü"
    operators = json.loads(metadata["hgdeploy.preprocess"])
    assert [next(iter(op)) for op in operators] == [
        "ResizeImage",
        "CropImage",
        "NormalizeImage",
        "ToCHWImage",
    ]
    sources = json.loads(metadata["hgdeploy.source_sha256"])
    assert sources == {name: file_sha256(bundle / name) for name in sources}
    assert "inference.pdiparams" in sources
    assert json.loads(metadata["hgdeploy.versions"])["paddle2onnx"]


def test_the_sidecar_tells_how_it_was_made(bundle):
    path = bundle / "inference.onnx"
    facts = read_sidecar(path)
    assert facts["sha256"] == file_sha256(path)
    assert facts["inputs"] == [{"name": "x", "dtype": "float32", "shape": [-1, 3, 64, 64]}]
    assert facts["outputs"] == [{"name": "probabilities", "dtype": "float32", "shape": [-1, 10]}]
    assert facts["ending"] == ["softmax"]
    assert facts["precision"] == "fp32"
    assert facts["verdict"]["max_abs"] <= 1e-6
    assert facts["verdict"]["max_log"] <= 1e-5
    assert onnx_notes(path) == []
    assert sorted(p.name for p in bundle.glob("inference.onnx*")) == [
        "inference.onnx",
        "inference.onnx.meta.json",
    ]


def test_the_same_model_gives_the_same_bytes(bundle, tmp_path):
    again = onnx_from_paddle(open_bundle(bundle), None, tmp_path / "again.onnx", verify=None)
    assert again.read_bytes() == (bundle / "inference.onnx").read_bytes()
    assert onnx_notes(again) == [f"{again} was not compared with the Paddle model"]


@pytest.mark.parametrize("opset", [7, 11, 13, 21])
def test_every_opset_gives_the_golden_answers(mini_pir, golden, opset):
    path = onnx_from_paddle(open_bundle(mini_pir), OnnxOptions(opset=opset), verify=None)
    assert OnnxGraph.read(path).opset == opset == read_sidecar(path)["opset"]
    np.testing.assert_allclose(
        run_onnx(path, golden["x"]), golden["probabilities"], rtol=0, atol=1e-6
    )


def test_a_fixed_batch_is_fixed_everywhere(mini_pir, golden):
    path = onnx_from_paddle(open_bundle(mini_pir), OnnxOptions(batch=4), verify=verify)
    model = load_onnx(path)
    assert shape_of(model.graph.input[0]) == [4, 3, 64, 64]
    assert shape_of(model.graph.output[0]) == [4, 10]
    assert all(isinstance(d, int) for v in model.graph.value_info for d in shape_of(v))
    x = np.repeat(golden["x"][:1], 4, axis=0)
    np.testing.assert_allclose(
        run_onnx(path, x), np.repeat(golden["probabilities"][:1], 4, axis=0), rtol=0, atol=1e-6
    )


def test_height_and_width_can_be_dynamic(mini_pir):
    inference = pytest.importorskip("paddle.inference")
    path = onnx_from_paddle(open_bundle(mini_pir), OnnxOptions(dynamic_size=True), verify=None)
    assert shape_of(load_onnx(path).graph.input[0]) == ["batch", 3, "height", "width"]
    config = inference.Config(*(str(mini_pir / f"inference.{s}") for s in ("json", "pdiparams")))
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    for size in ((64, 64), (96, 80)):
        x = np.random.default_rng(0).standard_normal((2, 3, *size), dtype=np.float32)
        (expected,) = (np.array(t.numpy()) for t in predictor.run([_tensor(x)]))
        np.testing.assert_allclose(run_onnx(path, x), expected, rtol=0, atol=1e-6)


def _tensor(x: np.ndarray) -> Any:
    return pytest.importorskip("paddle").to_tensor(x)


def export_net(folder: Path, ending: str, *, batch: int = -1, flatten: bool = False) -> Path:
    """Export a tiny Paddle classifier that ends in `ending`."""
    paddle = pytest.importorskip("paddle")
    paddle.seed(0)
    head = [paddle.nn.Flatten(), paddle.nn.Linear(8 * 64, 5)]
    if not flatten:
        head = [paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten(), paddle.nn.Linear(8, 5)]
    last = {"softmax": [paddle.nn.Softmax()], "sigmoid": [paddle.nn.Sigmoid()], "none": []}
    conv, norm = paddle.nn.Conv2D(3, 8, 3, padding=1), paddle.nn.BatchNorm2D(8)
    net = paddle.nn.Sequential(conv, norm, paddle.nn.ReLU(), *head, *last[ending])
    net.eval()
    spec = [paddle.static.InputSpec([batch, 3, 8, 8], "float32", name="image")]
    paddle.jit.save(net, str(folder / "inference"), input_spec=spec)
    return folder


@pytest.mark.parametrize(
    ("ending", "name"), [("softmax", "probabilities"), ("sigmoid", "scores"), ("none", "logits")]
)
def test_the_output_is_called_what_it_is(tmp_path, ending, name):
    folder = export_net(tmp_path, ending)
    path = onnx_from_paddle(open_bundle(folder), verify=lambda *_: {})
    facts = read_sidecar(path)
    assert facts["outputs"][0]["name"] == name
    assert (facts["ending"] == ["softmax"]) is (ending == "softmax")
    assert [name in note for note in onnx_notes(path)] == [True] * (ending != "softmax")


def test_an_opset_too_low_for_the_model_is_raised_with_a_note_or_refused(tmp_path):
    paddle = pytest.importorskip("paddle")
    paddle.seed(0)
    pool = paddle.nn.AdaptiveAvgPool2D(1), paddle.nn.Flatten(), paddle.nn.Softmax()
    net = paddle.nn.Sequential(paddle.nn.Conv2D(3, 5, 3), paddle.nn.GELU(), *pool)
    net.eval()
    spec = [paddle.static.InputSpec([-1, 3, 8, 8], "float32", name="x")]
    paddle.jit.save(net, str(tmp_path / "inference"), input_spec=spec)
    path = onnx_from_paddle(open_bundle(tmp_path), OnnxOptions(opset=7), verify=verify)
    assert OnnxGraph.read(path).opset == 9
    assert onnx_notes(path) == [f"{path} has opset 9: the model needs more than the 7 asked for"]
    exact = OnnxOptions(opset=7, exact_opset=True)
    with pytest.raises(BundleError, match="ask for a higher opset than 7"):
        onnx_from_paddle(open_bundle(tmp_path), exact, verify=None)


def test_a_graph_that_onnxslim_cannot_fold_is_converted_unfolded(mini_pir, monkeypatch, golden):
    def slim(*_: Any) -> Any:
        raise KeyError("a node of Swin")

    monkeypatch.setattr(pytest.importorskip("onnxslim"), "slim", slim)
    path = onnx_from_paddle(open_bundle(mini_pir), verify=verify)
    (note,) = onnx_notes(path)
    assert "is not folded" in note
    assert "a node of Swin" in note
    assert read_sidecar(path)["ending"] == ["softmax"]
    np.testing.assert_allclose(
        run_onnx(path, golden["x"]), golden["probabilities"], rtol=0, atol=1e-6
    )


def test_a_size_that_the_model_is_bound_to_cannot_be_dynamic(tmp_path):
    folder = export_net(tmp_path, "softmax", flatten=True)
    with pytest.raises(BundleError, match="dynamic height and width are not possible"):
        onnx_from_paddle(open_bundle(folder), OnnxOptions(dynamic_size=True), verify=None)
    assert not list(folder.glob("*.onnx*"))


def test_a_model_of_another_fixed_batch_is_refused(tmp_path):
    folder = export_net(tmp_path, "softmax", batch=1)
    with pytest.raises(BundleError, match="fixed batch of 1, but 8 was asked for"):
        onnx_from_paddle(open_bundle(folder), OnnxOptions(batch=8), verify=None)


def test_a_real_network_with_its_weights_stays_the_same(registry_weights, tmp_path):
    folder = bundle_from_weights(
        "EfficientNetLite0", registry_weights("EfficientNetLite0"), tmp_path / "lite0"
    )
    path = onnx_from_paddle(open_bundle(folder), verify=verify)
    facts = read_sidecar(path)
    assert facts["verdict"]["max_abs"] <= 1e-6
    assert facts["verdict"]["max_log"] <= 2e-5
    assert not [n for n in load_onnx(path).graph.node if n.op_type == "BatchNormalization"]
    for engine in ("paddle", "onnxruntime"):
        with Classifier(folder, engine, topk=1) as classifier:
            (prediction,) = classifier.predict(IMAGES / "coffee.jpg")
        assert prediction.labels == ("espresso",)


def spoil_params(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "inference.pdiparams"
        path.write_bytes(change(path.read_bytes()))

    return spoil


def spoil_model(folder: Path) -> None:
    for path in [*folder.glob("inference.json"), *folder.glob("inference.pdmodel")]:
        path.write_bytes(path.read_bytes()[:3000])


def put_nan(data: bytes) -> bytes:
    """Overwrite the last weight of the last tensor."""
    return data[:-4] + np.float32("nan").tobytes()


BAD = {
    "its last bytes are missing": (spoil_params(lambda b: b[:-100]), "damaged or truncated"),
    "half is missing": (spoil_params(lambda b: b[: len(b) // 2]), "damaged or truncated"),
    "parameters are empty": (spoil_params(lambda _: b""), "is empty"),
    "parameters are text": (spoil_params(lambda _: b"<html>" * 99), "no Paddle parameters"),
    "too many parameters": (spoil_params(lambda b: b + b), "come from one export"),
    "no parameters": (lambda f: (f / "inference.pdiparams").unlink(), "cannot read"),
    "the program is cut": (spoil_model, "is not a readable Paddle program"),
    "a weight is NaN": (spoil_params(put_nan), "NaN"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", FORMATS)
def test_bad_models_are_refused_in_one_line_and_leave_nothing(tmp_path, name, case):
    spoil, message = BAD[case]
    folder = copy_model(name, tmp_path / "model")
    spoil(folder)
    before = sorted(folder.iterdir())
    with pytest.raises(BundleError, match=message) as caught:
        onnx_from_paddle(open_bundle(folder), verify=None)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 900
    assert sorted(folder.iterdir()) == before


def test_parameters_of_another_model_are_refused(mini_pir, tmp_path):
    other = export_net(tmp_path, "softmax")
    shutil.copy(other / "inference.pdiparams", mini_pir)
    with pytest.raises(BundleError, match="come from one export"):
        onnx_from_paddle(open_bundle(mini_pir), verify=None)


def test_a_difference_from_paddle_leaves_what_was_there(mini_pir):
    old = mini_pir / "inference.onnx"
    old.write_bytes(b"an earlier conversion")
    seen = []

    def differ(paddle: Path, onnx: Path) -> Mapping[str, Any]:
        seen.append((paddle.name, onnx.name, onnx.stat().st_size > 0))
        raise BundleError("the two differ by 0.25 in probability")

    before = sorted(mini_pir.iterdir())
    with pytest.raises(BundleError, match=r"0\.25"):
        onnx_from_paddle(open_bundle(mini_pir), verify=differ)
    assert seen == [("inference.json", "inference.onnx", True)]
    assert old.read_bytes() == b"an earlier conversion"
    assert sorted(mini_pir.iterdir()) == before


def test_probabilities_that_do_not_sum_to_one_are_refused(mini_pir):
    with pytest.raises(BundleError, match="the sum of a row of its output differs from 1"):
        onnx_from_paddle(open_bundle(mini_pir), verify=lambda *_: {"max_sum_error": 0.2})


@pytest.mark.parametrize("opset", [6, 22])
def test_opsets_that_paddle2onnx_does_not_write_are_refused(opset):
    with pytest.raises(
        ConfigError, match=f"opset is {opset}, expected a whole number from 7 to 21"
    ):
        OnnxOptions(opset=opset)


def test_a_batch_of_zero_is_refused():
    with pytest.raises(ConfigError, match="batch is 0, expected a whole number from 1"):
        OnnxOptions(batch=0)


def test_a_place_that_cannot_be_written_is_reported(mini_pir):
    target = mini_pir / "inference.yml" / "x.onnx"
    with pytest.raises(OutputError, match="cannot be written"):
        onnx_from_paddle(open_bundle(mini_pir), None, target, verify=None)


def test_a_missing_paddle2onnx_is_reported(mini_pir, monkeypatch):
    monkeypatch.setattr(paddle2onnx_process, "installed_version", lambda _: None)
    with pytest.raises(EngineError, match=r"pip install -e '\.\[convert\]'"):
        onnx_from_paddle(open_bundle(mini_pir), verify=None)


def test_a_concat_of_scalars_is_mended():
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    nodes = [
        h.make_node("Shape", ["x"], ["shape"]),
        h.make_node("Constant", [], ["zero"], value=onnx.numpy_helper.from_array(np.array(0))),
        h.make_node("Constant", [], ["rest"], value=onnx.numpy_helper.from_array(np.array([-1]))),
        h.make_node("Gather", ["shape", "zero"], ["batch"]),
        h.make_node("Concat", ["batch", "rest"], ["flat"], axis=0),
        h.make_node("Reshape", ["x", "flat"], ["y"]),
    ]
    x = h.make_tensor_value_info("x", 1, [None, 2, 3])
    y = h.make_tensor_value_info("y", 1, [None, None])
    model = h.make_model(
        h.make_graph(nodes, "g", [x], [y]), opset_imports=[h.make_opsetid("", 17)], ir_version=8
    )
    graph = OnnxGraph(model, "the model")
    with pytest.raises(BundleError, match="axis"):
        graph.check()
    graph.repair()
    graph.check()
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(graph.to_bytes())
    (found,) = session.run(None, {"x": np.zeros((5, 2, 3), np.float32)})
    assert found.shape == (5, 6)


@pytest.mark.parametrize("name", FORMATS)
def test_whole_parameters_are_read_to_the_end(name):
    path = DATA / name / "inference.pdiparams"
    tensors = read_params(path)
    assert len(tensors) == 143
    assert tensors[-1].offset + tensors[-1].length == path.stat().st_size


@pytest.mark.parametrize("name", FORMATS)
def test_weights_above_two_gigabytes_go_into_a_file_beside(tmp_path, monkeypatch, golden, name):
    monkeypatch.setattr(large, "LARGE_BYTES", 1000)
    folder = copy_model(name, tmp_path / "model")
    path = onnx_from_paddle(open_bundle(folder), verify=verify)
    assert path.stat().st_size < 200_000 < path.with_name("inference.onnx.data").stat().st_size
    np.testing.assert_allclose(
        run_onnx(path, golden["x"]), golden["probabilities"], rtol=0, atol=1e-6
    )
    facts = read_sidecar(path)
    assert facts["folded"] is False
    assert "exceed 2 GB" in facts["folding"]
    assert facts["ending"] == ["softmax"]
    with pytest.raises(BundleError, match="only fp32 is available"):
        fp16_from_onnx(path, tmp_path / "inference.fp16.onnx", None, verify=None)


@pytest.mark.parametrize("case", ["a weight is NaN", "too many parameters"])
def test_bad_weights_above_two_gigabytes_leave_nothing(mini_pir, monkeypatch, case):
    monkeypatch.setattr(large, "LARGE_BYTES", 1000)
    BAD[case][0](mini_pir)
    before = sorted(mini_pir.iterdir())
    with pytest.raises(BundleError, match=r"NaN|come from one export"):
        onnx_from_paddle(open_bundle(mini_pir), verify=None)
    assert sorted(mini_pir.iterdir()) == before


def test_an_artifact_appears_with_its_companions_and_sidecar(tmp_path):
    target = tmp_path / "new" / "model.onnx"

    def write(path: Path) -> None:
        path.write_bytes(b"graph")
        path.with_name("model.onnx.data").write_bytes(b"weights")

    write_artifact(target, write, {"precision": "fp32"})
    assert sorted(p.name for p in target.parent.iterdir()) == [
        "model.onnx",
        "model.onnx.data",
        "model.onnx.meta.json",
    ]
    assert read_sidecar(target) == {
        "precision": "fp32",
        "sha256": file_sha256(target),
        "files": {"model.onnx.data": file_sha256(target.with_name("model.onnx.data"))},
    }


def test_an_artifact_whose_sidecar_cannot_be_written_stays_the_old_one(tmp_path, monkeypatch):
    target, replace = tmp_path / "model.onnx", Path.replace
    write_artifact(target, lambda path: path.write_bytes(b"old"), {"precision": "fp32"})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tries = []

    def full_disk(path, final):
        if final == sidecar_path(target) and not tries:
            tries.append(final)
            raise OSError(28, "No space left on device")
        return replace(path, final)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        write_artifact(target, lambda path: path.write_bytes(b"new"), {"precision": "fp16"})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_empty_artifact_never_appears(tmp_path):
    with pytest.raises(BundleError, match="empty"):
        write_artifact(tmp_path / "model.onnx", lambda path: path.touch(), {})
    assert list(tmp_path.iterdir()) == []
    assert read_sidecar(tmp_path / "model.onnx") is None


def convert(*flags: object) -> tuple[str, list[str]]:
    """Run paddle2onnx's flags; return what is printed, and the warnings."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(err):
        assert paddle2onnx_command([str(flag) for flag in flags])(out) == 0
    lines, told = err.getvalue().splitlines(), "hgdeploy: warning: "
    return out.getvalue(), [line.removeprefix(told) for line in lines if line.startswith(told)]


def test_paddle2onnx_flags_convert_a_model_of_other_names(tmp_path, golden):
    folder = copy_model("pphgnet_mini", tmp_path / "model")
    (folder / "inference.pdmodel").rename(folder / "__model__")
    (folder / "inference.pdiparams").rename(folder / "__params__")
    target = tmp_path / "out" / "mini.onnx"
    printed, warnings = convert(
        *("--model_dir", folder, "--model_filename", "__model__", "--params_filename"),
        *("__params__", "--save_file", target, "--opset_version", 13, "--deploy_backend"),
        *("tensorrt", "--enable_onnx_checker", "True", "--export_fp16_model", "False"),
    )
    assert printed == f"{target}\n"
    assert warnings == [
        "--deploy_backend has no effect: the ONNX file is the same for every backend"
    ]
    assert OnnxGraph.read(target).opset == 13
    np.testing.assert_allclose(
        run_onnx(target, golden["x"]), golden["probabilities"], rtol=0, atol=1e-6
    )
    assert sidecar_path(target).is_file()


def test_errors_name_the_users_own_files(tmp_path):
    folder = copy_model("pphgnet_mini", tmp_path / "model")
    (folder / "inference.pdiparams").rename(folder / "__params__")
    (folder / "__params__").write_bytes(b"junk" * 100)
    with pytest.raises(BundleError, match="__params__ is damaged"):
        convert("-m", folder, "-pf", "__params__", "-s", tmp_path / "x.onnx")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("export_fp16_model", "True"),
        ("input_shape_dict", "{'x': [1, 3, 224, 224]}"),
        ("custom_ops", '{"a": "b"}'),
    ],
)
def test_paddle2onnx_flags_that_cannot_be_served_are_refused_by_name(mini_pir, flag, value):
    with pytest.raises(ConfigError, match=f"--{flag} is not supported: "):
        convert("--model_dir", mini_pir, "--save_file", mini_pir / "x.onnx", f"--{flag}", value)


def test_the_script_runs_from_any_directory(mini_pir, tmp_path):
    target = tmp_path / "x.onnx"
    script = REPO / "deploy" / "paddle2onnx" / "convert.py"
    done = run_command(script, "--model_dir", mini_pir, "--save_file", target, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{target}\n"), done.stderr
    assert read_sidecar(target)["verdict"]
