# SPDX-License-Identifier: Apache-2.0
"""The engine `auto`: what was saved runs, by every door; where it does not hold, that is told."""

from __future__ import annotations

import dataclasses
import json
import shutil

import pytest

from conftest import IMAGES, MINI, require_engine
from hgdeploy import Classifier, ClassifierSettings, EngineOptions
from hgdeploy.benchmark.case import Suite
from hgdeploy.benchmark.worker.prepare import served
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.model_files import model_digest
from hgdeploy.classify.folder import folder_options
from hgdeploy.cli.main import main, predict_cls
from hgdeploy.engines import ENGINES
from hgdeploy.engines.auto import choose as auto_choose
from hgdeploy.engines.auto import machine, saved
from hgdeploy.engines.auto.choose import Asked, choose
from hgdeploy.engines.auto.machine import library_version, machine_here
from hgdeploy.engines.auto.saved import Saved, save_choice
from hgdeploy.engines.run import Run, artifact_of
from hgdeploy.errors import ConfigError, ValidationError
from hgdeploy.paddleclas import PaddleClas
from hgdeploy.paddleclas.decided import decided

PHOTO = str(IMAGES / "coffee.jpg")
ENGINE = "onnxruntime"


@pytest.fixture
def bundle(mini):
    """A bundle in which ONNX Runtime is saved as the fastest; Paddle would run otherwise."""
    require_engine(ENGINE)
    save(mini)
    return mini


def save(folder, **changes) -> Saved:
    """Save a choice for this machine, as tune does."""
    opened, run = open_bundle(folder), Run(ENGINE)
    models = {path.name: model_digest(path) for path in [artifact_of(opened, run)]}
    facts = {
        "run": run,
        "threads": 1,
        "streams": 1,
        "batch": 1,
        "images_per_second": 100.0,
        "latency_ms": 10.0,
        "models": models,
        "machine": machine_here("cpu"),
        "library": library_version(run.engine),
        "measured": "2026-01-02",
    }
    choice = Saved(**{**facts, **changes})
    save_choice(opened, choice)
    return choice


def chosen(folder, *asked) -> tuple[str, str]:
    """Return what auto runs, and what it tells of it."""
    said: list[str] = []
    run = choose(folder, Asked("auto", *asked), said.append).run
    assert all("\n" not in line for line in said)
    return run.name, " / ".join(said)


def test_what_was_saved_runs_and_is_told(bundle):
    name, said = chosen(bundle)
    assert name == ENGINE
    assert said == (
        f"engine auto: onnxruntime, 1 thread, the fastest here on 2026-01-02 (100.0 images/s in "
        f"batches of 1; {bundle / 'recommended.json'})"
    )


def test_every_engine_has_a_library_to_tell_the_version_of():
    assert machine.LIBRARIES.keys() == set(ENGINES)


def test_where_nothing_is_saved_the_usual_engine_runs_and_the_way_to_save_is_told(mini):
    name, said = chosen(mini)
    assert name == "paddle"
    assert f"nothing is saved in {mini}; paddle runs, as without --engine; hgdeploy tune" in said


@pytest.mark.parametrize("changed", ["model", "reference", "source", "artifact gone"])
def test_a_choice_for_another_model_is_not_followed(bundle, changed):
    onnx, program = bundle / "inference.onnx", bundle / "inference.pdmodel"
    if changed == "reference":
        save(bundle, models={"inference.onnx": model_digest(onnx), program.name: "0" * 64})
    elif changed == "source":
        sidecar = {"source": {program.name: "0" * 64}}
        onnx.with_name(f"{onnx.name}.meta.json").write_text(json.dumps(sidecar))
    elif changed == "model":
        onnx.write_bytes(onnx.read_bytes() + b"\x32\x01x")  # another doc_string
    else:
        onnx.unlink()
    name, said = chosen(bundle)
    assert name == "paddle"
    expected = {"source": "is stale", "artifact gone": "has no inference.onnx"}
    assert expected.get(changed, "was measured with another inference.") in said


def test_on_another_machine_the_usual_engine_runs_and_the_difference_is_told(bundle, monkeypatch):
    monkeypatch.setattr(machine, "available_cpus", lambda: 77)
    monkeypatch.setattr(machine, "cpu_flags", lambda: frozenset({"avx2", "amx_int8", "sse"}))
    name, said = chosen(bundle)
    assert name == "paddle"
    assert "was measured on another machine (" in said
    assert "here avx2 amx_int8" in said
    assert "here 77)" in said


