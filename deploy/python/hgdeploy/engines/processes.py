# SPDX-License-Identifier: Apache-2.0
"""Inferences side by side, each in a process of its own, for libraries that hold Python's lock.

Where a library holds Python's lock while it runs, nothing else happens in the same process
meanwhile: neither another inference nor the reading of the next image. A process for each inference
costs the memory of another model, and some tenths of a millisecond to hand over the tensors.
An engine that is run so has `load_here(source, options)`, which loads it in the process itself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.engines.base import CheckedEngine, RuntimeInfo, Tensors, TensorSpec
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError, ResourceError
from hgdeploy.system.machine import memory_mb
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess

MODULE = "hgdeploy.engines.process_child"
"""What such a process runs."""


class EngineProcesses(CheckedEngine):
    """One model in several processes, each of which runs one inference at a time."""

    def __init__(
        self,
        children: Sequence[ChildProcess],
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        runtime: RuntimeInfo,
    ) -> None:
        super().__init__(*specs, runtime, concurrency=len(children))
        self._children = children
        self._idle: queue.SimpleQueue[ChildProcess] = queue.SimpleQueue()
        for child in children:
            self._idle.put(child)

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        child = self._idle.get()
        try:
            with _ended_is_an_engine_error(self.runtime.engine):
                return dict(child.ask(Message({"do": "infer"}, feeds)).arrays)
        finally:
            self._idle.put(child)

    def _free(self) -> None:
        for child in self._children:
            child.close()


def load_processes(engine: str, source: Path, options: EngineOptions) -> EngineProcesses:
    """Load a model in `options.streams` processes.

    Args:
        engine: the engine's name.
        source: the model file.
        options: each process gets `threads`.

    Raises:
        EngineError: as the engine's `load_here`, or a process ended.
        ResourceError: a process ended because memory was short.
        BundleError: as the engine's `load_here`.
    """
    request = load_request(engine, source, options)
    children: list[ChildProcess] = []
    try:
        # Added one by one: if one fails to start, those before it are closed.
        # Libraries print notes, and a crash prints pages; of these the last line is told.
        quiet = not options.profile
        children.extend(ChildProcess(MODULE, quiet=quiet) for _ in range(options.streams))
        with _ended_is_an_engine_error(engine):
            for child in children:
                child.send(request)
            answers = [child.receive() for child in children]
    except BaseException:
        for child in children:
            child.close()
        raise
    runtime = answers[0].values["runtime"]
    runtime = RuntimeInfo(**{**runtime, "providers": tuple(runtime["providers"])})
    return EngineProcesses(children, specs_of(answers[0]), runtime)


def load_request(engine: str, source: Path, options: EngineOptions) -> Message:
    """Return the request to load a model in one process; `process_child` answers it."""
    alone = dataclasses.replace(options, streams=1, cache_dir=None, own=())
    own = [(type(one).__module__, type(one).__qualname__, vars(one)) for one in options.own]
    values = {"source": str(source), "options": dataclasses.asdict(alone), "own": own}
    return Message({"do": "load", "engine": engine, **values})


def specs_of(loaded: Message) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs in the answer to `load_request`."""
    inputs, outputs = (
        tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in loaded.values[key])
        for key in ("inputs", "outputs")
    )
    return inputs, outputs


def as_many_as_fit(options: EngineOptions, each_mb: float) -> EngineOptions:
    """Return options with as many inferences at once as fit in memory, of one process each.

    Together they get at most half of the machine's memory, and they also get the threads of those
    that do not fit.

    Args:
        options: what was asked for.
        each_mb: the memory that one process takes, in MiB.
    """
    most, memory = options.streams, memory_mb()
    if memory is not None:
        most = max(1, min(most, int(memory // 2 // each_mb)))
    threads = options.cpu_threads * options.streams // most
    return dataclasses.replace(options, threads=threads, streams=most)


@contextlib.contextmanager
def _ended_is_an_engine_error(engine: str) -> Iterator[None]:
    try:
        yield
    except ChildError as error:
        message = f"a process of the {engine} engine ended ({error.how})"
        if error.memory:
            raise ResourceError(f"{message}: memory was short; use fewer threads") from None
        if error.memory is None:
            message += "; if memory is short, use fewer threads"
        elif error.how == "SIGKILL":
            message += ": another process ended it; memory was not short"
        elif error.said:
            message += f"; it said: {error.said}"
        raise EngineError(message) from None
