# SPDX-License-Identifier: Apache-2.0
"""oneDNN is tried on each program before it is trusted with it."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import paddle
import pytest
from foreign import ChannelNorm, make_foreign, save_network

from conftest import IMAGES, hgdeploy, require_engine
from hgdeploy import Classifier, ClassifierSettings, EngineOptions
from hgdeploy.benchmark.case import Case
from hgdeploy.benchmark.worker.child import CaseServer
from hgdeploy.cli.main import main, predict_cls
from hgdeploy.engines import engine_module, load_engine
from hgdeploy.engines.paddle.config import cpu_has_bf16
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import EngineError
from hgdeploy.system.messages import Message

PHOTO = IMAGES / "coffee.jpg"
WRONG = "oneDNN computes {} wrongly (its answers to test images are off by 100%)"
OFF = ", so it is off for this model, as with --onednn off (Global.enable_mkldnn=False)"


@pytest.fixture(autouse=True)
def _paddle():
    require_engine("paddle")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes foreign models, each once."""
    folder = tmp_path_factory.mktemp("models")

    def make(name: str) -> Path:
        return folder / name if (folder / name).is_dir() else make_foreign(name, folder / name)

    return make


def options_with(onednn: bool | None, **others: object) -> EngineOptions:
    return EngineOptions(own=(PaddleOptions(onednn=onednn),), **others)


def predicted(bundle: Path, options: EngineOptions) -> tuple[list[float], Classifier]:
    with Classifier(bundle, settings=ClassifierSettings(options=options)) as classifier:
        (prediction,) = classifier.predict(PHOTO)
    return list(prediction.scores), classifier


@pytest.mark.parametrize(("name", "streams"), [("channel_norm", 2), ("upsampled", 1)])
def test_what_onednn_gets_wrong_or_cannot_run_is_run_without_it_and_told(made, name, streams):
    right, plain = predicted(made(name), options_with(False))
    assert plain.warnings == []
    scores, classifier = predicted(made(name), options_with(None, threads=1, streams=streams))
    np.testing.assert_allclose(scores, right, atol=1e-6)
    assert classifier.engine.runtime.providers == ("CPU",)
    (warning,) = classifier.warnings
    source = made(name) / "inference.json"
    if name == "channel_norm":
        assert warning == WRONG.format(source) + OFF
    else:
        assert warning.startswith(f"oneDNN cannot run {source} (")
        assert warning.endswith(f"){OFF}")


def test_a_saturated_softmax_hides_no_fault(tmp_path):
    """Both answer 0 and 1 to within 3e-15; the scores behind are others."""
    network = ChannelNorm()
    network.dense = paddle.nn.Linear(32, 3)
    network.dense.weight.set_value(network.dense.weight * 100)
    save_network(network, tmp_path, paddle.static.InputSpec([None, 3, 64, 64], "float32", "x"))
    with load_engine("paddle", tmp_path / "inference.json", EngineOptions()) as engine:
        assert engine.runtime.providers == ("CPU",)


@pytest.mark.parametrize("name", ["channel_norm", "upsampled"])
def test_where_onednn_was_asked_for_it_is_an_error_that_names_the_switch(made, name):
    with pytest.raises(EngineError) as caught:
        load_engine("paddle", made(name) / "inference.json", options_with(True))
    assert str(caught.value).startswith("oneDNN ")
    assert "leave out --onednn on (-o Global.enable_mkldnn=True)" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not cpu_has_bf16(), reason="this CPU has no bf16 instructions")
def test_bf16_is_judged_in_fp32(made, golden):
    bf16 = options_with(None, precision="bf16")
    with pytest.raises(
        EngineError, match=r"^bf16 on a CPU needs oneDNN, and .* wrongly .*use fp32"
    ):
        load_engine("paddle", made("channel_norm") / "inference.json", bf16)
    with load_engine("paddle", made("plain") / "inference.json", bf16) as engine:
        assert (engine.runtime.providers, engine.warnings) == (("oneDNN", "CPU"), ())


@pytest.mark.parametrize(
    "name", ["topk", "fixed_batch_3", "batch_of_one", "any_size", "two_inputs"]
)
def test_whatever_a_model_takes_and_gives_onednn_is_on_where_it_is_right(made, name):
    load = engine_module("paddle").load  # not only what is an image classifier
    with load(made(name) / "inference.json", EngineOptions()) as engine:
        assert engine.warnings == ()
        assert engine.runtime.providers == ("oneDNN", "CPU")


