# SPDX-License-Identifier: Apache-2.0
"""The comparison of every pair of runs that got the same inputs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines import Engine
from hgdeploy.engines.ending import read_ending
from hgdeploy.engines.run import Run
from hgdeploy.errors import ValidationError
from hgdeploy.validation.compare import Comparison, Kind, compare, kind_of, top_classes
from hgdeploy.validation.inputs import common_batch_size
from hgdeploy.validation.noise import Noise, rounding_noise, rounding_text
from hgdeploy.validation.tolerance import (
    COARSENESS,
    Tolerance,
    tolerance_for,
    tolerance_misses,
    too_coarse,
)

_WORST = 5


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
        scores: what the scores are; see `compare.Kind`.
        noise: what rounding alone does to the reference's scores; None if that is not known.
        times_noise: how many times that the largest difference is; None if that is not known.
        tolerance: what was allowed.
        misses: each figure that is out of tolerance, as text, and why if rounding
            explains it; empty if the pair passes.
        worst: the inputs with the largest differences, worst first.
    """

    reference: str
    candidate: str
    inputs: str
    comparison: Comparison
    scores: Kind
    noise: Noise | None
    times_noise: float | None
    tolerance: Tolerance
    misses: tuple[str, ...]
    worst: tuple[Disagreement, ...]


class Answers(NamedTuple):
    """What every run answers to the same inputs.

    Attributes:
        inputs: `images` or `random`.
        names: what each input is called.
        rows: the first inputs, on which noise is measured.
        found: the scores by the run's name, (N, C).
    """

    inputs: str
    names: Sequence[str]
    rows: NDArray[Any]
    found: Mapping[str, NDArray[Any]]


def compare_pairs(
    answers: Answers,
    runs: Sequence[Run],
    engines: Mapping[str, Engine],
    sources: Mapping[str, Path],
    batch_size: int,
) -> list[PairReport]:
    """Compare every pair of runs, with the noise of the first run that is in fp32.

    Args:
        answers: what all runs answered.
        runs: the runs; the first is the reference.
        engines: the loaded models by the run's name.
        sources: their files.
        batch_size: rows per inference, if the models leave it open.

    Raises:
        ValidationError: two runs have different numbers of classes.
    """
    first = runs[0].name
    ending = read_ending(sources[first], engines[first].outputs[0].name)
    kind = kind_of(ending, answers.found[first])
    fp32 = next((run.name for run in runs if run.precision == "fp32"), None)
    batch = common_batch_size(list(engines.values()), batch_size)
    noises: dict[str, Noise | None] = {}
    pairs = []
    for a, b in itertools.combinations(runs, 2):
        precision = max(a.precision, b.precision, key=COARSENESS.index)
        if fp32 is not None and precision not in noises:
            noises[precision] = rounding_noise(
                engines[fp32], answers.rows, answers.found[fp32], kind, precision, batch
            )
        pairs.append(_pair(a, b, answers, kind, precision, noises.get(precision)))
    return pairs


def _pair(
    a: Run, b: Run, answers: Answers, kind: Kind, precision: str, noise: Noise | None
) -> PairReport:
    reference, candidate = answers.found[a.name], answers.found[b.name]
    if reference.shape != candidate.shape:
        raise ValidationError(
            f"{a.name} gives {reference.shape[1]} classes and {b.name} {candidate.shape[1]}, so "
            "the two were not made from the same model; convert the bundle again"
        )
    comparison = compare(reference, candidate, kind=kind)
    tolerance = tolerance_for(comparison, precision, noise, reference.dtype, candidate.dtype)
    misses = tolerance_misses(comparison, tolerance, answers.inputs)
    if misses and too_coarse(comparison, precision, noise):
        misses.append(f"{rounding_text(comparison, noise)}, for which {precision} is too coarse")
    return PairReport(
        a.name,
        b.name,
        answers.inputs,
        comparison,
        kind,
        noise,
        None if noise is None else noise.times(comparison),
        tolerance,
        tuple(misses),
        _worst(reference, candidate, answers.names),
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
