# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy eval` and `deploy/python/eval.py`: the accuracy of a bundle or a config."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgdeploy.cli.predict import load_classifier
from hgdeploy.cli.predict_job import PredictJob
from hgdeploy.cli.progress import image_progress
from hgdeploy.cli.terminal import Verbs, say, warn
from hgdeploy.cli.tools.common import add_bundle_argument, add_config_arguments, reference_job
from hgdeploy.cli.tools.eval_files import check_outputs, write_outputs
from hgdeploy.cli.tools.eval_plan import EvalPlan, evaluation_job
from hgdeploy.cli.tools.eval_print import print_outcome
from hgdeploy.errors import ConfigError, InputError
from hgdeploy.system.checks import cut
from hgdeploy.system.progress import OnLine, once

if TYPE_CHECKING:
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.classify.summary import Summary
    from hgdeploy.results.rows import FileFacts
    from hgdeploy.transforms.prediction import Prediction
    from hgdeploy.validation.evaluation import AttributeEvaluation, Evaluation
    from hgdeploy.validation.evaluation.outcome import Outcome

_LEAST_CLASSES = 2


def add_eval(verbs: Verbs) -> None:
    """Add `hgdeploy eval`."""
    declare_eval(
        verbs.add_parser("eval", help="measure accuracy on labelled images, in any precision")
    )


def declare_eval(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of PaddleClas's `tools/eval.py` and our own, and `run`."""
    parser.add_argument(
        "folder", nargs="?", type=Path, metavar="BUNDLE", help="the model's folder; or give -c"
    )
    add_config_arguments(parser)
    add_bundle_argument(parser)
    parser.add_argument("--images", type=Path, help="the folder of the labelled images")
    parser.add_argument(
        "--labels",
        type=Path,
        help="'PATH LABEL' list, paths relative to --images (default: a folder for each class)",
    )
    parser.add_argument(
        "--delimiter", help=r"what stands between path and label, as , or \t (spaces or a tab)"
    )
    parser.add_argument("--engine", help="the engine, as of hgdeploy predict; or auto")
    parser.add_argument("--precision", help="fp32, tf32, fp16, bf16 or int8")
    parser.add_argument("--device", help="cpu (default) or gpu:N")
    parser.add_argument("--batch-size", type=int, help="images per inference (8)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all this process has)")
    parser.add_argument(
        "--softmax", action="store_true", help="make probabilities of a model's logits"
    )
    parser.add_argument(
        "--against",
        metavar="ENGINE[:PRECISION][@DEVICE]",
        help="also run this, such as paddle, and compare image by image",
    )
    parser.add_argument("--classes", type=Path, help="write the figures of each class to this .csv")
    parser.add_argument(
        "--confusion",
        type=Path,
        action="append",
        help="write the confusion matrix to this .csv or .png; may be repeated",
    )
    parser.add_argument(
        "--answers", type=Path, help="write each image's class and answer to this .csv"
    )
    parser.add_argument("--report", type=Path, help="write all figures to this .json")
    parser.set_defaults(run=_eval)


def _eval(arguments: argparse.Namespace, out: TextIO) -> int:
    with evaluation_job(arguments) as (plan, job):
        exported = (arguments.folder, arguments.bundle) == (None, None)
        other = None
        if arguments.against is not None:
            other = reference_job(job, arguments.against, exported=exported)
        check_outputs(arguments, plan, job)
        on_warning = once(warn)  # both runs have the same images and the same description
        outcome, summary = _evaluated(plan, job, on_warning)
        reference = None
        if other is not None:
            say(f"and the same images with {arguments.against}")
            reference, _ = _evaluated(plan, other, on_warning, outcome)
    print_outcome(out, plan, outcome, reference, as_paddleclas=arguments.config is not None)
    write_outputs(arguments, plan, outcome, reference)
    return summary.exit_code


def _evaluated(
    plan: EvalPlan, job: PredictJob, on_warning: OnLine, first: Outcome | None = None
) -> tuple[Outcome, Summary]:
    """Classify the images and gather the figures; a second run says nothing of the images again."""
    from hgdeploy.classify.folder import classify_files
    from hgdeploy.classify.summary import Summary
    from hgdeploy.validation.evaluation.outcome import Outcome

    count = len(plan.files)
    summary = Summary(found=count)
    with load_classifier(job, count) as classifier, image_progress(count) as progress:
        evaluation = _evaluation(classifier, plan, told=first is not None)
        _check_labels(plan, evaluation.classes)
        taker = _Taker(Outcome(classifier.engine.runtime, evaluation), plan)
        classify_files(classifier, plan.files, [taker, progress], on_warning, summary)
    say(summary.text())
    outcome = taker.outcome
    outcome.failed = summary.failed
    if not outcome.judged:
        raise InputError(f"none of the {count} images of {plan.source} can be classified")
    if first is not None and not first.judged.keys() & outcome.judged.keys():
        raise InputError("there is no image that both runs can classify")
    return outcome, summary


def _evaluation(
    classifier: Classifier, plan: EvalPlan, *, told: bool
) -> Evaluation | AttributeEvaluation:
    from hgdeploy.engines.scores import class_count
    from hgdeploy.validation.evaluation import (
        AttributeEvaluation,
        Evaluation,
        TopkAcc,
        label_metrics,
    )

    classes = class_count(classifier.engine.outputs[0].shape) or -1
    classes = plan.classes if classes == -1 else classes
    if classes == -1:
        raise ConfigError(
            "the model's file does not say how many classes it has; evaluate it with -c CONFIG"
        )
    if classes < _LEAST_CLASSES:
        raise ConfigError("the model gives one score for each image and chooses no class")
    if plan.several:
        return AttributeEvaluation(classes, label_metrics(plan.metrics), plan.smoothing)
    for metric in plan.metrics:
        for k in metric.topk if isinstance(metric, TopkAcc) else ():
            if k > classes and plan.configured and not told:
                warn(f"Metric.Eval has top{k}, and the model {classes} classes: left out")
    return Evaluation(classes, plan.metrics, plan.smoothing)


def _check_labels(plan: EvalPlan, classes: int) -> None:
    if plan.several:
        if len(plan.labels[0]) != classes:
            raise InputError(
                f"{plan.source} has {len(plan.labels[0])} labels for an image, but the model "
                f"{classes}"
            )
        return
    for file, label in zip(plan.files, plan.labels, strict=True):
        if label >= classes:
            raise InputError(
                f"{cut(file.name)} has class id {label}, but the model has {classes} classes (ids "
                f"0 to {classes - 1})"
                + ("; check Arch.class_num and DataLoader.Eval.dataset" if plan.configured else "")
            )


class _Taker:
    """Passes the scores of each image on to an evaluation, with what the image shows."""

    def __init__(self, outcome: Outcome, plan: EvalPlan) -> None:
        self.outcome = outcome
        self._labels = enumerate(plan.labels)

    def write(self, prediction: Prediction, facts: FileFacts) -> None:  # noqa: ARG002
        """Take one image; one that failed is told elsewhere and counts in no figure."""
        import numpy as np

        number, label = next(self._labels)
        if prediction.error is None:
            scores: Any = np.array(prediction.scores, np.float32)
            self.outcome.judged[number] = self.outcome.evaluation.add(scores, label)

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
