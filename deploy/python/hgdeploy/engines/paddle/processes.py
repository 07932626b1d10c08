# SPDX-License-Identifier: Apache-2.0
"""Paddle inferences side by side, each in a process of its own.

Paddle keeps Python's lock while it runs, so that inside one process nothing else is done meanwhile:
neither another inference nor reading the next image. A process for each inference costs the memory
of another predictor and handing over the tensors, some tenths of a millisecond.
"""

from __future__ import annotations

import contextlib
import dataclasses
import queue
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.engines.base import CheckedEngine, Engine, RuntimeInfo, Tensors, TensorSpec
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError, unpacked
from hgdeploy.system.processes import Child, ChildError, Message


class PaddleProcesses(CheckedEngine):
    """One model in several processes, of which each runs one inference at a time."""

    def __init__(
        self,
        children: Sequence[Child],
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        runtime: RuntimeInfo,
    ) -> None:
        super().__init__(*specs, runtime, concurrency=len(children))
        self._children = children
        self._idle: queue.SimpleQueue[Child] = queue.SimpleQueue()
        for child in children:
            self._idle.put(child)

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        child = self._idle.get()
        try:
            with _errors_of_ours():
                return dict(_checked(child.ask(Message({}, feeds))).arrays)
        finally:
            self._idle.put(child)

    def _free(self) -> None:
        for child in self._children:
            child.kill()


def load_processes(source: Path, options: EngineOptions) -> Engine:
    """Load a Paddle inference model in `options.streams` processes.

    Args:
        source: the program.
        options: what is asked for; each process has `threads`.

    Raises:
        EngineError: as `engines.paddle.load`, or a process ended, for want of memory perhaps.
        BundleError: as `engines.paddle.load`.
    """
    alone = dataclasses.asdict(dataclasses.replace(options, streams=1, cache_dir=None))
    request = Message({"source": str(source), "options": alone})
    children = [Child("hgdeploy.engines.paddle.child") for _ in range(options.streams)]
    try:
        with _errors_of_ours():
            for child in children:
                child.send(request)
            answers = [_checked(child.receive()) for child in children]
    except BaseException:
        for child in children:
            child.kill()
        raise
    facts = answers[0].values
    inputs, outputs = (
        tuple(TensorSpec(name, dtype, tuple(shape)) for name, dtype, shape in facts[key])
        for key in ("inputs", "outputs")
    )
    runtime = RuntimeInfo(**{**facts["runtime"], "providers": tuple(facts["runtime"]["providers"])})
    return PaddleProcesses(children, (inputs, outputs), runtime)


def _checked(answer: Message) -> Message:
    """Return an answer; raise the error that it may tell of."""
    if "error" in answer.values:
        raise unpacked(*answer.values["error"])
    return answer


@contextlib.contextmanager
def _errors_of_ours() -> Iterator[None]:
    try:
        yield
    except ChildError as error:
        raise EngineError(
            f"a process of the paddle engine ended ({error}); if memory is short, use fewer threads"
        ) from None