def test_another_version_of_the_library_is_told_and_a_missing_one_is_not_run(bundle, monkeypatch):
    save(bundle, library="0.1")
    name, said = chosen(bundle)
    assert name == ENGINE
    assert "onnxruntime was 0.1 when it was measured, and is " in said
    monkeypatch.setattr(saved, "library_version", lambda _: None)
    name, said = chosen(bundle)
    assert name == "paddle"
    assert "names onnxruntime, which is not installed here" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda _: "[", "recommended.json cannot be read: "),
        (lambda _: "[]", "is [], expected a mapping"),
        (lambda facts: facts | {"schema": 2}, "schema is 2, expected 1"),
        (lambda facts: facts | {"choice": {"engine": "auto"}}, "unknown"),
        (lambda facts: facts | {"models": {}}, "was measured without inference.onnx"),
        (lambda facts: facts["choice"].update(device="tpu") or facts, "unknown device 'tpu'"),
        (lambda facts: facts["choice"].update(streams=900) or facts, "more threads than"),
        (lambda facts: facts | {"images_per_second": float("nan")}, "is nan, expected a number"),
    ],
)
def test_a_damaged_choice_is_told_and_not_followed(bundle, change, message):
    path = bundle / "recommended.json"
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    name, said = chosen(bundle)
    assert name == "paddle"
    assert message in said


def test_what_contradicts_the_choice_is_refused(bundle):
    with pytest.raises(ConfigError, match="auto decides the precision too, and fp16 was asked"):
        chosen(bundle, "fp16")
    with pytest.raises(ConfigError, match=r"auto is onnxruntime \(.*gpu:0 was asked for"):
        chosen(bundle, None, "gpu:0")
    for precision in ("fp32", "int8"):
        with pytest.raises(ConfigError, match="auto decides the precision too"):
            Classifier(bundle, "auto", precision=precision)


def test_the_device_that_a_config_must_ask_for_is_told(bundle):
    with pytest.raises(ConfigError, match=r"ask for cpu \(in a PaddleClas config use_gpu=False\)"):
        chosen(bundle, None, "gpu:0")


@pytest.mark.parametrize("name", ["autto", "AUTO"])
def test_a_misspelt_engine_is_told_with_auto_among_the_names(bundle, capsys, name):
    assert main(["predict", str(bundle), PHOTO, "--engine", name]) == 6
    error = capsys.readouterr().err
    assert f"unknown engine {name!r}" in error
    assert "auto" in error.partition(repr(name))[2]


def test_a_model_file_has_nothing_saved(mini):
    assert "nothing is saved in" in chosen(mini / "inference.onnx")[1]


def test_a_training_config_evaluates_what_was_saved_in_a_bundle(bundle, capsys, tmp_path):
    """Without a bundle there is nothing saved, and no export is made for it."""
    labels, config = tmp_path / "labels.txt", tmp_path / "train.yaml"
    labels.write_text("coffee.jpg 1\n")
    transforms = "[{ResizeImage: {size: 64}}, {NormalizeImage: {order: ''}}]"
    data = f"image_root: {IMAGES}, cls_label_path: {labels}, transform_ops: {transforms}"
    config.write_text(
        "Global: {device: cpu, engine: auto, pretrained_model: weights}\n"
        "Arch: {name: PPLCNet_x0_25, class_num: 10, lr_mult_list: [0.1, 0.2]}\n"
        f"DataLoader: {{Eval: {{dataset: {{{data}}}}}}}\n"
    )
    assert main(["eval", "-c", str(config), "--bundle", str(bundle)]) == 0
    out, err = capsys.readouterr()
    assert "engine auto: onnxruntime, 1 thread, the fastest here on" in err
    assert "top1: " in out
    assert main(["eval", "-c", str(config)]) == 2
    assert "Global.engine auto is what hgdeploy tune has saved" in capsys.readouterr().err


def test_python_runs_what_was_saved_with_its_threads(bundle):
    save(bundle, threads=1, streams=2)
    with Classifier(bundle, "auto") as classifier:
        assert classifier.engine.runtime.engine == ENGINE
        assert classifier.engine.runtime.threads == 1
        assert classifier.engine.concurrency == 2
        assert classifier.settings.engine == ENGINE
        assert any("the fastest here on" in line for line in classifier.warnings)
    settings = ClassifierSettings("auto", options=EngineOptions(threads=2))
    with Classifier(bundle, settings=settings) as classifier:
        assert classifier.engine.runtime.threads == 2


def test_a_folder_runs_side_by_side_as_measured_unless_there_are_fewer_images(bundle):
    choice = save(bundle, threads=None, streams=1)
    asked = EngineOptions()
    assert folder_options(asked, 9, choice) == asked
    choice = dataclasses.replace(choice, threads=3, streams=5)
    assert folder_options(asked, 9, choice) == EngineOptions(threads=3, streams=5)
    assert folder_options(asked, 1, choice) == folder_options(asked, 1)
    own = EngineOptions(threads=2)
    assert folder_options(own, 9, choice) == folder_options(own, 9)


