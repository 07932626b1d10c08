# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy infer` and `deploy/python/infer.py`: PaddleClas's `tools/infer.py`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgdeploy.cli.terminal import Verbs, say, warn
from hgdeploy.cli.tools.common import (
    Use,
    add_bundle_argument,
    add_config_arguments,
    classifier_of,
    imagenet_labels,
    loaded_config,
    log,
)

if TYPE_CHECKING:
    from hgdeploy.images.find import ImageFile
    from hgdeploy.paddleclas.training.tasks import InferTask
    from hgdeploy.results.rows import FileFacts
    from hgdeploy.transforms.prediction import Prediction

_DECIMALS = 5


def add_infer(verbs: Verbs) -> None:
    """Add `hgdeploy infer`."""
    declare_infer(verbs.add_parser("infer", help="classify images as a training config says"))


def declare_infer(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of PaddleClas's `tools/infer.py` and our own, and `run`."""
    add_config_arguments(parser)
    add_bundle_argument(parser)
    parser.set_defaults(run=_infer)


def _infer(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.classify.folder import classify_files
    from hgdeploy.classify.summary import Summary
    from hgdeploy.images.find import find_images
    from hgdeploy.paddleclas.training.tasks import read_infer
    from hgdeploy.results.outputs import check_apart

    config = loaded_config(arguments)
    task = read_infer(config, imagenet_labels(), warn)
    files = find_images(task.images, warn)
    if task.save is not None:
        read = [("an image of this run", file.place) for file in files]
        check_apart({"Infer.save_dir": [task.save]}, [*read, ("the config", arguments.config)])
    use = Use(task.preprocess, task.postprocess, task.batch_size, len(files))
    summary = Summary(found=len(files))
    with classifier_of(config, use, arguments.bundle) as classifier:
        writer = _BatchWriter(task, files, out)
        classify_files(classifier, files, [writer], warn, summary)
        writer.finish()
    say(summary.text())
    return summary.exit_code


class _BatchWriter:
    """Prints one line of results for each batch, or writes all to the JSON file at the end."""

    def __init__(self, task: InferTask, files: Sequence[ImageFile], out: TextIO) -> None:
        self._task, self._out = task, out
        self._places = (_place(task.images, file) for file in files)
        self._results: list[dict[str, Any]] = []

    def write(self, prediction: Prediction, facts: FileFacts) -> None:  # noqa: ARG002
        """Take one prediction; one that failed is told elsewhere, and no other is lost with it."""
        place = next(self._places)
        if prediction.error is None:
            kind = type(self._task.postprocess.output).__name__
            self._results.append(result_of(prediction, place, kind))
        if self._task.save is None and len(self._results) == self._task.batch_size:
            self._print()

    def finish(self) -> None:
        """Print the last batch, or write the file."""
        from hgdeploy.system.files import write_text

        if self._task.save is not None:
            write_text(self._task.save, json.dumps(self._results))
        elif self._results:
            self._print()

    def close(self) -> None:
        """Leave the stream to its owner."""

    def _print(self) -> None:
        log(self._out, str(self._results))
        self._results.clear()


def _place(images: Sequence[str], file: ImageFile) -> str:
    """Return an image's path as PaddleClas has it: what was given, and the path below it."""
    only = images[0] if len(images) == 1 else ""
    return os.path.join(only, file.name) if Path(only or file.place).is_dir() else file.place  # noqa: PTH118 (./ stays)


# In PaddleClas's order of keys; its outputs for training name some of them otherwise.
_KEYS = {
    "Topk": ("class_ids", "scores", "file_name", "label_names"),
    "ThreshOutput": ("class_ids", "scores", "label_names", "file_name"),
    "MultiLabelThreshOutput": ("class_ids", "scores", "label_names", "file_name"),
    "ScoreOutput": ("scores", "file_name"),
    "PersonAttribute": ("attributes", "output"),
    "FaceAttribute": ("attributes", "output"),
    "VehicleAttribute": ("attr", "pred", "file_name"),
    "TableAttribute": ("attributes", "output", "file_name"),
}


def result_of(prediction: Prediction, place: str, kind: str) -> dict[str, Any]:
    """Return a prediction as PaddleClas's `tools/infer.py` has it.

    Args:
        prediction: of an image that did not fail.
        place: its path.
        kind: the name of the output that made it.
    """
    found = prediction.attributes
    attributes = list(found) if isinstance(found, tuple) else found
    output = list(prediction.output or ())
    values = {
        "class_ids": list(prediction.class_ids or ()),
        "scores": [round(score, _DECIMALS) for score in prediction.scores],
        "label_names": list(prediction.labels),
        "file_name": place,
        "attributes": attributes,
        "attr": attributes,
        "output": output,
        "pred": output,
    }
    return {key: values[key] for key in _KEYS[kind]}
