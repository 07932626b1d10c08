# SPDX-License-Identifier: Apache-2.0
"""The Python API on a small real model, over every engine."""

from __future__ import annotations

import io
import tempfile
import types
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import yaml
from image_files import jpeg
from onnx import TensorProto, helper
from PIL import Image

from conftest import IMAGES, MINI, require_engine
from hgdeploy import Classifier, ClassifierSettings, EngineOptions
from hgdeploy.engines import load_engine
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import BundleError, ConfigError, EngineError, InputError
from hgdeploy.images.decode import read_image
from hgdeploy.transforms.operators import ToCHWImage
from hgdeploy.transforms.operators_config import imagenet_ops
from hgdeploy.transforms.postprocess import MultiLabelThreshOutput, Postprocess, Topk
from hgdeploy.transforms.preprocess import Preprocessor

PHOTOS = sorted(IMAGES.glob("*.jpg"))


@pytest.fixture(scope="module")
def expected() -> dict[str, np.ndarray]:
    """Probabilities of each photograph, computed one by one around the classifier."""
    preprocess = Preprocessor(imagenet_ops(72, 64))
    with load_engine("paddle", MINI / "inference.pdmodel", EngineOptions()) as engine:
        name = engine.outputs[0].name
        return {
            photo.name: engine.infer({"x": preprocess(read_image(photo))[None]})[name][0]
            for photo in PHOTOS
        }


def assert_right(predictions, names, expected):
    predictions = list(predictions)
    assert [prediction.path for prediction in predictions] == names
    for prediction in predictions:
        row = expected[prediction.path]
        assert prediction.error is None
        assert prediction.class_ids == tuple(np.argsort(row)[::-1][: len(prediction.class_ids)])
        np.testing.assert_allclose(prediction.scores, sorted(row)[::-1][: len(prediction.scores)],
                                   atol=2e-5)  # fmt: skip
        assert prediction.labels == tuple(f"name {i}, the" for i in prediction.class_ids)


def test_an_engine_that_plans_for_each_shape_gets_full_batches(mini, expected, tmp_path):
    """As ONNX Runtime on a GPU: another batch size than the last costs seconds."""
    require_engine("onnxruntime")
    (tmp_path / "0.jpg").write_bytes(b"no image")
    files = [tmp_path / "0.jpg", *PHOTOS]
    with Classifier(mini, "onnxruntime", batch_size=8) as classifier:
        engine, shapes = classifier.engine, []
        infer, engine.fills_batches = engine.infer, True
        engine.infer = lambda feeds: (shapes.append(feeds["x"].shape), infer(feeds))[1]
        failed, *found = [one for path in files for one in classifier.predict(path)]
        failed_too, *together = classifier.predict([str(path) for path in files])
    assert shapes == [(8, 3, 64, 64)] * (len(PHOTOS) + 1)
    assert failed.error
    assert failed_too.error
    assert_right(found, [photo.name for photo in PHOTOS], expected)
    assert_right(together, [photo.name for photo in PHOTOS], expected)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5, 8])
def test_a_folder_is_classified_in_order(mini, engine_name, batch_size, expected):
    with Classifier(mini, engine_name, batch_size=batch_size) as classifier:
        predictions = list(classifier.predict(IMAGES))
    assert_right(predictions, [photo.name for photo in PHOTOS], expected)


def test_every_kind_of_source_gives_the_same(mini, engine_name, expected):
    photo = PHOTOS[0]
    with Classifier(mini, engine_name) as classifier:
        sources = [
            photo,
            str(photo),
            photo.read_bytes(),
            read_image(photo),
            [photo],
            (p for p in [photo]),
        ]
        answers = [list(classifier.predict(source)) for source in sources]
    assert all(len(answer) == 1 for answer in answers)
    assert len({answer[0].scores for answer in answers}) == 1
    assert answers[2][0].path == "<bytes 0>"
    assert answers[3][0].path == "<array 0>"


def test_an_iterable_may_mix_kinds_and_an_array_may_hold_many(mini):
    image = read_image(PHOTOS[0])
    with Classifier(mini, "onnxruntime", batch_size=4) as classifier:
        mixed = list(classifier.predict([PHOTOS[0], image, PHOTOS[0].read_bytes()]))
        stacked = list(classifier.predict(np.stack([image, image])))
    assert [p.path for p in mixed] == [PHOTOS[0].name, "<array 1>", "<bytes 2>"]
    assert {p.scores for p in mixed} == {p.scores for p in stacked}


