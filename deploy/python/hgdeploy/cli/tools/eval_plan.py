# SPDX-License-Identifier: Apache-2.0
"""What `hgdeploy eval` measures: the images of a training config, or those that are named."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgdeploy.cli.predict_job import PredictJob
from hgdeploy.cli.terminal import opened_bundle, refuse_without_effect, say, warn
from hgdeploy.cli.tools.common import imagenet_labels, loaded_config, network_job
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.progress import nothing

if TYPE_CHECKING:
    from hgdeploy.images.find import ImageFile
    from hgdeploy.paddleclas.training.config import TrainingConfig
    from hgdeploy.paddleclas.training.tasks import EvalTask
    from hgdeploy.validation.evaluation import Metric

Labels = Sequence[Any]
"""A class, or a row of attributes, for each image."""

_MOST_ON_CPU = 8  # images an inference takes: larger batches take memory, and no less time
_BUNDLE_ALONE = (
    *("images", "labels", "delimiter", "engine", "precision", "device", "batch_size", "threads"),
    "softmax",
)


@dataclass(frozen=True)
class EvalPlan:
    """What is measured, on what.

    Attributes:
        files: the images.
        labels: what each shows.
        source: the list, or the folder of a folder for each class.
        metrics: what is counted.
        smoothing: of the labels in the cross entropy; None where no loss is asked for.
        names: the classes' names by number, as far as they have one.
        classes: how many the model has, where its file leaves that open; -1 for not known.
        configured: a training config says all this.
    """

    files: Sequence[ImageFile]
    labels: Labels
    source: Path
    metrics: tuple[Metric, ...]
    smoothing: float | None = None
    names: Mapping[int, str] = dataclasses.field(default_factory=dict)
    classes: int = -1
    configured: bool = False

    @property
    def several(self) -> bool:
        """Whether an image may have several labels."""
        from hgdeploy.validation.evaluation import label_metrics

        return bool(label_metrics(self.metrics))


@contextlib.contextmanager
def evaluation_job(arguments: argparse.Namespace) -> Iterator[tuple[EvalPlan, PredictJob]]:
    """Yield what is measured and the run that classifies it, of a bundle or a training config.

    Raises:
        HGDeployError: there is no such bundle, config, list or engine, or they do not fit.
    """
    if arguments.config is not None:
        refuse_without_effect(arguments, _BUNDLE_ALONE, "with -c, whose config says it")
        with _config_job(arguments, loaded_config(arguments)) as found:
            yield found
        return
    if arguments.folder is None:
        raise ConfigError(
            "nothing was named to evaluate: name a bundle and --images, or PaddleClas's training "
            "config with -c"
        )
    for flag in ("override", "bundle"):
        if getattr(arguments, flag):
            option = "-o" if flag == "override" else "--bundle"
            raise ConfigError(f"{option} has no effect without -c")
    yield _bundle_job(arguments)


@contextlib.contextmanager
def _config_job(
    arguments: argparse.Namespace, config: TrainingConfig
) -> Iterator[tuple[EvalPlan, PredictJob]]:
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.paddleclas.training.tasks import read_eval
    from hgdeploy.transforms.postprocess import Postprocess, ScoreOutput

    if arguments.folder is not None and arguments.bundle is not None:
        raise ConfigError(f"two bundles were named: {arguments.folder} and {arguments.bundle}")
    task = read_eval(config)
    names = _names(config)
    files, labels = _labelled(task, names, config.num_classes)
    plan = EvalPlan(
        *(files, labels, task.labels, task.metrics, task.smoothing),
        names=names,
        classes=config.num_classes,
        configured=True,
    )
    raw = Postprocess(ScoreOutput(None))
    batch = min(task.batch_size, _MOST_ON_CPU) if config.device == "cpu" else task.batch_size
    settings = ClassifierSettings(None, batch, preprocess=task.preprocess, postprocess=raw)
    bundle = arguments.folder or arguments.bundle
    with network_job(config, settings, task.ending, bundle) as job:
        yield plan, job


def _labelled(
    task: EvalTask, names: Mapping[int, str], classes: int
) -> tuple[Sequence[ImageFile], Labels]:
    """Read the list or the folders of a config, with the classes numbered as in its training."""
    from hgdeploy.images.labelled import read_attributes
    from hgdeploy.training.data.samples import read_samples

    if task.ending == "sigmoid":
        files, rows = read_attributes(task.labels, task.images)
        return files, list(rows)
    found = read_samples(task.images, task.labels, task.delimiter, names or None, warn)
    if not names and found.names is not None and found.classes != classes:
        raise ConfigError(
            f"{task.labels} has {found.classes} named classes, and the model {classes}, so their "
            "numbers are not known; name the labels.txt that the training wrote, with -o "
            "Infer.PostProcess.class_id_map_file=PATH"
        )
    return found.files, found.labels.tolist()


def _names(config: TrainingConfig) -> Mapping[int, str]:
    """Return the labels of `Infer.PostProcess`; none where there are none for these classes."""
    from hgdeploy.paddleclas.training.tasks import read_output

    try:
        return read_output(config, imagenet_labels(), nothing).output.labels or {}
    except (BundleError, ConfigError):
        return {}


def _bundle_job(arguments: argparse.Namespace) -> tuple[EvalPlan, PredictJob]:
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.engines.auto.choose import Asked, choose, with_saved
    from hgdeploy.engines.options import EngineOptions
    from hgdeploy.transforms.postprocess import Postprocess, ScoreOutput

    if arguments.images is None:
        raise ConfigError(
            "--images is missing: the folder of the labelled images, with a folder for each class, "
            "or with a list of 'PATH LABEL' lines in --labels"
        )
    plan = _bundle_plan(arguments)
    asked = Asked(arguments.engine, arguments.precision, arguments.device)
    run, saved = choose(arguments.folder, asked, say)
    batch = arguments.batch_size or (_MOST_ON_CPU if saved is None else saved.batch)
    options = run.options(EngineOptions(threads=arguments.threads, max_batch=batch))
    settings = ClassifierSettings(
        run.engine,
        batch,
        with_saved(options, saved),
        postprocess=Postprocess(ScoreOutput(None)),
        softmax=arguments.softmax,
    )
    return plan, PredictJob(arguments.folder, (), settings, saved=saved)


def _bundle_plan(arguments: argparse.Namespace) -> EvalPlan:
    """Read the list: of classes, or of several labels where the bundle's description says so."""
    from hgdeploy.images.labelled import read_attributes, read_labelled_images
    from hgdeploy.transforms.attributes import Attributes
    from hgdeploy.transforms.postprocess import MultiLabelThreshOutput
    from hgdeploy.validation.evaluation import ATTRMetric, TopkAcc

    bundle = opened_bundle(arguments.folder, nothing)  # its notes are told when it is loaded
    described = bundle.own_postprocess()
    output = None if described is None else described.output
    names = bundle.labels or {}
    source = arguments.labels or arguments.images
    if isinstance(output, MultiLabelThreshOutput | Attributes):
        if arguments.delimiter is not None:
            raise ConfigError("--delimiter has no effect for a model of several labels")
        if arguments.labels is None:
            raise ConfigError(
                f"--labels is missing: {arguments.folder} gives several labels for an image, so "
                "its images need a list of 'PATH<tab>0,1,...' lines"
            )
        files, rows = read_attributes(source, arguments.images)
        return EvalPlan(files, list(rows), source, (ATTRMetric(),), names=names)
    found, classes = read_labelled_images(
        source, arguments.images, bundle.labels, warn, delimiter=arguments.delimiter
    )
    return EvalPlan(found, classes, source, (TopkAcc(),), names=names)
