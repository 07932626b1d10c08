# SPDX-License-Identifier: Apache-2.0
"""Several engines, the same inputs, a verdict.

Real images go through the real preprocessing once and then through every engine; seeded random
inputs follow, which reach corners that photographs do not. Every pair of runs is compared; with
labels the accuracy of every run is told as well.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.compare import Comparison, compare, top_classes
from hgdeploy.engines import (
    ENGINES,
    Engine,
    RuntimeInfo,
    TensorSpec,
    engine_module,
    image_input,
    infer_rows,
    load_engine,
)
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import (
    BundleError,
    ConfigError,
    ImageError,
    InputError,
    ValidationError,
    nearest,
)
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import ImageFile
from hgdeploy.transforms.preprocess import Preprocessor

_WORST = 5


@dataclass(frozen=True)
class Tolerance:
    """How far a candidate may be from its reference; the limits are inclusive.

    Attributes:
        max_abs: of the absolute difference of two probabilities.
        max_log: of the difference of their logarithms (see `compare.LOG_FLOOR`).
        min_top1: of the share of equal best classes; asked on real images only.
        max_sum_error: of a row's distance from summing to 1.
    """

    max_abs: float
    max_log: float
    min_top1: float
    max_sum_error: float


# About ten times what was measured on EfficientNetLite0 and PP-HGNet (docs/validation.md has the
# figures): a library's update may move the last digits, a wrong conversion moves the first.
TOLERANCES: Mapping[str, Tolerance] = {
    "fp32": Tolerance(1e-5, 1e-4, 0.99, 1e-4),
    "fp16": Tolerance(2e-2, math.inf, 0.98, 1e-2),
    "bf16": Tolerance(0.15, math.inf, 0.95, 2e-2),
    "int8": Tolerance(0.5, math.inf, 0.95, 1e-2),
}


_COARSENESS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Run:
    """One engine at one precision on one device.

    Attributes:
        engine: the engine's name.
        precision: the precision's name.
        device: `cpu` or `gpu:N`.
    """

    engine: str
    precision: str
    device: str = "cpu"

    @property
    def name(self) -> str:
        """`engine` for fp32 on the CPU, else with `:precision`, `@device` or both."""
        precision = "" if self.precision == "fp32" else f":{self.precision}"
        return self.engine + precision + ("" if self.device == "cpu" else f"@{self.device}")


@dataclass(frozen=True)
class ValidateOptions:
    """What to compare, and on what.

    Attributes:
        runs: at least one; the first is the reference in the reports of its pairs.
        images: real images; may be empty.
        labels: the right class of each image, in the same order; None for no accuracy.
        random_rows: how many random inputs.
        seed: of the random inputs.
        batch_size: rows an inference takes, where the model leaves it open.
        threads: CPU threads; None for all.
    """

    runs: tuple[Run, ...]
    images: tuple[ImageFile, ...] = ()
    labels: tuple[int, ...] | None = None
    random_rows: int = 16
    seed: int = 0
    batch_size: int = 8
    threads: int | None = None


@dataclass(frozen=True)
class Disagreement:
    """The two answers for one of the inputs that differ most."""

    name: str
    max_abs: float
    reference_class: int
    reference_score: float
    candidate_class: int
    candidate_score: float


@dataclass(frozen=True)
class PairReport:
    """One pair of runs on one kind of inputs.

    Attributes:
        reference: name of the first run.
        candidate: name of the second run.
        inputs: `images` or `random`.
        comparison: the figures.
        tolerance: what was allowed.
        misses: each figure that is out of tolerance, in words; empty where the pair passes.
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
class Accuracy:
    """A run's accuracy on labelled images, with 95 % Wilson intervals (low, high)."""

    run: str
    rows: int
    top1: float
    top1_interval: tuple[float, float]
    top5: float
    top5_interval: tuple[float, float]


