# SPDX-License-Identifier: Apache-2.0
"""Which ways to run a bundle load here, and give the right answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from hgdeploy.benchmark.recommend.ways import NO_IMAGES, Evidence, RecommendOptions
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import ONNX_FILE, PADDLE_PROGRAMS, made_by
from hgdeploy.engines import ENGINES, engine_module
from hgdeploy.engines.options import CPU_PRECISIONS, PRECISIONS
from hgdeploy.engines.run import Run, artifact_names, open_run, readable_runs
from hgdeploy.errors import ConfigError, EngineError, HGDeployError
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.system.progress import OnLine
from hgdeploy.validation.accuracy import share_interval
from hgdeploy.validation.pairs import PairReport
from hgdeploy.validation.validate import ValidateOptions, validate

# Random inputs on which fp32 is compared with fp32, so that a wrong file is never the fastest.
_RANDOM_ROWS = 4
_GPU = "gpu:0"


class Agreeing(NamedTuple):
    """What loads here and gives the right answers.

    Attributes:
        runs: those, each with its agreement; None without images.
        reference: what they were compared with: the first in fp32.
        images: how many images they were compared on.
        left_out: the others, with the reasons.
    """

    runs: list[tuple[Run, float | None]]
    reference: Run
    images: int
    left_out: list[Evidence]


def agreeing_runs(bundle: ModelBundle, options: RecommendOptions, on_progress: OnLine) -> Agreeing:
    """Find what loads here and agrees with the first engine in fp32.

    On images, all that `hgdeploy validate` checks must be within tolerance, and the best classes
    must agree; on random inputs, fp32 must be within its tolerance.

    Args:
        bundle: the bundle.
        options: the images, and how many of them must agree.
        on_progress: called with one line at a time.

    Raises:
        BundleError: there is no model in the folder.
        ConfigError: no engine can run the bundle in fp32 on this machine.
    """
    check_has_model(bundle)
    runs, left_out = _available(bundle, options)
    ordered = tuple(sorted(runs, key=lambda run: run.precision != "fp32"))
    reference, rows, pairs = ordered[0], 0, list[PairReport]()
    if len(ordered) > 1:
        how = f"{len(options.images)} images" if options.images else "random inputs"
        on_progress(f"comparing {len(runs)} runs on {how}")
        compared = ValidateOptions(ordered, options.images, random_rows=_RANDOM_ROWS)
        report = validate(bundle, compared)
        rows = report.images
        pairs = [pair for pair in report.pairs if pair.reference == reference.name]
    kept: list[tuple[Run, float | None]] = []
    for run in runs:
        own = [pair for pair in pairs if pair.candidate == run.name]
        share = next((p.comparison.top1_agreement for p in own if p.inputs == "images"), None)
        share = 1.0 if run == reference and options.images else share
        reason = _disagreement(own, run.precision == "fp32")
        if share is not None and rows and share_interval(share, rows)[1] < options.min_agreement:
            reason = f"agreement below {options.min_agreement:g}"
        if reason:
            left_out.append(Evidence(run, share, None, reason))
        else:
            kept.append((run, share))
    return Agreeing(kept, reference, rows, left_out)


def check_has_model(bundle: ModelBundle) -> None:
    """Refuse a folder without a model, before anything is made or loaded.

    Raises:
        BundleError: there is none; the message lists what there is.
    """
    if not readable_runs(bundle):
        bundle.find((*PADDLE_PROGRAMS, ONNX_FILE))


def _available(bundle: ModelBundle, options: RecommendOptions) -> tuple[list[Run], list[Evidence]]:
    """Load every engine and precision; return those that load, and why the others do not."""
    runs: list[Run] = []
    left_out: list[Evidence] = []
    for run in _candidates(left_out.append):
        if run.precision != "fp32" and not options.images:
            left_out.append(Evidence(run, None, None, NO_IMAGES))
            continue
        names = artifact_names(run)
        if not any(bundle.path(name).is_file() for name in names):
            if run.precision == "fp32" or made_by(names[0]):
                left_out.append(Evidence(run, None, None, _no_file(names)))
            continue
        try:
            open_run(bundle, run).engine.close()
            runs.append(run)
        except HGDeployError as error:
            left_out.append(Evidence(run, None, None, str(error)))
    if not any(run.precision == "fp32" for run in runs):
        first = next(one for one in left_out if one.run.precision == "fp32")
        raise ConfigError(f"{bundle.root} does not run in fp32 on this machine: {first.reason}")
    return runs, left_out


def _no_file(names: Sequence[str]) -> str:
    how = made_by(names[0])
    return f"there is no {' or '.join(names)}" + (f", which {how} makes" if how else "")


def _candidates(leave_out: Callable[[Evidence], None]) -> Iterator[Run]:
    """Yield every engine and precision on the CPU and on the first GPU of this machine."""
    for engine in ENGINES:
        try:
            found = engine_module(engine).capability()
        except EngineError as error:  # its library is installed, and does not load
            leave_out(Evidence(Run(engine), None, None, str(error)))
            continue
        if not found.devices:
            leave_out(Evidence(Run(engine), None, None, found.notes[0]))
        if "cpu" in found.devices:
            yield from (Run(engine, precision) for precision in CPU_PRECISIONS)
        if _GPU in found.devices and nvidia_gpus()[0]:
            yield from (Run(engine, precision, _GPU) for precision in PRECISIONS)


def _disagreement(pairs: Sequence[PairReport], exact: bool) -> str:
    """Return what is out of tolerance in a run's pairs with the reference; empty if nothing is.

    Args:
        pairs: the pairs.
        exact: the run is in fp32; others are not judged by random inputs, which nobody feeds them.
    """
    for pair in pairs:
        if pair.misses and (exact or pair.inputs == "images"):
            return f"differs from {pair.reference}: {pair.misses[0]}"
    return ""
