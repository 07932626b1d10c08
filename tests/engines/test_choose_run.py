# SPDX-License-Identifier: Apache-2.0
"""Which engine and file serve a bundle where the user leaves that open."""

from __future__ import annotations

import json
import shutil

import pytest

from conftest import IMAGES, require_engine
from hgdeploy import Classifier, ClassifierSettings
from hgdeploy.benchmark.case import Suite
from hgdeploy.benchmark.worker.prepare import served
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.cli.main import main, predict_cls
from hgdeploy.engines.run import Run, artifact_of, choose_run
from hgdeploy.errors import BundleError, ConfigError

PHOTO = str(IMAGES / "coffee.jpg")


@pytest.mark.parametrize(
    ("files", "asked", "chosen"),
    [
        (("inference.json",), (None, None), ("paddle", "fp32")),
        (("inference.pdmodel", "inference.onnx"), (None, None), ("paddle", "fp32")),
        (("inference.onnx",), (None, None), ("onnxruntime", "fp32")),
        (("inference.onnx",), ("openvino", None), ("openvino", "fp32")),
        (("inference.onnx",), ("paddle", None), ("paddle", "fp32")),
        (("inference.onnx", "inference.int8.onnx"), (None, "int8"), ("onnxruntime", "int8")),
        (("inference.engine",), (None, None), ("paddle", "fp32")),
        ((), (None, None), ("paddle", "fp32")),
        (("inference_int8.json", "inference_int8.pdiparams"), (None, None), ("paddle", "int8")),
        (("inference.json", "inference_int8.pdiparams"), (None, None), ("paddle", "int8")),
        (("inference.json", "inference_int8.pdiparams"), ("paddle", None), ("paddle", "int8")),
        (("inference.json", "inference_int8.pdiparams"), (None, "fp32"), ("paddle", "fp32")),
        (("inference.onnx", "inference_int8.pdiparams"), ("openvino", None), ("openvino", "fp32")),
        (("inference.json", "inference_int8.json"), (None, None), ("paddle", "fp32")),
    ],
)
def test_the_rule_for_what_is_left_open(tmp_path, files, asked, chosen):
    for name in files:
        (tmp_path / name).touch()
    said: list[str] = []
    assert choose_run(tmp_path, *asked, said.append) == chosen
    usual = chosen == ("paddle", "fp32") or None not in asked or asked[0] not in (None, "paddle")
    assert bool(said) is not usual


@pytest.fixture
def slim(foreign_models, tmp_path):
    """`plain` as the fp32 program, and a program of other weights where PaddleSlim puts its own."""
    folder = tmp_path / "slim"
    shutil.copytree(foreign_models("plain"), folder)
    for suffix in (".json", ".pdiparams"):
        other = foreign_models("other_weights") / f"inference{suffix}"
        shutil.copy(other, folder / f"inference_int8{suffix}")
    return folder


def answer(capsys, *arguments) -> list[str]:
    assert main(["predict", *map(str, arguments), PHOTO]) == 0
    return capsys.readouterr().out.split("\t", 1)[1]


def test_paddleslims_program_runs_as_in_paddleclas_and_is_told(slim, foreign_models, capsys):
    plain = answer(capsys, foreign_models("plain"))
    other = answer(capsys, foreign_models("other_weights"))
    assert plain != other
    assert answer(capsys, slim, "--precision", "fp32") == plain
    assert main(["predict", str(slim), PHOTO]) == 0
    out, err = capsys.readouterr()
    assert out.split("\t", 1)[1] == other
    assert "inference_int8.pdiparams, so PaddleSlim's int8 program runs" in err
    for name in ("inference.json", "inference.pdiparams"):
        (slim / name).unlink()
    keys = (f"Global.inference_model_dir={slim}", f"Global.infer_imgs={PHOTO}")
    assert predict_cls([word for key in keys for word in ("-o", key)]) == 0
    out, err = capsys.readouterr()
    assert out.split("\t", 1)[1] == other
    assert "PaddleSlim's int8 program runs, as in PaddleClas" in err


