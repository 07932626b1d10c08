# SPDX-License-Identifier: Apache-2.0
"""Paddle inferences side by side, each in a process of its own.

Paddle holds Python's lock while it runs, so nothing else happens in the same process meanwhile:
neither another inference nor the reading of the next image. A process for each inference costs the
memory of another predictor, and some tenths of a millisecond to hand over the tensors.
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
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import EngineError, ResourceError
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess

MODULE = "hgdeploy.engines.paddle.child"
"""What such a process runs."""


class PaddleProcesses(CheckedEngine):
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
            with _ended_is_an_engine_error():
                return dict(child.ask(Message({"do": "infer"}, feeds)).arrays)
        finally:
            self._idle.put(child)

    def _free(self) -> None:
        for child in self._children:
            child.close()


def load_processes(source: Path, options: EngineOptions) -> PaddleProcesses:
    """Load a Paddle inference model in `options.streams` processes.

    Args:
        source: the program.
        options: each process gets `threads`.

    Raises:
        EngineError: as `engines.paddle.load`, or a process ended.
        ResourceError: a process ended because memory was short.
        BundleError: as `engines.paddle.load`.
    """
    request = load_request(source, options)
    children: list[ChildProcess] = []
    try:
        # Added one by one: if one fails to start, those before it are closed.
        # Paddle's kernels print notes, and a crash prints pages; of these the last line is told.
        quiet = not options.profile
        children.extend(ChildProcess(MODULE, quiet=quiet) for _ in range(options.streams))
        with _ended_is_an_engine_error():
            for child in children:
                child.send(request)
            answers = [child.receive() for child in children]
    except BaseException:
        for child in children:
            child.close()
        raise
    runtime = answers[0].values["runtime"]
    runtime = RuntimeInfo(**{**runtime, "providers": tuple(runtime["providers"])})
    return PaddleProcesses(children, specs_of(answers[0]), runtime)


def load_request(source: Path, options: EngineOptions) -> Message:
    """Return the request to load a program in one process, with oneDNN as the options say."""
    alone = dataclasses.replace(options, streams=1, cache_dir=None, own=())
    own = dataclasses.asdict(options.own_of(PaddleOptions))
    values = {"source": str(source), "options": dataclasses.asdict(alone), "own": own}
    return Message({"do": "load", **values})


def specs_of(loaded: Message) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs in the answer to `load_request`."""
    inputs, outputs = (
        tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in loaded.values[key])
        for key in ("inputs", "outputs")
    )
    return inputs, outputs


@contextlib.contextmanager
def _ended_is_an_engine_error() -> Iterator[None]:
    try:
        yield
    except ChildError as error:
        message = f"a process of the paddle engine ended ({error.how})"
        if error.memory:
            raise ResourceError(f"{message}: memory was short; use fewer threads") from None
        if error.memory is None:
            message += "; if memory is short, use fewer threads"
        elif error.how == "SIGKILL":
            message += ": another process ended it; memory was not short"
        elif error.said:
            message += f"; it said: {error.said}"
        raise EngineError(message) from None
