# SPDX-License-Identifier: Apache-2.0
"""What a run of `hgdeploy predict` or `predict_cls.py` is to do, and the files that it touches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.terminal import say, warn
from hgdeploy.system.files import writing

if TYPE_CHECKING:
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.engines.auto.saved import Saved
    from hgdeploy.images.find import ImageFile
    from hgdeploy.paddleclas.config import PredictConfig
    from hgdeploy.results.file import OnChange
    from hgdeploy.results.writers import Writer


@dataclass(frozen=True)
class PredictJob:
    """What to classify, how, and where the results go.

    Attributes:
        bundle: the model's folder.
        inputs: files, folders, globs or text lists.
        settings: how to load and run the bundle.
        saved: the choice of `--engine auto` that this is; None where it is not.
        output: the results file; None for lines on stdout.
        resume: how to continue an earlier run in `output`, see `ResultsFile.begin`; None for a new
            run.
        failures: the list of failed images; None for no list.
        report: the HTML page about the run; None for no page.
        workers: threads; None for as many as make it faster.
        ray: where to run with Ray, see `ray_cluster`; None to run in this process.
        copies: the folder into which copies of the images are sorted by class; None for no copies.
        config: the config that all this comes from; None where there is none.
        log: the file that `finish` adds its lines to; None where there is none.
        finish: called with the classifier after the last image.
        lines: makes the writer of lines to stdout; None for that of PaddleClas's predict_cls.py.
    """

    bundle: Path
    inputs: Sequence[str]
    settings: ClassifierSettings
    saved: Saved | None = None
    output: Path | None = None
    resume: OnChange | None = None
    failures: Path | None = None
    report: Path | None = None
    workers: int | None = None
    ray: str | None = None
    copies: Path | None = None
    config: Path | None = None
    log: Path | None = None
    finish: Callable[[Classifier], None] = lambda _: None
    lines: Callable[[TextIO], Writer] | None = None


def config_job(config: PredictConfig, path: Path | None) -> PredictJob:
    """Return the run that a PaddleClas config describes, and tell its warnings.

    Args:
        config: what it decided.
        path: its file; None where there is none.
    """
    for note in config.notes:
        say(note)
    for warning in config.warnings:
        warn(warning)

    def report_times(classifier: Classifier) -> None:
        if config.benchmark:
            _report_times(classifier, config.benchmark_log)

    return PredictJob(
        config.bundle,
        config.inputs,
        config.settings,
        config.saved,
        copies=config.copies,
        config=path,
        log=config.benchmark_log if config.benchmark else None,
        finish=report_times,
    )


def _report_times(classifier: Classifier, log: Path | None) -> None:
    """Report the mean time of each stage, and what really ran."""
    from hgdeploy.classify.settings import STAGES

    times, runtime = classifier.times, classifier.engine.runtime
    stages = {name: 1000 * getattr(times, name) / max(times.images, 1) for name in STAGES}
    means = ", ".join(f"{name} {value:.2f} ms" for name, value in stages.items())
    ran = f"{runtime.engine} {runtime.version} {runtime.precision} on {runtime.device}"
    line = (
        f"benchmark: {times.images} images, mean per image: {means}; "
        f"{ran} ({', '.join(runtime.providers)})"
    )
    say(line)
    if log is not None:
        with writing(log), log.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def check_files(job: PredictJob, files: Sequence[ImageFile]) -> None:
    """Refuse outputs that are one file, or that are what the run reads.

    Args:
        job: the run.
        files: the images that its inputs name.

    Raises:
        ConfigError: two of them are one file; the message names both.
    """
    from hgdeploy.results.outputs import check_apart
    from hgdeploy.results.rows_file import results_files
    from hgdeploy.results.writers import failures_files

    outputs: dict[str, Sequence[Path]] = {}
    if job.output is not None:
        outputs["--output"] = results_files(job.output)
    if job.failures is not None:
        outputs["--failures"] = failures_files(job.failures)
    if job.report is not None:
        outputs["--report"] = (job.report,)
    if job.log is not None:
        outputs["Global.save_log_path"] = (job.log,)
    check_apart(outputs, _read_files(job, files))


def _read_files(job: PredictJob, files: Sequence[ImageFile]) -> Iterator[tuple[str, str | Path]]:
    """Yield what the run reads: what it is called in an error, and where it lies."""
    from hgdeploy.bundle.model_files import files_of_models
    from hgdeploy.results.writers import failures_files

    for one in job.inputs:
        yield "an input", one
    for file in files:
        yield "an image of this run", file.place
    if job.config is not None:
        yield "the config", job.config
    for path in files_of_models(job.bundle):
        yield "a file of the model", path
    for path in job.bundle.glob("*.txt"):  # labels, unless it is what an earlier run left
        if not failures_files(path)[1].exists():
            yield "a file of the model", path
