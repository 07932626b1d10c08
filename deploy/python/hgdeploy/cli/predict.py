# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy predict`, and the run that it shares with PaddleClas's `predict_cls.py`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgdeploy.cli.engine_flags import add_engine_flags, with_own_options
from hgdeploy.cli.predict_job import PredictJob, check_files, config_job
from hgdeploy.cli.progress import image_progress, told_if_slow
from hgdeploy.cli.streams import ReaderGoneError
from hgdeploy.cli.terminal import Verbs, interrupted_exit_code, refuse_without_effect, say, warn
from hgdeploy.errors import HGDeployError, OutputError
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import THREADS, optional
from hgdeploy.transforms.prediction import printable

if TYPE_CHECKING:
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.classify.summary import Summary
    from hgdeploy.images.find import ImageFile
    from hgdeploy.results.writers import FailuresWriter, Writer

_DEATHS = 2  # at one place: a run may be killed once for any reason
_SECONDS_APART = 3600.0  # only what kills is to fail, not what is slow


def add_predict(verbs: Verbs) -> None:
    """Add `hgdeploy predict`."""
    parser = verbs.add_parser("predict", help="classify images with a bundle")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="file, folder, glob or text list"
    )
    parser.add_argument(
        "-c",
        "--config",
        type=Path,
        help="PaddleClas YAML that says the rest; the bundle, the inputs and the options here win",
    )
    engines = (
        "paddle (default where it reads the bundle), onnxruntime, openvino, tensorrt, mnn, ncnn"
    )
    parser.add_argument("--engine", help=f"{engines}; or auto, what hgdeploy tune found")
    precisions = "fp32 (default, but PaddleSlim's int8 where it is there), tf32, fp16, bf16 or int8"
    parser.add_argument("--precision", help=precisions)
    parser.add_argument("--device", help="cpu (default) or gpu:N")
    add_engine_flags(parser)
    parser.add_argument(
        "--batch-size", type=int, help="images per inference (1; with --engine auto, as measured)"
    )
    parser.add_argument("--threads", type=int, help="CPU threads (default: all this process has)")
    parser.add_argument(
        "--topk", type=int, help="classes per image (default: what the bundle says)"
    )
    parser.add_argument(
        "--softmax", action="store_true", help="make probabilities of a model's logits"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="write a .jsonl, .csv or .parquet file instead of printing lines",
    )
    parser.add_argument(
        "--resume", action="store_true", help="continue an interrupted run with the same --output"
    )
    parser.add_argument(
        "--redo-changed",
        action="store_true",
        help="with --resume: classify images that have changed since again, instead of refusing",
    )
    parser.add_argument(
        "--failures",
        type=Path,
        help="list failed images in this .txt file, with the reasons in a file beside it",
    )
    parser.add_argument("--report", type=Path, help="write an HTML page about the run")
    parser.add_argument(
        "--fast-decode",
        action="store_true",
        help="decode JPEG files at a reduced scale: faster for large ones, slightly other pixels",
    )
    parser.add_argument(
        "--image-timeout",
        type=float,
        metavar="SECONDS",
        help="read images in a separate process, which may crash, and give each at most this long",
    )
    parser.add_argument(
        "--workers",
        type=int,
        help="threads that work on images (default: as many as make it faster)",
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="run on the machines of a Ray cluster: local, auto or HOST:PORT; see docs/ray.md",
    )
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace, out: TextIO) -> int:
    for flag, needs in (("resume", "output"), ("redo_changed", "resume")):
        if not getattr(arguments, needs):
            refuse_without_effect(arguments, [flag], f"without --{needs}")
    check("--workers", arguments.workers, optional(THREADS))
    if arguments.ray:
        instead = "with --ray; --threads sets the CPU threads of each worker"
        refuse_without_effect(arguments, ["workers"], instead)
    job = _described_job(arguments)
    job = dataclasses.replace(
        job,
        settings=_chosen_settings(arguments, job.settings),
        output=arguments.output,
        resume=("redo" if arguments.redo_changed else "refuse") if arguments.resume else None,
        failures=arguments.failures,
        report=arguments.report,
        workers=arguments.workers,
        ray=arguments.ray,
    )
    return run_job(job, out)


def _described_job(arguments: argparse.Namespace) -> PredictJob:
    """Return the run as the config describes it, or with the defaults where there is none."""
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.engines.auto.choose import Asked, choose
    from hgdeploy.engines.options import EngineOptions
    from hgdeploy.paddleclas.config import given_values, load_config

    if arguments.config is None:
        asked = Asked(arguments.engine, arguments.precision, arguments.device)
        run, saved = choose(arguments.bundle, asked, say)
        batch = 1 if saved is None else saved.batch
        settings = ClassifierSettings(run.engine, batch, run.options(EngineOptions()))
        return PredictJob(arguments.bundle, arguments.inputs, settings, saved=saved)
    given = {"inference_model_dir": str(arguments.bundle), "infer_imgs": list(arguments.inputs)}
    given |= given_values(arguments.engine, arguments.precision, arguments.device)
    return config_job(load_config(arguments.config, given=given), arguments.config)


