# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's training config: what it says of the network and of each task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hgdeploy import zoo
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.paddleclas.training.config import TrainingConfig, load_training_config
from hgdeploy.paddleclas.training.tasks import (
    ending_for,
    read_eval,
    read_infer,
    read_output,
    read_transforms,
)
from hgdeploy.transforms.attributes import PersonAttribute
from hgdeploy.transforms.operators import CropImage, ToCHWImage
from hgdeploy.transforms.postprocess import (
    MultiLabelThreshOutput,
    ScoreOutput,
    ThreshOutput,
    Topk,
)
from hgdeploy.validation.evaluation import TopkAcc, TprAtFpr

LABELS = Path(zoo.__file__).with_name("imagenet1k_label_list.txt")
LIST = "ppcls/utils/imagenet1k_label_list.txt"


def loaded(folder: Path, raw: dict[str, Any], *overrides: str) -> TrainingConfig:
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(raw))
    return load_training_config(path, overrides)


def test_what_a_config_leaves_out_is_paddleclas_default(tmp_path):
    config = loaded(tmp_path, {"Arch": {"name": "PPHGNet_small"}})
    assert (config.arch, config.num_classes, config.weights) == ("PPHGNet_small", 1000, None)
    assert (config.device, config.engine, config.precision) == ("gpu:0", None, None)
    assert (config.size, config.ending, config.warnings) == (None, "softmax", ())
    assert config.save_inference_dir == Path("inference")


def test_a_family_and_its_width_may_be_named_apart(tmp_path):
    """PaddleClas's own configs of PP-LCNet do."""
    for scale, name in ((None, "PPLCNet_x1_0"), (1, "PPLCNet_x1_0"), (0.25, "PPLCNet_x0_25")):
        arch = {"name": "PPLCNet"} | ({} if scale is None else {"scale": scale})
        assert loaded(tmp_path, {"Arch": arch}).arch == name
    with pytest.raises(ConfigError, match=r"unknown key Arch\.scale"):
        loaded(tmp_path, {"Arch": {"name": "PPHGNet_small", "scale": 1.0}})


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("Global.pretrained_model=output/2024", "weights", Path("output/2024")),
        ("Global.device=cpu", "device", "cpu"),
        ("Global.image_shape=[3,96,64]", "size", (96, 64)),
        ("Global.save_inference_dir=2024", "save_inference_dir", Path("2024")),
        ("Global.export_for_fd=true", "described", True),
        ("Global.use_multilabel=True", "ending", "sigmoid"),
        ("Global.precision=bf16", "precision", "bf16"),
        ("Arch.class_num=7", "num_classes", 7),
        ("Arch.infer_add_softmax=False", "ending", None),
        ("Metric.Eval=[{'ATTRMetric': None}]", "ending", "sigmoid"),
        ("Metric.Eval=[{'HammingDistance': None}]", "ending", "sigmoid"),
        ("Global.class_num=7", "num_classes", 7),
    ],
)
def test_overrides_are_read(tmp_path, override, name, value):
    config = loaded(tmp_path, {"Arch": {"name": "PPHGNet_small"}}, override)
    assert getattr(config, name) == value


def test_what_changes_paddleclas_figures_alone_is_told(tmp_path):
    config = loaded(
        tmp_path,
        {
            "Arch": {"name": "PPHGNet_small", "class_num": 3, "pretrained": True},
            "Global": {"use_dali": True, "class_num": 5},
            "AMP": {"use_fp16_test": True},
        },
    )
    assert config.num_classes == 3
    told = "\n".join(config.warnings)
    assert "AMP.use_fp16_test has no effect here: ask for a precision" in told
    assert "Global.use_dali has no effect here" in told
    assert "Global.class_num is Arch.class_num's old name, and has no effect beside it" in told


def infer(**changes: Any) -> dict[str, Any]:
    section = {"infer_imgs": "a", "transforms": [{"ToCHWImage": None}], "PostProcess": {}}
    return {"Arch": {"name": "PPHGNet_small"}, "Infer": section | changes}


