# SPDX-License-Identifier: Apache-2.0
"""Classify many files at full speed and lose none: each is classified, or fails with a reason."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.summary import Summary, count_prediction
from hgdeploy.engines.auto.choose import leaves_threads_open, with_saved
from hgdeploy.engines.auto.saved import Saved
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import OutputError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.reader import use_one_opencv_thread
from hgdeploy.results.rows import FileFacts, file_facts
from hgdeploy.results.writers import Writer
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import THREADS, optional
from hgdeploy.system.parallel import WorkerTuner, in_order
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.prediction import Prediction

Classified = list[tuple[Prediction, FileFacts]]
"""The predictions of some files, in order, with the files as they were when they were read."""

# More than one thread per CPU helps only while some of them wait for a disk or network.
_MOST_WORKERS_PER_CPU = 4


def folder_options(
    options: EngineOptions, images: int, saved: Saved | None = None
) -> EngineOptions:
    """Return engine options for many images: on a CPU, inferences side by side on one thread each.

    Inferences on one thread each do not wait for one another, but the threads of a single inference
    do; and a thread that is not inside the engine reads files.

    Args:
        options: as for one image: `threads` is the number that may be used in all.
        images: how many there are; a single image gets all threads.
        saved: the choice that runs, which says how many inferences go side by side where there are
            as many images, and `options` leave it open.
    """
    if saved is not None and images >= saved.streams and leaves_threads_open(options):
        return with_saved(options, saved)
    streams = min(options.cpu_threads, images) if options.device == "cpu" else 1
    if options.streams > 1 or streams < 2:
        return options
    return dataclasses.replace(options, threads=options.cpu_threads // streams, streams=streams)


def classify_files(
    classifier: Classifier,
    files: Sequence[ImageFile],
    writers: Sequence[Writer],
    on_warning: OnLine,
    summary: Summary,
    workers: int | None = None,
) -> None:
    """Classify `files` and hand each prediction, in order, to every writer.

    Args:
        classifier: the loaded model.
        files: the images.
        writers: where predictions go; the caller finishes and closes them.
        on_warning: called with a line for each failed image and each warning, as it happens.
        summary: updated during the run, so that it is right when the run is interrupted.
        workers: threads that read, infer and postprocess; None to find the best number.

    Raises:
        OutputError: a writer cannot write.
        EngineError: the engine failed.
    """
    start = time.perf_counter()
    reported = 0
    tuner = worker_tuner(classifier, len(files), workers)

    def report_warnings() -> None:
        nonlocal reported
        for warning in classifier.warnings[reported:]:
            on_warning(warning)
        reported = len(classifier.warnings)

    def take(batch: Classified) -> None:
        report_warnings()
        for prediction, facts in batch:
            write_to_all(writers, prediction, facts)
            count_prediction(summary, prediction, on_warning)

    report_warnings()
    try:
        classify_in_order(classifier, files, tuner, take)
    finally:
        summary.seconds = time.perf_counter() - start
        summary.times, summary.workers = classifier.times, tuner.workers


def worker_tuner(classifier: Classifier, images: int, workers: int | None = None) -> WorkerTuner:
    """Return the tuner of the threads for so many images; `workers` fixes their number."""
    workers = check("workers", workers, optional(THREADS))
    if workers is not None:
        return WorkerTuner(workers, workers, classifier.cpus)
    # At first as many as can be inside the engine; the run shows whether more, for reading, help.
    least = max(1, min(classifier.engine.concurrency, images))
    most = _MOST_WORKERS_PER_CPU * max(least, classifier.cpus)
    return WorkerTuner(least, max(least, min(most, images)), classifier.cpus)


def classify_in_order(
    classifier: Classifier,
    files: Sequence[ImageFile],
    tuner: WorkerTuner,
    take: Callable[[Classified], None],
) -> None:
    """Classify `files` on many threads and pass the results to `take`, batch by batch, in order.

    Raises:
        EngineError: the engine failed.
    """
    use_one_opencv_thread()
    in_order(_work(classifier), _batches(files, classifier.batch_size, tuner), take, tuner)


def _work(classifier: Classifier) -> Callable[[Sequence[ImageFile]], Classified]:
    def work(files: Sequence[ImageFile]) -> Classified:
        # Before they are read, so that a change meanwhile shows as a change.
        facts = [file_facts(file.path) for file in files]
        return list(zip(classifier.classify(files), facts, strict=True))

    return work


def _batches(
    files: Sequence[ImageFile], size: int, tuner: WorkerTuner
) -> Iterator[Sequence[ImageFile]]:
    """Yield batches; the last ones are smaller, so that all threads finish together."""
    start = 0
    while start < len(files):
        count = min(size, -(-(len(files) - start) // tuner.workers))
        yield files[start : start + count]
        start += count


def write_to_all(writers: Sequence[Writer], prediction: Prediction, facts: FileFacts) -> None:
    """Write a prediction with every writer.

    Raises:
        OutputError: a writer cannot write.
    """
    try:
        for writer in writers:
            writer.write(prediction, facts)
    except BrokenPipeError:
        raise  # a reader such as `head` has stopped reading, which is not an error
    except OSError as error:
        raise OutputError(f"results cannot be written: {error.strerror}") from None
