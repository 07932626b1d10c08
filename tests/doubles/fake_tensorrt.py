# SPDX-License-Identifier: Apache-2.0
"""TensorRT's runtime without a GPU: the API that our engine uses, on the fake CUDA driver.

An engine file is JSON with an ONNX model inside (`engine_file` makes one). A run is a kernel on the
fake stream that reads its inputs and writes its outputs in fake device memory, computed by ONNX
Runtime, when the stream gets to it. Names and parameters are those of the real API; what a real
program would only learn from a crash counts as a violation of the fake driver.
"""

from __future__ import annotations

import base64
import ctypes
import enum
import json
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

__version__ = "10.16.1.11"

__all__ = [
    "DataType",
    "ExecutionContextAllocationStrategy",
    "ICudaEngine",
    "IExecutionContext",
    "ILogger",
    "IProfiler",
    "IRuntimeConfig",
    "Logger",
    "Runtime",
    "TensorFormat",
    "TensorIOMode",
    "TensorLocation",
    "__version__",
    "init_libnvinfer_plugins",
]

DataType = enum.Enum("DataType", "FLOAT HALF INT8 INT32 BOOL UINT8 BF16 INT64")
TensorIOMode = enum.Enum("TensorIOMode", "NONE INPUT OUTPUT")
TensorLocation = enum.Enum("TensorLocation", "DEVICE HOST")
TensorFormat = enum.Enum("TensorFormat", "LINEAR CHW4")
ExecutionContextAllocationStrategy = enum.Enum(
    "ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED"
)

_ORT_TYPES = {
    "float": DataType.FLOAT,
    "float16": DataType.HALF,
    "int32": DataType.INT32,
    "int64": DataType.INT64,
    "int8": DataType.INT8,
    "uint8": DataType.UINT8,
    "bool": DataType.BOOL,
}
_NUMPY_TYPES = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT32: np.int32,
    DataType.INT64: np.int64,
    DataType.INT8: np.int8,
    DataType.UINT8: np.uint8,
    DataType.BOOL: np.bool_,
}
_CAPTURING = 1


def engine_file(onnx: bytes, profile: Mapping[str, Sequence[Sequence[int]]], **facts: Any) -> bytes:
    """Return the content of an engine file.

    Args:
        onnx: the model.
        profile: (min, opt, max) shapes of each input with open axes.
        facts: `version` and `capability` that it was built for, `profiles` after the first, and
            quirks: `packed` (its inputs have a packed format), `shape_io` (they are shape tensors),
            `dtypes` (types to claim, by tensor), `fails_at` (a batch for which a run fails),
            `uncapturable_at` (batches for which a run does what no graph can hold), `host_code`
            (it has code for the CPU), `plugin` (it needs NVIDIA's), `warns` (of what loading
            warns).
    """
    content = {"version": __version__, "capability": "8.9", **facts}
    content["onnx"] = base64.b64encode(onnx).decode()
    content["profiles"] = [
        {name: [list(shape) for shape in shapes] for name, shapes in each.items()}
        for each in (profile, *facts.get("profiles", ()))
    ]
    return json.dumps(content).encode()


_PLUGINS: list[str] = []


def init_libnvinfer_plugins(logger: ILogger, namespace: str) -> bool:
    """Register NVIDIA's plugins."""
    assert isinstance(logger, ILogger)
    _PLUGINS.append(namespace)
    return True


class ILogger:
    """Receives the library's messages."""

    Severity = enum.IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)
    INTERNAL_ERROR = Severity.INTERNAL_ERROR
    ERROR = Severity.ERROR
    WARNING = Severity.WARNING
    INFO = Severity.INFO
    VERBOSE = Severity.VERBOSE

    def __init__(self) -> None:
        pass

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        """Receive a message."""
        raise NotImplementedError


class Logger(ILogger):
    """Prints the library's messages."""

    def __init__(self, min_severity: ILogger.Severity = ILogger.WARNING) -> None:
        super().__init__()
        self.min_severity = min_severity

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        """Print a message."""
        if severity <= self.min_severity:
            print(f"[TRT] {msg}")


