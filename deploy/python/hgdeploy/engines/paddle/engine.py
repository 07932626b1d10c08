# SPDX-License-Identifier: Apache-2.0
"""Paddle Inference: `.json` (Paddle 3) and `.pdmodel` (Paddle 2), on CPU, GPU, and TensorRT.

Facts that shape this module: oneDNN is on by default on a CPU, so it must be switched off
explicitly; memory optimisation of a `.json` program needs the new executor; a predictor must not be
shared between threads; the Python predictor has no shapes, so they are read from the program.
"""

from __future__ import annotations

import dataclasses
import gc
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.names import INT8_PROGRAMS, PADDLE_PROGRAMS
from hgdeploy.bundle.paddle_params import checked_params
from hgdeploy.bundle.paddle_program import reading_once
from hgdeploy.engines.base import (
    Capability,
    CheckedEngine,
    Engine,
    RuntimeInfo,
    Tensors,
    TensorSpec,
)
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.config import (
    build_config,
    check_device,
    cpu_has_bf16,
    open_predictor,
    precision_warnings,
    provider_names,
)
from hgdeploy.engines.paddle.onednn import decide_onednn
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.engines.paddle.program import ProgramSpecs
from hgdeploy.engines.paddle.sizes import check_size, size_warnings, specs_at
from hgdeploy.engines.paddle.tensorrt import converted, use_tensorrt
from hgdeploy.engines.processes import as_many_as_fit, load_processes
from hgdeploy.errors import BundleError, EngineError, one_line
from hgdeploy.system.libraries import import_library, installed_version, installing

# The memory that one process takes. Measured at batch 1: 160 MiB and twice the parameters
# (200 MiB with EfficientNetLite0, 287 with PPHGNet_tiny, 370 with PPHGNet_small); batches add some.
_PROCESS_MB = 256
_COPIES_OF_PARAMETERS = 3
_GPU_BUILD = "paddlepaddle-gpu from Paddle's own index (docs/tensorrt.md)"
# Paddle 2's operator names where Paddle 3, and with it paddle2onnx, uses another.
_PIR_NAMES = {
    "elementwise_add": "add",
    "elementwise_mul": "multiply",
    "elementwise_sub": "subtract",
    "elementwise_div": "divide",
    "flatten_contiguous_range": "flatten",
    "matmul_v2": "matmul",
    "reshape2": "reshape",
    "transpose2": "transpose",
    "hard_swish": "hardswish",
}


