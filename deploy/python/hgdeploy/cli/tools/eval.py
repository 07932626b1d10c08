# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy eval` and `deploy/python/eval.py`: PaddleClas's `tools/eval.py`."""

from __future__ import annotations

import argparse
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgdeploy.cli.predict import load_classifier
from hgdeploy.cli.progress import image_progress
from hgdeploy.cli.terminal import Verbs, aligned, say, warn
from hgdeploy.cli.tools.common import (
    add_bundle_argument,
    add_config_arguments,
    imagenet_labels,
    loaded_config,
    network_job,
)
from hgdeploy.errors import BundleError, ConfigError, InputError
from hgdeploy.system.checks import cut
from hgdeploy.system.progress import nothing

if TYPE_CHECKING:
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.images.find import ImageFile
    from hgdeploy.paddleclas.training.config import TrainingConfig
    from hgdeploy.paddleclas.training.tasks import EvalTask
    from hgdeploy.results.rows import FileFacts
    from hgdeploy.transforms.prediction import Prediction
    from hgdeploy.validation.evaluation import AttributeEvaluation, Evaluation

    Figures = Evaluation | AttributeEvaluation
    Labels = Sequence[Any]  # a class, or a row of attributes, for each image

_LEAST_CLASSES = 2
_MOST_ON_CPU = 8  # images an inference takes: larger batches take memory, and no less time
_SHOWN = 20  # classes, those that are recognised least


def add_eval(verbs: Verbs) -> None:
    """Add `hgdeploy eval`."""
    declare_eval(verbs.add_parser("eval", help="measure accuracy as a training config says"))


