# SPDX-License-Identifier: Apache-2.0
"""Classify many files at full speed, losing none: each is classified, or failed with its reason."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence

from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.summary import Summary, account
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import OutputError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.reader import use_one_opencv_thread
from hgdeploy.results.rows import FileFacts, file_facts
from hgdeploy.results.writers import LabelFolderWriter, Writer
from hgdeploy.system.parallel import WorkerTuner, in_order
from hgdeploy.transforms.prediction import Prediction

# Threads beyond one a CPU pay only while others wait for a disk or network.
_MOST_WORKERS_PER_CPU = 4


def folder_options(options: EngineOptions, images: int) -> EngineOptions:
    """Return engine options for many images: on a CPU, inferences side by side on a thread each.

    A thread of its own costs an inference nothing for its neighbours, while several threads on one
    inference wait for each other; and a thread that is not inside the engine reads files.

    Args:
        options: as for one image: `threads` are all that may be used.
        images: how many there are; one gets all threads.
    """
    streams = min(options.cpu_threads, images) if options.device == "cpu" else 1
    if options.streams > 1 or streams < 2:
        return options
    return dataclasses.replace(options, threads=options.cpu_threads // streams, streams=streams)


def classify_files(
    classifier: Classifier,
    files: Sequence[ImageFile],
    writers: Sequence[Writer],
    report: Callable[[str], None],
    summary: Summary,
    workers: int | None = None,
) -> None:
    """Classify `files` and hand each prediction, in order, to every writer.

    Args:
        classifier: the loaded model.
        files: the images.
        writers: where predictions go; the caller finishes and closes them.
        report: takes one line for each failed image and each warning, as it happens.
        summary: filled as the run goes, so that it holds when the run is interrupted.
        workers: threads that read, infer and postprocess; None to find out how many pay.

    Raises:
        OutputError: a writer, or `SavePreLabel`, cannot write.
        EngineError: the engine failed.
    """
    start = time.perf_counter()
    told = 0
    tuner = worker_tuner(classifier, len(files), workers)
    everybody = all_writers(classifier, writers)

    def take(batch: Classified) -> None:
        nonlocal told
        for warning in classifier.warnings[told:]:
            report(warning)
        told = len(classifier.warnings)
        for prediction, facts in batch:
            deliver(prediction, facts, everybody)
            account(summary, prediction, report)

    try:
        classify_in_order(classifier, files, tuner, take)
    finally:
        summary.seconds = time.perf_counter() - start
        summary.times, summary.workers = classifier.times, tuner.workers


def worker_tuner(classifier: Classifier, images: int, workers: int | None = None) -> WorkerTuner:
    """Return the tuner of the threads for so many images; `workers` is a fixed number of them."""
    if workers is not None:
        return WorkerTuner(workers, workers, classifier.cpus)
    # As many as can be inside the engine; whether more pay, to read meanwhile, the run shows.
    least = max(1, min(classifier.engine.concurrency, images))
    most = _MOST_WORKERS_PER_CPU * max(least, classifier.cpus)
    return WorkerTuner(least, max(least, min(most, images)), classifier.cpus)


Classified = list[tuple[Prediction, FileFacts]]


def classify_in_order(
    classifier: Classifier,
    files: Sequence[ImageFile],
    tuner: WorkerTuner,
    take: Callable[[Classified], None],
) -> None:
    """Classify `files` on many threads, and give `take` batches of them, in order; see `in_order`.

    Raises:
        EngineError: the engine failed.
    """
    use_one_opencv_thread()
    in_order(_work(classifier), _batches(files, classifier.batch_size, tuner), take, tuner)


def _work(classifier: Classifier) -> Callable[[Sequence[ImageFile]], Classified]:
    def work(files: Sequence[ImageFile]) -> Classified:
        # Looked at before they are read: a change meanwhile then shows as a change.
        facts = [file_facts(file.path) for file in files]
        return list(zip(classifier.classify(files), facts, strict=True))

    return work


def _batches(
    files: Sequence[ImageFile], size: int, tuner: WorkerTuner
) -> Iterator[Sequence[ImageFile]]:
    """Yield batches; the last ones are smaller, so that all threads end together."""
    start = 0
    while start < len(files):
        count = min(size, -(-(len(files) - start) // tuner.workers))
        yield files[start : start + count]
        start += count


def all_writers(classifier: Classifier, writers: Sequence[Writer]) -> list[Writer]:
    """Return `writers`, and the one that `SavePreLabel` asks for."""
    folder = classifier.postprocess.save_dir
    return [*writers, *([LabelFolderWriter(folder)] if folder is not None else [])]


def deliver(prediction: Prediction, facts: FileFacts, writers: Sequence[Writer]) -> None:
    """Hand a prediction to every writer.

    Raises:
        OutputError: a writer cannot write.
    """
    try:
        for writer in writers:
            writer.write(prediction, facts)
    except BrokenPipeError:
        raise  # a reader such as `head` has had enough; that is no failure to write
    except OSError as error:
        raise OutputError(f"results cannot be written: {error.strerror}") from None
