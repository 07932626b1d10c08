# SPDX-License-Identifier: Apache-2.0
"""Run the same inputs through several engines and decide whether they agree.

Real images go through the real preprocessing once and then through every engine; seeded random
inputs follow, which reach corners that photographs do not. Every pair of runs is compared; with
labels, the accuracy of every run is measured as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import Engine, RuntimeInfo, infer_rows
from hgdeploy.engines.fit import check_image
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import OpenedRun, Run, open_run
from hgdeploy.engines.scores import class_count
from hgdeploy.errors import ConfigError, ImageError, InputError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.reader import ImageReader, read_batches
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import BATCH_SIZE, MANY, THREADS, optional, whole
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.accuracy import Accuracy, measure_accuracy
from hgdeploy.validation.inputs import (
    common_batch_size,
    common_input,
    infer_in_batches,
    random_rows,
)
from hgdeploy.validation.noise import NOISE_ROWS
from hgdeploy.validation.pairs import Answers, PairReport, compare_pairs


@dataclass(frozen=True)
class ValidateOptions:
    """What to compare, and on what.

    Attributes:
        runs: at least one; the first is the reference in the reports of its pairs.
        images: real images; may be empty.
        labels: the right class of each image, in the same order; None to measure no accuracy.
        random_rows: how many random inputs.
        seed: the seed of the random inputs.
        batch_size: rows per inference, if the model leaves it open.
        threads: CPU threads; None for all.
        own: options that only one engine has, see `EngineOptions.own`.
    """

    runs: tuple[Run, ...]
    images: tuple[ImageFile, ...] = ()
    labels: tuple[int, ...] | None = None
    random_rows: int = 16
    seed: int = 0
    batch_size: int = 8
    threads: int | None = None
    own: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        check_fields(
            self,
            random_rows=whole(0, MANY),
            seed=whole(0),
            batch_size=BATCH_SIZE,
            threads=optional(THREADS),
        )

    @property
    def engine_options(self) -> EngineOptions:
        """The options of every engine."""
        return EngineOptions(threads=self.threads, max_batch=self.batch_size, own=self.own)


@dataclass(frozen=True)
class Report:
    """What `validate` found; plain data, ready for JSON.

    Attributes:
        bundle: the bundle's folder.
        runtimes: what really ran, by the run's name.
        images: how many images were compared.
        failed: images that could not be read, with their reasons.
        pairs: every pair on every kind of input.
        accuracies: one per run if there were labels.
        warnings: what the user should know of the bundle, and of how the runs run.
    """

    bundle: str
    runtimes: dict[str, RuntimeInfo]
    images: int
    failed: tuple[tuple[str, str], ...]
    pairs: tuple[PairReport, ...]
    accuracies: tuple[Accuracy, ...] = field(default=())
    warnings: tuple[str, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Whether every pair is within its tolerance."""
        return not any(pair.misses for pair in self.pairs)


def validate(
    bundle: ModelBundle,
    options: ValidateOptions,
    on_progress: OnLine = nothing,
    on_warning: OnLine = nothing,
) -> Report:
    """Give the same inputs to every run and compare the results.

    Args:
        bundle: the bundle; each run uses the artifact that predictions would use.
        options: what to compare.
        on_progress: called with a line at each long step, and after each batch of images.
        on_warning: called with each thing the user should know, but for the bundle's own notes.

    Raises:
        ConfigError: there is nothing to compare, or the bundle does not say how to preprocess the
            images, or labels are given for a model of a single score.
        BundleError: an artifact is missing, cannot be loaded, or does not take the images.
        EngineError: an engine or precision is not available here.
        InputError: images were given and none can be read, or a label is none of the classes.
    """
    if len(options.runs) == 1 and options.labels is None:
        raise ConfigError(
            f"{options.runs[0].name} alone has nothing to be compared with; name another run, "
            "such as paddle,onnxruntime, or give --labels to measure its accuracy"
        )
    ops = bundle.preprocess
    warnings = [] if ops is None else list(bundle.feed_notes(ops))
    with contextlib.ExitStack() as stack:
        on_progress(f"loading {', '.join(run.name for run in options.runs)}")
        opened = open_runs(bundle, options, stack)
        engines = {name: each.engine for name, each in opened.items()}
        sources = {name: each.source for name, each in opened.items()}
        for name, engine in engines.items():
            warnings += [f"{name}: {warning}" for warning in engine.warnings]
        for warning in warnings:
            on_warning(warning)
        if options.labels is not None:
            _check_has_classes(bundle, engines)
        names, rows, found, failed = _on_images(bundle, engines, options, on_progress)
        pairs = []
        if names:
            on_images = Answers("images", names, rows, found)
            pairs += compare_pairs(on_images, options.runs, engines, sources, options.batch_size)
        if options.random_rows:
            on_progress(f"{options.random_rows} random inputs")
            on_random = _on_random(bundle, engines, options)
            pairs += compare_pairs(on_random, options.runs, engines, sources, options.batch_size)
    accuracies: tuple[Accuracy, ...] = ()
    if options.labels is not None:
        right = dict(zip((f.name for f in options.images), options.labels, strict=True))
        kept = np.array([right[name] for name in names])
        _check_classes(names, kept, found)
        accuracies = tuple(measure_accuracy(name, rows, kept) for name, rows in found.items())
    runtimes = {name: engine.runtime for name, engine in engines.items()}
    told = (*bundle.notes, *warnings)
    return Report(str(bundle.place), runtimes, len(names), failed, tuple(pairs), accuracies, told)


