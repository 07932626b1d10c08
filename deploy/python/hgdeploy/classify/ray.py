# SPDX-License-Identifier: Apache-2.0
"""Classify many files on several machines with Ray, with the rows and accounts of one machine.

The files are parted into pieces of some hundred images. A Ray actor is what a run on one machine
is: one loaded model and as many threads. It takes a piece, looks at its files, reads and
classifies them with the pipeline of `folder`, and returns one document of JSON. The process that
was started takes the documents in order: a piece that does not come back is seen by its number.

Ray's own `read_binary_files` is not used, because no exact accounts can be kept of it: a file that
vanishes ends the whole job, a folder called `x.jpg` is left out without a word, a name that is not
UTF-8 becomes another one, and size and time are not those of before the file was read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import (
    all_writers,
    deliver,
    folder_options,
)
from hgdeploy.classify.ray_cluster import Pool, open_pool, stdout_spared
from hgdeploy.classify.ray_worker import Worker, comparable
from hgdeploy.classify.settings import StageTimes
from hgdeploy.classify.summary import Summary, account
from hgdeploy.errors import EngineError, HGDeployError, error_from_kind, one_line
from hgdeploy.images.find import ImageFile
from hgdeploy.results.rows import FileFacts, file_facts
from hgdeploy.results.writers import Writer
from hgdeploy.transforms.prediction import Prediction

# A piece keeps all threads of a worker busy for so many batches each: long enough that it costs
# little when they end, short enough that little is done again when a worker dies.
_BATCHES_PER_THREAD = 16
_LEAST_PIECES_PER_WORKER = 4
# A piece is tried so many times more when its worker dies, in each of so many passes; by default
# Ray would never give up.
_RETRIES = 1
_PASSES = 2
_REMOTE_ARGS: dict[str, Any] = {"max_task_retries": _RETRIES, "max_restarts": 100}


def classify_files_on_ray(
    classifier: Classifier,
    files: Sequence[ImageFile],
    writers: Sequence[Writer],
    report: Callable[[str], None],
    summary: Summary,
) -> None:
    """Do what `folder.classify_files` does, within `ray_cluster`, on all of its machines.

    Every machine must have this version of hgdeploy, the engine, the model and the images, both at
    the same absolute paths. An image whose worker died at each of several tries fails, with those
    of its piece.

    Args:
        classifier: the model, loaded here as well: the workers must agree with it.
        files: the images.
        writers: where predictions go; the caller finishes and closes them.
        report: takes one line for each failed image and each warning, as it happens.
        summary: filled as the run goes, so that it holds when the run is interrupted.

    Raises:
        OutputError: a writer, or `SavePreLabel`, cannot write.
        EngineError: Ray or an engine failed, or a worker has another model or version.
    """
    if not files:
        return
    start = time.perf_counter()
    told: set[str] = set(classifier.warnings)
    everybody = all_writers(classifier, writers)

    def warn_once(warning: str) -> None:
        if warning not in told:
            told.add(warning)
            report(warning)

    try:
        with stdout_spared():
            for piece, result in _in_order(classifier, files, warn_once):
                if result is not None:
                    for warning in result["warnings"]:
                        warn_once(warning)
                    summary.times.add(_times(result["times"]))
                    summary.workers = result["workers"] * result["threads"]
                for prediction, facts in (
                    _lost(piece) if result is None else _outcome(piece, result)
                ):
                    deliver(prediction, facts, everybody)
                    account(summary, prediction, report)
                summary.seconds = time.perf_counter() - start
    finally:
        summary.seconds = time.perf_counter() - start


@dataclass(frozen=True)
class _Piece:
    """Some of the files, in order; `number` is the piece's place among all."""

    number: int
    files: Sequence[ImageFile]

    def text(self) -> str:
        """Return it as JSON, whose escapes hold any name, with paths that hold in any folder."""
        names = [(str(file.path.absolute()), file.name) for file in self.files]
        return json.dumps({"number": self.number, "files": names})


