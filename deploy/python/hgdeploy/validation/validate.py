# SPDX-License-Identifier: Apache-2.0
"""Run the same inputs through several engines and decide whether they agree.

Real images go through the real preprocessing once and then through every engine; seeded random
inputs follow, which reach corners that photographs do not. Every pair of runs is compared; with
labels, the accuracy of every run is measured as well.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import Engine, RuntimeInfo, infer_rows
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import Run, open_run
from hgdeploy.errors import InputError, ValidationError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.reader import ImageReader, read_batches
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import BATCH_SIZE, MANY, THREADS, optional, whole
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.validation.accuracy import Accuracy, measure_accuracy
from hgdeploy.validation.compare import Comparison, compare, top_classes
from hgdeploy.validation.inputs import common_batch_size, infer_in_batches, random_rows
from hgdeploy.validation.tolerance import COARSENESS, TOLERANCES, Tolerance, tolerance_misses

_WORST = 5


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
    """

    runs: tuple[Run, ...]
    images: tuple[ImageFile, ...] = ()
    labels: tuple[int, ...] | None = None
    random_rows: int = 16
    seed: int = 0
    batch_size: int = 8
    threads: int | None = None

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
        return EngineOptions(threads=self.threads, max_batch=self.batch_size)


@dataclass(frozen=True)
class Disagreement:
    """The two results for one of the inputs on which two runs differ most."""

    name: str
    max_abs: float
    reference_class: int
    reference_score: float
    candidate_class: int
    candidate_score: float


@dataclass(frozen=True)
class PairReport:
    """One pair of runs on one kind of input.

    Attributes:
        reference: name of the first run.
        candidate: name of the second run.
        inputs: `images` or `random`.
        comparison: the figures.
        tolerance: what was allowed.
        misses: each figure that is out of tolerance, as text; empty if the pair passes.
        worst: the inputs with the largest differences, worst first.
    """

    reference: str
    candidate: str
    inputs: str
    comparison: Comparison
    tolerance: Tolerance
    misses: tuple[str, ...]
    worst: tuple[Disagreement, ...]


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
    """

    bundle: str
    runtimes: dict[str, RuntimeInfo]
    images: int
    failed: tuple[tuple[str, str], ...]
    pairs: tuple[PairReport, ...]
    accuracies: tuple[Accuracy, ...] = field(default=())

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
        on_progress: called with a line after each batch of images.
        on_warning: called with each thing the user should know of how a run runs.

    Raises:
        ConfigError: the bundle does not say how to preprocess the images.
        BundleError: an artifact is missing or cannot be loaded.
        EngineError: an engine or precision is not available here.
        InputError: images were given and none can be read.
    """
    with contextlib.ExitStack() as stack:
        engines = {}
        for run in options.runs:
            engines[run.name] = open_run(bundle, run, options.engine_options).engine
            stack.callback(engines[run.name].close)
            for warning in engines[run.name].warnings:
                on_warning(f"{run.name}: {warning}")
        names, found, failed = _on_images(bundle, engines, options, on_progress)
        random = _on_random(bundle, engines, options)
    pairs = []
    for a, b in itertools.combinations(options.runs, 2):
        if names:
            pairs.append(_pair(a, b, "images", found, names))
        if options.random_rows:
            labels = [f"random {i}" for i in range(options.random_rows)]
            pairs.append(_pair(a, b, "random", random, labels))
    accuracies: tuple[Accuracy, ...] = ()
    if options.labels is not None:
        right = dict(zip((f.name for f in options.images), options.labels, strict=True))
        kept = np.array([right[name] for name in names])
        accuracies = tuple(measure_accuracy(name, rows, kept) for name, rows in found.items())
    runtimes = {name: engine.runtime for name, engine in engines.items()}
    return Report(str(bundle.root), runtimes, len(names), failed, tuple(pairs), accuracies)


def _on_images(
    bundle: ModelBundle,
    engines: Mapping[str, Engine],
    options: ValidateOptions,
    on_progress: OnLine,
) -> tuple[list[str], dict[str, NDArray[Any]], tuple[tuple[str, str], ...]]:
    """Return the images' names, each run's rows for them, and the images that failed."""
    if not options.images:
        return [], {}, ()
    reader = ImageReader(bundle.own_preprocess())
    batch = common_batch_size(list(engines.values()), options.batch_size)
    failed: list[tuple[str, str]] = []
    names: list[str] = []
    found: dict[str, list[NDArray[Any]]] = {name: [] for name in engines}
    for chunk_names, rows in read_batches(reader, options.images, batch, failed):
        names += chunk_names
        for name, engine in engines.items():
            found[name].append(infer_rows(engine, rows))
        on_progress(f"{len(names) + len(failed)} of {len(options.images)} images")
    if not names:
        path, reason = failed[0]
        raise InputError(f"none of {len(failed)} images can be read; {path}: {reason}")
    return names, {name: np.concatenate(rows) for name, rows in found.items()}, tuple(failed)


def _on_random(
    bundle: ModelBundle, engines: Mapping[str, Engine], options: ValidateOptions
) -> dict[str, NDArray[Any]]:
    if not options.random_rows:
        return {}
    loaded = list(engines.values())
    rows = random_rows(loaded[0].inputs[0], bundle, options.random_rows, options.seed)
    batch = common_batch_size(loaded, options.batch_size)
    return {name: infer_in_batches(engine, rows, batch) for name, engine in engines.items()}


def _pair(
    a: Run, b: Run, inputs: str, found: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> PairReport:
    reference, candidate = found[a.name], found[b.name]
    if reference.shape != candidate.shape:
        raise ValidationError(
            f"{a.name} gives {reference.shape[1]} classes and {b.name} {candidate.shape[1]}, so "
            "the two were not made from the same model; convert the bundle again"
        )
    comparison = compare(reference, candidate)
    tolerance = TOLERANCES[max(a.precision, b.precision, key=COARSENESS.index)]
    misses = tuple(tolerance_misses(comparison, tolerance, inputs))
    return PairReport(
        a.name, b.name, inputs, comparison, tolerance, misses, _worst(reference, candidate, names)
    )


def _worst(
    reference: NDArray[Any], candidate: NDArray[Any], names: Sequence[str]
) -> tuple[Disagreement, ...]:
    gaps = np.nan_to_num(np.abs(reference - candidate).max(axis=1), nan=np.inf)
    best_a, best_b = top_classes(reference, 1)[:, 0], top_classes(candidate, 1)[:, 0]
    return tuple(
        Disagreement(
            names[i],
            float(gaps[i]),
            int(best_a[i]),
            float(reference[i, best_a[i]]),
            int(best_b[i]),
            float(candidate[i, best_b[i]]),
        )
        for i in np.argsort(-gaps, kind="stable")[:_WORST]
    )
