# SPDX-License-Identifier: Apache-2.0
"""An engine file loaded by TensorRT on a GPU, with its inputs and outputs.

TensorRT reports a failure by returning None or False and by writing to its log, so every result is
checked and the log is kept for the reason. TensorRT and TensorRT-RTX, and TensorRT's major versions
10 and 11, are used in the same way.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.engines.base import TensorSpec
from hgdeploy.engines.tensorrt.logger import forwarding_logger
from hgdeploy.errors import BundleError, EngineError, TensorError, one_line
from hgdeploy.gpu.device import Device

Shape = tuple[int, ...]

# TensorRT's names of the element types that numpy has too.
_DTYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "INT32": "int32",
    "INT64": "int64",
    "INT8": "int8",
    "UINT8": "uint8",
    "BOOL": "bool",
}
# The only profile that is used; our builder makes one.
PROFILE = 0
_LONGEST_REASON = 400


@dataclass(frozen=True)
class Tensor:
    """An input or output of an engine.

    Attributes:
        name: its name.
        dtype: its element type.
        least: the smallest shape; of an output, that of the smallest inputs.
        most: the largest shape, likewise.
    """

    name: str
    dtype: np.dtype[Any]
    least: Shape
    most: Shape

    @property
    def spec(self) -> TensorSpec:
        """What callers see: an axis that can have only one size is fixed."""
        shape = tuple(
            low if low == high else -1 for low, high in zip(self.least, self.most, strict=True)
        )
        return TensorSpec(self.name, self.dtype.name, shape)

    def size(self, shape: Shape) -> int:
        """Return how many bytes a shape takes."""
        return math.prod(shape) * self.dtype.itemsize

    def check(self, shape: Shape) -> None:
        """Raise a TensorError if the engine does not serve a shape."""
        fits = (
            low <= size <= high
            for low, size, high in zip(self.least, shape, self.most, strict=True)
        )
        if not all(fits):
            raise TensorError(
                f"input {self.name!r} has shape {list(shape)}, and the TensorRT engine serves "
                f"{list(self.least)} to {list(self.most)}; feed what it serves, or build it again "
                "with hgdeploy build"
            )


class Graphs:
    """Whether runs are captured as CUDA graphs, for all lanes of an engine.

    Attributes:
        wanted: whether to capture graphs, and to launch those that were captured.
        note: what `RuntimeInfo.providers` says about it.
    """

    def __init__(self, wanted: bool, note: str) -> None:
        self.wanted = wanted
        self.note = note

    def give_up(self, reason: str) -> None:
        """Run without graphs from now on, and say why."""
        self.wanted = False
        self.note = f"no CUDA graph: {reason}"


class Session:
    """An engine file loaded by its library, on a device.

    Its objects are attributes only, never locals of a function that may raise: an error's
    traceback would keep them alive beyond the device.

    Args:
        trt: the library.
        device: the GPU; closed with the session.
    """

    def __init__(self, trt: Any, device: Device) -> None:
        self.trt = trt
        self.device = device
        self.engine: Any = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self._errors = _Errors()
        self._logger = forwarding_logger(trt, self._errors.take)
        self._runtime: Any = None

    def load(self, source: Path) -> None:
        """Load an engine file; the device must be active.

        Raises:
            BundleError: the library refuses it, or it has inputs or outputs that we cannot serve.
        """
        try:
            data = source.read_bytes()
        except OSError as error:
            raise BundleError(f"{source} cannot be read: {error.strerror}") from None
        name = self.trt.__name__
        self._errors.clear()
        self._runtime = self.trt.Runtime(self._logger)
        self.engine = self._runtime.deserialize_cuda_engine(data)
        if self.engine is None:
            raise BundleError(
                f"{name} {self.trt.__version__} cannot load {source}: {self.reason()}; build it "
                "again on this machine with hgdeploy build"
            )
        self.inputs, self.outputs = _read_tensors(self, source)

    def context(self) -> Any:
        """Make an execution context.

        Raises:
            EngineError: the library cannot make one, usually because memory is short.
        """
        self._errors.clear()
        strategy = getattr(self.trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategy is None:
            made = self.engine.create_execution_context()
        else:
            # TensorRT-RTX compiles on this machine: a shape's kernels before its first run, not
            # during it, and it decides itself when to capture them as a graph.
            config = self.engine.create_runtime_config()
            config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
            config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
            made = self.engine.create_execution_context(runtime_config=config)
        if made is None:
            raise EngineError(f"TensorRT cannot make an execution context: {self.reason()}")
        return made

    def graphs(self) -> Graphs:
        """Decide whether the network is captured as a graph, and by whom."""
        if hasattr(self.trt, "CudaGraphStrategy"):
            return Graphs(False, "RTX CUDA graph")
        if not self.device.captures:
            return Graphs(False, "no CUDA graph: pycuda cannot capture one")
        return Graphs(True, "CUDA graph")

    def check(self, doing: str, answer: Any) -> None:
        """Raise an EngineError with the library's reason if it returned False or None.

        Args:
            doing: the purpose of the call, to follow "TensorRT cannot" in the error.
            answer: what the library returned.
        """
        if not answer:
            raise EngineError(f"TensorRT cannot {doing}: {self.reason()}")

    def forget_reasons(self) -> None:
        """Forget the errors that were logged in this thread."""
        self._errors.clear()

    def reason(self) -> str:
        """Return the errors logged in this thread since they were last forgotten, on one line."""
        return self._errors.reason()

    def close(self) -> None:
        """Free the engine, then its library's runtime, then the device."""
        try:
            with self.device.activate():
                self.engine = None
                self._runtime = None
        finally:
            self.device.close()


