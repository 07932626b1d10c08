# SPDX-License-Identifier: Apache-2.0
"""The door through which scores come out of a model, in every engine and verb."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from conftest import IMAGES, require_engine
from hgdeploy import Classifier, ClassifierSettings
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.cli.main import main, predict_cls
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines.ending import read_ending
from hgdeploy.engines.run import Run, open_run
from hgdeploy.engines.scores import class_count, infer_rows
from hgdeploy.errors import BundleError, ConfigError, HGDeployError
from hgdeploy.system.progress import nothing
from hgdeploy.transforms.postprocess import MultiLabelThreshOutput, Postprocess, Topk

Foreign = Callable[[str], Path]
CPU_ENGINES = ("paddle", "onnxruntime", "openvino")
PHOTO = IMAGES / "coffee.jpg"


@pytest.fixture(params=CPU_ENGINES)
def cpu_engine(request: pytest.FixtureRequest) -> str:
    require_engine(request.param)
    return str(request.param)


@pytest.fixture
def ready(foreign_onnx: Callable[..., Path], foreign: Foreign, cpu_engine: str) -> Foreign:
    """Give a foreign bundle that holds what `cpu_engine` reads."""

    def made(name: str, description: str = "") -> Path:
        if cpu_engine != "paddle":
            return foreign_onnx(name, description)
        folder = foreign(name)
        with (folder / "inference.yml").open("a", encoding="utf-8") as file:
            file.write(description)
        return folder

    return made


@pytest.mark.parametrize(
    ("shape", "classes"),
    [
        ((-1, 5), 5), ((-1, -1), -1), ((2, 5, 1, 1), 5), ((-1, 1, 1, 5), 5), ((-1, 1), 1),
        ((-1, 5, -1, -1), 5), ((5,), None), ((), None), ((-1, 5, 7, 7), None),
    ],
)  # fmt: skip
def test_class_count_ignores_axes_of_one(shape: tuple[int, ...], classes: int | None):
    assert class_count(shape) == classes


@pytest.mark.parametrize("name", ["softmax_features", "features_softmax", "three_softmaxes"])
def test_a_model_of_several_outputs_is_refused_until_one_is_chosen(name: str, foreign: Foreign):
    bundle = foreign(name)
    with pytest.raises(BundleError, match="outputs, and nothing says which") as error:
        Classifier(bundle, "paddle")
    assert "fetch_name_1 float32 [-1, " in str(error.value)
    with pytest.raises(BundleError, match="outputs, and nothing says which"):
        convert_to_onnx(open_bundle(bundle), ConvertOptions(), nothing)


def test_the_output_that_the_bundle_names_is_used(ready: Foreign, cpu_engine: str):
    named = ready("features_softmax", "Global: {output_name: fetch_name_1}\n")
    with Classifier(named, cpu_engine) as classifier:
        (found,) = classifier.predict(PHOTO)
        assert len(found.scores) == 5
        assert sum(found.scores) == pytest.approx(1, abs=1e-4)
        assert [spec.name for spec in classifier.engine.outputs] == ["fetch_name_1"]


def test_the_config_of_a_run_may_name_the_output(foreign: Foreign, run_here):
    bundle = foreign("features_softmax")

    def run(name):
        return run_here(
            predict_cls, "-o", f"Global.inference_model_dir={bundle}", "-o",
            f"Global.infer_imgs={PHOTO}", "-o", f"Global.output_name={name}",
        )  # fmt: skip

    assert run("fetch_name_1").returncode == 0
    wrong = run("probabilities")
    assert wrong.returncode == 5
    assert "has no output 'probabilities'; it has fetch_name_0 float32 [-1, 12]" in wrong.stderr


def test_validate_uses_the_output_that_the_bundle_names(foreign: Foreign, run_here):
    bundle = foreign("features_softmax")
    with (bundle / "inference.yml").open("a", encoding="utf-8") as file:
        file.write("Global: {output_name: fetch_name_1}\n")
    assert run_here(main, "convert", bundle).returncode == 0
    done = run_here(main, "validate", bundle, "--random", "4")
    assert done.returncode == 0, done.stderr
    assert [value.name for value in onnx.load(str(bundle / "inference.onnx")).graph.output] == [
        "fetch_name_1"
    ]


def test_class_numbers_are_no_scores(foreign: Foreign, run_here):
    bundle = foreign("argmax")
    with pytest.raises(BundleError, match=r"gives int64 values .* without the argmax or topk"):
        Classifier(bundle, "paddle")
    done = run_here(main, "convert", bundle)
    assert (done.returncode, done.stderr.count("hgdeploy: error:")) == (5, 1)
    assert "without the argmax or topk" in done.stderr
    with pytest.raises(BundleError, match="2 outputs"):
        Classifier(foreign("topk"), "paddle")


def test_axes_of_one_behind_the_classes_are_dropped(ready: Foreign, cpu_engine: str):
    with Classifier(ready("n_c_1_1"), cpu_engine) as classifier:
        (found,) = classifier.predict(PHOTO)
    assert set(found.labels) == set("abcde")
    assert sum(found.scores) == pytest.approx(1, abs=1e-4)


def test_a_lost_batch_axis_is_refused_not_reshaped(ready: Foreign, cpu_engine: str):
    """The last squeeze of this model also takes away the batch of one image."""
    bundle = ready("squeezed")
    with (
        pytest.raises(HGDeployError, match="expected one row of scores for each image"),
        Classifier(bundle, cpu_engine) as classifier,
    ):
        list(classifier.predict(PHOTO))


def test_one_row_for_two_images_is_refused_not_halved(ready: Foreign, cpu_engine: str):
    bundle = ready("summed")
    with (
        pytest.raises(HGDeployError, match="expected one row of scores for each image"),
        Classifier(bundle, cpu_engine, batch_size=2) as classifier,
    ):
        list(classifier.predict([PHOTO, IMAGES / "flower.jpg"]))


@pytest.mark.parametrize(
    ("name", "activations"),
    [
        ("plain", ("softmax",)),
        ("n_c_1_1", ("softmax",)),
        ("sigmoid", ("sigmoid",)),
        ("logits", ()),
        ("two_softmaxes", ("softmax", "softmax")),
    ],
)
def test_the_end_of_a_graph_says_what_the_scores_are(
    name: str, activations: tuple[str, ...], foreign_onnx: Foreign
):
    bundle = foreign_onnx(name)
    program = read_ending(bundle / "inference.json", "fetch_name_0")
    artifact = bundle / "inference.onnx"
    sidecar = artifact.with_name(f"{artifact.name}.meta.json")
    assert json.loads(sidecar.read_text())["ending"] == list(activations)
    sidecar.unlink()
    output = onnx.load(str(artifact)).graph.output[0].name
    for found in (program, read_ending(artifact, output)):
        assert found is not None
        assert found.activations == activations


def test_the_end_of_an_old_program_is_read_too(tmp_path: Path, mini: Path):
    from foreign import make_old_foreign

    from hgdeploy.engines.paddle.program import read_program_specs

    old = make_old_foreign("n_c_1_1", tmp_path / "old") / "inference.pdmodel"
    for program in (old, mini / "inference.pdmodel"):
        output = read_program_specs(program).outputs[0].name
        ending = read_ending(program, output)
        assert ending is not None
        assert ending.activations == ("softmax",)


def test_a_larger_fixed_batch_still_gives_one_row_for_each_image(
    ready: Callable[..., Path], cpu_engine: str
):
    bundle = open_bundle(ready("fixed_batch_3"))
    opened = open_run(bundle, Run(cpu_engine))
    with opened.engine:
        rows = np.zeros((2, 3, 64, 64), np.float32)
        assert infer_rows(opened.engine, rows).shape == (2, 5)


def test_two_activations_in_a_row_are_told(foreign: Foreign):
    with Classifier(foreign("two_softmaxes"), "paddle") as classifier:
        (warning,) = classifier.warnings
    assert "ends in a softmax of a softmax" in warning


def test_logits_are_told_and_made_probabilities_on_request(foreign: Foreign, run_here):
    bundle = foreign("logits")
    told = run_here(main, "predict", bundle, PHOTO)
    assert (told.returncode, told.stderr.count("are logits, not probabilities")) == (0, 1)
    done = run_here(main, "predict", bundle, PHOTO, "--softmax")
    assert (done.returncode, "logits" in done.stderr) == (0, False)
    settings = ClassifierSettings(softmax=True)
    with Classifier(bundle) as plain, Classifier.from_settings(bundle, settings) as soft:
        (logits,), (found,) = plain.predict(PHOTO), soft.predict(PHOTO)
    exponentials = np.exp(logits.scores)
    assert found.class_ids == logits.class_ids
    assert found.scores == pytest.approx(exponentials / exponentials.sum(), abs=1e-5)


def test_a_second_softmax_is_refused(foreign: Foreign):
    settings = ClassifierSettings(softmax=True)
    with pytest.raises(ConfigError, match="ends in a softmax already"):
        Classifier.from_settings(foreign("plain"), settings)


def test_a_threshold_on_logits_is_told(foreign: Foreign):
    settings = ClassifierSettings(postprocess=Postprocess(MultiLabelThreshOutput(0.5)))
    with Classifier.from_settings(foreign("logits"), settings) as classifier:
        (warning,) = classifier.warnings
    assert "the threshold 0.5 is compared with logits" in warning


def test_independent_probabilities_need_not_sum_to_one(foreign: Foreign):
    settings = ClassifierSettings(postprocess=Postprocess(Topk(5)))
    with Classifier.from_settings(foreign("sigmoid"), settings) as classifier:
        (found,) = classifier.predict(PHOTO)
        assert abs(sum(found.scores) - 1) > 0.1
        assert classifier.warnings == []