def test_the_error_for_a_missing_file_names_what_runs_here(mini):
    for name in ("inference.pdmodel", "inference.pdiparams"):
        (mini / name).unlink()
    (mini / "inference.int8.onnx").touch()
    with pytest.raises(BundleError) as caught:
        artifact_of(open_bundle(mini), Run("paddle"))
    runs = "onnxruntime, onnxruntime:int8, openvino, openvino:int8, mnn, ncnn"
    assert f"; it has files for {runs}: choose" in str(caught.value)


def test_a_bundle_of_an_onnx_file_alone_is_served_by_every_verb(mini, capsys, tmp_path):
    require_engine("onnxruntime")
    for name in ("inference.pdmodel", "inference.pdiparams"):
        (mini / name).unlink()
    rows = tmp_path / "rows.jsonl"
    assert main(["predict", str(mini), PHOTO, "--output", str(rows)]) == 0
    assert "has nothing for paddle to run: onnxruntime runs it" in capsys.readouterr().err
    assert json.loads(rows.read_text())["class_ids"]
    keys = (f"Global.inference_model_dir={mini}", f"Global.infer_imgs={PHOTO}")
    for more in ((), ("Global.engine=openvino",)):
        words = [word for key in (*keys, *more) for word in ("-o", key)]
        assert predict_cls(words) == 0
    assert main(["convert", str(mini)]) == BundleError.exit_code
    assert "inference.onnx is the model then" in capsys.readouterr().err


def test_what_is_asked_for_wins_over_the_config_before_anything_is_chosen(
    slim, foreign_models, capsys, tmp_path
):
    """PaddleSlim's int8 is Paddle's choice, and none of another engine's."""
    require_engine("openvino")
    if not (slim / "inference.onnx").is_file():
        pytest.importorskip("paddle2onnx")
        assert main(["convert", str(slim), "--check", "off"]) == 0
    plain, config = answer(capsys, foreign_models("plain")), tmp_path / "config.yaml"
    config.write_text("Global: {infer_imgs: x, inference_model_dir: x, use_onnx: True}\n")
    assert answer(capsys, slim, "-c", config, "--engine", "openvino") == plain
    assert answer(capsys, slim, "-c", config) == plain
    config.write_text("Global: {infer_imgs: x, inference_model_dir: x, use_int8: True}\n")
    assert answer(capsys, slim, "-c", config, "--engine", "paddle", "--precision", "fp32") == plain
    assert main(["predict", str(slim), PHOTO, "-c", str(config), "--engine", "tensorrt"]) == 2
    assert "Global.use_gpu is False" in capsys.readouterr().err


def test_python_and_benchmark_follow_the_same_rule(slim, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "inference.onnx").touch()
    both = [str(slim), str(alone)]
    said: list[str] = []
    suite = served(Suite(models=tuple(both)), tmp_path, said.append)
    found = {case.model: (case.engine, case.precision) for case in suite.cases()}
    assert found == {str(slim): ("paddle", "int8"), str(alone): ("onnxruntime", "fp32")}
    assert len(said) == 2
    suite = served(Suite(models=tuple(both), engines=("openvino",)), tmp_path, said.append)
    assert {case.engine for case in suite.cases()} == {"openvino"}
    assert {case.engine for case in Suite(models=tuple(both)).cases()} == {"paddle"}
    with Classifier(slim) as classifier:
        assert classifier.engine.runtime.precision == "int8"
        assert any("PaddleSlim's int8 program runs" in line for line in classifier.warnings)
        assert classifier.settings.options.precision == "int8"
    with Classifier(slim, precision="fp32") as classifier:
        assert classifier.engine.runtime.precision == "fp32"
    with pytest.raises(ConfigError, match="settings were given with other arguments"):
        Classifier(slim, precision="fp32", settings=ClassifierSettings())


def test_python_runs_an_onnx_file_alone(mini):
    require_engine("onnxruntime")
    for name in ("inference.pdmodel", "inference.pdiparams"):
        (mini / name).unlink()
    for settings in (None, ClassifierSettings()):
        with Classifier(mini, settings=settings) as classifier:
            assert classifier.engine.runtime.engine == "onnxruntime"
            assert classifier.settings.engine == "onnxruntime"
            assert "has nothing for paddle to run" in " ".join(classifier.warnings)