def test_what_cannot_be_tried_runs_as_before_and_is_told(made, tmp_path):
    bundle = shutil.copytree(made("one_size_unstated"), tmp_path / "bundle")
    with load_engine("paddle", bundle / "inference.json", EngineOptions()) as engine:
        assert (engine.runtime.providers, engine.warnings) == (("oneDNN", "CPU"), ())
    (bundle / "inference.yml").unlink()  # which stated the size
    source = bundle / "inference.json"
    content = json.loads(source.read_text())
    source.write_text(json.dumps(content, indent=1))  # other content, which was not tried yet
    with load_engine("paddle", source, EngineOptions()) as engine:
        assert engine.runtime.providers == ("oneDNN", "CPU")
        (warning,) = engine.warnings
        engine.infer({"x": np.zeros((1, 3, 64, 64), np.float32)})
    assert warning.startswith(
        f"whether oneDNN computes {source} rightly cannot be checked (without"
    )
    assert "--onednn off" in warning


def test_a_verdict_is_kept_by_content_and_read_by_the_next_process(made, user_cache, tmp_path):
    bundle = shutil.copytree(made("plain"), tmp_path / "plain")
    before = set((user_cache / "onednn").glob("*.json"))
    with load_engine("paddle", bundle / "inference.json", EngineOptions()):
        pass
    kept = {path: json.loads(path.read_text()) for path in (user_cache / "onednn").glob("*.json")}
    assert set(kept) == before or len(kept) == len(before) + 1
    rights = [path for path, content in kept.items() if content["onednn"] == "right"]
    for path in rights:  # as if another verdict had been found: the next process believes it
        path.write_text(json.dumps({"onednn": "wrong", "detail": "as was found before"}))
    try:
        done = hgdeploy("predict", bundle, PHOTO, "--output", tmp_path / "rows.jsonl")
    finally:
        for path in rights:
            path.write_text(json.dumps(kept[path]))
    assert done.returncode == 0, done.stderr
    assert f"inference.json wrongly (as was found before){OFF}" in done.stderr


@pytest.mark.parametrize("content", [None, '{"onednn": 3, "detail": []}'])
def test_without_a_cache_that_can_be_used_a_program_is_tried_again(
    made, tmp_path, monkeypatch, content
):
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("hgdeploy.engines.paddle.onednn._found", {})
    if content is None:
        cache.write_text("a file")
    source = made("plain") / "inference.json"
    for _ in range(2):
        with load_engine("paddle", source, EngineOptions()) as engine:
            assert engine.runtime.providers == ("oneDNN", "CPU")
        for path in cache.glob("hgdeploy/onednn/*"):
            path.write_text(content or "")


def test_every_verb_says_it_once_and_is_right(made, run_here, tmp_path):
    bundle = shutil.copytree(made("channel_norm"), tmp_path / "bundle")
    warning = WRONG.format(bundle / "inference.json") + OFF
    assert run_here(main, "convert", bundle).returncode == 0
    for words in (
        ["predict", bundle, PHOTO],
        ["validate", bundle, "--random", 2],
        ["explain", PHOTO, bundle, f"{bundle}@onnxruntime"],
    ):
        done = run_here(main, *words)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count(warning) == 1, done.stderr
    config = tmp_path / "config.yaml"
    config.write_text(f"Global: {{inference_model_dir: {bundle}, enable_mkldnn: True}}\n")
    words = ["-c", config, "-o", f"Global.infer_imgs={PHOTO}"]
    done = run_here(predict_cls, *words)
    assert (done.returncode, done.stderr.count(warning)) == (0, 1), done.stderr
    done = run_here(predict_cls, *words, "-o", "Global.enable_mkldnn=True")
    assert done.returncode == EngineError.exit_code
    assert "leave out --onednn on (-o Global.enable_mkldnn=True)" in done.stderr
    assert run_here(predict_cls, *words, "-o", "Global.enable_mkldnn=False").returncode == 0


def test_the_switch_of_predict_is_for_paddle_on_a_cpu_alone(made, run_here):
    bundle = made("channel_norm")
    assert run_here(main, "predict", bundle, PHOTO, "--onednn", "off").returncode == 0
    done = run_here(main, "predict", bundle, PHOTO, "--onednn", "on")
    assert done.returncode == EngineError.exit_code
    done = run_here(main, "predict", bundle, PHOTO, "--onednn", "off", "--engine", "onnxruntime")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_a_benchmark_records_whether_it_was_on(made):
    case = Case(model=str(made("channel_norm")), engine="paddle", threads=1)
    request = {"case": dataclasses.asdict(case), "bundle": case.model, "image": None}
    answer = CaseServer().load(Message({"do": "load", **request})).values
    assert tuple(answer["runtime"]["providers"]) == ("CPU",)
    (warning,) = answer["warnings"]
    assert warning.endswith(OFF)