def test_prediction_is_lazy(mini):
    taken = []

    def source():
        for photo in PHOTOS:
            taken.append(photo)
            yield photo

    with Classifier(mini, "onnxruntime", batch_size=2) as classifier:
        predictions = classifier.predict(source())
        assert isinstance(predictions, types.GeneratorType)
        assert taken == []
        next(predictions)
        assert len(taken) == 2


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("bad", ["first", "middle", "last", "two together", "all"])
def test_a_bad_image_keeps_its_place_and_moves_no_neighbour(
    mini, tmp_path, batch_size, bad, expected
):
    places = {"first": [0], "middle": [2], "last": [5], "two together": [2, 3], "all": range(6)}[
        bad
    ]
    files = []
    for i in range(6):
        path = tmp_path / f"{i}.jpg"
        path.write_bytes(b"no image" if i in places else PHOTOS[i % 5].read_bytes())
        files.append(path)
    with Classifier(mini, "onnxruntime", batch_size=batch_size) as classifier:
        predictions = list(classifier.predict(files))
    assert [p.path for p in predictions] == [f"{i}.jpg" for i in range(6)]
    for i, prediction in enumerate(predictions):
        if i in places:
            assert "not an image" in prediction.error
            assert (prediction.class_ids, prediction.scores, prediction.labels) == ((), (), ())
        else:
            row = expected[PHOTOS[i % 5].name]
            np.testing.assert_allclose(prediction.scores[0], row.max(), atol=2e-5)


def test_topk_of_the_caller_wins(mini):
    with Classifier(mini, "onnxruntime", topk=2) as classifier:
        (prediction,) = classifier.predict(PHOTOS[0])
    assert len(prediction.class_ids) == len(prediction.scores) == len(prediction.labels) == 2


def test_a_config_without_labels_takes_the_bundles(mini):
    settings = ClassifierSettings(postprocess=Postprocess(Topk(1), labels_given=False))
    with Classifier.from_settings(mini, settings) as classifier:
        (prediction,) = classifier.predict(PHOTOS[0])
    assert prediction.labels[0].startswith("name ")


def test_a_different_preprocessing_wins_and_is_warned_about(mini):
    settings = ClassifierSettings(preprocess=imagenet_ops(80, 64))
    with Classifier.from_settings(mini, settings) as classifier:
        (warning,) = classifier.warnings
    assert "ResizeImage.resize_short: 80 (config), 72 (bundle)" in warning
    settings = ClassifierSettings(preprocess=imagenet_ops(72, 64))
    with Classifier.from_settings(mini, settings) as classifier:
        assert classifier.warnings == []


def test_what_a_description_cannot_serve_is_told_and_does_not_stop_a_config_of_its_own(mini):
    description = mini / "inference.yml"
    described = description.read_text()
    with Classifier(mini) as classifier:
        (expected,) = classifier.predict(PHOTOS[0])
        settings = ClassifierSettings(
            preprocess=classifier.reader.preprocessor.ops, postprocess=classifier.postprocess
        )
    for section, told in (
        ("PreProcess: {transform_ops: [DecodeImage: {backend: pil}]}", "DecodeImage.backend"),
        ("PostProcess: {MultiLabelTopk: {topk: 5}}", "MultiLabelTopk"),
    ):
        key = section.partition(":")[0]
        kept = {k: v for k, v in yaml.safe_load(described).items() if k != key}
        description.write_text(f"{yaml.safe_dump(kept)}\n{section}\n")
        with Classifier.from_settings(mini, settings) as classifier:
            (warning,) = classifier.warnings
            assert told in warning
            assert list(classifier.predict(PHOTOS[0])) == [expected]
        with pytest.raises(BundleError, match=told):
            Classifier(mini)


def test_a_bundle_without_preprocessing_needs_a_config(mini):
    (mini / "inference.yml").unlink()
    with pytest.raises(ConfigError, match="nothing says how to preprocess"):
        Classifier(mini)


def test_preprocessing_of_another_type_is_refused(mini, engine_name):
    ops = (*imagenet_ops(72, 64)[:2], ToCHWImage())
    with pytest.raises(BundleError, match="takes float32, but the preprocessing makes uint8"):
        Classifier.from_settings(mini, ClassifierSettings(engine_name, preprocess=ops))


