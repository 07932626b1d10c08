# SPDX-License-Identifier: Apache-2.0
"""ONNX files of other tools: what their scores are, and the output that was chosen by its name."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import paddle
import pytest
from foreign import Net, save_network, softmax
from onnx_heads import DESCRIPTION, SOFTMAX, make_headed

from conftest import IMAGES, require_engine
from hgdeploy import Classifier
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.model_files import onnx_precision
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.cli.main import main
from hgdeploy.convert.mobile.variants import convert_for_engine
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines.ending import read_ending
from hgdeploy.engines.run import Run, open_run
from hgdeploy.engines.scores import infer_rows
from hgdeploy.errors import BundleError, EngineError, ValidationError
from hgdeploy.system.machine import int8_saturates
from hgdeploy.system.progress import nothing
from hgdeploy.validation.verify import verify_conversion

PHOTO = IMAGES / "coffee.jpg"
ONE, HALF, HUNDRED = (np.float32(value) for value in (1, 0.5, 100))
NEGATIVE = ("Neg", ["logits"], ["negative"], {})
OTHER = ("Softmax", ["negative"], ["q"], {"axis": 1})
SIGMOIDS = [("Split", ["logits", "sizes"], ["a", "b"], {"axis": 1})] + [
    ("Sigmoid", [name], [f"{name}s"], {}) for name in "ab"
]  # fmt: skip


@pytest.mark.parametrize(
    ("head", "weights", "activations"),
    [
        ([SOFTMAX, ("Mul", ["p", "k"], ["y"], {})], {"k": ONE}, ("softmax",)),
        ([SOFTMAX, ("Mul", ["k", "p"], ["y"], {})], {"k": ONE}, ("softmax",)),
        ([SOFTMAX, ("Div", ["p", "k"], ["y"], {})], {"k": ONE}, ("softmax",)),
        ([SOFTMAX, ("Constant", [], ["k"], {"value_float": 1.0}), ("Mul", ["p", "k"], ["y"], {})],
         {}, None),
        ([SOFTMAX, ("Mul", ["p", "k"], ["y"], {})], {"k": HUNDRED}, None),
        ([SOFTMAX, NEGATIVE, OTHER, ("Add", ["p", "q"], ["s"], {}), ("Mul", ["s", "k"], ["y"], {})],
         {"k": HALF}, None),
        ([*SIGMOIDS, ("Concat", ["as", "bs"], ["y"], {"axis": 1})],
         {"sizes": np.array([2, 3])}, ("sigmoid",)),
        ([("LogSoftmax", ["logits"], ["y"], {"axis": 1})], {}, ()),
        ([("Mul", ["logits", "k"], ["y"], {})], {"k": HALF}, ()),
        ([("Softmax", ["logits"], ["y"], {"axis": 0})], {}, None),
    ],
    ids=["one", "one_first", "divided", "no_tensor", "percent", "ensemble", "heads", "log",
         "temperature", "over_images"],
)  # fmt: skip
def test_scores_behind_the_last_activation_are_known_or_left_open(
    head, weights, activations, tmp_path: Path
):
    """Never taken for logits, of which a user is told to make probabilities once more."""
    bundle = make_headed(tmp_path / "model", head, ["y"], weights)
    ending = read_ending(bundle / "inference.onnx", "y")
    assert (None if ending is None else ending.activations) == activations


@pytest.mark.parametrize(
    ("engine", "name"), [("openvino", "y"), ("openvino", "g"), ("mnn", "g"), ("ncnn", "g")]
)
def test_the_chosen_output_is_the_same_in_every_engine(engine: str, name: str, tmp_path: Path):
    """`y` is `p` by another name, as OpenVINO sees it; the number of classes is left open."""
    require_engine(engine)
    head = [SOFTMAX, ("Mul", ["p", "k"], ["y"], {}), ("Sigmoid", ["logits"], ["g"], {})]
    text = f"{DESCRIPTION}Global: {{output_name: {name}}}\n"
    weights, shape = {"k": ONE}, ("n", "classes")
    folder = make_headed(
        tmp_path / "model", head, ["y", "g"], weights, shape=shape, description=text
    )
    if engine in ("mnn", "ncnn"):
        convert_for_engine(open_bundle(folder), engine, print)
    with Classifier(folder, engine) as found, Classifier(folder, "onnxruntime") as right:
        ((a,), (b,)) = found.predict(PHOTO), right.predict(PHOTO)
    assert a.class_ids == b.class_ids
    assert a.scores == pytest.approx(b.scores, abs=1e-5)
    assert (abs(sum(a.scores) - 1) < 1e-4) == (name == "y")


def test_an_output_that_was_chosen_by_its_name_is_reduced_too(tmp_path: Path):
    head = [SOFTMAX, ("Sigmoid", ["logits"], ["g"], {})]
    text = f"{DESCRIPTION}Global: {{output_name: g}}\n"
    folder = make_headed(tmp_path / "model", head, ["p", "g"], description=text)
    made = convert_to_onnx(open_bundle(folder), ConvertOptions(precision="fp16"), nothing)
    assert [value.name for value in onnx.load(str(made)).graph.output] == ["g"]


def test_operators_that_ncnn_lacks_are_named(tmp_path: Path):
    require_engine("ncnn")
    cast = ("Cast", ["p"], ["y"], {"to": onnx.TensorProto.DOUBLE})
    folder = make_headed(tmp_path / "model", [SOFTMAX, cast], ["y"], dtype=onnx.TensorProto.DOUBLE)
    with pytest.raises(BundleError, match=r"ncnn has no Tensor\.to, which .* needs"):
        convert_for_engine(open_bundle(folder), "ncnn", print)


def test_a_network_that_pnnx_converts_wrongly_is_an_error_and_not_a_crash(tmp_path: Path):
    """Of a dense layer without a bias it makes one for images in a batch, which ncnn lacks."""
    require_engine("ncnn")
    head = [("Gemm", ["flat", "other"], ["z"], {}), ("Softmax", ["z"], ["y"], {"axis": 1})]
    weights = {"other": np.ones((32, 5), np.float32)}
    folder = make_headed(tmp_path / "model", head, ["y"], weights)
    with pytest.raises(EngineError, match=r"gave y of 80 values for an image, expected \[5\]"):
        convert_for_engine(open_bundle(folder), "ncnn", print)
    assert not list(folder.glob("*.ncnn.*"))


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_missing_weights_are_named_by_every_engine(engine: str, tmp_path: Path):
    require_engine(engine)
    path = make_headed(tmp_path / "model", [SOFTMAX], ["p"]) / "inference.onnx"
    how = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 64}
    onnx.save(onnx.load(str(path)), str(path), **how)
    (path.parent / "w.bin").rename(path.parent / "v.bin")
    with pytest.raises(BundleError, match=r"keeps weights in .*w\.bin, which does not exist"):
        open_run(open_bundle(path.parent), Run(engine)).engine.close()


def test_a_file_is_known_by_what_it_computes_in_and_not_by_its_name(tmp_path: Path, run_here):
    """As a file that was renamed, or that another tool quantized or halved."""
    folder = make_headed(tmp_path / "model", [SOFTMAX], ["p"])
    plain = folder / "inference.onnx"
    for name in ("fp16", "int8"):
        shutil.copy(plain, folder / f"inference.{name}.onnx")
        with pytest.raises(BundleError, match=f"computes in fp32, whatever its name, and {name}"):
            open_run(open_bundle(folder), Run("onnxruntime", name))
    halved = onnx.load(str(plain))
    for weights in halved.graph.initializer:
        half = onnx.numpy_helper.to_array(weights).astype(np.float16)
        node = onnx.helper.make_node(
            "Constant", [], [f"{weights.name}.h"], value=onnx.numpy_helper.from_array(half)
        )
        cast = onnx.helper.make_node("Cast", node.output, [weights.name], to=1)
        halved.graph.node.insert(0, cast)
        halved.graph.node.insert(0, node)
    del halved.graph.initializer[:]
    onnx.save(halved, str(folder / "inference.fp16.onnx"))
    assert onnx_precision(folder / "inference.fp16.onnx") == "fp16"
    open_run(open_bundle(folder), Run("onnxruntime", "fp16")).engine.close()
    scale, zero = np.float32(0.05), np.int8(0)
    quantized = [
        ("QuantizeLinear", ["logits", "s", "z"], ["i"], {}),
        ("DequantizeLinear", ["i", "s", "z"], ["d"], {}),
        ("Softmax", ["d"], ["p"], {"axis": 1}),
    ]
    if int8_saturates():
        return  # such a CPU runs only what says that its weights have 7 bits
    other = make_headed(tmp_path / "int8", quantized, ["p"], {"s": scale, "z": zero})
    done = run_here(main, "predict", other, PHOTO)
    assert done.returncode == 0
    assert done.stderr.count("computes in int8, not in fp32, whatever its name") == 1
    shutil.copy(other / "inference.onnx", folder / "inference.int8.onnx")
    assert run_here(main, "predict", folder, PHOTO, "--precision", "int8").returncode == 0


@pytest.mark.parametrize(
    ("head", "activations"),
    [
        (lambda logits: (softmax(logits) + softmax(logits * 2)) / 2, None),
        (lambda logits: paddle.stack([softmax(logits), softmax(logits * 2)], 1).mean(1), None),
        (lambda logits: paddle.concat([part.sigmoid() for part in logits.split([2, 3], 1)], 1),
         ("sigmoid",)),
    ],
    ids=["ensemble", "crops", "heads"],
)  # fmt: skip
def test_programs_behind_the_last_activation_are_read_too(head, activations, tmp_path: Path):
    network = Net("logits")
    network.head = lambda _net, logits, _h: head(logits)
    save_network(network, tmp_path, paddle.static.InputSpec([None, 3, 64, 64], "float32"))
    ending = read_ending(tmp_path / "inference.json", "fetch_name_0")
    assert (None if ending is None else ending.activations) == activations


def test_swapped_axes_are_refused_for_any_number_of_images(tmp_path: Path):
    """Five images of five classes would fit: each would get the scores of one class."""
    swapped = ("Transpose", ["p"], ["y"], {"perm": [1, 0]})
    folder = make_headed(tmp_path / "model", [SOFTMAX, swapped], ["y"], shape=(5, "n"))
    opened = open_run(open_bundle(folder), Run("onnxruntime"))
    with opened.engine, pytest.raises(BundleError, match=r"declares \[5, -1\]"):
        infer_rows(opened.engine, np.zeros((5, 3, 64, 64), np.float32))


def test_scores_of_16_bits_are_compared_by_their_own_steps(tmp_path: Path):
    network = Net("logits")
    network.head = lambda _net, logits, _h: softmax(logits).astype("float16")
    spec = paddle.static.InputSpec([None, 3, 64, 64], "float32")
    save_network(network, tmp_path, spec)
    bundle = open_bundle(tmp_path)
    made = convert_to_onnx(bundle, ConvertOptions(), nothing)
    assert (read_sidecar(made) or {})["ending"] == ["softmax"]
    names = ("inference.json", "inference.pdiparams")
    network.dense.weight.set_value(network.dense.weight * 1.05)
    (tmp_path / "other").mkdir()
    save_network(network, tmp_path / "other", spec)
    for name in names:
        shutil.copy(tmp_path / "other" / name, tmp_path)
    with pytest.raises(ValidationError, match="largest difference"):
        verify_conversion(tmp_path / "inference.json", made)
