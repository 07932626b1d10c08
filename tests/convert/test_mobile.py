# SPDX-License-Identifier: Apache-2.0
"""ONNX to MNN's and ncnn's formats: the same answers, or one line and nothing left behind."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx_heads import make_headed

from conftest import MINI, require_engine
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert import OnnxOptions
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.mobile import from_onnx
from hgdeploy.convert.mobile.variants import convert_for_engine
from hgdeploy.convert.onnx import large
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines.run import Run, open_run
from hgdeploy.errors import BundleError, EngineError, ValidationError

ENGINES = ("mnn", "ncnn")
FILES = {"mnn": ["inference.mnn"], "ncnn": ["inference.ncnn.bin", "inference.ncnn.param"]}


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    require_engine(request.param)
    return str(request.param)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The mini network as an ONNX file alone."""
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(MINI / "inference.onnx", folder)
    return folder


def convert(folder: Path, engine: str) -> Path:
    return convert_for_engine(open_bundle(folder), engine, print)


def test_the_file_computes_what_the_onnx_file_does_and_says_how_it_was_made(
    engine: str, bundle: Path, golden
):
    written = convert(bundle, engine)
    facts = read_sidecar(written) or {}
    assert facts["verdict"]["max_abs"] < 1e-6
    assert facts["source"].keys() == {"inference.onnx"}
    assert sorted(p.name for p in bundle.iterdir()) == sorted(
        [*FILES[engine], f"{written.name}.meta.json", "inference.onnx"]
    )
    with contextlib.closing(open_run(open_bundle(bundle), Run(engine)).engine) as loaded:
        (found,) = loaded.infer({"x": golden["x"]}).values()
    np.testing.assert_allclose(found, golden["probabilities"], atol=1e-6)


def test_mnn_computes_gelu_and_not_an_approximation_of_it(tmp_path: Path):
    """Its converter would take the one with tanh, which moves a logarithm by 2e-4 here."""
    require_engine("mnn")
    head = [
        ("Div", ["logits", "root"], ["scaled"], {}),
        ("Erf", ["scaled"], ["erf"], {}),
        ("Add", ["erf", "one"], ["gate"], {}),
        ("Mul", ["logits", "gate"], ["gated"], {}),
        ("Mul", ["gated", "half"], ["gelu"], {}),
        ("Softmax", ["gelu"], ["p"], {"axis": 1}),
    ]
    constants = {"root": 2**0.5, "one": 1, "half": 0.5}
    weights = {name: np.float32(value) for name, value in constants.items()}
    folder = make_headed(tmp_path / "model", head, ["p"], weights)
    facts = read_sidecar(convert(folder, "mnn")) or {}
    assert facts["verdict"]["max_log"] < 1e-5


def test_a_path_may_be_relative(engine: str, bundle: Path, monkeypatch):
    """The converters run in another current folder."""
    monkeypatch.chdir(bundle.parent)
    written = convert(Path(bundle.name), engine)
    assert written == Path(bundle.name) / FILES[engine][-1]
    assert written.is_file()


def test_a_file_that_has_changed_is_refused(engine: str, mini: Path):
    weights = mini / FILES[engine][0]
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(BundleError, match=f"{weights.name} has changed since it was made") as error:
        open_run(open_bundle(mini), Run(engine))
    assert str(error.value).endswith("copy or make it again")  # it does not run without its sidecar


def test_a_precision_that_no_command_makes_is_not_promised(engine: str, bundle: Path):
    with pytest.raises(BundleError, match="has files for onnxruntime") as error:
        open_run(open_bundle(bundle), Run(engine, "int8"))
    assert "make it with" not in str(error.value)


def test_a_file_is_stale_where_its_source_has_changed(engine: str, mini: Path):
    with (mini / "inference.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(BundleError, match=r"is stale: inference\.onnx has changed"):
        open_run(open_bundle(mini), Run(engine))


def test_a_result_that_differs_is_not_written(engine: str, bundle: Path, monkeypatch):
    """As where a converter drops an operator: here it is given the wrong model."""
    wrong = bundle / "other.onnx"
    graph = OnnxGraph.read(bundle / "inference.onnx")
    constants = (node.attribute[0].t for node in graph.nodes if node.op_type == "Constant")
    weights = next(tensor for tensor in constants if len(tensor.dims) == 4)
    weights.raw_data = bytes(len(weights.raw_data))
    wrong.write_bytes(graph.to_bytes())
    before = sorted(bundle.iterdir())
    run = from_onnx.run_converter

    def misled(request, what, source, folder, made):
        if engine == "mnn":
            request = {**request, "source": str(wrong)}
        else:
            model = folder / request["source"]
            model.unlink()
            model.symlink_to(wrong)
        run(request, what, source, folder, made)

    monkeypatch.setattr(from_onnx, "run_converter", misled)
    with pytest.raises(ValidationError, match=r"does not compute what .*nothing was written"):
        convert(bundle, engine)
    assert sorted(bundle.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fixed_batch_3", "takes 3 images at a time, .* --batch dynamic"),
        ("uint8", "takes uint8, and mnn and ncnn are given float32"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(engine: str, foreign, name: str, message: str):
    folder = foreign(name)
    with pytest.raises(BundleError, match=message):
        convert(folder, engine)


def test_dynamic_sizes_are_refused(engine: str, foreign):
    folder = foreign("any_size")
    options = ConvertOptions(OnnxOptions(dynamic_size=True))
    convert_to_onnx(open_bundle(folder), options, print)
    with pytest.raises(BundleError, match=r"images of any size, .* without --dynamic-size"):
        convert(folder, engine)


def test_weights_above_two_gigabytes_are_refused(engine: str, bundle: Path, monkeypatch):
    monkeypatch.setattr(large, "LARGE_BYTES", 1000)
    with pytest.raises(BundleError, match="weights that exceed 2 GB; no other format than ONNX"):
        convert(bundle, engine)


def test_a_missing_program_says_how_to_install_it(bundle: Path, monkeypatch):
    monkeypatch.setattr(from_onnx.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setenv("PATH", str(bundle))
    with pytest.raises(EngineError, match="pip install --no-deps pnnx"):
        convert(bundle, "ncnn")
