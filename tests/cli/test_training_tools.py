# SPDX-License-Identifier: Apache-2.0
"""`infer`, `eval` and `export` on PaddleClas's training config: its lines, figures and files."""

from __future__ import annotations

import ast
import copy
import csv
import functools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from conftest import IMAGES, require_engine
from hgdeploy import Classifier
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.cli.main import main, tool
from hgdeploy.cli.tools.infer import result_of
from hgdeploy.images.reader import ImageReader
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.postprocess import Postprocess, ScoreOutput
from hgdeploy.transforms.prediction import Prediction
from hgdeploy.validation.evaluation import Share

LOG = re.compile(r"^\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] ppcls INFO: (.*)$", re.MULTILINE)
TRANSFORMS = [
    {"DecodeImage": {"to_rgb": True, "channel_first": False}},
    {"ResizeImage": {"resize_short": 72}},
    {"CropImage": {"size": 64}},
    {"NormalizeImage": {"scale": "1.0/255.0", "order": ""}},
]
# As PaddleClas's own PPHGNet_tiny.yaml, but for sizes and places.
CONFIG: dict[str, Any] = {
    "Global": {
        "checkpoints": None, "pretrained_model": None, "output_dir": "./output/", "device": "gpu",
        "save_interval": 1, "eval_during_train": True, "eval_interval": 1, "epochs": 600,
        "print_batch_step": 10, "use_visualdl": False, "image_shape": [3, 64, 64],
        "save_inference_dir": "./inference", "use_dali": False,
    },
    "AMP": {"scale_loss": 128.0, "use_dynamic_loss_scaling": True, "level": "O1"},
    "Arch": {"name": "PPLCNet_x0_25", "class_num": 10},
    "Loss": {
        "Train": [{"CELoss": {"weight": 1.0, "epsilon": 0.1}}],
        "Eval": [{"CELoss": {"weight": 1.0}}],
    },
    "Optimizer": {"name": "Momentum"},
    "DataLoader": {
        "Train": {"dataset": {"name": "ImageNetDataset"}},
        "Eval": {
            "dataset": {
                "name": "ImageNetDataset", "image_root": "photos",
                "cls_label_path": "photos/val_list.txt", "transform_ops": TRANSFORMS,
            },
            "sampler": {"name": "DistributedBatchSampler", "batch_size": 2, "shuffle": False},
            "loader": {"num_workers": 4, "use_shared_memory": True},
        },
    },
    "Infer": {
        "infer_imgs": "photos", "batch_size": 2, "transforms": [*TRANSFORMS, {"ToCHWImage": None}],
        "PostProcess": {
            "name": "Topk", "topk": 3, "class_id_map_file": "ppcls/utils/imagenet1k_label_list.txt",
        },
    },
    "Metric": {"Eval": [{"TopkAcc": {"topk": [1, 5]}}]},
}  # fmt: skip
CPU = ("-o", "Global.device=cpu")
ON_ONNX = (*CPU, "-o", "Global.engine=onnxruntime")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with five labelled photographs, and the config `train.yaml`."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(IMAGES, tmp_path / "photos", ignore=shutil.ignore_patterns("*.md"))
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())
    lines = [f"{name} {label}\n" for label, name in enumerate(names)]
    (tmp_path / "photos" / "val_list.txt").write_text("".join(lines))
    write_config(CONFIG)
    return tmp_path


