# SPDX-License-Identifier: Apache-2.0
"""OpenVINO on CPU, and on Intel GPU or NPU by device name; reads ONNX and Paddle 2's `.pdmodel`.

OpenVINO picks bf16 by itself on a CPU that has it, so the precision is always set explicitly, and
read back from the compiled model. Concurrency comes from infer requests: each has its own buffers.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import queue
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_files import model_digest, model_files, onnx_precision
from hgdeploy.bundle.names import ONNX_FILE
from hgdeploy.bundle.paddle_params import checked_params
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.engines.base import (
    USE_CPU,
    Capability,
    CheckedEngine,
    Engine,
    RuntimeInfo,
    Tensors,
    TensorSpec,
)
from hgdeploy.engines.onnx_taps import tapped_outputs
from hgdeploy.engines.openvino.probe import int8_error
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, EngineError, OutputError, one_line
from hgdeploy.system.files import updating_folder
from hgdeploy.system.libraries import import_library, installed_version, installing
from hgdeploy.system.machine import available_cpus

# OpenVINO's name of a precision, and the capability that a device must list for it. The precision
# of an int8 model is in its own quantize nodes; the rest of it runs in fp32.
_HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
_CAPABILITIES = {"fp32": "FP32", "fp16": "FP16", "bf16": "BF16", "int8": "INT8"}
# The kinds of activations that `hgdeploy quantize` makes, and whether they are signed.
_SIGNED = {"int8": True, "uint8": False}
_MOST_INT8_ERROR = 0.01  # of the network in `probe`, where OpenVINO computes it correctly
# Two requests for each inference at once: OpenVINO runs an inference on a thread of its own, which
# would otherwise wait for its caller to bring the next.
_REQUESTS_PER_STREAM = 2


class OpenVinoEngine(CheckedEngine):
    """One compiled model with a pool of infer requests."""

    def __init__(
        self,
        compiled: Any,
        tensor_of: Callable[..., Any],
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        runtime: RuntimeInfo,
        concurrency: int,
    ) -> None:
        super().__init__(*specs, runtime, concurrency)
        self._compiled = compiled
        self._tensor_of = tensor_of
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(concurrency):
            self._requests.put(compiled.create_infer_request())

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        request = self._requests.get()
        try:
            # OpenVINO insists that shared memory is writable, though it only reads it.
            arrays = {name: np.require(array, requirements="W") for name, array in feeds.items()}
            for name, array in arrays.items():
                request.set_tensor(name, self._tensor_of(array, shared_memory=True))
            request.infer(share_outputs=True)
            # Copied: the request's own buffers are overwritten by its next run.
            return {spec.name: request.get_tensor(spec.name).data.copy() for spec in self.outputs}
        except RuntimeError as error:
            raise EngineError(f"OpenVINO failed to run the model: {one_line(error)}") from error
        finally:
            self._requests.put(request)

    def _free(self) -> None:
        self._requests = queue.SimpleQueue()
        self._compiled = None


def artifact_names(precision: str) -> tuple[str, ...]:
    """Return the names of the bundle files this engine can read for `precision`, best first.

    For fp16 and bf16, OpenVINO itself converts the fp32 model.
    """
    if precision == "int8":
        return ("inference.int8.onnx",)
    return (ONNX_FILE, "inference.pdmodel")


def load(source: Path, options: EngineOptions) -> Engine:
    """Load an ONNX model or a Paddle 2 program.

    Args:
        source: `.onnx`, or `.pdmodel` with its `.pdiparams` beside it.
        options: `device` is `cpu`, `gpu:N` (Intel) or `npu`.

    Raises:
        EngineError: OpenVINO, the device or the precision is not available.
        BundleError: the file is missing or OpenVINO cannot read it.
    """
    if not source.is_file():
        raise BundleError(f"{source} does not exist; convert the bundle to ONNX first")
    if source.suffix == ".pdmodel":
        checked_params(source)
    openvino = import_library("openvino", "openvino")
    core = openvino.Core()
    device = _device(core, options.device)
    _check_precision(core, device, options, source)
    compiled = _compile(core, source, device, options)
    ran = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if ran != _HINTS[options.precision]:
        raise EngineError(
            f"OpenVINO would run {ran} on {device}, but {options.precision} was asked for"
        )
    runtime = RuntimeInfo(
        engine="openvino",
        library="openvino",
        version=installed_version("openvino") or "source",
        device=options.device,
        providers=(device,),
        precision=options.precision,
        threads=options.cpu_threads if device == "CPU" else None,
    )
    best = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS"))
    specs = _specs(compiled.inputs), _specs(compiled.outputs, options.output_name)
    requests = max(best, _REQUESTS_PER_STREAM * options.streams)
    return OpenVinoEngine(compiled, openvino.Tensor, specs, runtime, requests)


def intermediates(
    source: Path, options: EngineOptions, row: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Run a model and return every tensor inside it, by name, in order; see `onnx_taps`."""
    return tapped_outputs(source, options, row, load)


def capability() -> Capability:
    """Return what OpenVINO can do on this machine."""
    version = installed_version("openvino")
    if version is None:
        return Capability(None, notes=(installing("openvino"),))
    core = import_library("openvino", "openvino").Core()
    devices = tuple(_our_name(name) for name in core.available_devices)
    precisions = _precisions(core, "CPU")
    right = [kind for kind in _SIGNED if _int8_is_right(kind)] if "int8" in precisions else []
    note = "int8 needs the bundle's inference.int8.onnx"
    if not right:
        precisions = tuple(name for name in precisions if name != "int8")
        note = "int8: OpenVINO computes wrong results on this CPU; use onnxruntime for int8"
    elif len(right) < len(_SIGNED):
        note += f", made with --activations {right[0]}: with others OpenVINO is wrong on this CPU"
    return Capability(version, devices, precisions, (note,))