def test_predict_runs_it_in_the_batches_that_were_measured(bundle, capsys, tmp_path):
    save(bundle, batch=4)
    rows = tmp_path / "rows.jsonl"
    assert main(["predict", str(bundle), PHOTO, "--engine", "auto", "--output", str(rows)]) == 0
    assert "hgdeploy: engine auto: onnxruntime, 1 thread, " in capsys.readouterr().err
    assert json.loads(rows.read_text())["class_ids"]
    words = ["predict", str(bundle), PHOTO, "--engine", "auto"]
    assert main([*words, "--precision", "fp32"]) == ConfigError.exit_code
    assert main([*words, "--onednn", "on"]) == ConfigError.exit_code
    assert "no effect but with --engine paddle" in capsys.readouterr().err
    (bundle / "recommended.json").unlink()
    assert main(words) == 0
    assert "nothing is saved in" in capsys.readouterr().err


def test_paddleclas_config_runs_it(bundle, capsys, tmp_path):
    keys = [f"Global.inference_model_dir={bundle}", f"Global.infer_imgs={PHOTO}"]
    keys += ["Global.engine=auto", "Global.benchmark=True"]
    words = [word for key in keys for word in ("-o", key)]
    assert predict_cls(words) == 0
    err = capsys.readouterr().err
    assert "hgdeploy: engine auto: onnxruntime" in err
    assert "onnxruntime 1." in err
    for more, message in (
        ("Global.use_onnx=True", "Global.use_onnx=True contradicts Global.engine=auto"),
        ("Global.use_fp16=True", "engine auto decides the precision too, and fp16"),
        ("Global.use_gpu=True", "gpu:0 was asked for"),
    ):
        assert predict_cls([*words, "-o", more]) == ConfigError.exit_code
        assert message in capsys.readouterr().err
    config = tmp_path / "config.yaml"
    config.write_text("Global: {infer_imgs: x, inference_model_dir: x, use_onnx: True}\n")
    assert main(["predict", str(bundle), PHOTO, "-c", str(config), "--engine", "auto"]) == 0
    assert "hgdeploy: engine auto: onnxruntime" in capsys.readouterr().err


def test_paddleclass_class_runs_it(bundle):
    require_engine("paddle")
    save(bundle, threads=1, streams=2)
    with PaddleClas(inference_model_dir=str(bundle), engine="auto") as clas:
        assert [answer["filename"] for (answer,) in clas.predict(PHOTO)] == [PHOTO]
        engine = clas._classifier.engine
        assert (engine.runtime.engine, engine.runtime.threads) == (ENGINE, 1)
        assert engine.concurrency == 2


def test_validate_and_explain_take_it_among_others(bundle, capsys):
    words = ["validate", str(bundle), "--random", "2"]
    require_engine("openvino")
    assert main([*words, "--engines", "openvino,auto"]) in (0, ValidationError.exit_code)
    out, err = capsys.readouterr()
    assert "openvino / onnxruntime" in out or "onnxruntime" in out
    assert "engine auto: onnxruntime" in err
    refused = [*words, "--engines", "openvino,auto", "--precision", "fp16"]
    assert main(refused) == ConfigError.exit_code
    assert "--precision has no effect" in capsys.readouterr().err
    assert main(["explain", PHOTO, f"{bundle}@auto", f"{bundle}@openvino"]) == 0
    assert "engine auto: onnxruntime" in capsys.readouterr().err


def test_benchmark_measures_the_engine_of_each_model(bundle, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(MINI, other)
    said: list[str] = []
    suite = Suite(models=(str(bundle), str(other)), engines=("auto",))
    cases = served(suite, tmp_path, said.append).cases()
    assert [(case.model, case.engine) for case in cases] == [
        (str(bundle), ENGINE),
        (str(other), "paddle"),
    ]
    assert len(said) == 2
    with pytest.raises(ConfigError, match="gpu:0 was asked for"):
        served(dataclasses.replace(suite, device="gpu:0"), tmp_path, said.append)


def test_the_choice_is_no_model_and_no_place_for_results(bundle, capsys):
    words = ["validate", str(bundle), "--random", "1", "--engines", f"{ENGINE},openvino"]
    report = bundle / "recommended.json"
    assert main([*words, "--report", str(report)]) == ConfigError.exit_code
    assert "a file of the model" in capsys.readouterr().err
    for name in ("inference.pdmodel", "inference.pdiparams", "inference.onnx"):
        (bundle / name).unlink()
    assert main(["predict", str(bundle), PHOTO]) != 0
    assert "recommended.json" not in capsys.readouterr().err


def test_paddleclas_s_class_runs_the_choice_on_its_device(bundle, monkeypatch):
    asked = {"inference_model_dir": bundle, "engine": "auto"}
    found = decided(asked).config
    assert (found.engine, found.options.device) == (ENGINE, "cpu")
    assert "engine auto: onnxruntime, 1 thread" in found.notes[0]
    on_gpu = dataclasses.replace(save(bundle), run=Run(ENGINE, device="gpu:1"))
    monkeypatch.setattr(auto_choose, "usable_choice", lambda _: on_gpu)
    found = decided(asked).config
    assert (found.engine, found.options.device) == (ENGINE, "gpu:1")