def test_preprocessing_of_another_size_is_refused_but_by_paddle(mini, engine_name):
    settings = ClassifierSettings(engine_name, preprocess=imagenet_ops(256, 224))
    if engine_name == "paddle":
        with Classifier.from_settings(mini, settings) as classifier:
            assert next(classifier.predict(PHOTOS[0])).error is None
        return
    told = "takes images of 64x64, but the preprocessing makes 224x224"
    with pytest.raises(BundleError, match=told):
        Classifier.from_settings(mini, settings)


def test_labels_that_do_not_fit_the_model_are_refused(mini, engine_name):
    settings = ClassifierSettings(engine_name, postprocess=Postprocess(Topk(1, {0: "a", 1: "b"})))
    with pytest.raises(BundleError, match="has 10 classes, but the label list has 2"):
        Classifier.from_settings(mini, settings)


def test_a_missing_model_lists_what_the_bundle_has(mini):
    (mini / "inference.pdmodel").unlink()
    with pytest.raises(BundleError, match=r"has no inference\.json or inference\.pdmodel; it has"):
        Classifier(mini, "paddle")


def test_a_precision_without_its_file_is_refused(mini):
    with pytest.raises(BundleError, match=r"has no inference\.int8\.onnx"):
        Classifier(mini, "onnxruntime", precision="int8")


@pytest.mark.parametrize("topk", [0, -1])
def test_a_topk_below_one_is_refused(mini, topk):
    with pytest.raises(ConfigError, match="expected a whole number from 1"):
        Classifier(mini, topk=topk)


def test_an_unknown_engine_is_refused(mini):
    with pytest.raises(EngineError, match="unknown engine 'tensorflow'"):
        Classifier(mini, "tensorflow")


def test_an_open_file_is_one_image_alone_and_in_a_list(mini, tmp_path):
    data = PHOTOS[0].read_bytes()
    with (
        Classifier(mini, "onnxruntime", batch_size=2) as classifier,
        PHOTOS[0].open("rb") as stream,
    ):
        (expected,) = classifier.predict(data)
        with tempfile.TemporaryFile(dir=tmp_path) as other:
            other.write(data)
            other.seek(0)
            sources = [io.BytesIO(data), stream, other]
            alone = [list(classifier.predict(source)) for source in sources]
        mixed = list(classifier.predict(iter([data, io.BytesIO(data), io.BytesIO(b"x"), data])))
    assert [[p.scores for p in answer] for answer in alone] == [[expected.scores]] * 3
    assert [answer[0].path for answer in alone] == ["<file 0>", str(PHOTOS[0]), "<file 0>"]
    assert [p.path for p in mixed] == ["<bytes 0>", "<file 1>", "<file 2>", "<bytes 3>"]
    assert [p.error is None for p in mixed] == [True, True, False, True]


def test_an_open_file_that_holds_no_image_is_one_clear_error(mini, tmp_path):
    (tmp_path / "list").write_text("a.jpg\nb.jpg\n")
    shut = io.BytesIO(b"x")
    shut.close()
    spent = io.BytesIO(jpeg())
    spent.seek(0, io.SEEK_END)
    with Classifier(mini, "onnxruntime") as classifier, (tmp_path / "list").open() as text:
        for source, reason in (
            (text, "is open for text; open it with mode 'rb'"),
            (io.StringIO("a.jpg"), "is open for text"),
            (shut, "cannot be read: I/O operation on closed file"),
            (spent, r"has nothing left to read; call its seek\(0\) before"),
        ):
            for one in (source, [source]):
                with pytest.raises(InputError, match=reason):
                    list(classifier.predict(one))


@pytest.mark.parametrize(
    "source", [7, None, object(), {"a": "b.jpg"}, Image.new("RGB", (64, 64)), [[object()]]]
)
def test_a_source_of_another_kind_is_refused(mini, source):
    with (
        Classifier(mini, "onnxruntime") as classifier,
        pytest.raises(InputError, match="cannot classify a"),
    ):
        list(classifier.predict(source))


class OtherArray:
    """An array of another library, which can be iterated over as a list can."""

    def __init__(self, values):
        self.values = np.asarray(values, dtype=object)
        self.ndim = self.values.ndim

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __iter__(self):
        return iter(self.values.tolist())


def test_an_array_of_another_library_is_refused_and_its_column_of_paths_is_not(mini):
    paths = [str(photo) for photo in PHOTOS[:2]]
    with Classifier(mini, "onnxruntime") as classifier:
        assert [p.error for p in classifier.predict(OtherArray(paths))] == [None, None]
        with pytest.raises(InputError, match="cannot classify a OtherArray, expected a path"):
            list(classifier.predict(OtherArray([paths, paths])))