def _chosen_settings(
    arguments: argparse.Namespace, settings: ClassifierSettings
) -> ClassifierSettings:
    """Return settings with the options that were given instead of their own."""

    def given(*names: str) -> dict[str, Any]:
        values = {name: getattr(arguments, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}

    settings = dataclasses.replace(settings, **given("batch_size"))
    options = dataclasses.replace(
        settings.options,
        max_batch=settings.batch_size,
        **given("device", "threads"),
    )
    return dataclasses.replace(
        settings,
        options=with_own_options(arguments, settings.engine, options),
        fast_decode=arguments.fast_decode,
        softmax=arguments.softmax,
        **given("topk", "image_timeout"),
    )


def run_job(job: PredictJob, out: TextIO) -> int:
    """Find the images, open the outputs, load the model, classify.

    In this order, most mistakes show before anything slow begins.

    Args:
        job: what to classify, how, and where the results go.
        out: the stream for results where `job.output` is None.

    Returns:
        The exit code.

    Raises:
        HGDeployError: the run cannot begin or go on; single images that fail are only counted.
    """
    from hgdeploy.classify.folder import classify_files
    from hgdeploy.classify.ray import classify_files_on_ray
    from hgdeploy.classify.ray_cluster import ray_cluster
    from hgdeploy.classify.summary import Summary
    from hgdeploy.images.find import find_images
    from hgdeploy.results.file import ResultsFile
    from hgdeploy.results.page import ReportWriter
    from hgdeploy.results.writers import FailuresWriter, LabelFolderWriter, LineWriter

    files: Sequence[ImageFile] = find_images(job.inputs, warn)
    check_files(job, files)
    summary = Summary(found=len(files))
    with contextlib.ExitStack() as stack:
        results = stack.enter_context(ResultsFile(job.output, warn)) if job.output else None
        failures = FailuresWriter(job.failures) if job.failures else None
        about: dict[str, str] = {}
        report = ReportWriter(job.report, about) if job.report else None
        copies = LabelFolderWriter(job.copies, files) if job.copies else None
        gathering = (failures, report, copies)
        others: list[Writer] = [writer for writer in gathering if writer is not None]
        for writer in others:
            stack.callback(writer.close)
        if job.ray is not None:
            stack.enter_context(ray_cluster(job.ray))
        classifier = stack.enter_context(load_classifier(job, len(files)))
        if results is not None or report is not None:
            about.update(classifier.fingerprint())
        if results is not None:
            plan = results.begin(files, about, job.resume)
            summary.take_earlier(plan.kept, plan.kept_failed)
            results.replay(others)
            files = plan.remaining
            if plan.killed >= _DEATHS and files and not (job.settings.image_timeout or job.ray):
                warn(_killed(plan.killed, files[0]))
                classifier.read_apart(_SECONDS_APART)
        stack.enter_context(_reader_of_stdout(needed=bool(others)))
        writers = [results or (job.lines or LineWriter)(out), *others]
        try:
            # Where result lines do not show it already.
            if results is not None or not sys.stdout.isatty():
                writers.append(stack.enter_context(image_progress(len(files))))
            if job.ray is not None:
                classify_files_on_ray(classifier, files, writers, warn, summary)
            else:
                classify_files(classifier, files, writers, warn, summary, job.workers)
            for writer in writers:
                writer.finish()
        except KeyboardInterrupt as interruption:
            say(f"interrupted: {results.progress() if results else _so_far(summary)}")
            return interrupted_exit_code(interruption)
        except HGDeployError:
            if results is not None:
                say(results.progress())
            raise
        job.finish(classifier)
    _say_summary(summary, failures)
    return summary.exit_code


def _killed(runs: int, file: ImageFile) -> str:
    return (
        f"{runs} runs were killed before {printable(file.name)} had its row, perhaps for the "
        "memory that it, or one of the few images after it, needs: now each image is read in a "
        "process of its own, as with --image-timeout, so that such an image fails alone"
    )


def load_classifier(job: PredictJob, images: int) -> Classifier:
    """Load the model for this many images; build the file that its engine needs first.

    Raises:
        HGDeployError: it cannot be loaded.
    """
    from hgdeploy.bundle.model_bundle import open_bundle
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.classify.folder import folder_options
    from hgdeploy.convert.engine_files import ensure_artifact

    options = folder_options(job.settings.options, images, job.saved)
    options = dataclasses.replace(options, cache_dir=job.bundle / ".cache")
    settings = dataclasses.replace(job.settings, options=options)
    bundle = open_bundle(job.bundle)
    if settings.engine is not None:
        ensure_artifact(bundle, settings.engine, options, say, warn)
    with told_if_slow(f"loading {job.bundle}"):
        return Classifier.from_settings(bundle, settings)


def _say_summary(summary: Summary, failures: FailuresWriter | None) -> None:
    say(summary.text())
    if summary.found > 1:
        for line in summary.details():
            say(line)
    if failures is not None:
        say(failures.text())


@contextlib.contextmanager
def _reader_of_stdout(*, needed: bool) -> Iterator[None]:
    """Make an error of a reader that has enough, where files that were asked for lack the rest."""
    try:
        yield
    except ReaderGoneError:
        if not needed:
            raise
        raise OutputError(
            "nobody reads stdout any more, so the run has ended, and --failures, --report and "
            "SavePreLabel lack the rest; write the results to a file with --output"
        ) from None


def _so_far(summary: Summary) -> str:
    return f"{summary.done} of {summary.found} images are done and their results are written"
