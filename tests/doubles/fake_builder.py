# SPDX-License-Identifier: Apache-2.0
"""TensorRT's builder without a GPU: what it builds, `fake_tensorrt` runs.

A network is an ONNX model, and a layer is one of its nodes. Nothing is tuned.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Any

import fake_tensorrt
import numpy as np
from fake_tensorrt import ILogger

__all__ = [
    "Builder",
    "BuilderFlag",
    "HardwareCompatibilityLevel",
    "IProgressMonitor",
    "LayerInformationFormat",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ProfilingVerbosity",
]

BuilderFlag = enum.Enum("BuilderFlag", "TF32 VERSION_COMPATIBLE")
HardwareCompatibilityLevel = enum.Enum("HardwareCompatibilityLevel", "NONE AMPERE_PLUS")
LayerInformationFormat = enum.Enum("LayerInformationFormat", "ONELINE JSON")
MemoryPoolType = enum.Enum("MemoryPoolType", "WORKSPACE")
NetworkDefinitionCreationFlag = enum.IntEnum("NetworkDefinitionCreationFlag", "STRONGLY_TYPED")
ProfilingVerbosity = enum.Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED")
_TYPES = {"float32": "FLOAT", "float16": "HALF"}
_LAYERS = {"Conv": "CONVOLUTION", "QuantizeLinear": "QUANTIZE", "Constant": "CONSTANT"}


class IProgressMonitor:
    """Is told how far a build is."""

    def __init__(self) -> None:
        pass


class Tensor:
    """An input or output of a network or a layer."""

    def __init__(self, name: str, dtype: str, shape: tuple[int, ...]) -> None:
        self.name = name
        self.shape = shape
        self.dtype = fake_tensorrt.DataType[_TYPES.get(dtype, dtype.upper())]


class Layer:
    """A node of the model."""

    def __init__(self, kind: str, outputs: list[Tensor]) -> None:
        self.type = enum.Enum("LayerType", [_LAYERS.get(kind, kind.upper())])(1)
        self.num_outputs = len(outputs)
        self.get_output = outputs.__getitem__


class Network:
    """An ONNX model; filled by `OnnxParser`."""

    def __init__(self) -> None:
        self.onnx = b""
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []
        self._layers: list[Layer] = []

    def read(self, content: bytes) -> None:
        """Read a model."""
        import onnx

        model = onnx.shape_inference.infer_shapes(onnx.load_from_string(content))
        graph = model.graph
        known = {info.name: info for info in (*graph.value_info, *graph.input, *graph.output)}

        def tensor(name: str) -> Tensor:
            if name not in known:
                return Tensor(name, "float32", ())
            kind = known[name].type.tensor_type
            dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)).name
            sizes = [one.dim_value if one.HasField("dim_value") else -1 for one in kind.shape.dim]
            return Tensor(name, dtype, tuple(sizes))

        weights = {one.name for one in graph.initializer}
        self._inputs = [tensor(one.name) for one in graph.input if one.name not in weights]
        self._outputs = [tensor(one.name) for one in graph.output]
        self._layers = [Layer(one.op_type, list(map(tensor, one.output))) for one in graph.node]
        self.onnx = model.SerializeToString()

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        """Number of outputs."""
        return len(self._outputs)

    @property
    def num_layers(self) -> int:
        """Number of layers."""
        return len(self._layers)

    def get_input(self, index: int) -> Tensor:
        """Return an input."""
        return self._inputs[index]

    def get_output(self, index: int) -> Tensor:
        """Return an output."""
        return self._outputs[index]

    def get_layer(self, index: int) -> Layer:
        """Return a layer."""
        return self._layers[index]


class OnnxParser:
    """Fills a network from an ONNX file."""

    num_errors = 0

    def __init__(self, network: Network, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self._network = network

    def parse_from_file(self, path: str) -> bool:
        """Read a file."""
        return self.parse(Path(path).read_bytes())

    def parse(self, model: bytes) -> bool:
        """Read a file's content."""
        self._network.read(model)
        return True


class Profile:
    """Shapes to serve."""

    def __init__(self) -> None:
        self.shapes: dict[str, list[tuple[int, ...]]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        """Set (min, opt, max) of an input."""
        self.shapes[name] = list(shapes)


class TimingCache:
    """Kernel times."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> bytes:
        """Return its bytes."""
        return self._content or b"times"


class BuilderConfig:
    """How to build."""

    def __init__(self) -> None:
        self.flags = {BuilderFlag.TF32}
        self.avg_timing_iterations = 1
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self.hardware_compatibility_level = HardwareCompatibilityLevel.NONE
        self.profiles: list[Profile] = []
        self._cache: TimingCache | None = None

    def set_flag(self, flag: BuilderFlag) -> None:
        """Set a flag."""
        self.flags.add(flag)

    def clear_flag(self, flag: BuilderFlag) -> None:
        """Clear a flag."""
        self.flags.discard(flag)

    def set_memory_pool_limit(self, pool: MemoryPoolType, size: int) -> None:
        """Set a limit, which nothing here needs."""

    def add_optimization_profile(self, profile: Profile) -> int:
        """Add shapes to serve."""
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def create_timing_cache(self, content: bytes) -> TimingCache:
        """Make a cache from its bytes."""
        return TimingCache(content)

    def set_timing_cache(self, cache: TimingCache, ignore_mismatch: bool) -> bool:
        """Use a cache."""
        self._cache = cache
        return not ignore_mismatch

    def get_timing_cache(self) -> TimingCache | None:
        """Return the cache in use."""
        return self._cache


class Builder:
    """Builds engines for the GPU that is current in this thread."""

    def __init__(self, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self._driver = fake_tensorrt._Driver()
        self.create_network = lambda _: Network()
        self.create_builder_config = BuilderConfig
        self.create_optimization_profile = Profile

    def build_serialized_network(self, network: Network, config: BuilderConfig) -> memoryview:
        """Build a network."""
        monitor, phase = config.progress_monitor, "Building engine"
        monitor.phase_start(phase, None, 1)
        assert monitor.step_complete(phase, 0)
        monitor.phase_finish(phase)
        first, *others = [profile.shapes for profile in config.profiles]
        facts = {"profiles": others} if others else {}
        capability = self._driver.capability()
        plan = fake_tensorrt.engine_file(network.onnx, first, capability=capability, **facts)
        return memoryview(plan)
