# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime on CPU and CUDA.

If a provider fails to load, ONNX Runtime falls back to the CPU with only a log line; this module
checks what the session really runs on and refuses anything else. The precision is that of the ONNX
file: `inference.fp16.onnx` is the fp16 variant of `inference.onnx`.
"""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from types import ModuleType
from typing import Any

from numpy.typing import NDArray

from hgdeploy.bundle.model_files import model_files, onnx_precision
from hgdeploy.bundle.names import onnx_name
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.engines.base import (
    USE_CPU,
    Capability,
    CheckedEngine,
    Engine,
    RuntimeInfo,
    Tensors,
    TensorSpec,
    device_index,
)
from hgdeploy.engines.onnx_taps import tapped_outputs
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, EngineError, one_line
from hgdeploy.gpu.driver import nvidia_gpus, reason_gpu_is_missing
from hgdeploy.gpu.rules import problems_here
from hgdeploy.system.libraries import import_library, installed_version, installing
from hgdeploy.system.machine import int8_saturates

_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_HALF = ("fp16", "bf16")
# ONNX Runtime's names of element types, where they differ from numpy's.
_DTYPES = {"float": "float32", "double": "float64"}
# Fatal messages only: a failure raises an exception, which becomes our error of one line.
_LOG_FATAL = 4
_GPU_BUILD = f"pip uninstall onnxruntime, then {installing('gpu-cu12', 'gpu-cu13')}"
# Any number of threads may run a session; a second caller prepares while the first runs.
_LEAST_CALLS = 2


class OnnxRuntimeEngine(CheckedEngine):
    """One session; ONNX Runtime allows several threads to run it at once."""

    def __init__(
        self,
        session: Any,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        runtime: RuntimeInfo,
        concurrency: int,
    ) -> None:
        super().__init__(*specs, runtime, concurrency)
        self._session = session
        # CUDA's provider keeps each convolution's plan for one shape only, and plans again for
        # every other: batches of 1 to 8 images took 500 to 1000 ms each instead of 2 (H100).
        self.fills_batches = runtime.device != "cpu"

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        names = [spec.name for spec in self.outputs]
        try:
            results = self._session.run(names, dict(feeds))
        except Exception as error:  # ONNX Runtime's exceptions share no public base class
            raise EngineError(f"ONNX Runtime failed to run the model: {one_line(error)}") from error
        return dict(zip(names, results, strict=True))

    def _free(self) -> None:
        self._session = None


def artifact_names(precision: str) -> tuple[str, ...]:
    """Return the names of the bundle files this engine can read for `precision`, best first."""
    return (onnx_name(precision),)


def load(source: Path, options: EngineOptions) -> Engine:
    """Load an ONNX model.

    Args:
        source: the `.onnx` file; its precision must be the one in `options`.
        options: `device` is `cpu` or `gpu:N` (CUDA).

    Raises:
        EngineError: ONNX Runtime or the device is not available.
        BundleError: the file is missing, or ONNX Runtime cannot read it.
    """
    if not source.is_file():
        raise BundleError(f"{source} does not exist; convert the bundle to ONNX first")
    if options.precision == "bf16" and options.device == "cpu":
        raise EngineError(
            "onnxruntime has no bf16 kernels for a CPU, available: fp32, fp16, int8; the paddle "
            "and openvino engines compute bf16 where the CPU has it"
        )
    if options.precision == "tf32" and options.device == "cpu":
        raise EngineError(
            "tf32 is arithmetic of NVIDIA GPUs, and onnxruntime was asked for it on a CPU, "
            "available: fp32, fp16, int8"
        )
    index = device_index(options.device)
    _check_int8(source, options)
    ort = import_library("onnxruntime", "cpu")
    said = io.StringIO()
    with contextlib.nullcontext() if index is None else contextlib.redirect_stdout(said):
        if index is not None:
            _load_cuda(ort, options)
        session = _session(ort, source, options, index)
    providers = tuple(session.get_providers())
    if index is not None and providers[0] != _CUDA:
        why = _why_no_cuda(index, said.getvalue())
        raise EngineError(
            f"{options.device} was asked for, but CUDA did not load and ONNX Runtime "
            f"{ort.__version__} would run on {', '.join(providers)}: {why}; or {USE_CPU}"
        )
    runtime = RuntimeInfo(
        engine="onnxruntime",
        library="onnxruntime" if index is None else "onnxruntime-gpu",
        version=str(ort.__version__),
        device=options.device,
        providers=providers,
        precision=options.precision,
        threads=options.cpu_threads if index is None else None,
    )
    specs = _specs(session.get_inputs()), _specs(session.get_outputs())
    return OnnxRuntimeEngine(session, specs, runtime, max(_LEAST_CALLS, options.streams))


def intermediates(
    source: Path, options: EngineOptions, row: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Run a model and return every tensor inside it, by name, in order; see `onnx_taps`."""
    return tapped_outputs(source, options, row, load)