def set_shapes(
    session: Session, context: Any, shapes: Mapping[str, Shape], outputs: Sequence[str]
) -> dict[str, Shape]:
    """Set a context's input shapes, and return those that its outputs then have.

    Raises:
        EngineError: the library refuses the shapes.
    """
    for name, shape in shapes.items():
        answer = context.set_input_shape(name, shape)
        session.check(f"take shape {list(shape)} for {name!r}", answer)
    try:
        missing = context.infer_shapes()
    except RuntimeError as error:
        raise EngineError(f"TensorRT cannot infer shapes: {one_line(error)}") from error
    if missing:
        raise EngineError(f"TensorRT needs more than shapes for {', '.join(missing)}")
    return {name: tuple(context.get_tensor_shape(name)) for name in outputs}


def _read_tensors(session: Session, source: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return an engine's inputs and outputs, with the smallest and largest shape of each."""
    names = [session.engine.get_tensor_name(i) for i in range(session.engine.num_io_tensors)]
    dtypes = {name: _dtype(session, name, source) for name in names}
    given = session.trt.TensorIOMode.INPUT
    inputs = [name for name in names if session.engine.get_tensor_mode(name) == given]
    outputs = [name for name in names if name not in inputs]
    ranges: dict[str, list[Shape]] = {}
    for name in inputs:
        shapes = session.engine.get_tensor_profile_shape(name, PROFILE)
        ranges[name] = [tuple(shapes[0]), tuple(shapes[-1])]
    for end in (0, 1):
        shapes_in = {name: ranges[name][end] for name in inputs}
        for name, shape in _output_shapes(session, shapes_in, outputs).items():
            if min(shape, default=0) < 0:
                raise BundleError(
                    f"{source}: the shape of output {name!r} depends on the data, which HGDeploy "
                    "does not serve; export the model without such operators"
                )
            ranges.setdefault(name, []).append(shape)
    tensors = {name: Tensor(name, dtypes[name], *ranges[name]) for name in names}
    return tuple(tensors[name] for name in inputs), tuple(tensors[name] for name in outputs)


def _output_shapes(
    session: Session, inputs: Mapping[str, Shape], outputs: Sequence[str]
) -> dict[str, Shape]:
    """Return the outputs' shapes for shapes of the inputs, without memory for a run."""
    strategy = session.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    session.forget_reasons()
    contexts = [session.engine.create_execution_context(strategy=strategy)]
    try:
        session.check("infer the shapes of its outputs", contexts[0])
        return set_shapes(session, contexts[0], inputs, outputs)
    finally:
        contexts.clear()  # see Session: a traceback must not keep it alive


def _dtype(session: Session, name: str, source: Path) -> np.dtype[Any]:
    """Return a tensor's element type; refuse anything but a plain array in device memory."""
    trt = session.trt
    plain = (
        session.engine.get_tensor_location(name) == trt.TensorLocation.DEVICE
        and not session.engine.is_shape_inference_io(name)
        and session.engine.get_tensor_format(name) == trt.TensorFormat.LINEAR
    )
    if not plain:
        raise BundleError(
            f"{source}: {name!r} is a shape tensor or has a packed format, which HGDeploy does not "
            "serve; build it with hgdeploy build"
        )
    element = session.engine.get_tensor_dtype(name).name
    if element not in _DTYPES:
        raise BundleError(
            f"{source}: {name!r} holds {element}, which numpy lacks; keep inputs and outputs in "
            f"{', '.join(_DTYPES.values())}"
        )
    return np.dtype(_DTYPES[element])


class _Errors:
    """The errors that the library logs, separately for each thread."""

    def __init__(self) -> None:
        self._own = threading.local()

    def take(self, severity: str, message: str) -> None:
        """Keep a message if it is an error."""
        if severity in ("INTERNAL_ERROR", "ERROR"):
            vars(self._own).setdefault("errors", []).append(" ".join(message.split()))

    def clear(self) -> None:
        """Forget this thread's errors."""
        vars(self._own).clear()

    def reason(self) -> str:
        """Return this thread's errors on one line."""
        errors = dict.fromkeys(vars(self._own).get("errors", []))
        return "; ".join(errors)[:_LONGEST_REASON] or "it does not say why"
