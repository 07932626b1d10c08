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
import logging
import os
import re
import socket
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.classifier import Classifier, ClassifierSettings, StageTimes
from hgdeploy.errors import ConfigError, EngineError, HGDeployError, one_line, packed, unpacked
from hgdeploy.folder import (
    Classified,
    Summary,
    account,
    classify_in_order,
    deliver,
    folder_options,
    worker_tuner,
)
from hgdeploy.images.find import ImageFile
from hgdeploy.results.rows import FileFacts, file_facts
from hgdeploy.results.writers import Writer
from hgdeploy.system.machine import available_cpus
from hgdeploy.transforms.prediction import Prediction

LOCAL = "local"
_ADDRESS = re.compile(r"[^/\s]+:\d+")

_CONNECT_SECONDS = 10.0

# A piece keeps all threads of a worker busy for so many batches each: long enough that it costs
# little when they end, short enough that little is done again when a worker dies.
_BATCHES_PER_THREAD = 16
_LEAST_PIECES_PER_WORKER = 4
# A piece is tried so many times more when its worker dies, in each of so many passes; by default
# Ray would never give up.
_RETRIES = 1
_PASSES = 2
_REMOTE_ARGS: dict[str, Any] = {"max_task_retries": _RETRIES, "max_restarts": 100}


@contextlib.contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster; undone when the context is left.

    Where this process has already called `ray.init`, that is used and left as it is.

    Args:
        address: `local`, `auto` for the cluster this machine belongs to, or the HOST:PORT of one.

    Raises:
        ConfigError: another form of address.
        EngineError: Ray is not installed, or there is no cluster at the address.
    """
    if address not in (LOCAL, "auto") and not _ADDRESS.fullmatch(address):
        raise ConfigError(
            f"--ray {address}: expected local, auto or the HOST:PORT of a cluster that this "
            "machine belongs to"
        )
    # Else Ray sends statistics about its use to its makers, and its C++ parts write errors to
    # stderr that are either told by this module or none.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError(
            f"--ray needs Ray Data ({one_line(error)}): pip install 'hgdeploy[ray]'"
        ) from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    try:
        if ":" in address:  # Ray itself would try for more than ten minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        ray.init(
            address,
            num_cpus=available_cpus() if address == LOCAL else None,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )
    except Exception as error:  # of many kinds: an address, a version, a timeout
        ray.shutdown()
        raise EngineError(f"--ray {address}: cannot use this cluster: {one_line(error)}") from None
    try:
        yield
    finally:
        with _stdout_spared():
            ray.shutdown()


def _stdout_spared() -> contextlib.AbstractContextManager[object]:
    """Let Ray, whose threads print to `sys.stdout`, print to stderr: stdout is for results."""
    return contextlib.redirect_stdout(sys.stderr)


@dataclass(frozen=True)
class _Pool:
    """How many workers there are, and what each has for itself."""

    workers: int
    cpus: int
    gpus: int


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

    def warn_once(warning: str) -> None:
        if warning not in told:
            told.add(warning)
            report(warning)

    try:
        with _stdout_spared():
            for piece, result in _in_order(classifier, files, warn_once):
                if result is not None:
                    for warning in result["warnings"]:
                        warn_once(warning)
                    summary.times.add(_times(result["times"]))
                    summary.workers = result["workers"] * result["threads"]
                for prediction, facts in (
                    _lost(piece) if result is None else _outcome(piece, result)
                ):
                    deliver(classifier, prediction, facts, writers)
                    account(summary, prediction, report)
                summary.seconds = time.perf_counter() - start
    finally:
        summary.seconds = time.perf_counter() - start


def _pool(classifier: Classifier, report: Callable[[str], None]) -> _Pool:
    """Let each worker have what the run has here, or what the largest machine has.

    Raises:
        ConfigError: a GPU other than the first was asked for.
        EngineError: the cluster has no machine that could do it.
    """
    import ray

    device = classifier.settings.options.device
    if device not in ("cpu", "gpu:0"):
        raise ConfigError(
            f"--device {device} has no meaning with --ray, which gives each worker a GPU of its "
            "own; use gpu:0"
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if device == "cpu":
        each = min(classifier.cpus, max(cpus, default=0))
        workers = sum(count // each for count in cpus) if each else 0
        if workers * each < sum(cpus):
            report(
                f"Ray: {workers} workers of {each} CPUs use {workers * each} of {sum(cpus)} CPUs; "
                "choose --threads so that it divides those of each machine"
            )
    else:
        shares = [cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu]
        each, workers = min([classifier.cpus, *shares]), sum(gpus)
    if not workers or not each:
        raise EngineError(f"the Ray cluster has no machine with what {device} needs: {nodes}")
    return _Pool(workers, each, 0 if device == "cpu" else 1)


@dataclass(frozen=True)
class _Piece:
    """Some of the files, in order; `number` is the piece's place among all."""

    number: int
    files: Sequence[ImageFile]

    def text(self) -> str:
        """Return it as JSON, whose escapes hold any name, with paths that hold in any folder."""
        names = [(str(file.path.absolute()), file.name) for file in self.files]
        return json.dumps({"number": self.number, "files": names})