def write_config(config: dict[str, Any]) -> None:
    Path("train.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


@pytest.fixture
def small(place: Path, mini: Path) -> Path:
    """A bundle that stands for the config's network and weights; it loads in a moment."""
    require_engine("onnxruntime")
    return mini


@pytest.fixture
def run(run_here):
    """Run one of the scripts on the config here."""

    def script(name: str, *arguments: object):
        return run_here(functools.partial(tool, name), "-c", "train.yaml", *arguments)

    return script


@functools.cache
def probabilities(bundle: Path, images: Path) -> np.ndarray:
    settings = ClassifierSettings("onnxruntime", postprocess=Postprocess(ScoreOutput(None)))
    with Classifier(bundle, settings=settings) as classifier:
        return np.array([p.scores for p in classifier.predict(images) if p.error is None])


def results(stdout: str) -> list[list[dict[str, Any]]]:
    return [ast.literal_eval(line) for line in LOG.findall(stdout)]


def test_infer_prints_a_line_for_each_batch(small, run):
    done = run("infer.py", *ON_ONNX, "--bundle", small, "-o", "Infer.infer_imgs=./photos")
    assert done.returncode == 0, done.stderr
    batches = results(done.stdout)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert len(done.stdout.splitlines()) == 3
    names = ["camera", "chelsea", "coffee", "flower", "rocket"]
    found = [each for batch in batches for each in batch]
    assert [each["file_name"] for each in found] == [f"./photos/{name}.jpg" for name in names]
    for each, row in zip(found, probabilities(small, Path("photos")), strict=True):
        best = np.argsort(row, kind="stable")[::-1][:3]
        assert list(each) == ["class_ids", "scores", "file_name", "label_names"]
        assert each["class_ids"] == best.tolist()
        np.testing.assert_allclose(each["scores"], row[best], atol=1e-5)
        assert each["label_names"] == []
    assert "names ImageNet's 1000 classes, and the model has 10" in done.stderr


def test_infer_loses_nobody_with_an_unreadable_last_image_and_saves_json(small, run):
    Path("photos/z.jpg").write_text("no image")
    Path("names.txt").write_text("".join(f"{i} name {i}\n" for i in range(10)))
    done = run(
        "infer.py", *ON_ONNX, "--bundle", small, "-o", "Infer.save_dir=out",
        "-o", "Infer.PostProcess.class_id_map_file=names.txt",
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stdout == ""
    assert "z.jpg: " in done.stderr
    saved = json.loads(Path("out.json").read_text())
    assert [Path(each["file_name"]).stem for each in saved][-1] == "rocket"
    assert len(saved) == 5
    for each in saved:
        assert each["label_names"] == [f"name {i}" for i in each["class_ids"]]


@pytest.mark.parametrize(
    ("kind", "keys"),
    [
        ("ThreshOutput", ["class_ids", "scores", "label_names", "file_name"]),
        ("ScoreOutput", ["scores", "file_name"]),
        ("PersonAttribute", ["attributes", "output"]),
        ("VehicleAttribute", ["attr", "pred", "file_name"]),
        ("TableAttribute", ["attributes", "output", "file_name"]),
    ],
)
def test_infer_has_the_keys_of_each_output_in_paddleclas_order(kind, keys):
    prediction = Prediction("x", (1,), (0.123456789,), ("b",), None, ("a",), (0, 1))
    found = result_of(prediction, "a/x.jpg", kind)
    assert list(found) == keys
    assert found.get("scores", [0.12346]) == [0.12346]
    assert found.get("attributes", found.get("attr", ["a"])) == ["a"]
    assert found.get("file_name", "a/x.jpg") == "a/x.jpg"


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
def test_eval_prints_paddleclas_figures_and_ours(small, run, epsilon):
    rows = probabilities(small, Path("photos"))
    labels = rows.argmax(1)
    labels[0] = rows[0].argsort()[-3]  # right only among the best five
    labels[1] = rows[1].argsort()[0]  # never right
    names = sorted(path.name for path in Path("photos").glob("*.jpg"))
    lines = [f"{name}\t{label}\n" for name, label in zip(names, labels, strict=True)]
    Path("labels.txt").write_text("".join(lines))
    done = run(
        "eval.py", *ON_ONNX, "--bundle", small, "--classes", "classes.csv",
        "-o", "DataLoader.Eval.dataset.cls_label_path=labels.txt",
        "-o", r"DataLoader.Eval.dataset.delimiter='\t'",
        "-o", f"Loss.Eval.0.CELoss.epsilon={epsilon}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (line,) = LOG.findall(done.stdout)
    figures = re.fullmatch(
        r"\[Eval\]\[Epoch 0\]\[Avg\]CELoss: ([\d.]+), loss: ([\d.]+), top1: 0.60000, top5: 0.80000",
        line,
    )
    assert figures is not None, line
    logs = np.log(rows)
    wanted = -(1 - epsilon) * logs[np.arange(5), labels] - epsilon * logs.mean(1)
    assert float(figures[1]) == pytest.approx(wanted.mean(), abs=1e-5)
    assert figures[1] == figures[2]
    assert "top-1  60.00% (23.07% to 88.24%)" in done.stdout  # Wilson's interval of 3 of 5
    table = list(csv.DictReader(Path("classes.csv").read_text().splitlines()))
    assert sum(int(each["images"]) for each in table) == 5
    assert sum(int(each["hits"]) for each in table) == 3
    assert sum(int(each["predicted"]) for each in table) == 5


def test_eval_counts_unreadable_images_in_no_figure(small, run):
    rows = probabilities(small, Path("photos"))
    names = sorted(path.name for path in Path("photos").glob("*.jpg"))
    lines = [f"{name} {label}\n" for name, label in zip(names, rows.argmax(1), strict=True)]
    Path("photos/val_list.txt").write_text("gone.jpg 0\n" + "".join(lines))
    done = run("eval.py", *ON_ONNX, "--bundle", small, "-o", "Loss.Eval=None")
    assert done.returncode == 3
    assert LOG.findall(done.stdout) == ["[Eval][Epoch 0][Avg], top1: 1.00000, top5: 1.00000"]
    assert "found 6 = classified 5 + failed 1" in done.stderr
    assert "gone.jpg: " in done.stderr


SEVERAL = (
    "-o", "DataLoader.Eval.dataset.name=MultiLabelDataset",
    "-o", "DataLoader.Eval.dataset.label_ratio=True",
    "-o", "DataLoader.Eval.dataset.cls_label_path=attributes.txt",
    "-o", "Loss.Eval=[{'MultiLabelLoss': {}}]",
)  # fmt: skip


def test_eval_counts_wrong_labels_and_images_without_any(small, run):
    rows = probabilities(small, Path("photos"))
    names = sorted(path.name for path in Path("photos").glob("*.jpg"))
    labels = np.where(np.eye(len(rows), 10, dtype=bool), rows <= 0.5, rows > 0.5).astype(int)
    labels[0, 0] = labels[1, 2] = -1
    lines = [
        f"{name}\t{','.join(map(str, row))}\n" for name, row in zip(names, labels, strict=True)
    ]
    Path("attributes.txt").write_text("".join(lines))
    known, right = labels != -1, (rows > 0.5) == (labels == 1)
    wrong, exact = 1 - right[known].mean(), Share(int((right | ~known).all(1).sum()), len(rows))
    assert (exact.hits, int((~right & known).sum())) == (1, len(rows) - 1)
    counted = "Metric.Eval=[{'HammingDistance': None}, {'AccuracyScore': {'base': 'sample'}}]"
    done = run("eval.py", *ON_ONNX, "--bundle", small, *SEVERAL, "-o", counted)
    assert done.returncode == 0, done.stderr
    (line,) = LOG.findall(done.stdout)
    figures = f"HammingDistance: {wrong:.5f}, AccuracyScore: {exact.value:.5f}"
    assert re.fullmatch(rf"\[Eval\]\S* 0\]\[Avg\]MultiLabelLoss: (\S+), loss: \1, {figures}", line)
    assert f"\nHammingDistance   {wrong:.2%} (" in done.stdout
    assert f"\nAccuracyScore     {exact}\nall labels right  {exact}\n" in done.stdout


def test_eval_of_attributes_reads_their_list_and_prints_paddleclas_line(small, run):
    """The scores of `small` stand for those of a sigmoid; what is found needs a logit of 0.5."""
    rows = probabilities(small, Path("photos"))
    names = sorted(path.name for path in Path("photos").glob("*.jpg"))
    found = (rows > 1 / (1 + np.exp(-0.5))).astype(int)
    lines = [f"{name}\t{','.join(map(str, row))}\n" for name, row in zip(names, found, strict=True)]
    Path("attributes.txt").write_text("".join(lines))
    attributes = (*SEVERAL, "-o", "Metric.Eval=[{'ATTRMetric': None}]")
    done = run("eval.py", *ON_ONNX, "--bundle", small, *attributes)
    assert done.returncode == 0, done.stderr
    (line,) = LOG.findall(done.stdout)
    assert line.startswith("[Eval][Epoch 0][Avg]evalres: ma: ")
    assert "label_neg_recall: 1.00000" in line
    Path("attributes.txt").write_text("coffee.jpg\t0,1\n")
    refused = run("eval.py", *ON_ONNX, "--bundle", small, *attributes)
    assert refused.returncode == 4
    assert "attributes.txt has 2 labels for an image, but the model 10" in refused.stderr
    for text, told in (
        ("coffee.jpg\t0,2\n", "line 1: 'coffee.jpg\\t0,2' is not 'PATH<tab>0,1,...'"),
        ("coffee.jpg\t0,1\nrocket.jpg\t0\n", "line 2 has 1 labels, and the first 2"),
        ("\n", "names no labelled images"),
    ):
        Path("attributes.txt").write_text(text)
        refused = run("eval.py", *ON_ONNX, "--bundle", small, *attributes)
        assert refused.returncode == 4
        assert told in refused.stderr


def test_eval_leaves_out_what_the_model_has_no_classes_for(small, run):
    done = run("eval.py", *ON_ONNX, "--bundle", small, "-o", "Metric.Eval.0.TopkAcc.topk=[1,11]")
    assert "Metric.Eval has top11, and the model 10 classes: left out" in done.stderr
    assert "top11" not in done.stdout


def test_eval_takes_a_folder_for_each_class_numbered_as_in_the_training(small, run):
    labels = probabilities(small, Path("photos")).argmax(1)
    photos = sorted(Path("photos").glob("*.jpg"))
    for photo, label in zip(photos, labels, strict=True):
        folder = Path("val", f"class {label}")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, folder)
    Path("labels.txt").write_text("".join(f"{i} class {i}\n" for i in range(10)))
    given = (
        "-o", "DataLoader.Eval.dataset.cls_label_path=None",
        "-o", "DataLoader.Eval.dataset.image_root=val",
    )  # fmt: skip
    named = ("-o", "Infer.PostProcess.class_id_map_file=labels.txt")
    done = run("eval.py", *ON_ONNX, "--bundle", small, *given, *named)
    assert done.returncode == 0, done.stderr
    assert "top1: 1.00000" in done.stdout
    refused = run("eval.py", *ON_ONNX, "--bundle", small, *given)
    assert refused.returncode == 2
    assert "named classes, and the model 10, so their numbers are not known" in refused.stderr


@pytest.mark.parametrize(
    ("script", "change", "code", "told"),
    [
        ("infer.py", "Global.pretrained_modle=x", 2, "did you mean 'pretrained_model'?"),
        ("infer.py", "Global.device=xpu", 2, "Global.device is 'xpu', expected 'cpu' or 'gpu'"),
        ("infer.py", "Global.eval_mode=retrieval", 2, "expected 'classification'"),
        ("infer.py", "Global.engine=onnxrt", 2, "Global.engine 'onnxrt', did you mean 'onnxr"),
        ("infer.py", "Globl.x=1", 2, "unknown section 'Globl', did you mean 'Global'?"),
        ("infer.py", "Infer.infer_img=x", 2, "did you mean 'infer_imgs'?"),
        ("infer.py", "Infer.save_dir=x.csv", 2, "expected a name that ends with .json"),
        ("infer.py", "Infer.PostProcess.name=Topkk", 2, "did you mean 'Topk'?"),
        ("infer.py", "Infer.infer_imgs=gone", 4, "gone: does not exist"),
        ("infer.py", "Arch.name=PPHGNet_small_x", 2, "nearest: PPHGNet_small, "),
        ("infer.py", "Arch.name=PPHGNet_small_x", 2, "it has PPHGNet_tiny, "),
        ("infer.py", "Arch.models=[]", 2, "Arch.models cannot be served: only Arch.name Dist"),
        ("infer.py", "Arch.width_mult=2", 2, "unknown key Arch.width_mult"),
        ("infer.py", "Global.pretrained_model=None", 2, "Global.pretrained_model is not set"),
        ("infer.py", "Global.pretrained_model=gone", 8, "and neither does gone.pdparams beside"),
        ("eval.py", "Metric.Eval=[{'mAP': {}}]", 2, "Metric.Eval[0].mAP, expected one of"),
        ("eval.py", "Loss.Eval=[{'TripletLoss': {}}]", 2, "Loss.Eval[0].TripletLoss"),
        ("eval.py", "DataLoader.Eval.dataset.name=X", 2, "name X cannot be served"),
        ("eval.py", "DataLoader.Eval.dataset.name=MultiLabelDataset", 2, "by ATTRMetric, Ham"),
        ("eval.py", "Metric.Eval=[{'ATTRMetric': {}}]", 2, "is ImageNetDataset, but Metric.Eval"),
        ("eval.py", "Metric.Eval=[{'ATTRMetric': {}}, {'TopkAcc': {}}]", 2, "ATTRMetric stands al"),
        ("eval.py", "Metric.Eval=[{'AccuracyScore': {'base': 'x'}}]", 2, "'label' or 'sample'"),
        ("eval.py", "DataLoader.Eval.dataset.relabel=True", 2, "relabel cannot be served"),
        ("eval.py", "DataLoader.Eval.dataset.image_rot=x", 2, "did you mean 'image_root'?"),
        ("eval.py", "DataLoader.Eval.dataset.cls_label_path=gone", 4, "label list gone cannot be"),
        ("export_model.py", "Global.image_shape=[1,64,64]", 2, "images are read in colour"),
        ("export_model.py", "Global.pretrained_model=None", 2, "is not set"),
    ],
)  # fmt: skip
def test_mistakes_are_one_line(place, run, script, change, code, told):
    given = () if "pretrained_model" in change else ("-o", "Global.pretrained_model=weights")
    done = run(script, *CPU, *given, "-o", change)
    assert done.returncode == code
    (error,) = [line for line in done.stderr.splitlines() if "error: " in line]
    assert told in error
    assert done.stdout == ""


def test_a_gpu_that_is_not_there_is_refused_before_the_export(place, run):
    require_engine("paddle")
    import paddle

    if paddle.is_compiled_with_cuda():
        pytest.skip("this Paddle may have a GPU")
    done = run("infer.py", "-o", "Global.pretrained_model=weights")
    assert done.returncode == 6
    assert "give -o Global.device=cpu" in done.stderr


def test_labels_beyond_the_classes_are_refused(small, run):
    Path("photos/val_list.txt").write_text("coffee.jpg 10\n")
    done = run("eval.py", *ON_ONNX, "--bundle", small)
    assert done.returncode == 4
    assert "coffee.jpg' has class id 10, but the model has 10 classes" in done.stderr


def test_keys_of_other_tasks_do_not_stand_in_the_way(small, run):
    config = copy.deepcopy(CONFIG)
    config["Global"]["my_own_key"] = 1
    config["MySection"] = {}
    config["DataLoader"]["Eval"]["dataset"]["name"] = "LogoDataset"
    config["Metric"] = {"Eval": [{"mAP": {}}]}
    write_config(config)
    done = run("infer.py", *ON_ONNX, "--bundle", small)
    assert done.returncode == 0, done.stderr
    assert "Global.my_own_key has no effect here" in done.stderr
    assert "train.yaml: MySection has no effect here" in done.stderr


def test_export_takes_a_model_s_name_or_a_config(place, run_here):
    for arguments, told in (
        (("PPHGNet_tiny", "-c", "train.yaml"), "NAME has no effect with -c"),
        (("-c", "train.yaml", "--num-classes", "3"), "--num-classes has no effect with -c"),
        (("PPHGNet_tiny", "-o", "Arch.class_num=3"), "-o has no effect without -c"),
        (("PPHGNet_tiny",), "weights and output must be given, or a training config with -c"),
    ):
        done = run_here(main, "export", *arguments)
        assert done.returncode == 2
        assert told in done.stderr


def lively_weights(path: Path, classes: int) -> Any:
    """Save weights of PPLCNet_x0_25 whose classes get different scores, and return the network."""
    import paddle

    from hgdeploy import zoo

    paddle.seed(0)
    layer = zoo.build("PPLCNet_x0_25", classes)
    with paddle.no_grad():
        logits = layer(paddle.to_tensor(tensors([Path("photos/coffee.jpg")])))
        layer.fc.weight.set_value(layer.fc.weight * (2.0 / float(logits.std())))
    paddle.save(layer.state_dict(), str(path))
    return layer


def tensors(photos: list[Path]) -> np.ndarray:
    """Photographs as the config preprocesses them."""
    reader = ImageReader(parse_ops(CONFIG["Infer"]["transforms"], "transforms"))
    return np.stack([reader.read_file(photo).tensor for photo in photos])


def test_the_weights_of_a_training_give_the_network_s_own_answers(place, run):
    require_engine("paddle")
    expected = forward(lively_weights(Path("best_model.pdparams"), 10), [Path("photos/coffee.jpg")])
    weights = ("-o", "Global.pretrained_model=best_model")
    done = run("infer.py", *CPU, *weights, "-o", "Infer.infer_imgs=photos/coffee.jpg")
    ((found,),) = results(done.stdout)
    assert found["file_name"] == "photos/coffee.jpg"
    assert_best(found, expected[0])


def forward(layer: Any, photos: list[Path]) -> np.ndarray:
    """What Paddle's own dynamic graph gives, as PaddleClas's tools compute it."""
    import paddle

    with paddle.no_grad():
        logits = layer(paddle.to_tensor(tensors(photos)))
        return paddle.nn.functional.softmax(logits, axis=-1).numpy()


def assert_best(found: dict[str, Any], expected: np.ndarray) -> None:
    best = expected.argsort()[::-1][:3]
    assert found["class_ids"] == best.tolist()
    np.testing.assert_allclose(found["scores"], expected[best], atol=1e-4)


@pytest.mark.slow
def test_an_export_says_how_to_use_it(place, run, run_here):
    require_engine("paddle")
    expected = forward(lively_weights(Path("best_model.pdparams"), 10), [Path("photos/coffee.jpg")])
    Path("names.txt").write_text("".join(f"{i} name {i}\n" for i in range(10)))
    done = run_here(
        main, "export", "-c", "train.yaml", "-o", "Global.pretrained_model=best_model",
        "-o", "Global.save_inference_dir=out", "-o", "Global.export_for_fd=True",
        "-o", "Infer.PostProcess.class_id_map_file=names.txt",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = 'Export succeeded! The inference model exported has been saved in "out/inference".'
    assert LOG.findall(done.stdout) == [told]
    description = yaml.safe_load(Path("out/inference.yml").read_text())
    named = {"topk": 3, "label_list": [f"name {i}" for i in range(10)]}
    assert description["PostProcess"] == {"Topk": named}
    with Classifier("out") as classifier:
        (found,) = classifier.predict("photos/coffee.jpg")
    assert_best({"class_ids": list(found.class_ids), "scores": found.scores}, expected[0])
    done = run("export_model.py", "-o", "Global.pretrained_model=best_model", "-o", FEW)
    assert done.returncode == 0, done.stderr
    assert "inference.yml will have no names of classes: PPLCNet_x0_25 has 10" in done.stderr
    refused = run(
        "export_model.py", "-o", "Global.pretrained_model=best_model", "-o", FEW,
        "-o", "Global.export_for_fd=True",
    )  # fmt: skip
    assert refused.returncode == 5


FEW = "Infer.PostProcess={'name': 'Topk', 'label_list': ['a', 'b']}"


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["paddle", "onnxruntime", "openvino"])
def test_eval_of_weights_is_the_same_on_every_engine(place, run, engine):
    require_engine(engine)
    pytest.importorskip("paddle2onnx")
    layer = lively_weights(Path("best_model.pdparams"), 10)
    done = run(
        "eval.py", *CPU, "-o", "Global.pretrained_model=best_model.pdparams",
        "-o", f"Global.engine={engine}",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = forward(layer, sorted(Path("photos").glob("*.jpg")))
    labels = np.arange(5)
    loss = -np.log(rows[labels, labels]).mean()
    ranks = (rows > rows[labels, labels][:, None]).sum(axis=1)
    (line,) = LOG.findall(done.stdout)
    figures = [float(number) for number in re.findall(r": ([\d.]+)", line)]
    wanted = [loss, loss, (ranks < 1).mean(), (ranks < 5).mean()]
    assert figures == pytest.approx(wanted, abs=2e-4)
