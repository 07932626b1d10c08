# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy infer` and `deploy/python/infer.py`: PaddleClas's `tools/infer.py`."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from typing import TYPE_CHECKING, Any, TextIO

from hgdeploy.cli.predict import run_job
from hgdeploy.cli.terminal import Verbs, warn
from hgdeploy.cli.tools.common import (
    add_bundle_argument,
    add_config_arguments,
    imagenet_labels,
    loaded_config,
    network_job,
)
from hgdeploy.transforms.prediction import printable

if TYPE_CHECKING:
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
    from hgdeploy.bundle.model_files import files_of_models
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.images.find import find_images
    from hgdeploy.paddleclas.training.tasks import ending_for, read_infer
    from hgdeploy.results.outputs import check_apart

    config = loaded_config(arguments)
    task = read_infer(config, imagenet_labels(), warn)
    find_images(task.images)  # a mistake shows before the network is made
    settings = ClassifierSettings(
        None, task.batch_size, preprocess=task.preprocess, postprocess=task.postprocess
    )
    ending = ending_for(task.postprocess.output)
    with network_job(config, settings, ending, arguments.bundle) as job:
        if task.save is not None:
            read = [("a file of the model", path) for path in files_of_models(job.bundle)]
            check_apart({"Infer.save_dir": [task.save]}, [*read, ("the config", arguments.config)])
        lines = functools.partial(_BatchWriter, task)
        return run_job(dataclasses.replace(job, inputs=task.images, lines=lines), out)


class _BatchWriter:
    """Prints one line of results for each batch, or writes all to the JSON file at the end."""

    def __init__(self, task: InferTask, out: TextIO) -> None:
        from hgdeploy.paddleclas.answers import naming

        self._task, self._out = task, out
        self._kind = type(task.postprocess.output).__name__
        self._place = naming(task.images[0]) if len(task.images) == 1 else lambda place, _: place
        self._results: list[dict[str, Any]] = []

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Take one prediction; one that failed is told elsewhere, and no other is lost with it."""
        if prediction.error is not None:
            return
        place = self._place(str(facts.path), prediction.path)
        self._results.append(result_of(prediction, place, self._kind))
        if self._task.save is None and len(self._results) == self._task.batch_size:
            self._print()

    def finish(self) -> None:
        """Print the last batch, or write the file.

        Raises:
            OutputError: it cannot be written.
        """
        from hgdeploy.system.files import write_text

        if self._task.save is not None:
            write_text(self._task.save, json.dumps(self._results))
        elif self._results:
            self._print()

    def close(self) -> None:
        """Leave the stream to its owner."""

    def _print(self) -> None:
        from hgdeploy.paddleclas.answers import write_logged

        write_logged(self._out, printable(str(self._results)))
        self._results.clear()


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
