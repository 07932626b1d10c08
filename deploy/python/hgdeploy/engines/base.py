# SPDX-License-Identifier: Apache-2.0
"""The contract that every engine satisfies, and the checks that all of them share.

An engine module has four functions: `load(source, options) -> Engine`,
`artifact_names(precision) -> tuple[str, ...]` (the files of a bundle it can read for a precision,
best first), `intermediates(source, options, row)` (every tensor inside the model, to find where
two engines differ) and `capability() -> Capability` (what it can do on this machine). It imports
its library inside them, so that importing the module costs nothing.
"""

from __future__ import annotations

import abc
import ctypes
import os
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines.slots import Slots
from hgdeploy.errors import EngineError, TensorError
from hgdeploy.system.checks import cut
from hgdeploy.system.processes import check_not_forked

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """Name, dtype and shape of one input or output.

    Attributes:
        name: the tensor's name in the model.
        dtype: numpy's name of the element type, such as `float32`.
        shape: one entry per axis, -1 where the size is dynamic.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def check(self, array: object) -> NDArray[Any]:
        """Return `array`, contiguous, if it fits this spec.

        Raises:
            TensorError: it is not an array, its dtype, rank or a fixed size differs, or an axis is
                empty.
        """
        if not isinstance(array, np.ndarray):
            raise TensorError(
                f"input {self.name!r} is a {type(array).__name__}, expected a numpy array"
            )
        if array.dtype.name != self.dtype:
            raise TensorError(
                f"input {self.name!r} has dtype {array.dtype.name}, expected {self.dtype}"
            )
        fits = len(array.shape) == len(self.shape) and all(
            size == want or (want == -1 and size > 0)
            for size, want in zip(array.shape, self.shape, strict=True)
        )
        if not fits:
            raise TensorError(
                f"input {self.name!r} has shape {list(array.shape)}, expected {list(self.shape)}"
                + (" (-1 stands for any size from 1)" if -1 in self.shape else "")
            )
        return np.ascontiguousarray(array)


@dataclass(frozen=True)
class RuntimeInfo:
    """What actually runs, which may say more than what was asked for.

    Attributes:
        engine: the engine's name in HGDeploy.
        library: the library's package name.
        version: the library's version.
        device: `cpu` or `gpu:N`.
        providers: the library's own back ends, most preferred first.
        precision: `fp32`, `tf32`, `fp16`, `bf16` or `int8`.
        threads: CPU threads of one `infer` call; None on a GPU.
    """

    engine: str
    library: str
    version: str
    device: str
    providers: tuple[str, ...]
    precision: str
    threads: int | None


@dataclass(frozen=True)
class Capability:
    """What an engine can do on this machine, for `hgdeploy doctor`.

    Attributes:
        version: the library's version; None if it is not installed.
        devices: the devices it can use here.
        precisions: the precisions it can run here.
        notes: why something is missing, and how to get it; one line each.
    """

    version: str | None
    devices: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Engine(Protocol):
    """A loaded model that answers `infer`.

    Attributes:
        warnings: what the user should know of how the model runs, one line each.
    """

    warnings: tuple[str, ...]

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """The model's inputs."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """The model's outputs."""

    @property
    def runtime(self) -> RuntimeInfo:
        """What actually runs."""

    @property
    def once_seconds(self) -> float:
        """How long loading took for what is done once for a model on a machine."""

    @property
    def concurrency(self) -> int:
        """How many `infer` calls may run at once."""

    @property
    def fills_batches(self) -> bool:
        """Whether a batch of another size than the last costs far more than a full batch."""

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Run the model once and wait for it."""

    def keep_output(self, output: TensorSpec) -> None:
        """Give only this one of the outputs from now on."""

    def close(self) -> None:
        """Free the model; a second call does nothing."""