def test_what_a_folder_leaves_out_is_a_warning(mini, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(jpeg(64, 64))
    (folder / "b.heic").write_bytes(b"x")
    with Classifier(mini, "onnxruntime") as classifier:
        assert len(list(classifier.predict(folder))) == 1
    assert "1 other file left out, by suffix: 1 .heic (HEIC: conv" in classifier.warnings[-1]


def test_an_array_that_is_no_image_fails_with_its_reason(mini):
    with Classifier(mini, "onnxruntime") as classifier:
        (prediction,) = classifier.predict(np.zeros((8, 8, 3), np.float64))
    assert "float64" in prediction.error


def constant_model(path: Path, rows: np.ndarray, batch: int | str) -> None:
    """Write an ONNX model whose output is `rows` plus zero times its input's mean.

    Its answer is known without running anything, and its last operator does not say what it is.
    """
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Unsqueeze", ["nothing", "one"], ["column"]),
        helper.make_node("Sub", ["column", "negative"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "constant",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 3, 64, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, rows.shape[-1]])],
        [
            helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0]),
            helper.make_tensor("one", TensorProto.INT64, [1], [1]),
            helper.make_tensor("negative", TensorProto.FLOAT, rows.shape, -rows.ravel()),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


PLAIN = Postprocess(Topk(1))


def constant_classifier(mini: Path, rows: object, batch: int | str, batch_size: int) -> Classifier:
    constant_model(mini / "inference.onnx", np.array(rows, np.float32), batch)
    settings = ClassifierSettings("onnxruntime", batch_size, postprocess=PLAIN)
    return Classifier.from_settings(mini, settings)


