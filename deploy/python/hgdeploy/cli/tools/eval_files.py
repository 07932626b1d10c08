# SPDX-License-Identifier: Apache-2.0
"""The files that `hgdeploy eval` writes."""

from __future__ import annotations

import argparse
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hgdeploy.cli.tools.eval_print import label_of, text_of
from hgdeploy.errors import ConfigError
from hgdeploy.transforms.prediction import printable

if TYPE_CHECKING:
    from hgdeploy.cli.predict_job import PredictJob
    from hgdeploy.cli.tools.eval_plan import EvalPlan
    from hgdeploy.validation.evaluation import Judged
    from hgdeploy.validation.evaluation.outcome import Outcome

_MOST_CLASSES = 2000  # of a confusion matrix


def check_outputs(arguments: argparse.Namespace, plan: EvalPlan, job: PredictJob) -> None:
    """Refuse, before anything slow, an output that cannot be, or that is read.

    Raises:
        ConfigError: likewise.
        OutputError: one cannot be written.
    """
    from hgdeploy.bundle.model_files import files_of_models
    from hgdeploy.results.outputs import check_apart, check_suffix
    from hgdeploy.system.files import check_replaceable

    suffixes = {
        "--classes": (".csv",),
        "--confusion": (".csv", ".png"),
        "--answers": (".csv",),
        "--report": (".json",),
    }
    outputs: dict[str, list[Path]] = {}
    for option, allowed in suffixes.items():
        given = getattr(arguments, option[2:]) or []
        outputs[option] = given if isinstance(given, list) else [given]
        for path in outputs[option]:
            check_suffix(option, path, allowed)
            check_replaceable(path)
    if plan.several and outputs["--confusion"]:
        raise ConfigError(
            "--confusion needs one class for an image, and this model gives several labels; "
            "--classes has the figures of each label"
        )
    if not any(outputs.values()):
        return
    read: list[tuple[str, str | Path]] = [("an image of this run", f.place) for f in plan.files]
    read += [("the list of labels", plan.source)]
    read += [] if arguments.config is None else [("the config", arguments.config)]
    read += [("a file of the model", path) for path in files_of_models(job.bundle)]
    check_apart(outputs, read)


def write_outputs(
    arguments: argparse.Namespace, plan: EvalPlan, outcome: Outcome, reference: Outcome | None
) -> None:
    """Write the files that were asked for.

    Raises:
        OutputError: one cannot be written.
        EngineError: matplotlib is not installed.
        ConfigError: there are too many classes for a matrix.
    """
    from hgdeploy.system.files import write_text
    from hgdeploy.validation.evaluation.outcome import evaluation_facts

    if arguments.classes is not None:
        write_text(arguments.classes, _as_csv(_class_rows(outcome, plan.names)))
    if arguments.answers is not None:
        write_text(arguments.answers, _as_csv(_answer_rows(plan, outcome, reference)))
    for path in arguments.confusion or ():
        _write_confusion(path, plan, outcome)
    if arguments.report is not None:
        facts = evaluation_facts(outcome, reference, plan.labels, plan.names)
        facts = {"labels": str(plan.source), **facts}
        write_text(arguments.report, json.dumps(facts, indent=1) + "\n")


def _as_csv(rows: Iterator[Sequence[object]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()


def _class_rows(outcome: Outcome, names: Mapping[int, str]) -> Iterator[Sequence[object]]:
    yield ("class", "name", "images", "hits", "predicted", "recall", "precision")
    for each in outcome.evaluation.per_class:
        own, taken = each.recall, each.precision
        shares = (f"{share.value:.5f}" if share.images else "" for share in (own, taken))
        counts = (own.images, own.hits, taken.images)
        yield (each.index, names.get(each.index, ""), *counts, *shares)


def _answer_rows(
    plan: EvalPlan, outcome: Outcome, reference: Outcome | None
) -> Iterator[Sequence[object]]:
    from hgdeploy.validation.evaluation import changes

    head = ("path", "label", "answer", "score", "right")
    yield head if reference is None else (*head, "reference", "reference score", "change")
    changed = {} if reference is None else changes(outcome.judged, reference.judged)
    for number, own in outcome.judged.items():
        label = text_of(label_of(plan, number))
        cells = (printable(plan.files[number].name), label, *_answer(own), int(own.right))
        if reference is None:
            yield cells
        elif number in changed:
            yield (*cells, *_answer(reference.judged[number]), changed[number])
        else:
            yield (*cells, "", "", "failed")


def _answer(judged: Judged) -> tuple[str, str]:
    known = judged.score == judged.score  # not NaN, which several labels have
    return text_of(judged.answer), f"{judged.score:.6f}" if known else ""


def _write_confusion(path: Path, plan: EvalPlan, outcome: Outcome) -> None:
    from hgdeploy.system.files import replacing, write_text
    from hgdeploy.validation.evaluation import confusion
    from hgdeploy.validation.evaluation.plot import confusion_png

    classes = outcome.evaluation.classes
    if classes > _MOST_CLASSES:
        raise ConfigError(
            f"--confusion {path}: the model has {classes} classes, and a matrix may have "
            f"{_MOST_CLASSES}; --answers has each image"
        )
    pairs = confusion(plan.labels, outcome.judged)
    names = [plan.names.get(index, str(index)) for index in range(classes)]
    if path.suffix.lower() == ".png":
        title = f"{outcome.run}, {outcome.right.images} images"
        drawn = confusion_png(pairs, names, title)
        with replacing(path) as stream:
            stream.write(drawn)
        return
    rows = [[pairs[label, answer] for answer in range(classes)] for label in range(classes)]
    named = ([name, *row] for name, row in zip(names, rows, strict=True))
    write_text(path, _as_csv(iter([["class", *names], *named])))
