# SPDX-License-Identifier: Apache-2.0
"""What a training config says of a training, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from training_set import distillation_config, recipe_of, training_config

from hgdeploy.errors import ConfigError
from hgdeploy.training.network import Teacher
from hgdeploy.training.optimize.losses import LossTerm
from hgdeploy.training.optimize.optimizer import OptimizerOptions
from hgdeploy.training.optimize.schedule import Schedule
from hgdeploy.training.recipe import HalfPrecision
from hgdeploy.validation.evaluation import AccuracyScore, ATTRMetric, HammingDistance, TopkAcc


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def recipe(*overrides: str, **sections: Any):
    return recipe_of({**training_config(), **sections}, *overrides)


def test_paddleclas_own_keys_are_read():
    found = recipe()
    assert (found.arch, found.classes, found.epochs, found.seed) == ("PPLCNet_x0_25", 3, 2, 1)
    assert found.output == Path("output/PPLCNet_x0_25")
    assert found.losses == (LossTerm("CELoss", 1.0, 0.1),)
    assert found.optimizer == OptimizerOptions("Momentum", momentum=0.9, decay=0.00004)
    assert found.schedule == Schedule("Cosine", 0.05, warmup_epochs=1)
    assert (found.metrics, found.smoothing) == ((TopkAcc((1, 2)),), 0.0)
    assert (found.half, found.average, found.teacher, found.device) == (None, None, None, "cpu")


@pytest.mark.parametrize(
    ("override", "name", "value"),
    [
        ("Global.update_freq=4", "update_every", 4),
        ("Global.save_minutes=0.5", "save_seconds", 30.0),
        ("Global.save_interval=7", "save_every", 7),
        ("Global.eval_interval=3", "evaluate_every", 3),
        ("Global.start_eval_epoch=5", "evaluate_from", 5),
        ("Global.eval_during_train=False", "evaluate", None),
        ("Global.print_batch_step=9", "tell_every", 9),
        ("Global.to_static=True", "to_static", True),
        ("Global.use_visualdl=True", "scalars", True),
        ("Global.new_head=True", "new_head", True),
        ("Global.checkpoints=a/latest", "checkpoint", Path("a/latest")),
        ("Global.pretrained_model=w", "pretrained", Path("w")),
        ("Global.output_dir=2024", "output", Path("2024/PPLCNet_x0_25")),
        ("EMA.decay=0.99", "average", 0.99),
        ("EMA={}", "average", 0.9999),
        ("AMP.use_amp=False", "half", None),
    ],
)
def test_overrides_are_read(override, name, value):
    assert getattr(recipe(override), name) == value


def test_half_precision_is_of_a_gpu():
    config = training_config(device="gpu")
    config["AMP"] = {"scale_loss": 128.0, "use_dynamic_loss_scaling": True, "level": "O2"}
    assert recipe_of(config).half == HalfPrecision("O2", "float16", 128.0, True)
    told: list[str] = []
    assert recipe_of(config, "Global.device=cpu", on_warning=told.append).half is None
    assert "AMP has no effect on a CPU, where Paddle trains in float32" in told


def test_optimizers_and_their_decay():
    adamw = {
        "name": "AdamW", "beta1": 0.8, "beta2": 0.99, "epsilon": "1e-6", "weight_decay": 0.05,
        "no_weight_decay_name": "norm pos_embed", "one_dim_param_no_weight_decay": True,
        "grad_clip": {"name": "ClipGradByGlobalNorm", "clip_norm": 5.0},
        "lr": {"learning_rate": 0.1},
    }  # fmt: skip
    found = recipe(Optimizer=adamw)
    assert found.optimizer == OptimizerOptions(
        "AdamW", 0.9, 0.8, 0.99, 1e-6, 0.05, False, ("norm", "pos_embed"), True, None, 5.0
    )
    assert found.schedule == Schedule("Constant", 0.1)
    sgd = {
        "name": "SGD", "regularizer": {"name": "L1", "coeff": 0.1}, "clip_norm": 2,
        "lr": {"name": "Piecewise", "decay_epochs": [3, 6], "values": [0.1, 0.01, 0.001]},
    }  # fmt: skip
    found = recipe(Optimizer=sgd)
    assert found.optimizer == OptimizerOptions("SGD", decay=0.1, decay_l1=True, clip_norm=2.0)
    assert (found.schedule.boundaries, found.schedule.values) == ((3.0, 6.0), (0.1, 0.01, 0.001))


@pytest.mark.parametrize(
    ("rate", "told"),
    [(0.1, ["{at}"]), (0.2, ["{at}, which begin with 0.1 and not with 0.2"]), (None, [])],
)
def test_the_rate_beside_piecewise_values_is_told_and_not_used(rate, told):
    config, warnings = training_config(), list[str]()
    rates = {"decay_epochs": [3], "values": [0.1, 0.01], "learning_rate": rate}
    config["Optimizer"]["lr"] = {"name": "Piecewise", **rates}
    assert recipe_of(config, on_warning=warnings.append).schedule.learning_rate == 0.1
    at = (
        "Optimizer.lr.learning_rate is not used: Piecewise takes its rates from Optimizer.lr.values"
    )
    found = [line for line in warnings if "learning_rate" in line]
    assert found == [line.format(at=at) for line in told]


@pytest.mark.parametrize(
    ("dataset", "metric"),
    [("MultiLabelDataset", "TopkAcc"), ("ImageNetDataset", "HammingDistance")],
)
def test_metrics_are_for_the_labels_of_the_held_out_images(dataset, metric):
    config = training_config()
    config["DataLoader"]["Eval"]["dataset"]["name"] = dataset
    config["Metric"] = {"Eval": [{metric: None}]}
    with pytest.raises(ConfigError, match=f"name is {dataset}, but Metric.Eval has {metric}; HGD"):
        recipe_of(config)


def test_losses_of_labels_and_of_a_teacher():
    several = [{"MultiLabelLoss": {"weight": 2, "size_sum": True, "weight_ratio": True}}]
    held_out = {"dataset": {"name": "MultiLabelDataset"}}
    data = {"Train": {}, "Eval": held_out}
    found = recipe(
        DataLoader=data,
        Loss={"Train": several, "Eval": several},
        Metric={"Eval": [{"ATTRMetric": None}]},
    )
    assert found.losses == (LossTerm("MultiLabelLoss", 2.0, size_sum=True, weighted=True),)
    assert (found.metrics, found.smoothing) == ((ATTRMetric(),), None)
    found = recipe(
        DataLoader=data,
        Loss={"Train": several, "Eval": [{"MultiLabelLoss": {"weight": 1.0}}]},
        Metric={"Eval": [{"AccuracyScore": {"base": "sample"}}, {"HammingDistance": None}]},
    )
    assert (found.metrics, found.smoothing) == ((AccuracyScore("sample"), HammingDistance()), 0.0)
    config = distillation_config("PPHGNet_base", "teacher", "PPHGNet_tiny")
    config["Loss"]["Train"] += [
        {"DistillationGTCELoss": {"weight": 0.5, "model_names": ["Student"], "epsilon": 0.1}},
        {
            "DistillationKLDivLoss": {
                "model_name_pairs": [["Student", "Teacher"]], "temperature": 2, "key": "logits"
            }
        },
    ]  # fmt: skip
    found = recipe_of(config)
    assert found.losses == (
        LossTerm("DistillationCELoss"),
        LossTerm("CELoss", 0.5, 0.1),
        LossTerm("DistillationKLDivLoss", temperature=2.0),
    )
    assert found.teacher == Teacher("PPHGNet_base", Path("teacher"))
    assert (found.arch, found.output) == ("PPHGNet_tiny", Path("output/DistillationModel"))


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("Arch.freeze_params_list=[False,False]", r"expected \[True, False\]: the teacher is fro"),
        ("Arch.infer_model_name=Teacher", "Arch.infer_model_name is 'Teacher', expected Student"),
        ("Arch.pretrained_list=['a','b']", "expected nothing; name the weights in Arch.models.N"),
        ("Arch.models.0.Teacher.class_num=4", "expected 3, as the student has"),
        ("Arch.models=[]", "expected .Teacher, Student."),
        (
            "Loss.Train=[{'DistillationCELoss': {'model_name_pairs': [['Teacher', 'Student']]}}]",
            r"model_name_pairs is .*, expected \[\['Student', 'Teacher'\]\]",
        ),
        ("Slim={}", "Slim cannot be served: train in float32, and then hgdeploy quantize"),
    ],
)
def test_other_distillations_are_refused(override, told):
    with pytest.raises(ConfigError, match=told):
        recipe_of(distillation_config("PPHGNet_base", "teacher", "PPHGNet_tiny"), override)


def test_two_kinds_of_decay_are_one_too_many():
    optimizer = {**training_config()["Optimizer"], "weight_decay": 0.1}
    with pytest.raises(ConfigError, match="has weight_decay and regularizer, expected one of"):
        recipe(Optimizer=optimizer)


def test_what_the_network_lacks_in_training_is_told():
    told: list[str] = []
    recipe_of(training_config(), "Arch.name=EfficientNetB0", on_warning=told.append)
    assert any("PaddleClas trains EfficientNetB0 with stochastic depth" in line for line in told)