def capability() -> Capability:
    """Return what ONNX Runtime can do on this machine."""
    version = installed_version("onnxruntime-gpu", "onnxruntime")
    if version is None:
        return Capability(None, notes=(installing("cpu", "gpu-cu12", "gpu-cu13"),))
    ort = import_library("onnxruntime", "cpu")
    precisions = ["fp32", "fp16", "int8"]
    notes = ["fp16 and int8 need the bundle's inference.PRECISION.onnx"]
    if int8_saturates():
        notes.append("int8 needs 7-bit weights on this CPU, which lacks VNNI")
    devices = ["cpu"]
    count, reason = nvidia_gpus()
    if _CUDA not in ort.get_available_providers():
        notes.append(f"gpu: this is the CPU build; on a machine with one, {_GPU_BUILD}")
    elif reason:
        notes.append(f"gpu: {reason}")
    else:
        devices += [f"gpu:{i}" for i in range(count)]
        precisions += ["tf32", "bf16"]
        notes.append("bf16: on a GPU only, and it needs the bundle's inference.bf16.onnx")
        notes.append("int8: on the cpu only; on a GPU, tensorrt computes it")
        notes.append("gpu: this build has CUDA; whether it loads shows when a model is loaded")
    return Capability(version, tuple(devices), tuple(precisions), tuple(notes))


def _load_cuda(ort: ModuleType, options: EngineOptions) -> None:
    """Load CUDA and cuDNN before the first session does, from pip's nvidia packages too.

    What cannot be loaded is printed.

    Raises:
        EngineError: this ONNX Runtime has no CUDA.
    """
    if _CUDA not in ort.get_available_providers():
        raise EngineError(
            f"{options.device} was asked for, but this onnxruntime has only "
            f"{', '.join(ort.get_available_providers())}; {USE_CPU}, or {_GPU_BUILD}"
        )
    # What it logs outside of a session, such as that a provider does not load, is our error's text.
    ort.set_default_logger_severity(_LOG_FATAL)
    if hasattr(ort, "preload_dlls"):  # since 1.21
        ort.preload_dlls()


def _why_no_cuda(index: int, printed: str) -> str:
    """Return the likeliest cause: no GPU, a library that does not fit, or what was printed."""
    if missing := reason_gpu_is_missing(index):
        return missing
    if wrong := problems_here("onnxruntime-gpu"):
        return "; ".join(wrong)
    failure = re.search(r"(?:CUDA|CUDNN|CUBLAS) failure [^;\n]+|Failed to load [^\n]+", printed)
    said = f"{failure[0].strip()}; " if failure else ""
    return f"{said}check the driver, CUDA and cuDNN with hgdeploy doctor and docs/tensorrt.md"


def _check_int8(source: Path, options: EngineOptions) -> None:
    """Refuse int8 where it is not computed, or computed wrongly on this CPU; see `int8_saturates`.

    Raises:
        EngineError: the device is a GPU, or the model's sidecar does not say that its weights have
            7 bits.
    """
    if options.precision != "int8" and onnx_precision(source) != "int8":
        return
    if options.device != "cpu":
        # CUDA has no kernel for QLinearConv: it would round to int8, and compute in fp32.
        raise EngineError(
            "onnxruntime computes no int8 on a GPU, only fp32 with rounding in between, available: "
            "fp32, tf32, fp16, bf16; use int8 in tensorrt, or on the cpu"
        )
    if not int8_saturates():
        return
    bits = (read_sidecar(source) or {}).get("weight_bits")
    if bits != 7:
        found = "has 8-bit weights" if bits == 8 else "does not say how many bits its weights have"
        raise EngineError(
            f"{source} {found}, and int8 sums of 8-bit weights overflow on this CPU, which lacks "
            "VNNI; make it again with hgdeploy quantize --weight-bits 7, or use fp32"
        )


def _session(ort: ModuleType, source: Path, options: EngineOptions, index: int | None) -> Any:
    settings = ort.SessionOptions()
    settings.log_severity_level = _LOG_FATAL
    settings.intra_op_num_threads = options.cpu_threads
    settings.inter_op_num_threads = 1
    if options.streams > 1:
        # Threads that spin while they wait for work take the CPU from the other streams.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
    settings.enable_profiling = options.profile
    level = "ORT_ENABLE_ALL" if options.graph_optimization else "ORT_DISABLE_ALL"
    settings.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    providers: list[Any] = [_CPU]
    if index is not None:
        providers.insert(0, (_CUDA, _cuda_options(index, options.precision)))
    try:
        session = ort.InferenceSession(str(source), settings, providers=providers)
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        model_files(source)  # says so itself where weights are missing, or outside of the folder
        raise BundleError(f"ONNX Runtime cannot load {source}: {one_line(error)}") from error
    session.disable_fallback()  # a run that fails on a GPU would be repeated on the CPU
    return session


def _cuda_options(index: int, precision: str) -> dict[str, Any]:
    """Return ONNX Runtime's settings for a GPU; docs/tensorrt.md has what they were measured by.

    CUDA graphs stay off: where shapes alternate, or threads, the outputs were those of other runs.
    """
    # fp32 means IEEE fp32: CUDA's TF32 has a 10-bit mantissa and is on by default.
    found: dict[str, Any] = {"device_id": index, "use_tf32": int(precision == "tf32")}
    if precision in _HALF:
        # The tensor cores read channels last, and the search by trial chooses badly for them.
        found |= {"prefer_nhwc": 1, "cudnn_conv_algo_search": "HEURISTIC"}
    return found


def _specs(nodes: Any) -> tuple[TensorSpec, ...]:
    specs = []
    for node in nodes:
        element = node.type.removeprefix("tensor(").removesuffix(")")
        shape = tuple(size if isinstance(size, int) else -1 for size in node.shape)
        specs.append(TensorSpec(node.name, _DTYPES.get(element, element), shape))
    return tuple(specs)