def open_runs(
    bundle: ModelBundle, options: ValidateOptions, stack: contextlib.ExitStack
) -> dict[str, OpenedRun]:
    """Load the model of every run, by the run's name, for the images or else for any input.

    Args:
        bundle: the bundle.
        options: what to compare.
        stack: closes the engines.

    Raises:
        HGDeployError: as `open_run`; or the bundle does not say how to preprocess the images.
    """
    fed = Preprocessor(bundle.own_preprocess()) if options.images else None
    opened = {}
    for run in options.runs:
        one = open_run(bundle, run, options.engine_options, fed)
        stack.callback(one.engine.close)
        opened[run.name] = one
    return opened


def _check_has_classes(bundle: ModelBundle, engines: Mapping[str, Engine]) -> None:
    if any(class_count(engine.outputs[0].shape) == 1 for engine in engines.values()):
        raise ConfigError(
            f"the model in {bundle.place} gives one score for each image and chooses no class, so "
            "there is no accuracy on labels; leave --labels out"
        )


def _check_classes(
    names: Sequence[str], labels: NDArray[Any], found: Mapping[str, NDArray[Any]]
) -> None:
    classes = min(rows.shape[1] for rows in found.values())
    for name, label in zip(names, labels, strict=True):
        if label >= classes:
            raise InputError(
                f"{name} has class id {label}, but the model has {classes} classes (ids 0 to "
                f"{classes - 1})"
            )


def _on_images(
    bundle: ModelBundle,
    engines: Mapping[str, Engine],
    options: ValidateOptions,
    on_progress: OnLine,
) -> tuple[list[str], NDArray[Any], dict[str, NDArray[Any]], tuple[tuple[str, str], ...]]:
    """Return the images' names, the first ones, each run's rows for them, and those that failed."""
    if not options.images:
        return [], np.empty(0), {}, ()
    reader = ImageReader(bundle.own_preprocess())
    batch = common_batch_size(list(engines.values()), options.batch_size)
    failed: list[tuple[str, str]] = []
    names: list[str] = []
    first: list[NDArray[Any]] = []
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in engines}
    for chunk_names, rows in read_batches(reader, options.images, batch, failed):
        try:
            for engine in engines.values():
                check_image(engine.inputs[0], rows[0])
        except ImageError as error:
            failed += [(name, str(error)) for name in chunk_names]
            continue
        held = sum(map(len, first))
        same = not first or rows.shape[1:] == first[0].shape[1:]
        if held == len(names) and held < NOISE_ROWS and same:
            first.append(rows.copy())
        names += chunk_names
        for name, engine in engines.items():
            found[name].append(infer_rows(engine, rows))
        on_progress(f"{len(names) + len(failed)} of {len(options.images)} images")
    if not names:
        path, reason = failed[0]
        raise InputError(f"none of {len(failed)} images can be read; {path}: {reason}")
    answers = {name: np.concatenate(rows) for name, rows in found.items()}
    return names, np.concatenate(first), answers, tuple(failed)


def random_inputs(
    bundle: ModelBundle, engines: Mapping[str, Engine], options: ValidateOptions
) -> NDArray[Any]:
    """Return the random inputs of all runs."""
    return random_rows(common_input(engines), bundle, options.random_rows, options.seed)


def _on_random(
    bundle: ModelBundle, engines: Mapping[str, Engine], options: ValidateOptions
) -> Answers:
    rows = random_inputs(bundle, engines, options)
    batch = common_batch_size(list(engines.values()), options.batch_size)
    found = {name: infer_in_batches(engine, rows, batch) for name, engine in engines.items()}
    names = [f"random {i}" for i in range(options.random_rows)]
    return Answers("random", names, rows, found)