def declare_eval(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of PaddleClas's `tools/eval.py` and our own, and `run`."""
    add_config_arguments(parser)
    add_bundle_argument(parser)
    parser.add_argument("--classes", type=Path, help="write the figures of each class to this .csv")
    parser.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.classify.folder import classify_files
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.classify.summary import Summary
    from hgdeploy.paddleclas.training.tasks import read_eval
    from hgdeploy.transforms.postprocess import Postprocess, ScoreOutput

    config = loaded_config(arguments)
    task = read_eval(config)
    files, labels = _labelled(task)
    if arguments.classes is not None:
        _check_classes_file(arguments, files, task)
    raw = Postprocess(ScoreOutput(None))
    batch = min(task.batch_size, _MOST_ON_CPU) if config.device == "cpu" else task.batch_size
    settings = ClassifierSettings(None, batch, preprocess=task.preprocess, postprocess=raw)
    summary = Summary(found=len(files))
    with (
        network_job(config, settings, task.ending, arguments.bundle) as job,
        load_classifier(job, len(files)) as classifier,
        image_progress(len(files)) as progress,
    ):
        evaluation = _evaluation(classifier, config, task)
        _check_labels(files, labels, task, evaluation.classes)
        classify_files(classifier, files, [_Taker(evaluation, labels), progress], warn, summary)
    say(summary.text())
    if not evaluation.images:
        raise InputError(f"none of the {len(files)} images of {task.labels} can be classified")
    _report(out, evaluation, _names(config))
    if arguments.classes is not None:
        _write_classes(arguments.classes, evaluation, _names(config))
    return summary.exit_code


def _labelled(task: EvalTask) -> tuple[Sequence[ImageFile], Labels]:
    from hgdeploy.images.labelled import read_attributes, read_labelled_images

    if task.ending == "sigmoid":
        files, rows = read_attributes(task.labels, task.images)
        return files, list(rows)
    return read_labelled_images(task.labels, task.images, None, warn, delimiter=task.delimiter)


def _evaluation(classifier: Classifier, config: TrainingConfig, task: EvalTask) -> Figures:
    from hgdeploy.engines.scores import class_count
    from hgdeploy.validation.evaluation import (
        AttributeEvaluation,
        ATTRMetric,
        Evaluation,
        TopkAcc,
    )

    classes = class_count(classifier.engine.outputs[0].shape) or -1
    classes = config.num_classes if classes == -1 else classes
    if classes < _LEAST_CLASSES:
        raise ConfigError("the model gives one score for each image and chooses no class")
    for metric in task.metrics:
        if isinstance(metric, ATTRMetric):
            return AttributeEvaluation(classes, metric)
        for k in metric.topk if isinstance(metric, TopkAcc) else ():
            if k > classes:
                warn(f"Metric.Eval has top{k}, and the model {classes} classes: left out")
    return Evaluation(classes, task.metrics, task.smoothing)


def _check_labels(files: Sequence[ImageFile], labels: Labels, task: EvalTask, classes: int) -> None:
    if task.ending == "sigmoid":
        if len(labels[0]) != classes:
            raise InputError(
                f"{task.labels} has {len(labels[0])} labels for an image, but the model {classes}"
            )
        return
    for file, label in zip(files, labels, strict=True):
        if label >= classes:
            raise InputError(
                f"{cut(file.name)} has class id {label}, but the model has {classes} classes (ids "
                f"0 to {classes - 1}); check Arch.class_num and DataLoader.Eval.dataset"
            )


class _Taker:
    """Passes the scores of each image on to an evaluation, with the image's class."""

    def __init__(self, evaluation: Figures, labels: Labels) -> None:
        self._evaluation, self._labels = evaluation, iter(labels)

    def write(self, prediction: Prediction, facts: FileFacts) -> None:  # noqa: ARG002
        """Take one image; one that failed is told elsewhere and counts in no figure."""
        import numpy as np

        label = next(self._labels)
        if prediction.error is None:
            self._evaluation.add(np.array(prediction.scores, np.float32), label)

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


def _report(out: TextIO, evaluation: Figures, names: Mapping[int, str]) -> None:
    """Print PaddleClas's line, and then intervals and the classes that are recognised least."""
    from hgdeploy.paddleclas.answers import write_logged
    from hgdeploy.validation.evaluation import Evaluation

    write_logged(out, evaluation.paddleclas_line())
    out.write(f"\n{evaluation.images} images, with 95 % intervals:\n")
    if isinstance(evaluation, Evaluation):
        out.write(aligned([(f"top-{k}", str(evaluation.accuracy(k))) for k in evaluation.topk]))
    figures = sorted(evaluation.per_class, key=lambda each: (each.recall.value, each.index))
    rows = [("class", "images", "recall", "precision", "name")]
    for each in figures[:_SHOWN]:
        cells = (str(each.index), str(each.recall.images), str(each.recall), str(each.precision))
        rows.append((*cells, names.get(each.index, "")))
    shown = f"{min(_SHOWN, len(figures))} of {len(figures)} classes, the least recognised first"
    out.write(f"\n{shown}:\n{aligned(rows)}")


def _names(config: TrainingConfig) -> Mapping[int, str]:
    """Return the labels of `Infer.PostProcess`; none where there are none for these classes."""
    from hgdeploy.paddleclas.training.tasks import read_output

    try:
        return read_output(config, imagenet_labels(), nothing).output.labels or {}
    except (BundleError, ConfigError):
        return {}


def _check_classes_file(
    arguments: argparse.Namespace, files: Sequence[ImageFile], task: EvalTask
) -> None:
    from hgdeploy.results.outputs import check_apart, check_suffix

    check_suffix("--classes", arguments.classes, (".csv",))
    read: list[tuple[str, str | Path]] = [("an image of this run", file.place) for file in files]
    read += [("the list of labels", task.labels), ("the config", arguments.config)]
    check_apart({"--classes": [arguments.classes]}, read)


def _write_classes(path: Path, evaluation: Figures, names: Mapping[int, str]) -> None:
    from hgdeploy.system.files import write_text

    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(("class", "name", "images", "hits", "predicted", "recall", "precision"))
    for each in evaluation.per_class:
        own, taken = each.recall, each.precision
        shares = (f"{share.value:.5f}" if share.images else "" for share in (own, taken))
        counts = (own.images, own.hits, taken.images)
        table.writerow((each.index, names.get(each.index, ""), *counts, *shares))
    write_text(path, text.getvalue())