@dataclass(frozen=True)
class Report:
    """What `validate` found; plain data, ready for JSON.

    Attributes:
        bundle: the bundle's folder.
        runtimes: what really ran, by run.
        images: how many images were compared.
        failed: images that could not be read, with their reasons.
        pairs: every pair on every kind of inputs.
        accuracies: one a run where there were labels.
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


def parse_runs(engines: str, precision: str = "fp32") -> tuple[Run, ...]:
    """Read a list such as `paddle,onnxruntime,openvino:bf16,tensorrt:fp16@gpu:0`.

    The first engine is the reference and runs in fp32 unless it says otherwise; the others run in
    `precision` unless they say otherwise; and all on the CPU unless they say otherwise.

    Raises:
        ConfigError: an unknown engine or precision, or one that stands twice.
    """
    runs: list[Run] = []
    for item in engines.split(","):
        what, _, device = item.strip().partition("@")
        name, _, own = what.partition(":")
        if name not in ENGINES:
            raise ConfigError(f"--engines {item!r}: unknown engine, {nearest(name, ENGINES)}")
        run = Run(name, own or (precision if runs else "fp32"), device or "cpu")
        if run.precision not in TOLERANCES:
            raise ConfigError(
                f"--engines {item!r}: unknown precision, {nearest(run.precision, TOLERANCES)}"
            )
        if run in runs:
            raise ConfigError(f"--engines {engines!r} names {run.name} twice")
        runs.append(run)
    return tuple(runs)


def validate(
    bundle: ModelBundle, options: ValidateOptions, progress: Callable[[str], None] = lambda _: None
) -> Report:
    """Run the same inputs through every run and compare.

    Args:
        bundle: the bundle; each run uses the artifact that predictions would use.
        options: what to compare.
        progress: takes a line now and then.

    Raises:
        ConfigError: the bundle does not say how to preprocess the images.
        BundleError: an artifact is missing or cannot be loaded.
        EngineError: an engine or precision is not available here.
        InputError: images were given and none can be read.
    """
    with contextlib.ExitStack() as stack:
        engines = {}
        for run in options.runs:
            engines[run.name] = load_run(bundle, run, options)
            stack.callback(engines[run.name].close)
        names, found, failed = _on_images(bundle, engines, options, progress)
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
        accuracies = tuple(_accuracy(name, rows, kept) for name, rows in found.items())
    runtimes = {name: engine.runtime for name, engine in engines.items()}
    return Report(str(bundle.root), runtimes, len(names), failed, tuple(pairs), accuracies)


def verify_conversion(source: Path, target: Path) -> dict[str, Any]:
    """Compare a Paddle model and the ONNX file made of it, in fp32, on seeded random inputs.

    Args:
        source: the Paddle program, with its parameters beside it.
        target: the ONNX file.

    Returns:
        The figures, ready for a sidecar.

    Raises:
        ValidationError: they differ by more than fp32 allows; the figures are in the message.
    """
    return _verify(("paddle", source), ("onnxruntime", target), "fp32", None)


def verify_precision(
    precision: str, rows: Sequence[NDArray[Any]]
) -> Callable[[Path, Path], dict[str, Any]]:
    """Return a function that compares an fp32 ONNX file with a variant of it in `precision`.

    Args:
        precision: whose tolerance holds.
        rows: preprocessed images (1, 3, H, W); none for seeded random inputs.

    Returns:
        A function like `verify_conversion`.
    """
    given = np.concatenate(rows) if rows else None
    return lambda source, target: _verify(
        ("onnxruntime", source), ("onnxruntime", target), precision, given
    )


def _verify(
    a: tuple[str, Path], b: tuple[str, Path], precision: str, rows: NDArray[Any] | None
) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        engines = []
        for name, path in (a, b):
            # Unoptimised: ONNX Runtime would take out the roundings that stand for bf16.
            options = EngineOptions(graph_optimization=name == "paddle")
            engines.append(load_engine(name, path, options))
            stack.callback(engines[-1].close)
        inputs = "random" if rows is None else "images"
        if rows is None:
            rows = random_rows(engines[0].inputs[0], None, 4, 0)
        batch = _batch_of(engines, 3)
        reference, candidate = (_outputs(engine, rows, batch) for engine in engines)
        version = engines[0].runtime.version
    comparison = compare(reference, candidate)
    misses = tolerance_misses(comparison, TOLERANCES[precision], inputs)
    if misses:
        raise ValidationError(
            f"{b[1].name} does not compute what {a[1]} does: {'; '.join(misses)}; "
            "nothing was written"
        )
    return {"against": f"{a[0]} {version}", "inputs": inputs, **dataclasses.asdict(comparison)}


def load_run(bundle: ModelBundle, run: Run, options: ValidateOptions) -> Engine:
    """Load the artifact that predictions would use for `run`.

    Raises:
        BundleError: it is missing, cannot be loaded, or is no image classifier.
        EngineError: the engine or precision is not available here.
    """
    source = bundle.find(engine_module(run.engine).artifact_names(run.precision))
    asked = EngineOptions(
        device=run.device,
        precision=run.precision,
        threads=options.threads,
        max_batch=options.batch_size,
    )
    engine = load_engine(run.engine, source, asked)
    try:
        image_input(engine, source)
    except BundleError:
        engine.close()
        raise
    return engine


def _batch_of(engines: Sequence[Engine], wanted: int) -> int:
    """Return the batch all can take: the smallest fixed one, else what is wanted."""
    fixed = [engine.inputs[0].shape[0] for engine in engines if engine.inputs[0].shape[0] > 0]
    return min([wanted, *fixed])


def _outputs(engine: Engine, rows: NDArray[Any], batch: int) -> NDArray[Any]:
    parts = [infer_rows(engine, rows[i : i + batch]) for i in range(0, len(rows), batch)]
    return np.concatenate(parts)


def _on_images(
    bundle: ModelBundle,
    engines: Mapping[str, Engine],
    options: ValidateOptions,
    progress: Callable[[str], None],
) -> tuple[list[str], dict[str, NDArray[Any]], tuple[tuple[str, str], ...]]:
    """Return the images' names, each run's rows for them, and the images that failed."""
    if not options.images:
        return [], {}, ()
    if bundle.preprocess is None:
        raise ConfigError(f"{bundle.root} has no inference.yml, so images cannot be preprocessed")
    preprocessor = Preprocessor(bundle.preprocess)
    batch = _batch_of(list(engines.values()), options.batch_size)
    failed: list[tuple[str, str]] = []
    names: list[str] = []
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in engines}
    for chunk_names, rows in _batches(options.images, preprocessor, batch, failed):
        names += chunk_names
        for name, engine in engines.items():
            parts[name].append(infer_rows(engine, rows))
        progress(f"{len(names) + len(failed)} of {len(options.images)} images")
    if not names:
        path, reason = failed[0]
        raise InputError(f"none of {len(failed)} images can be read; {path}: {reason}")
    return names, {name: np.concatenate(rows) for name, rows in parts.items()}, tuple(failed)


def _batches(
    files: Sequence[ImageFile],
    preprocessor: Preprocessor,
    batch: int,
    failed: list[tuple[str, str]],
) -> Iterator[tuple[list[str], NDArray[Any]]]:
    """Yield names and stacked tensors; images that cannot be read are added to `failed`."""
    names: list[str] = []
    tensors: list[NDArray[Any]] = []
    for file in files:
        try:
            tensor = preprocessor(read_image(file.path))
        except ImageError as error:
            failed.append((file.name, str(error)))
            continue
        if tensors and tensor.shape != tensors[0].shape:
            yield names, np.stack(tensors)
            names, tensors = [], []
        names.append(file.name)
        tensors.append(tensor)
        if len(tensors) == batch:
            yield names, np.stack(tensors)
            names, tensors = [], []
    if tensors:
        yield names, np.stack(tensors)


def random_rows(
    spec: TensorSpec, bundle: ModelBundle | None, count: int, seed: int
) -> NDArray[Any]:
    """Return standard normal rows, which is what normalised images look like.

    Args:
        spec: the model's input.
        bundle: tells the image size where the model leaves it open; else it is 224.
        count: how many rows.
        seed: the same seed gives the same rows.
    """
    size = None
    if bundle is not None and bundle.preprocess is not None:
        size = Preprocessor(bundle.preprocess).output_size
    height, width = size or (224, 224)
    shape = [s if s > 0 else d for s, d in zip(spec.shape[1:], (3, height, width), strict=True)]
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(spec.dtype)


def _on_random(
    bundle: ModelBundle, engines: Mapping[str, Engine], options: ValidateOptions
) -> dict[str, NDArray[Any]]:
    if not options.random_rows:
        return {}
    loaded = list(engines.values())
    rows = random_rows(loaded[0].inputs[0], bundle, options.random_rows, options.seed)
    batch = _batch_of(loaded, options.batch_size)
    return {name: _outputs(engine, rows, batch) for name, engine in engines.items()}


def _pair(
    a: Run, b: Run, inputs: str, found: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> PairReport:
    reference, candidate = found[a.name], found[b.name]
    if reference.shape != candidate.shape:
        raise ValidationError(
            f"{a.name} gives {reference.shape[1]} classes and {b.name} {candidate.shape[1]}: "
            "the artifacts are not of one model"
        )
    comparison = compare(reference, candidate)
    tolerance = TOLERANCES[max(a.precision, b.precision, key=_COARSENESS.index)]
    misses = tuple(tolerance_misses(comparison, tolerance, inputs))
    return PairReport(
        a.name, b.name, inputs, comparison, tolerance, misses, _worst(reference, candidate, names)
    )


def tolerance_misses(found: Comparison, allowed: Tolerance, inputs: str) -> list[str]:
    """Say each figure that is out of tolerance."""
    if not found.finite:
        return ["an output has NaN or infinity"]
    limits = (
        ("largest difference", found.max_abs, allowed.max_abs),
        ("largest log difference", found.max_log, allowed.max_log),
        ("distance of a row from summing to 1", found.max_sum_error, allowed.max_sum_error),
    )
    misses = [f"{name} {value:.2g} > {limit:g}" for name, value, limit in limits if value > limit]
    if inputs == "images" and found.top1_agreement < allowed.min_top1:
        misses.append(f"top-1 agreement {found.top1_agreement:.4f} < {allowed.min_top1:g}")
    return misses


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


def _accuracy(run: str, rows: NDArray[Any], labels: NDArray[Any]) -> Accuracy:
    best = top_classes(rows, 5)
    first = int((best[:, 0] == labels).sum())
    among = int((best == labels[:, None]).any(axis=1).sum())
    count = len(labels)
    return Accuracy(
        run,
        count,
        first / count,
        wilson_interval(first, count),
        among / count,
        wilson_interval(among, count),
    )


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a share (E. B. Wilson, 1927).

    Args:
        successes: 0 to `trials`.
        trials: at least 1.
        z: normal quantile; the default gives 95 %.
    """
    share = successes / trials
    centre = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
