# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's CUDA: how it is loaded, why it is not, and runs as CUDA graphs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines.base import USE_CPU
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.slots import Slots
from hgdeploy.errors import EngineError, one_line
from hgdeploy.gpu.driver import reason_gpu_is_missing
from hgdeploy.gpu.rules import problems_here
from hgdeploy.system.libraries import installing

CUDA = "CUDAExecutionProvider"
GPU_BUILD = f"pip uninstall onnxruntime, then {installing('gpu-cu12', 'gpu-cu13')}"
# Fatal messages only: a failure raises an exception, which becomes our error of one line.
LOG_FATAL = 4
# A graph saves the launch of each kernel, which larger batches hide behind the GPU's own work.
_MOST_ROWS = 8
# ONNX Runtime keeps every graph, and its buffers, until the session ends.
_MOST_GRAPHS = 8
GRAPHS = f"CUDA graphs up to batch {_MOST_ROWS}"
_GRAPH, _NO_GRAPH = "gpu_graph_id", "-1"


def load_cuda(ort: ModuleType, options: EngineOptions) -> None:
    """Load CUDA and cuDNN before the first session does, from pip's nvidia packages too.

    What cannot be loaded is printed.

    Raises:
        EngineError: this ONNX Runtime has no CUDA.
    """
    if CUDA not in ort.get_available_providers():
        raise EngineError(
            f"{options.device} was asked for, but this onnxruntime has only "
            f"{', '.join(ort.get_available_providers())}; {USE_CPU}, or {GPU_BUILD}"
        )
    # What it logs outside of a session, such as that a provider does not load, is our error's text.
    ort.set_default_logger_severity(LOG_FATAL)
    if hasattr(ort, "preload_dlls"):  # since 1.21
        ort.preload_dlls()


def why_no_cuda(index: int, printed: str) -> str:
    """Return the likeliest cause: no GPU, a library that does not fit, or what was printed."""
    if missing := reason_gpu_is_missing(index):
        return missing
    if wrong := problems_here("onnxruntime-gpu"):
        return "; ".join(wrong)
    failure = re.search(r"(?:CUDA|CUDNN|CUBLAS) failure [^;\n]+|Failed to load [^\n]+", printed)
    said = f"{failure[0].strip()}; " if failure else ""
    return f"{said}check the driver, CUDA and cuDNN with hgdeploy doctor and docs/tensorrt.md"


def cuda_options(options: EngineOptions, index: int, graphs: bool) -> dict[str, Any]:
    """Return the settings of ONNX Runtime's CUDA for a GPU."""
    return {
        "device_id": index,
        # fp32 means IEEE fp32: CUDA's TF32 has a 10-bit mantissa and is on by default.
        "use_tf32": int(options.precision == "tf32"),
        "enable_cuda_graph": int(graphs),
    }


@dataclass(frozen=True)
class _Bound:
    """Fixed places on the GPU for the inputs and outputs of one shape, and the graph's number."""

    inputs: dict[str, Any]
    outputs: list[Any]
    binding: Any
    options: Any


class CudaGraphs:
    """Runs of a session whose small batches are CUDA graphs: one launch for all kernels.

    A graph reads and writes at the addresses that it was captured with, so each shape has its own.
    A shape runs without one the first time; ONNX Runtime captures it two runs later. While a graph
    is captured no other thread may use the GPU, so runs of graphs are alone, and others together.

    Args:
        ort: the module.
        session: a session with `enable_cuda_graph`.
        device: ONNX Runtime's name and number of the device, such as `("cuda", 0)`.
        concurrency: how many runs without a graph may be at once.
        on_failure: called with the reason where a graph fails; all runs are then without.
    """

    def __init__(
        self,
        ort: ModuleType,
        session: Any,
        device: tuple[str, int],
        concurrency: int,
        on_failure: Callable[[str], None],
    ) -> None:
        self._ort = ort
        self._session = session
        self._device = device
        self._gpu = Slots(concurrency)
        self._on_failure = on_failure
        self._bound: dict[tuple[Any, ...], _Bound] = {}
        self._failed = False
        self._no_graph = self._numbered(_NO_GRAPH)

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Run once, and return the outputs of these names, which the caller owns."""
        key = (*names, *(array.shape for array in feeds.values()))
        bound = None if self._failed else self._bound.get(key)
        if bound is not None:
            with self._gpu.all():
                try:
                    return self._launch(bound, feeds)
                except Exception as error:  # ONNX Runtime's exceptions share no public base class
                    self._failed = True
                    self._on_failure(one_line(error))
        with self._gpu:
            results = self._session.run(list(names), dict(feeds), self._no_graph)
        if self._is_worth_it(feeds):
            with self._gpu.all():
                self._bound.setdefault(key, self._bind(names, feeds, results))
        return list(results)

    def _is_worth_it(self, feeds: Mapping[str, NDArray[Any]]) -> bool:
        rows = max((array.shape[0] for array in feeds.values() if array.ndim), default=1)
        return not self._failed and rows <= _MOST_ROWS and len(self._bound) < _MOST_GRAPHS

    def _launch(self, bound: _Bound, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        for name, place in bound.inputs.items():
            place.update_inplace(feeds[name])
        self._session.run_with_iobinding(bound.binding, bound.options)
        return [np.array(place.numpy()) for place in bound.outputs]

    def _bind(
        self,
        names: Sequence[str],
        feeds: Mapping[str, NDArray[Any]],
        results: Sequence[NDArray[Any]],
    ) -> _Bound:
        def places(arrays: Sequence[NDArray[Any]]) -> list[Any]:
            make = self._ort.OrtValue.ortvalue_from_numpy
            return [make(array.copy(), *self._device) for array in arrays]

        inputs, outputs = dict(zip(feeds, places([*feeds.values()]), strict=True)), places(results)
        binding = self._session.io_binding()
        for name, place in inputs.items():
            binding.bind_ortvalue_input(name, place)
        for name, place in zip(names, outputs, strict=True):
            binding.bind_ortvalue_output(name, place)
        return _Bound(inputs, outputs, binding, self._numbered(str(len(self._bound) + 1)))

    def _numbered(self, graph: str) -> Any:
        options = self._ort.RunOptions()
        options.add_run_config_entry(_GRAPH, graph)
        return options
