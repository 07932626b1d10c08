# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy train`: from images to weights that the other verbs take."""

from __future__ import annotations

import functools
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from training_set import (
    CLASSES,
    distillation_config,
    events,
    run_training,
    training_config,
    write_config,
    write_images,
)

from conftest import require_engine
from hgdeploy import zoo
from hgdeploy.cli.main import main, tool
from hgdeploy.errors import ConfigError, TrainingError, WeightsError
from hgdeploy.paddleclas.training.config import load_training_config
from hgdeploy.training.checkpoint import checkpoint_file, read_checkpoint
from hgdeploy.training.journal import Event
from hgdeploy.zoo.weights.load import read_weights

OUTPUT = Path("output/PPLCNet_x0_25")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a few labelled images in `set`."""
    require_engine("paddle")
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "set")
    return tmp_path


@pytest.fixture
def train(place, run_here):
    """Run train.py, or another script, on a config."""

    def run(config: dict[str, Any], *arguments: object, script: str = "train.py"):
        write_config(config, place / "config.yaml")
        return run_here(functools.partial(tool, script), "-c", "config.yaml", *arguments)

    return run


def test_what_is_trained_is_evaluated_as_it_was_in_the_training(train):
    config = training_config()
    done = train(config)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"\[Eval\]\[Epoch (\d)\]\[best metric", done.stdout) == ["1", "2"]
    assert "epoch 2/2, batch 3/3: loss" in done.stderr
    import paddle

    stored = paddle.load(str(OUTPUT / "latest.pdparams"))  # as PaddleClas reads it
    assert same_shapes({k: v.numpy() for k, v in stored.items()}, network_weights())
    last = events(OUTPUT, "eval")[-1]
    weights = f"Global.pretrained_model={OUTPUT / 'latest'}"
    evaluated = train(config, "-o", weights, script="eval.py")
    assert f"CELoss: {last['loss']:.5f}" in evaluated.stdout
    assert f"top1: {last['top1']:.5f}, top2: {last['top2']:.5f}" in evaluated.stdout


def test_a_head_of_other_classes_is_left_out_by_name_or_refused(train):
    config = training_config(epochs=1, eval_during_train=False)
    assert train(config).returncode == 0
    trained = read_weights(Path(f"{OUTPUT}/latest.pdparams"))
    given = ("-o", f"Global.pretrained_model={OUTPUT}/latest", "-o", "Arch.class_num=4")
    refused = train(config, *given)
    assert refused.returncode == WeightsError.exit_code
    assert (
        "has 3 classes, but Arch.class_num is 4; to fine-tune, give -o Global.new_head=True: "
        in (refused.stderr)
    )
    other = train(config, *given[:2], "-o", "Arch.name=PPLCNet_x0_35")
    assert "does not fit PPLCNet: " in other.stderr
    assert "these are the weights of PPLCNet_x0_25" in other.stderr
    still = ("-o", "Optimizer.lr.learning_rate=0", "-o", "Global.output_dir=again")
    tuned = train(config, *given, "-o", "Global.new_head=True", *still)
    assert tuned.returncode == 0, tuned.stderr
    assert "latest.pdparams: fc.weight and fc.bias are left out, and start anew" in tuned.stderr
    found = read_weights(Path("again/PPLCNet_x0_25/latest.pdparams"))
    assert found["fc.weight"].shape[1] == 4
    convolution = next(name for name in found if name.endswith("conv.weight"))
    assert np.array_equal(found[convolution], trained[convolution])


def test_a_loss_that_is_no_number_stops_with_the_images_and_what_is_left(train):
    config = training_config(epochs=3)
    config["Optimizer"]["lr"] = {"name": "Piecewise", "decay_epochs": [1], "values": [0.01, 1e30]}
    done = train(config)
    assert done.returncode == TrainingError.exit_code
    (error,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert re.search(
        r"the loss is nan in epoch 2, batch \d of 3 \(after \d updates\), of '?set/", error
    )
    assert f"the last good checkpoint is {OUTPUT}/latest (epoch 1)" in error
    assert read_checkpoint(Path(f"{OUTPUT}/latest.checkpoint")).progress.epoch == 1


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ("Global.epoch=3", 2, "unknown key Global.epoch, did you mean 'epochs'?"),
        ("Globel.epochs=3", 2, "unknown section 'Globel', did you mean 'Global'?"),
        ("Optimizer.lr.learning_rat=3", 2, "unknown key Optimizer.lr.learning_rat, did you mean"),
        ("Optimizer.name=Momentun", 2, "unknown Optimizer.name 'Momentun', did you mean 'Moment"),
        ("Optimizer.beta1=0.5", 2, "Optimizer.beta1 is a key of Adam and AdamW, not of Momentum"),
        ("Optimizer.lr.warmup_epoch=-1", 2, "expected a number from 0"),
        ("Loss.Train=[{'TripletLoss': {}}]", 2, "Loss.Train[0].TripletLoss"),
        ("Loss.Train=[{'DistillationCELoss': {}}]", 2, "needs a teacher: Arch.name DistillationM"),
        ("Arch.pretrained=True", 2, "nothing is downloaded here without being asked for"),
        ("Arch.lr_mult_list=[1]", 2, "Arch.lr_mult_list cannot be served in a training"),
        ("Global.new_head=True", 2, "give them with -o Global.pretrained_model=PATH, or train"),
        ("Global.checkpoints=gone", 8, "gone.checkpoint: does not exist"),
        ("Global.device=gpu", 6, "give -o Global.device=cpu"),
        ("Global.epochs=0", 2, "Global.epochs is '0', expected a whole number from 1"),
        ("DataLoader.Train.sampler.batch_sise=1", 2, "did you mean 'batch_size'?"),
        ("Metric.Eval=[{'TopAcc': {}}]", 2, "Metric.Eval[0].TopAcc, did you mean 'TopkAcc'?"),
        ("EMA.decay=2", 2, "EMA.decay is 2, expected a number from 0 and below 1"),
        ("AMP.level=O3", 2, "AMP.level is 'O3', expected O1 or O2"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_written(train, change, code, told):
    done = train(training_config(), "-o", change)
    assert done.returncode == code
    (error,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert told in error
    assert not Path("output").exists()


def test_named_classes_are_not_measured_by_a_training_that_numbers_them(place):
    for index, name in enumerate(("red", "green", "blue")):
        (place / "named" / name).mkdir(parents=True)
        (place / "set" / "val" / f"{index}.png").rename(place / "named" / name / "0.png")
    config = training_config(epochs=1)
    config["DataLoader"]["Eval"]["dataset"] |= {"image_root": "named", "cls_label_path": None}
    with pytest.raises(ConfigError, match="write numbers, or names, in both"):
        run_training(config)


def test_numbers_are_told_for_which_of_the_training_s_names_they_are_taken(place):
    for index, name in enumerate(("red", "green", "blue")):
        (place / "named" / name).mkdir(parents=True)
        (place / "set" / "train" / f"{index}.png").rename(place / "named" / name / "0.png")
    config, told = training_config(epochs=1), []
    config["DataLoader"]["Train"]["dataset"] |= {"image_root": "named", "cls_label_path": None}
    run_training(config, on_warning=told.append)
    (line,) = (line for line in told if "numbers its classes" in line)
    assert "0 is taken for 'blue'" in line


def test_what_is_best_is_judged_by_the_first_metric_and_never_by_a_high_loss(place):
    config = training_config(epochs=1)
    config["Metric"]["Eval"] = [{"TopkAcc": {"topk": [5]}}]  # of 3 classes
    (measured,) = (event for event in run_training(config) if event["event"] == "eval")
    assert measured["best"] == measured["top1"] <= 1
    config["Metric"]["Eval"] = [{"TprAtFpr": {"max_fpr": 1.0}}, {"TopkAcc": {"topk": [1, 2]}}]
    config["Global"]["output_dir"] = "other"
    (measured,) = (event for event in run_training(config) if event["event"] == "eval")
    assert measured["best"] == measured["tpr"] == 1.0  # all are found where all may be


def test_a_batch_that_is_never_full_is_told_before_the_training(place):
    config = training_config(epochs=1)
    config["DataLoader"]["Train"]["sampler"] |= {"batch_size": 128, "drop_last": True}
    with pytest.raises(ConfigError, match=r"24 images make no whole batch.*drop_last=False"):
        run_training(config)
    assert not Path("output").exists()


def test_keys_without_effect_are_named(train):
    config = training_config(epoch_s=3, use_dali=True, epochs=1, eval_during_train=False)
    config["AMP"] = {"scale_loss": 128.0, "use_dynamic_loss_scaling": True, "level": "O1"}
    done = train(config)
    assert done.returncode == 0
    assert "Global.epoch_s has no effect on a training here; did you mean 'epochs'?" in done.stderr
    assert "Global.use_dali has no effect here: images are decoded as OpenCV does" in done.stderr
    assert "AMP has no effect on a CPU, where Paddle trains in float32" in done.stderr


def test_a_student_learns_from_a_frozen_teacher_and_is_what_other_verbs_see(train):
    config = training_config(epochs=1, eval_during_train=False)
    config["Arch"]["name"] = "PPLCNet_x0_35"
    assert train(config).returncode == 0
    teacher = "output/PPLCNet_x0_35/latest"
    config = distillation_config("PPLCNet_x0_35", teacher, "PPLCNet_x0_25")
    before = read_weights(Path(f"{teacher}.pdparams"))
    done = train(config)
    assert done.returncode == 0, done.stderr
    after = read_weights(Path(f"{teacher}.pdparams"))
    assert all(np.array_equal(before[name], after[name]) for name in before)
    losses = [event["loss"] for event in events(Path("output/DistillationModel"), "epoch")]
    assert all(math.isfinite(loss) for loss in losses)
    assert load_training_config(Path("config.yaml")).arch == "PPLCNet_x0_25"
    own = read_weights(Path("output/DistillationModel/best_model.pdparams"))
    assert same_shapes(own, network_weights())
    refused = train(config, "-o", "Arch.models.0.Teacher.pretrained=True")
    assert "Arch.models.0.Teacher.pretrained is True, expected the teacher's weights" in (
        refused.stderr
    )


def test_resume_begins_anew_or_goes_on_and_the_best_stays_the_best(train):
    config = training_config(epochs=1)
    first = train(config, "--resume")
    assert "there is no output/PPLCNet_x0_25/latest.checkpoint yet" in first.stderr
    best = events(OUTPUT, "eval")[-1]["best"]
    config["Global"]["epochs"] = 2
    config["Optimizer"]["lr"]["learning_rate"] = 0.0
    second = train(config, "--resume")
    assert second.returncode == 0, second.stderr
    assert "was trained with another epochs, schedule: the training goes on with" in second.stderr
    assert ", from epoch 2, batch 1 on" in second.stderr
    last = events(OUTPUT, "eval")[-1]
    assert (last["epoch"], last["best"]) == (2, max(best, last["top1"]))
    third = train(config, "--resume")
    assert "has 2 epochs, and Global.epochs is 2: there is nothing to train" in third.stderr


def test_a_checkpoint_may_be_named_by_the_weights_beside_it(tmp_path):
    whole = tmp_path / "latest.checkpoint"
    whole.touch()
    for name in ("latest", "latest.checkpoint", "latest.pdparams"):
        assert checkpoint_file(tmp_path / name) == whole
    (tmp_path / "best_model.pdparams").touch()
    with pytest.raises(WeightsError, match=r"weights alone.*pretrained_model=.*model\.pdparams$"):
        checkpoint_file(tmp_path / "best_model.pdparams")


def test_the_folder_of_a_training_is_its_own(place):
    config = training_config(epochs=1, eval_during_train=False)
    caught = []

    def second(event: Event) -> None:
        if event["event"] == "start":
            with pytest.raises(ConfigError, match="is written by another training") as error:
                run_training(config)
            caught.append(error)

    run_training(config, on_event=second)
    assert caught


def network_weights() -> dict[str, Any]:
    return zoo.build("PPLCNet_x0_25", CLASSES).state_dict()


def same_shapes(arrays: dict[str, Any], tensors: dict[str, Any]) -> bool:
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return {name: array.shape for name, array in arrays.items()} == shapes


@pytest.mark.slow
def test_figures_of_several_labels_are_those_of_eval(train):
    config = several_labels_config()
    done = train(config)
    last = events(OUTPUT, "eval")[-1]
    assert f"ma: {last['ma']:.5f}, label_f1: {last['label_f1']:.5f}" in done.stdout
    weights = f"Global.pretrained_model={OUTPUT}/latest"
    evaluated = train(config, "-o", weights, script="eval.py")
    assert f"ma: {last['ma']:.5f}" in evaluated.stdout, evaluated.stderr


def test_several_labels_are_trained_and_measured_as_attributes(train):
    done = train(several_labels_config())
    assert done.returncode == 0, done.stderr
    last = events(OUTPUT, "eval")[-1]
    assert f"ma: {last['ma']:.5f}, label_f1: {last['label_f1']:.5f}" in done.stdout


def test_fewer_wrong_labels_are_better(train):
    """The quick start of PaddleClas for several labels, but for its network and its order."""
    config = several_labels_config()
    config["Global"] |= {"epochs": 2, "use_multilabel": True}
    config["Loss"]["Eval"] = [{"MultiLabelLoss": {"weight": 1.0}}]
    config["Metric"] = {"Eval": [{"HammingDistance": None}, {"AccuracyScore": None}]}
    config["Optimizer"]["lr"] = {"name": "Piecewise", "decay_epochs": [1], "values": [0, 0.1]}
    config["Optimizer"]["lr"]["learning_rate"] = 0.1
    config["Infer"]["PostProcess"] = {"name": "MultiLabelTopk", "topk": 5}
    done = train(config)
    assert done.returncode == 0, done.stderr
    assert "Optimizer.lr.learning_rate is not used: Piecewise" in done.stderr
    measured = {each["epoch"]: each for each in events(OUTPUT, "eval")}
    wrong = {epoch: each["HammingDistance"] for epoch, each in measured.items()}
    best = min(wrong, key=lambda epoch: wrong[epoch])
    assert len(set(wrong.values())) == 2
    assert (measured[2]["best"], measured[2]["best_epoch"]) == (wrong[best], best)
    right = f"{1 - wrong[best]:.5f}"
    assert f"HammingDistance: {wrong[best]:.5f}, AccuracyScore: {right}, loss: " in done.stdout


def several_labels_config() -> dict[str, Any]:
    labels = {0: "1,0,1", 1: "0,1,1", 2: "0,0,1"}
    for name in ("train", "val"):
        lines = Path(f"set/{name}.txt").read_text().splitlines()
        rows = (line.rpartition(" ") for line in lines)
        several = (f"{path}\t{labels[int(label)]}\n" for path, _, label in rows)
        Path(f"set/{name}.txt").write_text("".join(several))
    config = training_config(epochs=1)
    for section in config["DataLoader"].values():
        section["dataset"] |= {"name": "MultiLabelDataset", "label_ratio": True}
    del config["DataLoader"]["Train"]["dataset"]["batch_transform_ops"]
    loss = {"weight": 1.0, "weight_ratio": True, "size_sum": True}
    config["Loss"] = {"Train": [{"MultiLabelLoss": loss}], "Eval": [{"MultiLabelLoss": loss}]}
    config["Metric"] = {"Eval": [{"ATTRMetric": None}]}
    return config


def test_visualdl_gets_the_figures_or_is_asked_for(train):
    done = train(training_config(epochs=1), "-o", "Global.use_visualdl=True")
    try:
        import visualdl
    except ImportError:
        assert "visualdl does not import here" in done.stderr
        assert "install hgdeploy's extra visualdl" in done.stderr
        return
    (log,) = (OUTPUT / "vdl").glob("*.log")
    reader = visualdl.LogReader(file_path=str(log))
    (point,) = reader.get_data("scalar", "eval/top1")
    assert point.value == pytest.approx(events(OUTPUT, "eval")[-1]["top1"])


def test_the_report_has_each_epoch_and_a_curve(train, run_here):
    pytest.importorskip("matplotlib")
    config = training_config(epochs=2)
    assert train(config).returncode == 0
    done = run_here(main, "train-report", OUTPUT, "--curve", "curve.png")
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split()[:5] == ["epoch", "loss", "learning", "rate", "images/s"]
    assert head.split()[5:] == ["top1", "top2", "eval", "loss"]
    assert [row.split()[0] for row in rows] == ["1", "2"]
    assert rows[0].split()[1] == f"{events(OUTPUT, 'epoch')[0]['loss']:.5f}"
    assert sum(row.endswith("*") for row in rows) == 1
    with Image.open("curve.png") as picture:
        assert picture.format == "PNG"
    missing = run_here(main, "train-report", "set")
    assert "train.jsonl: does not exist; give the folder of a training" in missing.stderr
    other = run_here(main, "train-report", OUTPUT, "--curve", "curve.gif")
    assert other.returncode == ConfigError.exit_code