def test_imagenet_labels_come_with_hgdeploy_and_belong_to_its_classes_only(tmp_path):
    warnings: list[str] = []
    raw = infer(PostProcess={"name": "Topk", "class_id_map_file": LIST})
    named = read_output(loaded(tmp_path, raw), LABELS, warnings.append)
    assert named.output.labels[8] == "hen"
    assert warnings == []
    few = read_output(loaded(tmp_path, raw, "Arch.class_num=5"), LABELS, warnings.append)
    assert few.output == Topk(1)
    assert "names ImageNet's 1000 classes, and the model has 5" in warnings[0]


@pytest.mark.parametrize(
    "section",
    [
        {"name": "MultiLabelTopk", "topk": 5, "class_id_map_file": "None"},
        {"MultiLabelTopk": {"topk": 5}},
    ],
)
def test_the_best_of_several_labels_are_those_over_one_half(tmp_path, section):
    warnings: list[str] = []
    found = read_output(loaded(tmp_path, infer(PostProcess=section)), LABELS, warnings.append)
    assert found.output == MultiLabelThreshOutput(0.5)
    assert "PaddleClas, which does not use its topk either" in warnings[0]


def test_labels_that_do_not_fit_are_refused(tmp_path):
    raw = infer(PostProcess={"name": "Topk", "label_list": ["a"]})
    with pytest.raises(BundleError, match="PPHGNet_small has 1000 classes, but the label list has"):
        read_infer(loaded(tmp_path, raw), LABELS, print)


@pytest.mark.parametrize(
    ("saved", "file"),
    [("out", "out.json"), ("out/", "out.json"), ("a/b.json", "a/b.json"), ("None", None)],
)
def test_results_are_saved_where_paddleclas_saves_them(tmp_path, saved, file):
    raw = infer(PostProcess={"name": "Topk"})
    task = read_infer(loaded(tmp_path, raw, f"Infer.save_dir={saved}"), LABELS, print)
    assert task.save == (None if file is None else Path(file))


@pytest.mark.parametrize("key", ["infer_imgs", "transforms", "PostProcess"])
def test_what_infer_needs_is_named(tmp_path, key):
    with pytest.raises(ConfigError, match=f"Infer.{key} is missing|Infer.{key} is None"):
        read_infer(loaded(tmp_path, infer(**{key: None})), LABELS, print)


def test_evaluation_reads_data_metrics_and_loss(tmp_path):
    data = {"image_root": "root", "cls_label_path": "list.txt", "transform_ops": []}
    raw = {
        "Arch": {"name": "PPHGNet_small"},
        "DataLoader": {"Eval": {"dataset": data, "sampler": {"batch_size": 64}}},
        "Metric": {"Eval": [{"TprAtFpr": {"max_fpr": 0.01}}, {"TopkAcc": {"topk": [1, 2]}}]},
        "Loss": {"Eval": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}]},
    }
    task = read_eval(loaded(tmp_path, raw))
    assert (task.images, task.labels) == (Path("root"), Path("list.txt"))
    assert task.preprocess == (ToCHWImage(),)
    assert (task.batch_size, task.smoothing) == (64, 0.1)
    assert task.metrics == (TprAtFpr(0.01), TopkAcc((1, 2)))
    plain = read_eval(loaded(tmp_path, {**raw, "Metric": None, "Loss": None}))
    assert (plain.metrics, plain.smoothing) == ((TopkAcc((1, 5)),), None)


@pytest.mark.parametrize(
    ("output", "ending"),
    [
        (Topk(), "softmax"),
        (ThreshOutput(), "softmax"),
        (ScoreOutput(2), None),
        (MultiLabelThreshOutput(), "sigmoid"),
        (PersonAttribute(), "sigmoid"),
    ],
)
def test_an_output_gets_the_scores_that_paddleclas_computes_for_it(output, ending):
    assert ending_for(output) == ending


def test_an_export_is_fed_as_infer_says_or_else_as_the_evaluation(tmp_path):
    network = {"Arch": {"name": "PPHGNet_small"}}
    assert read_transforms(loaded(tmp_path, network)) is None
    data = {"dataset": {"name": "LogoDataset", "transform_ops": [{"CropImage": {"size": 64}}]}}
    evaluated = network | {"DataLoader": {"Eval": data}}
    found = read_transforms(loaded(tmp_path, evaluated))
    assert found == (CropImage((64, 64)), ToCHWImage())
    assert read_transforms(loaded(tmp_path, evaluated | infer())) == (ToCHWImage(),)
    assert read_transforms(loaded(tmp_path, network | {"DataLoader": {"Eval": None}})) is None