def _our_name(device: str) -> str:
    """Turn OpenVINO's `CPU`, `GPU`, `GPU.1`, `NPU` into `cpu`, `gpu:0`, `gpu:1`, `npu`."""
    kind, _, number = device.lower().partition(".")
    return f"gpu:{number or 0}" if kind == "gpu" else kind


def _device(core: Any, device: str) -> str:
    """Return OpenVINO's name of `device`.

    Raises:
        EngineError: it is unknown, or not on this machine.
    """
    available = {_our_name(name): name for name in core.available_devices}
    if device in available:
        return str(available[device])
    kind, _, number = device.partition(":")
    if device in ("cpu", "npu") or (kind == "gpu" and number.isascii() and number.isdigit()):
        raise EngineError(
            f"{device} was asked for, but OpenVINO finds only {', '.join(sorted(available))} here; "
            f"{USE_CPU}"
        )
    raise EngineError(f"unknown device {device!r}, expected 'cpu' or 'gpu:N' such as 'gpu:0'")


def _precisions(core: Any, device: str) -> tuple[str, ...]:
    has = core.get_property(device, "OPTIMIZATION_CAPABILITIES")
    return tuple(name for name, flag in _CAPABILITIES.items() if flag in has)


def _check_precision(core: Any, device: str, options: EngineOptions, source: Path) -> None:
    available = _precisions(core, device)
    if options.precision not in available:
        raise EngineError(
            f"OpenVINO cannot run {options.precision} on this {device}, available: "
            f"{', '.join(available)}"
        )
    quantized = options.precision == "int8" or (
        source.suffix == ".onnx" and onnx_precision(source) == "int8"
    )
    if not quantized or device != "CPU":
        return
    made_with = (read_sidecar(source) or {}).get("activations")
    wrong = [kind for kind in _SIGNED if made_with in (kind, None) and not _int8_is_right(kind)]
    if wrong:
        raise EngineError(
            f"OpenVINO computes int8 with {' and '.join(wrong)} activations wrongly on this CPU, "
            f"and {source.name} may have them; use onnxruntime for int8, or openvino in fp32"
        )


def _int8_is_right(activations: str) -> bool:
    return int8_error(_SIGNED[activations]) < _MOST_INT8_ERROR


def _compile(core: Any, source: Path, device: str, options: EngineOptions) -> Any:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": _HINTS[options.precision],
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": options.profile,
    }
    if device == "CPU":
        threads = options.cpu_threads * options.streams
        settings["INFERENCE_NUM_THREADS"] = threads
        settings["NUM_STREAMS"] = options.streams
        # OpenVINO pins threads to the first CPUs: processes that use only some of the CPUs would
        # all be pinned to the same ones.
        settings["ENABLE_CPU_PINNING"] = threads >= available_cpus()
    try:
        with _cache(source, device, settings, options.cache_dir) as cache:
            # By its path: reading the model first takes most of the time that the cache saves.
            return core.compile_model(str(source), device, settings | cache)
    except RuntimeError as error:
        model_files(source)  # says so itself where weights are missing, or outside of the folder
        raise BundleError(f"OpenVINO cannot load {source}: {one_line(error)}") from error


@contextlib.contextmanager
def _cache(
    source: Path, device: str, settings: dict[str, Any], root: Path | None
) -> Iterator[dict[str, str]]:
    """Yield the settings with which OpenVINO keeps a compiled model, and loads it the next time.

    Each model has a folder for each set of settings, under the digest of all its files: OpenVINO
    itself looks only at the time and size of the first (the time is in the name too, or it would
    compile into the same folder again). It writes in place, so a new folder is filled aside and
    renamed when it is whole. OpenVINO itself notices that its version has changed. If the folder
    cannot be written, nothing is kept.
    """
    if root is None:
        yield {}
        return
    digest = model_digest(source)
    stamp = f"{source.name}-{_short_digest((digest, source.stat().st_mtime_ns))}-"
    final = root / "openvino" / (stamp + _short_digest((device, sorted(settings.items()))))
    if final.is_dir():
        yield {"CACHE_DIR": str(final)}
        return
    kept = contextlib.ExitStack()
    try:
        aside = kept.enter_context(updating_folder(final))
    except OutputError:
        yield {}
        return
    with contextlib.suppress(OutputError), kept:
        yield {"CACHE_DIR": str(aside)}
        if model_digest(source) != digest:
            raise OutputError(f"{source} was changed while it was loaded")
    for folder in final.parent.glob(f"{glob.escape(source.name)}-*"):
        if not folder.name.startswith(stamp):  # of the file as it was
            shutil.rmtree(folder, ignore_errors=True)


def _short_digest(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def _specs(ports: Any, wanted: str | None = None) -> tuple[TensorSpec, ...]:
    specs = []
    for port in ports:
        # A tensor has several names where operators between them change nothing.
        name = wanted if wanted is not None and wanted in port.names else port.any_name
        shape = tuple(-1 if d.is_dynamic else d.get_length() for d in port.partial_shape)
        specs.append(TensorSpec(name, port.element_type.to_dtype().name, shape))
    return tuple(specs)