class _Driver:
    """The fake driver as the library sees it."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL("libcuda.so.1")
        except OSError:
            os.abort()  # as the real library does, where our engine did not look first
        self._library.fake_cuda_violation.argtypes = [ctypes.c_char_p]
        self._library.fake_cuda_on_device.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._library.fake_cuda_launch.argtypes = [ctypes.c_void_p, _Kernel, ctypes.c_void_p]
        self._library.cuMemAlloc_v2.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._library.cuMemFree_v2.argtypes = [ctypes.c_uint64]
        for name in ("cuStreamSynchronize", "cuStreamIsCapturing"):
            getattr(self._library, name).restype = ctypes.c_int
        self._library.cuStreamSynchronize.argtypes = [ctypes.c_void_p]
        self._library.cuStreamIsCapturing.argtypes = [ctypes.c_void_p, ctypes.c_void_p]

    def capability(self) -> str:
        device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        if self._library.cuCtxGetDevice(ctypes.byref(device)) != 0:
            self.violation("TensorRT was used without a current context")
        self._library.cuDeviceComputeCapability(ctypes.byref(major), ctypes.byref(minor), device)
        return f"{major.value}.{minor.value}"

    def allocate(self, size: int) -> int | None:
        address = ctypes.c_uint64()
        status = self._library.cuMemAlloc_v2(ctypes.byref(address), size)
        return address.value if status == 0 else None

    def free(self, address: int) -> None:
        if self._library.cuMemFree_v2(address) != 0:
            self.violation("TensorRT's memory was freed without a current context")

    def violation(self, reason: str) -> None:
        self._library.fake_cuda_violation(reason.encode())

    def on_device(self, address: int, size: int) -> bool:
        return bool(self._library.fake_cuda_on_device(address, size))

    def capturing(self, stream: int) -> bool:
        status = ctypes.c_int()
        self._library.cuStreamIsCapturing(stream, ctypes.byref(status))
        return status.value == _CAPTURING

    def synchronize(self, stream: int) -> None:
        self._library.cuStreamSynchronize(stream)

    def launch(self, stream: int, work: Callable[[], bool]) -> bool:
        _WORKS.append(work)
        return self._library.fake_cuda_launch(stream, _run_work, len(_WORKS)) == 0


_Kernel = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)
# A kernel in C identifies its work by a number; there is little work, and all of it is kept.
_WORKS: list[Callable[[], bool]] = []


@_Kernel
def _run_work(number: int) -> int:
    return 0 if _WORKS[number - 1]() else 1


class Runtime:
    """Loads engine files."""

    _version = __version__

    def __init__(self, logger: ILogger) -> None:
        self._driver = _Driver()
        self._logger = logger
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        """Return the engine, or None with the reason in the log."""
        try:
            content = json.loads(bytes(serialized_engine))
        except ValueError:
            return self._refuse("Serialization assertion stdVersionRead == kVERSION failed.")
        if content["version"] != self._version:
            return self._refuse(
                "The engine plan file is not compatible with this version of TensorRT, expecting "
                f"library version {self._version} got {content['version']}, please rebuild."
            )
        here = self._driver.capability()
        if content["capability"] != here:
            return self._refuse(
                "The engine plan file is generated on an incompatible device, expecting compute "
                f"{here} got compute {content['capability']}, please rebuild."
            )
        if content.get("host_code") and not self.engine_host_code_allowed:
            return self._refuse("IRuntime::getEngineHostCodeAllowed() is false")
        if content.get("plugin") and not _PLUGINS:
            return self._refuse(f"getPluginCreator could not find plugin: {content['plugin']}")
        if content.get("warns"):
            self._logger.log(ILogger.WARNING, content["warns"])
        engine = self._engine.__new__(self._engine)
        return engine if engine._open(self, content) else self._refuse("Out of memory.")

    def _refuse(self, reason: str) -> None:
        self._logger.log(ILogger.ERROR, f"IRuntime::deserializeCudaEngine: Error Code 6: {reason}")


# Each layer of every engine: its name, its type, and how long it runs in milliseconds.
LAYERS = (("conv + relu", "CaskConvolution", 0.75), ("<fc>", "CaskGemmConvolution", 0.25))


class EngineInspector:
    """Describes the layers of an engine."""

    def get_engine_information(self, _: Any) -> str:
        """Describe all of them as JSON."""
        tensor = {"Name": "t", "Format/Datatype": "Row major linear FP32"}
        told = [
            {"Name": name, "LayerType": kind, "Inputs": [tensor], "Outputs": [tensor]}
            for name, kind, _ in LAYERS
        ]
        return json.dumps({"Layers": told})


class IProfiler:
    """Is told how long each layer ran."""

    def __init__(self) -> None:
        pass

    def report_layer_time(self, layer_name: str, ms: float) -> None:
        """Take the time of one layer."""
        raise NotImplementedError


class IRuntimeConfig:
    """How execution contexts are made."""

    __slots__ = ()


class ICudaEngine:
    """A loaded engine."""

    __slots__ = (
        "__weakref__",
        "_contexts",
        "_driver",
        "_dtypes",
        "_facts",
        "_logger",
        "_names",
        "_profiles",
        "_runtime",
        "_session",
        "_shapes",
        "_weights",
    )
    _config = IRuntimeConfig

    def __init__(self) -> None:
        raise TypeError("No constructor defined!")

    def _open(self, runtime: Runtime, content: Mapping[str, Any]) -> bool:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        onnx = base64.b64decode(content["onnx"])
        self._session = onnxruntime.InferenceSession(onnx, options)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        self._names = [
            *((node.name, TensorIOMode.INPUT) for node in inputs),
            *((node.name, TensorIOMode.OUTPUT) for node in outputs),
        ]
        self._shapes = {node.name: tuple(node.shape) for node in (*inputs, *outputs)}
        self._dtypes = {
            node.name: _ORT_TYPES[node.type.removeprefix("tensor(").removesuffix(")")]
            for node in (*inputs, *outputs)
        }
        for name, dtype in content.get("dtypes", {}).items():
            self._dtypes[name] = DataType[dtype]
        self._profiles = content["profiles"]
        self._facts = content
        self._runtime = runtime
        self._logger = runtime._logger
        self._driver = runtime._driver
        self._contexts = 0
        self._weights = self._driver.allocate(len(onnx))
        return self._weights is not None

    def __del__(self) -> None:
        if getattr(self, "_weights", None) is not None:
            self._driver.free(self._weights)

    @property
    def num_io_tensors(self) -> int:
        """Number of inputs and outputs."""
        return len(self._names)

    @property
    def num_optimization_profiles(self) -> int:
        """Number of profiles."""
        return len(self._profiles)

    def get_tensor_name(self, index: int) -> str:
        """Return the name of an input or output."""
        return self._names[index][0]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        """Return whether a tensor is an input or an output."""
        return dict(self._names).get(name, TensorIOMode.NONE)

    def get_tensor_dtype(self, name: str) -> DataType:
        """Return a tensor's element type."""
        return self._dtypes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape, -1 where it is open."""
        return tuple(size if isinstance(size, int) else -1 for size in self._shapes[name])

    def get_tensor_location(self, name: str) -> TensorLocation:
        """Return where a tensor must be."""
        self._shapes[name]
        return TensorLocation.DEVICE

    def get_tensor_format(self, name: str) -> TensorFormat:
        """Return a tensor's format."""
        self._shapes[name]
        return TensorFormat.CHW4 if self._facts.get("packed") else TensorFormat.LINEAR

    def is_shape_inference_io(self, name: str) -> bool:
        """Return whether a tensor holds shapes."""
        self._shapes[name]
        return bool(self._facts.get("shape_io"))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        """Return the smallest, the optimal and the largest shape of an input."""
        if self.get_tensor_mode(name) is not TensorIOMode.INPUT:
            raise ValueError("no such input")
        shapes = self._profiles[profile_index].get(name, [self._shapes[name]] * 3)
        return [tuple(shape) for shape in shapes]

    def create_engine_inspector(self) -> EngineInspector:
        """Make an inspector of the engine."""
        return EngineInspector()

    def create_runtime_config(self) -> IRuntimeConfig:
        """Make a configuration of execution contexts."""
        return self._config()

    def create_execution_context(
        self,
        strategy: ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy.STATIC,
        runtime_config: IRuntimeConfig | None = None,
    ) -> IExecutionContext | None:
        """Make an execution context, or return None with the reason in the log."""
        context = IExecutionContext.__new__(IExecutionContext)
        if not context._open(self, strategy, runtime_config):
            self._logger.log(ILogger.ERROR, "createExecutionContext: Error Code 2: OutOfMemory")
            return None
        self._contexts += 1
        return context


