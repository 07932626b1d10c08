# SPDX-License-Identifier: Apache-2.0
"""Postprocessing against what PaddleClas's documentation and formulas give."""

from __future__ import annotations

import numpy as np
import pytest

from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.transforms.attributes import FaceAttribute, PersonAttribute
from hgdeploy.transforms.postprocess import (
    MultiLabelThreshOutput,
    Postprocess,
    ScoreOutput,
    ThreshOutput,
    Topk,
)
from hgdeploy.transforms.postprocess_config import parse_postprocess, postprocess_to_config
from hgdeploy.transforms.prediction import Prediction, text_line


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_line_is_the_one_paddleclas_documents():
    labels = (
        "lighter, light, igniter, ignitor",
        "lens cap, lens cover",
        "digital watch",
        "cellular telephone, cellular phone, cellphone, cell, mobile phone",
        "loupe, jeweler's loupe",
    )
    prediction = Prediction(
        "ILSVRC2012_val_00010010.jpeg",
        (626, 622, 531, 487, 633),
        (0.68123, 0.02, 0.0199, 0.0185, 0.0151),
        labels,
    )
    assert text_line(prediction) == (
        "ILSVRC2012_val_00010010.jpeg:\tclass id(s): [626, 622, 531, 487, 633], "
        "score(s): [0.68, 0.02, 0.02, 0.02, 0.02], label_name(s): "
        "['lighter, light, igniter, ignitor', 'lens cap, lens cover', 'digital watch', "
        "'cellular telephone, cellular phone, cellphone, cell, mobile phone', "
        '"loupe, jeweler\'s loupe"]'
    )


@pytest.mark.parametrize(
    "name",
    [
        "Screenshot 10.12.13\u202fPM.jpg",
        "\u56fe\u3000\u7247.jpg",
        "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645.jpg",
        "\U0001f469\u200d\U0001f4bb\ufe0f.jpg",
        "a\u00a0b\u00ad\u200b\ufeff.jpg",
        "private \ue000, and of a Unicode to come \u0378.jpg",
        "\u05e9\u05dc\u05d5\u05dd.jpg",
    ],
)
def test_letters_spaces_and_joiners_of_any_script_are_printed_as_they_are(name: str):
    assert text_line(Prediction(name, (1,), (1.0,), ())).startswith(f"{name}:\tclass")


@pytest.mark.parametrize(
    "unsafe", [*"\0\x07\t\n\r\x1b\x7f\x85\x9b\u2028\u2029\u200e\u202e\u2066\u2069\u061c\udcff"]
)
def test_what_breaks_or_turns_a_line_is_escaped(unsafe: str):
    line = text_line(Prediction(f"a{unsafe}b.jpg", (1,), (1.0,), ()))
    assert line.startswith(f"a{ascii(unsafe)[1:-1]}b.jpg:\tclass")


def test_the_line_has_the_base_name_and_escapes_what_would_tear_it():
    line = text_line(Prediction("a b/ü\n\t.jpg", (1,), (1.0,), ()))
    assert line == "ü\\n\\t.jpg:\tclass id(s): [1], score(s): [1.00], label_name(s): []"


def test_topk_sorts_rounds_and_names():
    found = Topk(2, {0: "a", 1: "b", 2: "c"})("x", scores(0.123456, 0.7, 0.176544))
    assert found == Prediction("x", (1, 2), (0.7, 0.17654), ("b", "c"))


def test_topk_beyond_the_classes_gives_all():
    assert Topk(5)("x", scores(0.4, 0.6)).class_ids == (1, 0)


def test_equal_scores_rank_the_higher_class_first_on_every_machine():
    """PaddleClas reverses an ascending sort; a stable one makes that the same everywhere."""
    assert Topk(5)("x", np.full(1000, 0.001, np.float32)).class_ids == (999, 998, 997, 996, 995)


@pytest.mark.parametrize(
    ("row", "ids", "score", "label"),
    [
        (scores(0.3, 0.7), (1,), 0.7, "some"),
        (scores(0.5, 0.5), (1,), 0.5, "some"),
        (scores(0.6, 0.4), (0,), 0.6, "none"),
    ],
)
def test_a_threshold_on_two_classes(row, ids, score, label):
    found = ThreshOutput(0.5, label_0="none", label_1="some")("x", row)
    assert (found.class_ids, found.labels) == (ids, (label,))
    assert found.scores == pytest.approx((score,))


@pytest.mark.parametrize(
    ("row", "chosen"), [(scores(0.1, 0.2, 0.7), 2), (scores(0.4, 0.3, 0.3), 1)]
)
def test_a_threshold_on_more_classes_falls_back_to_the_default(row, chosen):
    found = ThreshOutput(0.5, default_label_index=1, labels={0: "a", 1: "b", 2: "c"})("x", row)
    assert found == Prediction("x", (chosen,), (float(row[chosen]),), ("abc"[chosen],))


def test_multi_label_lists_all_that_reach_the_threshold():
    found = MultiLabelThreshOutput(0.5, {0: "a", 1: "b", 2: "c"})("x", scores(0.5, 0.1, 0.9))
    assert found == Prediction("x", (0, 2), (0.5, 0.9), ("a", "c"))


def test_a_bare_score_is_rounded_and_printed_without_classes():
    found = ScoreOutput(1)("p/x.png", scores(5.678))
    assert found.scores == pytest.approx((5.7,))
    assert text_line(found) == "x.png:\tscore(s): [5.70]"


def test_labels_must_be_one_for_each_class(tmp_path):
    with pytest.raises(
        BundleError, match=r"has 3 classes, but the label list has 2 \(ids 0 to 1\)"
    ):
        Postprocess(Topk(1, {0: "a", 1: "b"})).check_classes(3, tmp_path)


def test_the_usual_labels_are_used_where_they_fit_and_nobody_has_others(tmp_path):
    usual, told = {0: "a", 1: "b"}, []
    postprocess = Postprocess(Topk(1), labels_given=False, usual_labels=usual)
    assert postprocess.fitted(2, tmp_path, told.append).output == Topk(1, usual)
    own = postprocess.with_labels({0: "c", 1: "d"})
    assert own.fitted(2, tmp_path, told.append).output.labels == {0: "c", 1: "d"}
    assert told == []
    assert postprocess.fitted(3, tmp_path, told.append).output == Topk(1)
    assert "has 3 classes and not 2" in told[0]


def test_a_default_class_must_exist(tmp_path):
    with pytest.raises(BundleError, match="default_label_index is 7"):
        Postprocess(ThreshOutput(0.5, 7)).check_classes(3, tmp_path)


def test_topk_of_another_output_is_refused():
    with pytest.raises(ConfigError, match="output is ScoreOutput"):
        Postprocess(ScoreOutput(1)).with_topk(3)


@pytest.mark.parametrize(
    "output",
    [
        Topk(3, {0: "a", 1: "no"}),
        Topk(3),
        ThreshOutput(0.2, 1, "0.10", "yes", {0: "a", 1: "b"}),
        MultiLabelThreshOutput(0.7),
        ScoreOutput(4),
        PersonAttribute(0.4),
        FaceAttribute(0.3, convert_cn=True),
    ],
)
def test_an_output_is_read_from_what_is_written_of_it(output):
    read = parse_postprocess(postprocess_to_config(output), "PostProcess")
    assert read.output == output