@runtime_checkable
class TimedEngine(Protocol):
    """An engine that measures the stages of a run by events on its device."""

    def last_timings(self) -> Mapping[str, float]:
        """Return the stages of the last `infer`, such as h2d, compute, d2h and enqueue, in ms."""


def timings_of(engine: Engine) -> Callable[[], Mapping[str, float]] | None:
    """Return the engine's `last_timings` function; None if it measures no stages."""
    return engine.last_timings if isinstance(engine, TimedEngine) else None


_loaded: weakref.WeakSet[CheckedEngine] = weakref.WeakSet()


def _never_free() -> None:
    """In a process that was forked: never free the other's engines, not even when Python ends.

    The libraries would wait for threads that only the other process has.
    """
    for engine in _loaded:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))


if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_never_free)


class CheckedEngine(abc.ABC):
    """Base of the engines: checks feeds and state, then leaves the work to `_run`.

    Args:
        inputs: the model's inputs.
        outputs: the model's outputs.
        runtime: what actually runs.
        concurrency: how many `infer` calls may run at once; further ones wait their turn.

    Attributes:
        warnings: what the user should know of how the model runs, one line each.
        once_seconds: how long loading took for what is done once for a model on a machine.
        fills_batches: whether a batch of another size than the last costs far more than a full
            batch.
    """

    warnings: tuple[str, ...] = ()
    once_seconds = 0.0
    fills_batches = False

    def __init__(
        self,
        inputs: tuple[TensorSpec, ...],
        outputs: tuple[TensorSpec, ...],
        runtime: RuntimeInfo,
        concurrency: int,
    ) -> None:
        self.inputs = inputs
        self.outputs = outputs
        self.runtime = runtime
        self.concurrency = concurrency
        self._slots = Slots(concurrency)
        self._closed = False
        self._opened_by = os.getpid()
        _loaded.add(self)

    def infer(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Run the model once and wait for it.

        Args:
            feeds: one array for each input, by name, with the spec's dtype and shape.

        Returns:
            One array for each output, by name; the caller owns them.

        Raises:
            TensorError: a name, dtype or shape does not fit.
            EngineError: the engine is closed, the library failed, or another process opened it.
        """
        # Threads, locks and pipes do not survive a fork, or are shared with the other process.
        check_not_forked(self._opened_by, f"the {self.runtime.engine} engine")
        expected = [spec.name for spec in self.inputs]
        if sorted(feeds) != sorted(expected):
            raise TensorError(f"inputs named {sorted(feeds)} were given, expected {expected}")
        checked = {spec.name: spec.check(feeds[spec.name]) for spec in self.inputs}
        with self._slots:
            if self._closed:
                raise EngineError(f"the {self.runtime.engine} engine is closed; load it again")
            results = self._run(checked)
        return {spec.name: results[spec.name] for spec in self.outputs}

    def keep_output(self, output: TensorSpec) -> None:
        """Give only this one of the outputs from now on."""
        self.outputs = (output,)

    def close(self) -> None:
        """Wait for running calls, then free the model; only once, and by who opened it."""
        if os.getpid() != self._opened_by:
            return
        with self._slots.all():
            if not self._closed:
                self._closed = True
                self._free()

    def __enter__(self) -> CheckedEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @abc.abstractmethod
    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Run on checked, contiguous feeds; the result must not alias the library's buffers."""

    @abc.abstractmethod
    def _free(self) -> None:
        """Free what the library holds."""


USE_CPU = "use the cpu (-o Global.use_gpu=False; in hgdeploy predict, --device cpu)"
"""The end of an error about a GPU that is not there, whoever asked for it."""


def device_index(device: str) -> int | None:
    """Return None for `cpu` and N for `gpu:N`.

    Raises:
        EngineError: the name is neither.
    """
    if device == "cpu":
        return None
    if number := re.fullmatch("gpu:([0-9]{1,4})", device):
        return int(number[1])
    raise EngineError(f"unknown device {cut(device)}, expected 'cpu' or 'gpu:N' such as 'gpu:0'")