@pytest.mark.parametrize(("fixed", "asked"), [(1, 8), (4, 1), (4, 8)])
def test_a_model_of_fixed_batch_runs_in_its_own_batch_and_says_so(mini, fixed, asked):
    rows = [[0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [0.3, 0.7]][:fixed]
    with constant_classifier(mini, rows, batch=fixed, batch_size=asked) as classifier:
        (warning,) = classifier.warnings
        predictions = list(classifier.predict(PHOTOS))
    assert f"has a fixed batch: {fixed} image" in warning
    assert f"not {asked}; export the model with a dynamic batch" in warning
    assert [p.class_ids[0] for p in predictions] == [
        int(np.argmax(rows[i % fixed])) for i in range(len(PHOTOS))
    ]


def test_a_fixed_batch_is_filled_up_at_the_end(mini):
    rows = [[0.9, 0.1], [0.1, 0.9], [0.7, 0.3], [0.3, 0.7]]
    with constant_classifier(mini, rows, batch=4, batch_size=4) as classifier:
        predictions = list(classifier.predict(PHOTOS))
    assert [p.class_ids[0] for p in predictions] == [0, 1, 0, 1, 0]


def test_scores_that_are_no_probabilities_are_warned_about_once(mini):
    with constant_classifier(mini, [[3.0, -1.0]], "n", batch_size=1) as classifier:
        predictions = list(classifier.predict(PHOTOS))
        (warning,) = classifier.warnings
    assert "sum to 2, not to 1" in warning
    assert all(p.scores == (3.0,) for p in predictions)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_a_failure(mini, value):
    with constant_classifier(mini, [[0.5, value]], "n", batch_size=2) as classifier:
        predictions = list(classifier.predict(PHOTOS))
    assert all("not finite" in p.error for p in predictions)


def test_an_onnx_model_from_elsewhere_runs_under_its_own_names(mini, expected):
    model = onnx.load(mini / "inference.onnx")
    renamed = {"x": "images.1", "probabilities": "out:0"}
    for node in model.graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    for value in (model.graph.input[0], model.graph.output[0]):
        value.name = renamed[value.name]
    onnx.save(model, mini / "inference.onnx")
    for name in ("onnxruntime", "openvino"):
        require_engine(name)
        with Classifier(mini, name, batch_size=2) as classifier:
            assert_right(classifier.predict(IMAGES), [photo.name for photo in PHOTOS], expected)


def test_a_model_of_two_inputs_is_refused(mini):
    model = onnx.load(mini / "inference.onnx")
    model.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
    model.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Identity", ["scale"], ["same"]))
    onnx.save(model, mini / "inference.onnx")
    with pytest.raises(BundleError, match=r"expected one NCHW input, got x .*, scale"):
        Classifier(mini, "onnxruntime")


def test_an_image_size_left_open_is_served_batch_by_batch(mini):
    """Without a crop every image keeps its own shape; shapes are never mixed in one batch."""
    model = onnx.load(mini / "inference.onnx")
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"d{axis}"
    onnx.save(model, mini / "inference.onnx")
    ops = imagenet_ops(64, 64)
    settings = ClassifierSettings("onnxruntime", 4, preprocess=(ops[0], *ops[2:]))
    images = [
        np.full((64 * a, 64 * b, 3), 99, np.uint8) for a, b in ((1, 1), (1, 1), (1, 2), (2, 1))
    ]
    with Classifier.from_settings(mini, settings) as classifier:
        together = [p.scores for p in classifier.predict(images)]
    settings = ClassifierSettings("onnxruntime", 1, preprocess=(ops[0], *ops[2:]))
    with Classifier.from_settings(mini, settings) as classifier:
        alone = [p.scores for p in classifier.predict(images)]
    np.testing.assert_allclose(together, alone, atol=2e-5)


def test_bgr_models_get_bgr(mini):
    """A bundle whose DecodeImage says to_rgb: false is fed the channels the other way round."""
    described = (mini / "inference.yml").read_text()
    image = read_image(PHOTOS[0])
    with Classifier(mini, "onnxruntime") as classifier:
        (swapped_by_hand,) = classifier.predict(np.ascontiguousarray(image[:, :, ::-1]))
    (mini / "inference.yml").write_text(
        described.replace("transform_ops:", "transform_ops:\n    - DecodeImage: {to_rgb: false}")
    )
    with Classifier(mini, "onnxruntime") as classifier:
        (by_description,) = classifier.predict(image)
    assert by_description.scores == swapped_by_hand.scores


def test_the_same_photo_through_cv2_by_hand(mini, expected):
    """The whole way restated: cv2 decode, short side to 72, centre 64, normalise, Paddle."""
    bgr = cv2.imread(str(PHOTOS[0]))
    height, width = bgr.shape[:2]
    ratio = 72 / min(height, width)
    bgr = cv2.resize(bgr, (round(width * ratio), round(height * ratio)))
    top, left = (bgr.shape[0] - 64) // 2, (bgr.shape[1] - 64) // 2
    rgb = bgr[top : top + 64, left : left + 64, ::-1].astype("float32")
    mean, std = np.float32([0.485, 0.456, 0.406]), np.float32([0.229, 0.224, 0.225])
    x = ((rgb * np.float32(1 / 255) - mean) / std).transpose(2, 0, 1)[None]
    with load_engine("paddle", MINI / "inference.pdmodel", EngineOptions()) as engine:
        row = engine.infer({"x": np.ascontiguousarray(x)})[engine.outputs[0].name][0]
    np.testing.assert_array_equal(row, expected[PHOTOS[0].name])


def test_settings_and_single_arguments_are_not_mixed(mini):
    with pytest.raises(ConfigError, match="put all into settings"):
        Classifier(mini, batch_size=2, settings=ClassifierSettings(topk=1))


def test_what_changes_predictions_changes_the_fingerprint(mini):
    """Each setting by itself, so that `--resume` never mixes rows; speed alone does not count."""
    settings = {
        "postprocessing": [
            ClassifierSettings(topk=3),
            ClassifierSettings(postprocess=Postprocess(Topk(5, dict.fromkeys(range(10), "x")))),
            ClassifierSettings(postprocess=Postprocess(MultiLabelThreshOutput(0.5))),
            ClassifierSettings(postprocess=Postprocess(MultiLabelThreshOutput(0.6))),
        ],
        "preprocessing": [ClassifierSettings(preprocess=imagenet_ops(80, 64))],
        "fast decode": [ClassifierSettings(fast_decode=True)],
        "back end": [ClassifierSettings(options=EngineOptions(own=(PaddleOptions(onednn=False),)))],
        "engine": [ClassifierSettings("onnxruntime")],
    }

    def fingerprint(chosen: ClassifierSettings) -> dict[str, str]:
        with Classifier(mini, settings=chosen) as classifier:
            return classifier.fingerprint()

    before = fingerprint(ClassifierSettings(batch_size=4, image_timeout=60))
    seen = [before]
    for name, changed in settings.items():
        for one in changed:
            seen.append(fingerprint(one))
            assert before[name] != seen[-1][name], one
    assert len({str(sorted(one.items())) for one in seen}) == len(seen)
    assert fingerprint(ClassifierSettings()) == before
    with (mini / "inference.pdiparams").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"?")
    assert fingerprint(ClassifierSettings())["model hash"] != before["model hash"]
