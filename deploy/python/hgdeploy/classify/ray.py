# SPDX-License-Identifier: Apache-2.0
"""Classify many files on several machines with Ray, with the rows and accounts of one machine.

The files are divided into pieces of some hundred images. A Ray actor has what a run on one machine
has: one loaded model and as many threads. It takes a piece, reads and classifies its files with the
pipeline of `folder`, and returns one JSON document. The process that the user started takes the
documents in order: if a piece does not come back, its number is missing.

Ray's own `read_binary_files` is not used, because it does not account for every file: a file that
vanishes ends the whole job, a folder called `x.jpg` is silently left out, a name that is not UTF-8
becomes another one, and size and time are not those from before the file was read.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import folder_options, write_to_all
from hgdeploy.classify.ray_cluster import Pool, divide_cluster, stdout_to_stderr
from hgdeploy.classify.ray_worker import Worker, shared_fingerprint
from hgdeploy.classify.settings import StageTimes
from hgdeploy.classify.summary import Summary, count_prediction
from hgdeploy.errors import EngineError, HGDeployError, error_from_kind, one_line
from hgdeploy.images.find import ImageFile
from hgdeploy.results.rows import FileFacts, file_facts
from hgdeploy.results.writers import Writer
from hgdeploy.system.documents import parse_json
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.prediction import Prediction

# A piece keeps each thread of a worker busy for this many batches: long enough that little time is
# lost when the threads finish, short enough that little is repeated when a worker dies.
_BATCHES_PER_THREAD = 16
_LEAST_PIECES_PER_WORKER = 4
# How often a piece is tried again when its worker dies, and in how many passes; by default Ray
# would never give up.
_RETRIES = 1
_PASSES = 2
_REMOTE_ARGS: dict[str, Any] = {"max_task_retries": _RETRIES, "max_restarts": 100}


def classify_files_on_ray(
    classifier: Classifier,
    files: Sequence[ImageFile],
    writers: Sequence[Writer],
    on_warning: OnLine,
    summary: Summary,
) -> None:
    """Do what `folder.classify_files` does, within `ray_cluster`, on all of its machines.

    Every machine must have this version of hgdeploy, the engine, the model and the images, the last
    two at the same absolute paths. If a piece's worker dies at every try, all images of the piece
    fail.

    Args:
        classifier: the model, loaded here as well: the workers must agree with it.
        files: the images.
        writers: where predictions go; the caller finishes and closes them.
        on_warning: called with a line for each failed image and each warning, as it happens.
        summary: updated during the run, so that it is right when the run is interrupted.

    Raises:
        OutputError: a writer cannot write.
        EngineError: Ray or an engine failed, or a worker has another model or version.
    """
    if not files:
        return
    start = time.perf_counter()
    reported: set[str] = set(classifier.warnings)
    for warning in classifier.warnings:
        on_warning(warning)

    def warn_once(warning: str) -> None:
        if warning not in reported:
            reported.add(warning)
            on_warning(warning)

    try:
        with stdout_to_stderr():
            for piece, result in _in_order(classifier, files, warn_once):
                if result is not None:
                    for warning in result["warnings"]:
                        warn_once(warning)
                    summary.times.add(_times(result["times"]))
                    summary.workers = result["workers"] * result["threads"]
                for prediction, facts in (
                    _failures(classifier, piece) if result is None else _predictions(piece, result)
                ):
                    write_to_all(writers, prediction, facts)
                    count_prediction(summary, prediction, on_warning)
                summary.seconds = time.perf_counter() - start
    finally:
        summary.seconds = time.perf_counter() - start


@dataclass(frozen=True)
class _Piece:
    """Some of the files, in order; `number` is the piece's position among all pieces."""

    number: int
    files: Sequence[ImageFile]

    def text(self) -> str:
        """Return it as JSON, which can hold any name, with absolute paths."""
        names = [(str(file.path.absolute()), file.name) for file in self.files]
        return json.dumps({"number": self.number, "files": names})