def _parted(files: Sequence[ImageFile], pool: Pool, batch_size: int) -> list[_Piece]:
    most = _BATCHES_PER_THREAD * batch_size * pool.cpus
    even = -(-len(files) // (_LEAST_PIECES_PER_WORKER * pool.workers))
    size = max(1, min(most, even))
    starts = range(0, len(files), size)
    return [_Piece(i, files[start : start + size]) for i, start in enumerate(starts)]


def _results(
    classifier: Classifier, pieces: Sequence[_Piece], pool: Pool
) -> Generator[dict[str, Any], None, None]:
    """Have the pieces classified; yields what the workers return, in order.

    Raises:
        EngineError: Ray failed.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.max_errored_blocks = -1  # what a dead worker leaves out is found by its number
    options = dataclasses.replace(classifier.settings.options, threads=pool.cpus, streams=1)
    settings = dataclasses.replace(
        classifier.settings, options=folder_options(options, sum(len(p.files) for p in pieces))
    )
    try:
        # A block a piece: a block is what Ray hands to a worker and, when that dies, to another.
        given = ray.data.from_items(
            [{"piece": piece.text()} for piece in pieces], override_num_blocks=len(pieces)
        )
        with warnings.catch_warnings():
            # Ray 2.60 calls remote arguments deprecated and has no other way to say these.
            warnings.simplefilter("ignore")
            returned = given.map_batches(
                Worker,
                fn_constructor_args=(
                    str(classifier.bundle.root.absolute()),
                    settings,
                    comparable(classifier),
                ),
                batch_size=None,
                # One piece at a time: an image that kills its worker takes no other piece with it.
                compute=ray.data.ActorPoolStrategy(
                    size=min(pool.workers, len(pieces)), max_tasks_in_flight_per_actor=1
                ),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus,
                **_REMOTE_ARGS,
            )
        for row in returned.iter_rows():
            yield json.loads(row["result"])
    except HGDeployError:
        raise
    except Exception as error:  # of many kinds, each with the traceback of some other process
        raise EngineError(f"Ray failed: {one_line(error)}") from None


def _in_order(
    classifier: Classifier, files: Sequence[ImageFile], report: Callable[[str], None]
) -> Iterator[tuple[_Piece, dict[str, Any] | None]]:
    """Yield each piece once with its result, or with None if it was lost in every pass.

    A piece that is missing ends a pass; the next begins with it, on the machines that there are
    then. So a machine that is lost, with results that nobody had fetched yet, costs no image.

    Raises:
        EngineError: a worker said so, or Ray gave results twice or out of order.
    """
    pool = open_pool(classifier, report)
    pieces = _parted(files, pool, classifier.batch_size)
    due = passes = 0
    while due < len(pieces):
        with contextlib.closing(_results(classifier, pieces[due:], pool)) as results:
            for result in results:
                _check(result, due)
                if result["number"] != due:
                    break
                yield pieces[due], result | {"workers": pool.workers}
                due, passes = due + 1, 0
        passes += 1
        if due < len(pieces) and passes == _PASSES:
            yield pieces[due], None
            due, passes = due + 1, 0
        if due < len(pieces):
            pool = open_pool(classifier, report)


def _check(result: Mapping[str, Any], due: int) -> None:
    """Raise what a worker could not, and refuse a result that was already there."""
    if result["error"] is not None:
        kind, message = result["error"]
        raise error_from_kind(kind, f"Ray worker on {result['host']}: {message}")
    if result["number"] < due:
        raise EngineError(f"Ray returned piece {result['number']} again where piece {due} was due")


def _outcome(piece: _Piece, result: Mapping[str, Any]) -> Iterator[tuple[Prediction, FileFacts]]:
    for file, row in zip(piece.files, result["rows"], strict=True):
        ids, scores, labels, error, size, mtime_ns = row
        ids = None if ids is None else tuple(ids)
        prediction = Prediction(file.name, ids, tuple(scores), tuple(labels), error)
        yield prediction, FileFacts(file.path, size, mtime_ns)


def _lost(piece: _Piece) -> Iterator[tuple[Prediction, FileFacts]]:
    """Fail the images of a piece that did not come back."""
    others = len(piece.files) - 1
    tries = _PASSES * (1 + _RETRIES)
    reason = f"its Ray worker died at each of {tries} tries, over this image" + (
        f" or one of {others} others" if others else ""
    )
    for file in piece.files:
        yield (
            Prediction.failed(file.name, f"{reason}; try these again with --image-timeout"),
            file_facts(file.path),
        )


def _times(values: Mapping[str, Any]) -> StageTimes:
    slowest = [(seconds, name) for seconds, name in values["slowest"]]
    return StageTimes(**{**values, "slowest": slowest})