class PaddleEngine(CheckedEngine):
    """One Paddle predictor; calls take turns, since a predictor holds its own buffers.

    Clones would not help: Paddle keeps Python's lock while it runs. See `processes`.
    """

    def __init__(
        self,
        predictor: Any,
        specs: tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]],
        runtime: RuntimeInfo,
    ) -> None:
        super().__init__(*specs, runtime, concurrency=1)
        self._predictor = predictor

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        try:
            for name, array in feeds.items():
                handle = self._predictor.get_input_handle(name)
                handle.reshape(array.shape)
                handle.copy_from_cpu(array)
            self._predictor.run()
            # copy_to_cpu allocates a new array, so that the caller owns it.
            return {
                spec.name: self._predictor.get_output_handle(spec.name).copy_to_cpu()
                for spec in self.outputs
            }
        except (ValueError, RuntimeError, OSError, MemoryError) as error:
            raise EngineError(f"Paddle failed to run the model: {one_line(error)}") from error

    def infer_with_intermediates(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        """Run once and return every operator's output; see `intermediates`."""
        found: dict[str, NDArray[Any]] = {}
        counts: dict[str, int] = {}
        last: list[str] = []

        def see(operator: str, _: str, tensor: Any) -> None:
            # Paddle 3 writes `pd_op.relu_:7`, Paddle 2 `relu`; batch_norm passes its statistics
            # first, so the last tensor of one call is the result.
            kind = operator.removeprefix("pd_op.").partition(":")[0].rstrip("_")
            kind = _PIR_NAMES.get(kind, kind)
            again = last == [operator] and kind == "batch_norm" and ":" in operator
            value = np.array(tensor.numpy())
            if kind == "batch_norm" and value.ndim < 2:
                return
            if not again:
                counts[kind] = counts.get(kind, -1) + 1
            last[:] = [operator]
            found[f"{kind}.{counts[kind]}"] = value

        self._predictor.register_output_hook(see)
        for output in self.infer(feeds).values():
            found["output"] = output
        return found

    def _free(self) -> None:
        self._predictor = None
        gc.collect()


def artifact_names(precision: str) -> tuple[str, ...]:
    """Return the names of the bundle files this engine can read for `precision`, best first."""
    if precision == "int8":
        return INT8_PROGRAMS
    return PADDLE_PROGRAMS


@reading_once()
def load(source: Path, options: EngineOptions) -> Engine:
    """Load a Paddle inference model.

    Args:
        source: the program, `.json` or `.pdmodel`; its `.pdiparams` is beside it.
        options: a CPU can run fp32 and bf16, a GPU fp32; fp16 and int8 need
            `PaddleOptions(tensorrt=True)`.

    Raises:
        EngineError: Paddle, the device or the precision is not available.
        BundleError: a file is missing, or the pair cannot be loaded.
    """
    params = source.with_suffix(".pdiparams")
    for path in (source, params):
        if not path.is_file():
            raise BundleError(f"{path} does not exist; a Paddle model is the pair {source.name} "
                              f"and {params.name} in one folder")  # fmt: skip
    checked_params(source)  # Paddle itself would compute wrong results from other parameters
    options = _side_by_side(options, params)
    if options.streams == 1:
        _examined(source, options)  # what is refused in any case is refused at once
    options, warnings, seconds = decide_onednn(source, options)
    several = options.streams > 1
    engine = load_processes("paddle", source, options) if several else load_here(source, options)
    engine.warnings = (*warnings, *precision_warnings(options), *size_warnings(engine, source))
    engine.once_seconds = seconds
    return engine


def load_here(source: Path, options: EngineOptions) -> PaddleEngine:
    """Load in this process, with oneDNN as the options say; raises what `load` raises."""
    params = source.with_suffix(".pdiparams")
    index, specs = _examined(source, options)
    parts = options.own_of(PaddleOptions).tensorrt
    if parts and source.suffix == ".json":
        program = converted(source, options, specs.inputs)
        config = build_config(program, program.with_suffix(".pdiparams"), options, index)
    else:
        config = build_config(source, params, options, index)
        if parts:
            use_tensorrt(config, source, params, options, specs.inputs)
    predictor = open_predictor(config, source)
    runtime = RuntimeInfo(
        engine="paddle",
        library="paddlepaddle" if index is None else "paddlepaddle-gpu",
        version=str(import_library("paddle", "cpu").__version__),
        device=options.device,
        providers=provider_names(options, index),
        precision=options.precision,
        threads=options.cpu_threads if index is None else None,
    )
    engine = PaddleEngine(predictor, (specs.inputs, specs.outputs), runtime)
    if options.image_size is not None:
        check_size(engine, source)
    return engine


def _examined(source: Path, options: EngineOptions) -> tuple[int | None, ProgramSpecs]:
    """Return the index of the GPU, if it is one, and the program's inputs and outputs."""
    paddle = import_library("paddle", "cpu")
    return check_device(paddle, source, options), specs_at(source, options.image_size)


def _side_by_side(options: EngineOptions, params: Path) -> EngineOptions:
    """Return options with as many inferences at once as fit in memory; each takes a process.

    A GPU runs one inference after the other anyway.
    """
    if options.device != "cpu":
        threads = options.cpu_threads * options.streams
        return dataclasses.replace(options, threads=threads, streams=1)
    parameters = params.stat().st_size // 2**20
    return as_many_as_fit(options, _PROCESS_MB + _COPIES_OF_PARAMETERS * parameters)


def intermediates(
    source: Path, options: EngineOptions, row: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Run a model and return every tensor inside it, in order of execution.

    The graph runs as it was exported, unoptimised and in fp32. Tensors are named as paddle2onnx
    names those of the ONNX file it makes: by the operator and how many of its kind came before.

    Args:
        source: the program.
        options: as for a normal load.
        row: the first input, (1, 3, H, W).

    Raises:
        EngineError: the precision is not fp32, or Paddle failed.
        BundleError: the pair cannot be loaded.
    """
    if options.precision != "fp32":
        raise EngineError(f"the paddle engine shows its layers in fp32, not in {options.precision}")
    own = dataclasses.replace(options.own_of(PaddleOptions), onednn=False)
    plain = dataclasses.replace(options, graph_optimization=False, own=(own,))
    engine = load(source, plain)
    if not isinstance(engine, PaddleEngine):
        raise EngineError("the paddle engine did not load a Paddle predictor")
    try:
        return engine.infer_with_intermediates({engine.inputs[0].name: row})
    finally:
        engine.close()


def capability() -> Capability:
    """Return what Paddle can do on this machine."""
    version = installed_version("paddlepaddle", "paddlepaddle-gpu")
    if version is None:
        return Capability(None, notes=(f"{installing('cpu')}, or {_GPU_BUILD}",))
    paddle = import_library("paddle", "cpu")
    precisions, notes = ["fp32"], ["int8 needs PaddleSlim's inference_int8.json or .pdmodel"]
    if cpu_has_bf16():
        precisions.append("bf16")
    else:
        notes.append("bf16: this CPU has neither avx512_bf16 nor amx_bf16")
    devices = ["cpu"]
    if not paddle.is_compiled_with_cuda():
        notes.append(f"gpu: this is the CPU build; on a machine with one, install {_GPU_BUILD}")
    elif paddle.device.cuda.device_count() == 0:
        notes.append("gpu: no CUDA device is visible")
    else:
        devices += [f"gpu:{i}" for i in range(paddle.device.cuda.device_count())]
        precisions += ["fp16", "int8"]
        notes.append("fp16 and int8 on a GPU need Global.use_tensorrt=True")
    return Capability(version, tuple(devices), tuple(precisions), tuple(notes))
