# SPDX-License-Identifier: Apache-2.0
"""`PaddleClas`, the class of PaddleClas's Python package, as scripts use it."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from web import serving

from conftest import IMAGES
from hgdeploy.errors import ConfigError, HGDeployError, ImageError, InputError
from hgdeploy.paddleclas import PaddleClas
from hgdeploy.paddleclas.decided import decided
from hgdeploy.transforms.attributes import TableAttribute, VehicleAttribute
from hgdeploy.transforms.operators import CropImage, ResizeImage

pytest.importorskip("paddle")

COFFEE, ROCKET = IMAGES / "coffee.jpg", IMAGES / "rocket.jpg"
PIXELS = np.zeros((90, 120, 3), np.uint8)
THRESHOLDED = "PostProcess={'ThreshOutput': {'default_label_index': 3}}"


@pytest.fixture
def clas(mini: Path) -> Iterator[PaddleClas]:
    own = {"engine": "onnxruntime", "device": "cpu"}
    with PaddleClas(inference_model_dir=str(mini), batch_size=2, **own) as loaded:
        yield loaded


def answers(clas: PaddleClas, source: Any) -> list[dict[str, Any]]:
    return [answer for batch in clas.predict(source) for answer in batch]


def test_the_class_answers_as_that_of_paddleclas_does(clas: PaddleClas):
    results = clas.predict(input_data=str(COFFEE))
    assert iter(results) is results
    (answer,) = next(results)
    assert list(answer) == ["class_ids", "scores", "label_names", "filename"]
    assert answer["filename"] == str(COFFEE)
    assert len(answer["class_ids"]) == 5
    assert {type(one) for one in answer["class_ids"]} == {int}
    assert {type(one) for one in answer["scores"]} == {float}
    assert answer["scores"] == [round(score, 5) for score in answer["scores"]]
    assert answer["label_names"] == [f"name {i}, the" for i in answer["class_ids"]]
    assert list(results) == []


def test_pixels_make_one_list_of_one_answer_without_a_filename(clas: PaddleClas):
    ((answer,),) = clas.predict(PIXELS)
    assert list(answer) == ["class_ids", "scores", "label_names"]


def test_a_folder_comes_in_batches_and_its_files_are_called_as_they_are_found(
    clas: PaddleClas, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "img" / "sub").mkdir(parents=True)
    for name in ("a.jpg", "b.jpg", "sub/c.jpg"):
        shutil.copy(COFFEE, tmp_path / "img" / name)
    monkeypatch.chdir(tmp_path)
    found = [[answer["filename"] for answer in batch] for batch in clas.predict("./img")]
    assert found == [["./img/a.jpg", "./img/b.jpg"], ["./img/sub/c.jpg"]]
    assert answers(clas, "./img/a.jpg")[0]["filename"] == "./img/a.jpg"


def test_an_unreadable_last_image_loses_nobody(
    clas: PaddleClas, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shutil.copy(COFFEE, tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"none")
    shutil.copy(COFFEE, tmp_path / "c.jpg")
    (tmp_path / "d.jpg").write_bytes(b"none")
    names = [Path(answer["filename"]).name for answer in answers(clas, str(tmp_path))]
    assert names == ["a.jpg", "c.jpg"]
    warned = capsys.readouterr().err
    assert re.search(r"ppcls WARNING: \S+/b\.jpg is left out: ", warned)
    assert re.search(r"ppcls WARNING: \S+/d\.jpg is left out: ", warned)


def test_lists_paths_bytes_and_generators_are_taken(clas: PaddleClas):
    by_path, rocket = answers(clas, [COFFEE, str(ROCKET)])
    (by_bytes,) = answers(clas, COFFEE.read_bytes())
    assert by_bytes == {key: by_path[key] for key in by_bytes} != rocket
    series = answers(clas, (one for one in (COFFEE.read_bytes(), PIXELS, ROCKET)))
    assert [one["filename"] for one in series] == ["<bytes 0>", "<array 1>", str(ROCKET)]
    assert len(answers(clas, np.stack([PIXELS, PIXELS, PIXELS]))) == 3
    with COFFEE.open("rb") as file:
        assert answers(clas, file) == [by_bytes]


def test_what_cannot_be_had_of_a_series_is_left_out_alone(
    clas: PaddleClas, home: Path, capsys: pytest.CaptureFixture[str]
):
    series = [COFFEE, "/nowhere.jpg", b"none", "http://127.0.0.1:9/x.jpg", home, ROCKET]
    assert [one["filename"] for one in answers(clas, series)] == [str(COFFEE), str(ROCKET)]
    told = capsys.readouterr().err
    for shown in ("/nowhere.jpg is left out: ", "<bytes 2> is left out: ", f"{home} is left out: "):
        assert shown in told
    assert "left out: http://127.0.0.1:9/x.jpg: " in told


def test_images_are_asked_for_one_batch_at_a_time(clas: PaddleClas):
    asked: list[int] = []

    def camera() -> Iterator[np.ndarray]:
        for i in range(9):
            asked.append(i)
            yield PIXELS

    results = clas.predict(camera())
    assert asked == []
    next(results)
    assert asked == [0, 1]


@pytest.mark.parametrize(
    ("source", "error"),
    [(None, InputError), ("/nowhere.jpg", InputError), ({}, InputError), (b"none", ImageError),
     (PIXELS.astype(np.float32), ImageError)],
)  # fmt: skip
def test_what_is_no_image_is_told_when_it_is_asked_for(
    clas: PaddleClas, source: Any, error: type[HGDeployError]
):
    results = clas.predict(source)
    with pytest.raises(error):
        next(results)


@pytest.mark.parametrize("kind", ["shitu", "det", None])
def test_only_classification_is_served(clas: PaddleClas, kind: Any):
    with pytest.raises(ConfigError, match="predict_type"):
        clas.predict(PIXELS, predict_type=kind)


def test_lines_are_printed_as_paddleclas_prints_them(
    clas: PaddleClas, capsys: pytest.CaptureFixture[str]
):
    (answer,) = next(clas.predict(str(COFFEE), print_pred=True))
    shown = ", ".join(f"{key}: {value}" for key, value in answer.items())
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] ppcls INFO: " + re.escape(shown), line)


def test_an_address_is_fetched_and_kept(clas: PaddleClas, home: Path):
    with serving(IMAGES) as url:
        (answer,) = answers(clas, f"{url}/coffee.jpg")
        both = answers(clas, [f"{url}/coffee.jpg", f"{url}/rocket.jpg"])
    kept = Path(answer["filename"])
    assert kept.parent == home / ".paddleclas" / "images"
    assert kept.read_bytes() == COFFEE.read_bytes()
    assert answer["scores"] == answers(clas, COFFEE)[0]["scores"]
    assert [len(one["class_ids"]) for one in both] == [5, 5]


def test_many_threads_classify_at_once_and_with_frees_the_engine(mini: Path):
    results: list[Any] = []
    with PaddleClas(inference_model_dir=mini, device="cpu") as clas:
        threads = [
            threading.Thread(target=lambda: results.append(answers(clas, IMAGES))) for _ in range(3)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(results) == 3
    assert results[0] == results[1] == results[2]
    assert len(results[0]) == 5
    with pytest.raises(HGDeployError, match="closed"):
        next(clas.predict(PIXELS))


def test_the_threshold_works(mini: Path):
    labels = [THRESHOLDED, "PostProcess.ThreshOutput.threshold=0.99"]
    own = {"engine": "onnxruntime", "device": "cpu", "override": labels}
    ids = []
    for threshold in (0, 1e-6):  # 0 means the config's value
        with PaddleClas(inference_model_dir=mini, threshold=threshold, **own) as clas:
            (answer,) = answers(clas, PIXELS)
        ids.append(answer["class_ids"][0])
        assert list(answer) == ["class_ids", "scores", "label_names"]
        assert answer["scores"] == [round(answer["scores"][0], 5)]
    assert ids[0] == 3 != ids[1]


def test_save_dir_sorts_copies_and_refuses_to_copy_them_again(mini: Path, tmp_path: Path):
    copies = tmp_path / "out" / "copies"
    own = {"engine": "onnxruntime", "device": "cpu"}
    with PaddleClas(inference_model_dir=mini, save_dir=copies, **own) as clas:
        (answer,) = answers(clas, str(COFFEE))
        answers(clas, PIXELS)
        assert [path.relative_to(copies) for path in copies.rglob("*.jpg")] == [
            Path(str(answer["class_ids"][0])) / "coffee.jpg"
        ]
        with pytest.raises(ConfigError, match="copied again"):
            answers(clas, str(tmp_path / "out"))


def test_the_labels_of_a_file_replace_the_models_own(mini: Path, tmp_path: Path):
    labels = tmp_path / "labels.txt"
    labels.write_text("".join(f"{i} mine {i}\n" for i in range(10)))
    with PaddleClas(
        inference_model_dir=mini, class_id_map_file=str(labels), topk=2, use_gpu="F"
    ) as clas:
        (answer,) = answers(clas, PIXELS)
    assert answer["label_names"] == [f"mine {i}" for i in answer["class_ids"]]
    assert len(answer["class_ids"]) == 2


def test_a_named_model_comes_from_the_cache_and_beats_a_folder(
    cached: Callable[[str], Path], mini: Path, capsys: pytest.CaptureFixture[str]
):
    cached("IMN/PPHGNet_tiny_ssld")
    model = {"model_name": "PPHGNet_tiny_ssld", "inference_model_dir": str(mini)}
    for _ in range(2):
        with PaddleClas(**model, use_gpu=False) as clas:
            (answer,) = answers(clas, PIXELS)
    # It has 10 classes, and not ImageNet's.
    assert answer["label_names"] == []
    told = capsys.readouterr().err
    assert told.count("is fed as it was evaluated") == 1
    assert "resize_short: 232 (here), 256 (there)" in told
    assert "has 10 classes and not 1000" in told


def test_the_thresholds_of_attributes_arrive(cached: Callable[[str], Path]):
    cached("PULC/vehicle_attribute")
    found = decided({"model_name": "vehicle_attribute", "color_threshold": 0.75})
    assert found.config.postprocess.output == VehicleAttribute(0.75, 0.5)
    cached("PULC/table_attribute")
    given = {"color_threshold": "0.25", "angle_threshold": 0.75}
    found = decided({"model_name": "table_attribute", **given})
    assert found.config.postprocess.output == TableAttribute(
        color_threshold=0.25, angle_threshold=0.75
    )


@pytest.mark.parametrize("argument", ["crop_size", "resize_short"])
def test_a_size_that_the_preprocessing_has_not_is_an_error_in_one_line(
    argument: str, cached: Callable[[str], Path]
):
    cached("PULC/textline_orientation")
    with pytest.raises(ConfigError, match=f"^{argument} does not apply: .*; leave it out$"):
        PaddleClas(model_name="textline_orientation", **{argument: 64})


def test_overrides_come_first_and_named_arguments_win(mini: Path):
    override = [
        "Global.batch_size=3",
        "Global.cpu_num_threads=1",
        "PostProcess.Topk.topk=4",
        "PostProcess.ThreshOutput.threshold=0.5",
        "PreProcess.transform_ops.1.CropImage.size=48",
    ]
    found = decided(
        {"inference_model_dir": mini, "override": override, "topk": 2, "resize_short": 96}
    ).config
    assert (found.batch_size, found.options.threads, found.postprocess.output.topk) == (3, 1, 2)
    assert found.preprocess
    assert found.preprocess[:2] == (ResizeImage(resize_short=96), CropImage(size=(48, 48)))
    nothing = dict.fromkeys(("batch_size", "topk", "resize_short", "crop_size", "gpu_mem"), 0)
    found = decided({"inference_model_dir": mini, **nothing, "use_fp16": None}).config
    assert (found.batch_size, found.postprocess.output.topk) == (1, 5)


@pytest.mark.parametrize("device", ["cpu", "gpu:1"])
def test_engine_precision_and_device_are_taken(mini: Path, device: str):
    own = {"engine": "onnxruntime", "precision": "fp32", "device": device}
    found = decided({"inference_model_dir": mini, **own}).config
    taken = (found.engine, found.options.precision, found.options.device)
    assert taken == ("onnxruntime", "fp32", device)


def test_what_has_no_effect_is_told(mini: Path):
    given = {"inference_model_dir": mini, "threshold": 0.5, "use_gpu": False}
    assert decided(given).notes == (f"threshold has no effect: {mini}'s output is Topk",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "^no model was given; give model_name .* or inference_model_dir"),
        ({"build_gallery": True}, "^build_gallery belongs to PP-ShiTu"),
        ({"gallery_image_root": "x"}, "^gallery_image_root belongs to PP-ShiTu"),
        ({"gallery_data_file": "x"}, "^gallery_data_file belongs to PP-ShiTu"),
        ({"index_dir": "x"}, "^index_dir belongs to PP-ShiTu"),
        ({"batchsize": 2}, "^unknown key batchsize, did you mean 'batch_size'"),
        ({"batch_size": -1}, "^batch_size is -1, expected a whole number from 0"),
        ({"use_gpu": "yes"}, "^use_gpu is 'yes', expected true, t or 1, or false, f or 0"),
        ({"override": "Global.batch_size=2"}, "^override is .*, expected a list"),
        ({"override": ["Global.batchsize=2"]}, "^unknown key Global.batchsize"),
        ({"override": ["PreProcess=1"]}, "^PreProcess is 1, expected a mapping"),
        ({"override": ["PostProcess.Topk=5"], "topk": 3}, "^PostProcess.Topk is 5, expected a map"),
        (
            {"override": ["PreProcess.transform_ops.1.CropImage=8"], "crop_size": 3},
            "CropImage is 8, expected a mapping",
        ),
        ({"device": "cpu", "use_gpu": True}, "^use_gpu=True contradicts"),
        ({"precision": "fp32", "use_fp16": True}, "^use_fp16=True contradicts"),
    ],
)
def test_a_wrong_argument_is_one_line(mini: Path, arguments: dict[str, Any], message: str):
    model = {"inference_model_dir": str(mini)} if arguments else {}
    with pytest.raises(ConfigError, match=message):
        PaddleClas(**model, **arguments)


@pytest.mark.parametrize("word", ["true", "TRUE", "t", "T", "1", 1, True])
def test_switches_are_written_as_for_paddleclas(mini: Path, word: object):
    found = decided({"inference_model_dir": mini, "use_gpu": word}).config
    assert found.options.device == "gpu:0"


@pytest.mark.parametrize("word", ["false", "False", "F", "0", 0, "no", False])
def test_switches_are_off_likewise(mini: Path, word: object):
    found = decided({"inference_model_dir": mini, "use_gpu": word})
    assert (found.config.options.device, found.notes) == ("cpu", ())