def _divide(files: Sequence[ImageFile], pool: Pool, batch_size: int) -> list[_Piece]:
    most = _BATCHES_PER_THREAD * batch_size * pool.cpus
    even = -(-len(files) // (_LEAST_PIECES_PER_WORKER * pool.workers))
    size = max(1, min(most, even))
    starts = range(0, len(files), size)
    return [_Piece(i, files[start : start + size]) for i, start in enumerate(starts)]


def _results(
    classifier: Classifier, pieces: Sequence[_Piece], pool: Pool
) -> Generator[dict[str, Any], None, None]:
    """Have the workers classify the pieces; yield what they return, in order.

    Raises:
        EngineError: Ray failed.
    """
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    context.max_errored_blocks = -1  # any number: a piece that a dead worker had is found missing
    options = dataclasses.replace(classifier.settings.options, threads=pool.cpus, streams=1)
    settings = dataclasses.replace(
        classifier.settings, options=folder_options(options, sum(len(p.files) for p in pieces))
    )
    try:
        # One block per piece: Ray gives a block to a worker and, if that dies, to another.
        given = ray.data.from_items(
            [{"piece": piece.text()} for piece in pieces], override_num_blocks=len(pieces)
        )
        with warnings.catch_warnings():
            # Ray 2.60 calls remote arguments deprecated, but has no other way to set these.
            warnings.simplefilter("ignore")
            returned = given.map_batches(
                Worker,
                fn_constructor_args=(
                    str(classifier.bundle.root.absolute()),
                    settings,
                    shared_fingerprint(classifier),
                ),
                batch_size=None,
                # One piece at a time, so that an image that kills its worker affects no other.
                compute=ray.data.ActorPoolStrategy(
                    size=min(pool.workers, len(pieces)), max_tasks_in_flight_per_actor=1
                ),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus,
                **_REMOTE_ARGS,
            )
        for row in returned.iter_rows():
            yield parse_json(row["result"])
    except HGDeployError:
        raise
    except Exception as error:  # of many types, each with the traceback of some other process
        raise EngineError(f"Ray failed: {one_line(error)}") from None


def _in_order(
    classifier: Classifier, files: Sequence[ImageFile], on_warning: OnLine
) -> Iterator[tuple[_Piece, dict[str, Any] | None]]:
    """Yield each piece once with its result, or with None if it was lost in every pass.

    A missing piece ends a pass; the next starts with that piece, on the machines that are there by
    then. So if a machine is lost together with results that were not fetched yet, no image is.

    Raises:
        EngineError: a worker reported an error, or Ray returned results twice or out of order.
    """
    pool = divide_cluster(classifier, on_warning)
    pieces = _divide(files, pool, classifier.batch_size)
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
            pool = divide_cluster(classifier, on_warning)


def _check(result: Mapping[str, Any], due: int) -> None:
    """Raise the error that a worker reported, and refuse a result that came before."""
    if result["error"] is not None:
        kind, message = result["error"]
        raise error_from_kind(kind, f"Ray worker on {result['host']}: {message}")
    if result["number"] < due:
        raise EngineError(f"Ray returned piece {result['number']} again where piece {due} was due")


def _predictions(
    piece: _Piece, result: Mapping[str, Any]
) -> Iterator[tuple[Prediction, FileFacts]]:
    for file, row in zip(piece.files, result["rows"], strict=True):
        found, facts = row
        # JSON has lists for tuples.
        values: list[Any] = [tuple(one) if isinstance(one, list) else one for one in found]
        yield Prediction(file.name, *values), FileFacts(file.path, *facts)


def _failures(classifier: Classifier, piece: _Piece) -> Iterator[tuple[Prediction, FileFacts]]:
    """Yield a failure for each image of a piece that did not come back."""
    others = len(piece.files) - 1
    tries = _PASSES * (1 + _RETRIES)
    reason = f"its Ray worker died at each of {tries} tries, because of this image" + (
        f" or one of {others} others" if others else ""
    )
    for file in piece.files:
        yield (
            classifier.failed(file.name, f"{reason}; try these again with --image-timeout"),
            file_facts(file.path),
        )


def _times(values: Mapping[str, Any]) -> StageTimes:
    slowest = [(seconds, name) for seconds, name in values["slowest"]]
    return StageTimes(**{**values, "slowest": slowest})
