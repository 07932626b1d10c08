# SPDX-License-Identifier: Apache-2.0
"""The attribute outputs against what PaddleClas's documentation shows and its formulas give."""

from __future__ import annotations

import numpy as np
import pytest

from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.transforms.attributes import (
    FaceAttribute,
    PersonAttribute,
    TableAttribute,
    VehicleAttribute,
)
from hgdeploy.transforms.postprocess import Postprocess
from hgdeploy.transforms.postprocess_config import parse_postprocess
from hgdeploy.transforms.prediction import Prediction, text_line


def scores(size: int, **high: float) -> np.ndarray:
    """Scores of 0.1, but for those that are given as `_PLACE=score`."""
    row = np.full(size, 0.1, np.float32)
    for place, score in high.items():
        row[int(place[1:])] = score
    return row


def test_a_person_as_in_paddleclas_documentation():
    row = scores(26, _0=0.9, _1=0.31, _3=0.2, _5=0.8, _11=0.7, _16=0.6, _18=0.55, _20=0.9, _24=0.8)
    found = PersonAttribute()("a/b.jpg", row)
    output = [0] * 26
    for place in (0, 1, 5, 11, 16, 20, 24):
        output[place] = 1
    assert text_line(found) == (
        "b.jpg:\t {'attributes': ['Male', 'Age18-60', 'Side', 'Glasses: True', 'Hat: True', "
        "'HoldObjectsInFront: False', 'ShoulderBag', 'Upper: LongSleeve UpperLogo', "
        f"'Lower:  Trousers', 'No boots'], 'output': {output}}}"
    )
    assert found.class_ids is None
    assert found.scores == tuple(row.tolist())


def test_a_person_without_anything_gets_the_likeliest_of_what_must_be_said():
    row = scores(26, _13=0.2, _14=0.9, _19=0.2, _22=0.9, _25=0.3)
    assert PersonAttribute()("x", row).attributes == (
        *("Female", "AgeLess18", "Back", "Glasses: False", "Hat: False"),
        *("HoldObjectsInFront: False", "No bag", "Upper: ShortSleeve", "Lower:  Skirt&Dress"),
        "Boots",
    )


def test_a_threshold_is_exceeded_in_double_precision():
    """A float32 0.3 is above the 0.3 of a config, as Python and PaddleClas compare them."""
    assert float(np.float32(0.3)) > 0.3
    assert PersonAttribute()("x", scores(26, _1=0.3)).output[1] == 1
    assert PersonAttribute()("x", scores(26, _18=0.6)).output[18] == 1
    assert TableAttribute()("x", scores(6, _0=0.5)).attributes[0] == "Photo"


def test_a_face_in_both_languages():
    row = scores(40, _0=0.66, _20=0.7, _31=0.64)
    assert FaceAttribute()("x", row).attributes == ("CheekWhiskers", "Male", "Old")
    assert FaceAttribute(0.6)("x", row).attributes == ("CheekWhiskers", "Male", "Smiling", "Old")
    chinese = FaceAttribute(0.65, convert_cn=True)("x", 1 - row)
    assert chinese.attributes[:2] == ("柳叶眉", "吸引人的")
    assert chinese.attributes[-1] == "年轻人"
    assert "女性" in chinese.attributes
    assert sum(chinese.output) == 37


def test_a_vehicle_is_one_text_with_the_score_to_its_last_digit():
    found = VehicleAttribute()("x.jpg", scores(19, _6=0.94418430328, _18=0.5))
    assert text_line(found) == (
        "x.jpg:\t {'attributes': 'Color: (white, prob: 0.9441843032836914), "
        "Type: (estate, prob: 0.5)', 'output': "
        "[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]}"
    )
    unknown = VehicleAttribute(0.95, 0.51)("x", scores(19, _6=0.94418430328, _18=0.5))
    assert unknown.attributes == "Color unknown, Type unknown"


def test_a_table():
    found = TableAttribute()("x.jpg", scores(6, _1=0.9, _3=0.51, _5=0.6))
    assert text_line(found) == (
        "x.jpg:\t {'attributes': ['Photo', 'Little', 'Multicolor', 'Clear', 'With-Obstacles', "
        "'Horizontal'], 'output': [0, 1, 0, 1, 0, 1]}"
    )


@pytest.mark.parametrize(
    ("output", "told"),
    [
        (TableAttribute(angle_threshold=0.7), "TableAttribute.angle_threshold=0.7"),
        (TableAttribute(number_threshold=0.7, angle_threshold=0.7), "obstruction_threshold=0.5"),
        (PersonAttribute(0.7), "PersonAttribute.threshold=0.7"),
    ],
)
def test_a_threshold_that_paddleclas_uses_in_part_is_told(output, told):
    (note,) = output.notes
    assert told in note
    assert "as in PaddleClas" in note


def test_the_usual_thresholds_need_no_word():
    outputs = (PersonAttribute(), FaceAttribute(), VehicleAttribute(), TableAttribute())
    assert not any(output.notes for output in outputs)


@pytest.mark.parametrize(
    ("section", "output"),
    [
        (
            {"PersonAttribute": {"threshold": "0.4", "hold_threshold": 1}},
            PersonAttribute(0.4, 0.3, 1.0),
        ),
        ({"main_indicator": "FaceAttribute", "FaceAttribute": None}, FaceAttribute()),
        ({"name": "FaceAttribute", "convert_cn": "True"}, FaceAttribute(convert_cn=True)),
        ({"VehicleAttribute": {"type_threshold": 0.2}}, VehicleAttribute(0.5, 0.2)),
        ({"TableAttribute": {"clarity_threshold": 0.3}}, TableAttribute(clarity_threshold=0.3)),
    ],
)
def test_sections_are_read(section, output):
    assert parse_postprocess(section, "PostProcess") == Postprocess(output, labels_given=False)


def test_a_model_of_another_number_of_scores_is_refused(tmp_path):
    postprocess = Postprocess(VehicleAttribute())
    with pytest.raises(BundleError, match="has 5 classes, but VehicleAttribute is for 19"):
        postprocess.check_classes(5, tmp_path)
    with pytest.raises(BundleError, match="gives 20 scores for an image, but VehicleAttribute"):
        postprocess.output("x", scores(20))


def test_labels_and_topk_do_not_apply():
    postprocess = Postprocess(TableAttribute(), labels_given=False)
    assert postprocess.with_labels({0: "a"}) == postprocess
    with pytest.raises(ConfigError, match="topk does not apply"):
        postprocess.with_topk(3)


def test_an_image_that_failed_has_no_attributes():
    failed = Prediction.failed("x", "why", of_attributes=True)
    assert (failed.attributes, failed.output, failed.scores) == ((), (), ())
    assert Prediction.failed("x", "why").output is None
