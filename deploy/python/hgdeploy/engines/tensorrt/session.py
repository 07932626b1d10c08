# SPDX-License-Identifier: Apache-2.0
"""An engine file loaded by TensorRT on a GPU, with its inputs and outputs.

TensorRT reports a failure by returning None or False, or by an exception that names no cause, and
by writing to its log: so every result is checked and the log is kept for the reason. TensorRT and
TensorRT-RTX, and TensorRT's major versions 10 and 11, are used in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.engines.tensorrt.logger import cannot_start, messages_here, shared_logger
from hgdeploy.engines.tensorrt.options import TensorRtOptions
from hgdeploy.engines.tensorrt.runtime_cache import RuntimeCache
from hgdeploy.engines.tensorrt.tensors import Range, Shape, Shapes, Tensor
from hgdeploy.errors import BundleError, EngineError, one_line
from hgdeploy.gpu.device import Device, Stream

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

    Args:
        trt: the library.
        device: the GPU.
        options: what the file may do.
        cache: where what TensorRT-RTX compiles for it is kept.

    Attributes:
        inputs: the engine's inputs.
        outputs: its outputs.
        warnings: what the library warned of while it loaded the file.
        cache: as given.
    """

    def __init__(
        self, trt: Any, device: Device, options: TensorRtOptions, cache: RuntimeCache
    ) -> None:
        self.trt = trt
        self.device = device
        self.engine: Any = None
        self.inputs: tuple[Tensor, ...] = ()
        self.outputs: tuple[Tensor, ...] = ()
        self.warnings: tuple[str, ...] = ()
        self.cache = cache
        self._options = options
        self._runtime: Any = None

    @property
    def name(self) -> str:
        """The library and its version."""
        return f"{self.trt.__name__} {self.trt.__version__}"

    def load(self, source: Path) -> None:
        """Load an engine file; the device must be active.

        Raises:
            EngineError: the library cannot start here.
            BundleError: the library refuses it, or it has inputs or outputs that we cannot serve.
        """
        try:
            data = source.read_bytes()
        except OSError as error:
            raise BundleError(f"{source} cannot be read: {error.strerror}") from None
        logger = shared_logger(self.trt)
        self.forget_reasons()
        self._runtime = self._made(lambda: self.trt.Runtime(logger))
        if self._runtime is None:
            why = cannot_start(self.trt.__name__.replace("_", "-"), self.reason())
            raise EngineError(f"{self.name} cannot start: {why}")
        if self._options.host_code:
            self._runtime.engine_host_code_allowed = True
        self.engine = self._made(lambda: self._runtime.deserialize_cuda_engine(data))
        if self.engine is None:
            raise BundleError(self._refused(source))
        self.warnings = tuple(dict.fromkeys(messages_here().warnings))
        self.inputs, self.outputs = _read_tensors(self, source)

    def _refused(self, source: Path) -> str:
        reason = self.reason()
        advice = "build it again on this machine with hgdeploy build"
        if "hostcode" in reason.lower().replace(" ", "") and not self._options.host_code:
            advice = (
                "it has code for the CPU in it, which runs only where you allow it, if you trust "
                "the file: --allow-host-code of hgdeploy predict and validate, or "
                "TensorRtOptions(host_code=True) in Python"
            )
        return f"{self.name} cannot load {source}: {reason}; {advice}"

    def _made(self, make: Callable[[], Any]) -> Any:
        """Return what a call makes; None where it makes nothing, or raises instead.

        The bindings make a TypeError of a null pointer, and a RuntimeError of some refusals.
        """
        try:
            return make()
        except (RuntimeError, TypeError, ValueError) as error:
            messages_here().raised = one_line(error)
            return None

    def ask(self, doing: str, call: Callable[[], Any]) -> Any:
        """Return what a call of the library answers.

        Args:
            doing: the purpose of the call, to follow "TensorRT cannot" in the error.
            call: the call; False, None and the bindings' own errors are failures.

        Raises:
            EngineError: it failed; the message has the library's reason.
        """
        answer = self._made(call)
        if not answer:
            raise EngineError(f"TensorRT cannot {doing}: {self.reason()}")
        return answer

    def context(self) -> Any:
        """Make an execution context.

        Raises:
            EngineError: the library cannot make one, usually because memory is short.
        """
        self.forget_reasons()
        return self.ask("make an execution context", self._context)

    def _context(self) -> Any:
        strategy = getattr(self.trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategy is None:
            return self.engine.create_execution_context()
        # TensorRT-RTX compiles on this machine: a shape's kernels before its first run, not
        # during it, and it decides itself when to capture them as a graph.
        config = self.engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategy.EAGER
        config.cuda_graph_strategy = self.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self.cache.use(config)
        return self.engine.create_execution_context(runtime_config=config)

    def graphs(self) -> Graphs:
        """Decide whether the network is captured as a graph, and by whom."""
        if hasattr(self.trt, "CudaGraphStrategy"):
            return Graphs(False, "RTX CUDA graph")
        if not self.device.captures:
            return Graphs(False, "no CUDA graph: pycuda cannot capture one")
        return Graphs(True, "CUDA graph")

    def forget_reasons(self) -> None:
        """Forget what was logged in this thread."""
        messages_here().clear()

    def reason(self) -> str:
        """Return what was logged in this thread since it was last forgotten, on one line."""
        return messages_here().reason()

    def close(self) -> None:
        """Free the engine, then its library's runtime; the GPU's context stays the process's."""
        with self.device.activate():
            self.cache.close()
            self.engine = None
            self._runtime = None


def set_shapes(
    session: Session, context: Any, shapes: Shapes, outputs: Sequence[str]
) -> dict[str, Shape]:
    """Set a context's input shapes, and return those that its outputs then have.

    Raises:
        EngineError: the library refuses the shapes.
    """
    for name, shape in shapes.items():
        _set_shape(session, context, name, shape)
    try:
        missing = context.infer_shapes()
    except RuntimeError as error:
        raise EngineError(f"TensorRT cannot infer shapes: {one_line(error)}") from error
    if missing:
        raise EngineError(f"TensorRT needs more than shapes for {', '.join(missing)}")
    return {name: tuple(context.get_tensor_shape(name)) for name in outputs}


def _set_shape(session: Session, context: Any, name: str, shape: Shape) -> None:
    doing = f"take shape {list(shape)} for {name!r}"
    session.ask(doing, lambda: context.set_input_shape(name, shape))


def use_profile(session: Session, context: Any, profile: int, stream: Stream) -> None:
    """Have a context use a profile; where that is another one, its shapes are to be set again.

    Raises:
        EngineError: the library refuses it.
    """
    if context.active_optimization_profile != profile:
        session.ask(
            f"choose its profile {profile}",
            lambda: context.set_optimization_profile_async(profile, stream.handle),
        )
        stream.synchronize()


def _read_tensors(session: Session, source: Path) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Return an engine's inputs and outputs."""
    names = [session.engine.get_tensor_name(i) for i in range(session.engine.num_io_tensors)]
    dtypes = {name: _dtype(session, name, source) for name in names}
    given = session.trt.TensorIOMode.INPUT
    inputs = [name for name in names if session.engine.get_tensor_mode(name) == given]
    if not inputs:
        raise BundleError(f"{source} has no inputs, expected those of an image classifier")
    ranges = _read_ranges(session, inputs, [name for name in names if name not in inputs])
    tensors = {name: Tensor(name, dtypes[name], tuple(ranges[name])) for name in names}
    outputs = tuple(tensors[name] for name in names if name not in inputs)
    for tensor in outputs:
        if any(min((*r.least, *r.most), default=0) < 0 for r in tensor.ranges):
            raise BundleError(
                f"{source}: the shape of output {tensor.name!r} depends on the data, which "
                "HGDeploy does not serve; export the model without such operators"
            )
    return tuple(tensors[name] for name in inputs), outputs


def _read_ranges(
    session: Session, inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, list[Range]]:
    """Return the shapes of each tensor in each profile."""
    strategy = session.trt.ExecutionContextAllocationStrategy.USER_MANAGED
    session.forget_reasons()
    # A context without memory for a run, which infers the outputs' shapes.
    context = session.ask(
        "infer the shapes of its outputs",
        lambda: session.engine.create_execution_context(strategy=strategy),
    )
    ranges: dict[str, list[Range]] = {name: [] for name in (*inputs, *outputs)}
    stream = session.device.stream(0)
    try:
        for profile in range(session.engine.num_optimization_profiles):
            use_profile(session, context, profile, stream)
            given = {n: session.engine.get_tensor_profile_shape(n, profile) for n in inputs}
            ends: list[dict[str, Shape]] = []
            for end in range(3):
                shapes = {name: tuple(given[name][end]) for name in inputs}
                ends.append({**shapes, **set_shapes(session, context, shapes, outputs)})
            for name, found in ranges.items():
                found.append(Range(*(shapes[name] for shapes in ends)))
    finally:
        stream.close()
    return ranges


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
