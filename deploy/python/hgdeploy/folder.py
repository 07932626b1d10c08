# SPDX-License-Identifier: Apache-2.0
"""Classify many files at full speed, losing none: each is classified, or failed with its reason."""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from hgdeploy.classifier import STAGES, Classifier, StageTimes
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EXIT_OK, EXIT_SOME_IMAGES_FAILED, OutputError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.reader import one_opencv_thread
from hgdeploy.results.rows import FileFacts, file_facts
from hgdeploy.results.writers import Writer, save_image
from hgdeploy.system.parallel import WorkerTuner, in_order
from hgdeploy.transforms.prediction import Prediction, printable

# Threads beyond one a CPU pay only while others wait for a disk or network.
_MOST_WORKERS_PER_CPU = 4
_SHOWN = 5
_NUMBERS = re.compile(r"\d+")


@dataclass
class Summary:
    """The accounts of a run; found = classified + failed once it is over.

    Attributes:
        found: images the inputs named.
        classified: images with a prediction.
        failed: images with a reason instead.
        seconds: wall time of the run, without loading the model.
        reasons: failures by kind of reason, in which each number is an N.
        earlier: how many of the classified and failed images an earlier run did.
        times: where the time went, summed over threads.
        workers: threads at the end.
    """

    found: int
    classified: int = 0
    failed: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    earlier: int = 0
    times: StageTimes = field(default_factory=StageTimes)
    workers: int = 0

    def take_earlier(self, done: int, failed: int) -> None:
        """Count what an earlier run did: `done` images, of which `failed` failed."""
        self.earlier = done
        self.classified += done - failed
        self.failed += failed

    @property
    def done(self) -> int:
        """Images that are classified or failed."""
        return self.classified + self.failed

    @property
    def exit_code(self) -> int:
        """The code a command ends with after this run."""
        return EXIT_SOME_IMAGES_FAILED if self.failed else EXIT_OK

    def text(self) -> str:
        """Return the accounts on one line."""
        done = self.done - self.earlier
        rate = done / self.seconds if self.seconds > 0 else 0.0
        earlier = f" ({self.earlier} of them earlier)" if self.earlier else ""
        return (
            f"found {self.found} = classified {self.classified} + failed {self.failed}{earlier}, "
            f"{self.seconds:.1f} s, {rate:.1f} images/s"
        )

    def details(self) -> list[str]:
        """Return lines that tell why images failed, where the time went, and the slowest files."""
        lines = [
            f"failed: {count} x {reason}" for reason, count in self.reasons.most_common(_SHOWN)
        ]
        rest = len(self.reasons) - _SHOWN
        if rest > 0:
            lines.append(f"failed: {rest} more kinds of reasons")
        shares = self.shares()
        if shares:
            told = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
            lines.append(f"time of {self.workers} threads: {told}")
        slowest = ", ".join(
            f"{printable(name)} {1000 * seconds:.0f} ms" for seconds, name in self.times.slowest
        )
        if slowest:
            lines.append(f"slowest to read: {slowest}")
        return lines

    def shares(self) -> dict[str, float]:
        """Return each stage's share, 0 to 1, of the time that all threads had."""
        seconds = {name: getattr(self.times, name) for name in STAGES}
        total = sum(seconds.values())
        return {name: value / total for name, value in seconds.items()} if total else {}


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

    def take(batch: Classified) -> None:
        nonlocal told
        for warning in classifier.warnings[told:]:
            report(warning)
        told = len(classifier.warnings)
        for prediction, facts in batch:
            deliver(classifier, prediction, facts, writers)
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
    one_opencv_thread()
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


def deliver(
    classifier: Classifier, prediction: Prediction, facts: FileFacts, writers: Sequence[Writer]
) -> None:
    """Hand a prediction to every writer, and save its image where `SavePreLabel` asks for it.

    Raises:
        OutputError: a writer, or `SavePreLabel`, cannot write.
    """
    _write(writers, prediction, facts)
    folder = classifier.postprocess.save_dir
    if folder is not None and prediction.error is None:
        save_image(prediction, facts.path, folder)


def account(summary: Summary, prediction: Prediction, report: Callable[[str], None]) -> None:
    """Count a prediction, and report why it failed if it did."""
    if prediction.error is None:
        summary.classified += 1
    else:
        summary.failed += 1
        summary.reasons[_NUMBERS.sub("N", prediction.error)] += 1
        report(f"{printable(prediction.path)}: {prediction.error}")


def _write(writers: Sequence[Writer], prediction: Prediction, facts: FileFacts) -> None:
    try:
        for writer in writers:
            writer.write(prediction, facts)
    except BrokenPipeError:
        raise  # a reader such as `head` has had enough; that is no failure to write
    except OSError as error:
        raise OutputError(f"results cannot be written: {error.strerror}") from None