Runtime._engine = ICudaEngine


class IExecutionContext:
    """Runs an engine."""

    __slots__ = (
        "__weakref__",
        "_addresses",
        "_changes",
        "_config",
        "_driver",
        "_engine",
        "_inputs",
        "_memory",
        "_profile_index",
        "_ran",
        "_unreported",
        "enqueue_emits_profile",
        "profiler",
    )

    def __init__(self) -> None:
        raise TypeError("No constructor defined!")

    def _open(self, engine: ICudaEngine, strategy: Any, config: IRuntimeConfig | None) -> bool:
        self._engine = engine
        self._driver = engine._driver
        self._config = config
        self._inputs: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._changes = 0
        self._ran = -1
        self._unreported = False
        self.profiler: IProfiler | None = None
        self.enqueue_emits_profile = True
        # Only the first context of an engine is guaranteed to have a profile.
        self._profile_index = -1 if engine._contexts else 0
        self._memory = None
        if strategy is ExecutionContextAllocationStrategy.STATIC:
            self._memory = self._driver.allocate(4096)
            return self._memory is not None
        return True

    def __del__(self) -> None:
        if getattr(self, "_memory", None) is not None:
            self._driver.free(self._memory)

    def _error(self, reason: str) -> bool:
        self._engine._logger.log(ILogger.ERROR, f"IExecutionContext: Error Code 3: {reason}")
        return False

    @property
    def engine(self) -> ICudaEngine:
        """The engine that it runs."""
        return self._engine

    @property
    def active_optimization_profile(self) -> int:
        """The profile in use, -1 for none."""
        return self._profile_index

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        """Choose the profile; the real one raises where another answers False."""
        if profile_index >= self._engine.num_optimization_profiles or not stream_handle:
            self._error("no such profile")
            raise RuntimeError("Error in set optimization profile async.")
        self._profile_index = profile_index
        self._inputs, self._addresses = {}, {}
        self._changes += 1
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        """Set the shape of an input."""
        if self._engine.get_tensor_mode(name) is not TensorIOMode.INPUT:
            return self._error(f"{name} is no input")
        if self._profile_index < 0:
            return self._error("no profile is chosen")
        low, _, high = self._engine.get_tensor_profile_shape(name, self._profile_index)
        if len(shape) != len(low) or not all(
            a <= b <= c for a, b, c in zip(low, shape, high, strict=True)
        ):
            return self._error(f"Supplied shape of {name} does not satisfy any profile")
        self._inputs[name] = tuple(shape)
        self._changes += 1
        return True

    def infer_shapes(self) -> list[str]:
        """Return the inputs whose shape is still open."""
        names = [name for name, mode in self._engine._names if mode is TensorIOMode.INPUT]
        return [name for name in names if name not in self._inputs]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Return a tensor's shape as far as the inputs' shapes decide it."""
        if name in self._inputs:
            return self._inputs[name]
        sizes = {
            axis: size
            for input_name, shape in self._inputs.items()
            for axis, size in zip(self._engine._shapes[input_name], shape, strict=True)
        }
        return tuple(
            axis if isinstance(axis, int) else sizes.get(axis, -1)
            for axis in self._engine._shapes[name]
        )

    def set_tensor_address(self, name: str, memory: int) -> bool:
        """Set where a tensor lies."""
        if self._engine.get_tensor_mode(name) is TensorIOMode.NONE:
            return self._error(f"{name} is no tensor")
        self._addresses[name] = memory
        self._changes += 1
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        """Put a run on a stream."""
        facts, driver = self._engine._facts, self._driver
        if self._profile_index < 0 or self.infer_shapes():
            return self._error("no profile is chosen, or shapes are missing")
        shapes = {name: self.get_tensor_shape(name) for name, _ in self._engine._names}
        batch = next(iter(shapes.values()))[0]
        if batch == facts.get("fails_at"):
            return self._error(f"enqueueV3 failed for batch {batch}")
        for name, shape in shapes.items():
            if not driver.on_device(self._addresses.get(name, 0), self._size(name, shape)):
                return self._error(f"{name} does not lie on the device")
        if driver.capturing(stream_handle):
            if self._ran != self._changes:
                return self._error("a shape must run once before it is captured")
            if batch in facts.get("uncapturable_at", ()):
                driver.synchronize(stream_handle)
        self._ran = self._changes
        self._unreported = self.profiler is not None
        work = _work(self, shapes, dict(self._addresses))
        return driver.launch(stream_handle, work) or self._error("the launch failed")

    def report_to_profiler(self) -> bool:
        """Tell the profiler of the last run."""
        if self.profiler is None or self.enqueue_emits_profile or not self._unreported:
            return self._error("there is no run to report")
        self._unreported = False
        for name, _, ms in LAYERS:
            self.profiler.report_layer_time(name, ms)
        return True

    def _size(self, name: str, shape: tuple[int, ...]) -> int:
        return int(np.prod(shape)) * np.dtype(_NUMPY_TYPES[self._engine._dtypes[name]]).itemsize


def _work(
    context: IExecutionContext, shapes: Mapping[str, tuple[int, ...]], addresses: Mapping[str, int]
) -> Callable[[], bool]:
    """Return what a launch does when the stream gets to it, with the context as it is now."""
    alive, changes, driver = weakref.ref(context), context._changes, context._driver

    def array(engine: ICudaEngine, name: str) -> np.ndarray:
        dtype, shape = np.dtype(_NUMPY_TYPES[engine._dtypes[name]]), shapes[name]
        size = int(np.prod(shape)) * dtype.itemsize
        data = (ctypes.c_uint8 * size).from_address(addresses[name])
        return np.frombuffer(data, dtype).reshape(shape)

    def work() -> bool:
        now = alive()
        if now is None or now._changes != changes:
            driver.violation("a run was launched whose context is gone or has changed")
            return False
        engine = now._engine
        inputs = [name for name, mode in engine._names if mode is TensorIOMode.INPUT]
        outputs = [name for name, mode in engine._names if mode is TensorIOMode.OUTPUT]
        feeds = {name: array(engine, name).copy() for name in inputs}
        results = engine._session.run(outputs, feeds)
        for name, result in zip(outputs, results, strict=True):
            array(engine, name)[...] = result
        return True

    return work