def _parted(files: Sequence[ImageFile], pool: _Pool, batch_size: int) -> list[_Piece]:
    most = _BATCHES_PER_THREAD * batch_size * pool.cpus
    even = -(-len(files) // (_LEAST_PIECES_PER_WORKER * pool.workers))
    size = max(1, min(most, even))
    starts = range(0, len(files), size)
    return [_Piece(i, files[start : start + size]) for i, start in enumerate(starts)]


def _results(
    classifier: Classifier, pieces: Sequence[_Piece], pool: _Pool
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
                _Worker,
                fn_constructor_args=(
                    str(classifier.bundle.root.absolute()),
                    settings,
                    _comparable(classifier),
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
    pool = _pool(classifier, report)
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
            pool = _pool(classifier, report)


def _check(result: Mapping[str, Any], due: int) -> None:
    """Raise what a worker could not, and refuse a result that was already there."""
    if result["error"] is not None:
        kind, message = result["error"]
        raise unpacked(kind, f"Ray worker on {result['host']}: {message}")
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


def _comparable(classifier: Classifier) -> dict[str, str]:
    """Return what must be the same for all workers; the model is told by its files' hash."""
    return {name: value for name, value in classifier.fingerprint().items() if name != "model"}


class _Worker:
    """A Ray actor: one loaded model. It raises nothing; what went wrong is part of the result."""

    def __init__(
        self, bundle: str, settings: ClassifierSettings, fingerprint: Mapping[str, str]
    ) -> None:
        self._error: tuple[str, str] | None = None
        try:
            self._classifier = Classifier.from_settings(Path(bundle), settings)
            self._check(fingerprint)
        except Exception as error:
            self._error = packed(error)
        else:
            # A worker sees many pieces, so its threads are not limited by the size of one.
            self._tuner = worker_tuner(self._classifier, 10 * self._classifier.cpus)

    def _check(self, expected: Mapping[str, str]) -> None:
        """Refuse to make rows that are not those of the other workers."""
        own = _comparable(self._classifier)
        for name, value in expected.items():
            if own.get(name) != value:
                raise EngineError(
                    f"its {name} is {own.get(name)}, but {value} where the run was started; all "
                    "machines of a cluster must have the same"
                )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Classify one piece."""
        piece = json.loads(batch["piece"][0])
        result: dict[str, Any] = {"number": piece["number"], "host": socket.gethostname()}
        if self._error is None:
            try:
                result |= self._classified([ImageFile(p, n) for p, n in piece["files"]])
            except Exception as error:
                self._error = packed(error)
        return {"result": [json.dumps(result | {"error": self._error})]}

    def _classified(self, files: Sequence[ImageFile]) -> dict[str, Any]:
        done: Classified = []
        classify_in_order(self._classifier, files, self._tuner, done.extend)
        rows = [
            (p.class_ids, p.scores, p.labels, p.error, facts.size, facts.mtime_ns)
            for p, facts in done
        ]
        times, self._classifier.times = self._classifier.times, StageTimes()
        return {
            "rows": rows,
            "times": dataclasses.asdict(times),
            "threads": self._tuner.workers,
            "warnings": list(self._classifier.warnings),
        }
