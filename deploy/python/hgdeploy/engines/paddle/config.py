# SPDX-License-Identifier: Apache-2.0
"""Paddle's configuration for our options."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from hgdeploy.bundle.names import INT8_PROGRAMS
from hgdeploy.engines.base import (
    USE_CPU,
    device_index,
)
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import BundleError, EngineError, one_line
from hgdeploy.gpu.stack import release
from hgdeploy.system.libraries import environment
from hgdeploy.system.machine import cpu_flags

# NVIDIA's libraries, cuBLAS, cuDNN and TensorRT, compute fp32 in TF32 unless this is 0 for them.
_TF32 = "NVIDIA_TF32_OVERRIDE"


def cpu_has_bf16() -> bool:
    """Return whether this CPU has the instructions that Paddle needs for bf16."""
    return bool(cpu_flags() & {"avx512_bf16", "amx_bf16"})


def check_device(paddle: ModuleType, source: Path, options: EngineOptions) -> int | None:
    """Check that device and precision are available; return the GPU's index, or None for the CPU.

    PaddleSlim's program says itself what runs in int8, so every device has it.

    Raises:
        EngineError: one is not available; the message says what is. Or the program is of Paddle 3,
            and Paddle is older.
    """
    if source.suffix == ".json" and (1,) <= release(str(paddle.__version__)) < (3,):
        # It would crash. A version of 0.0.0 is a nightly build.
        raise EngineError(
            f"Paddle {paddle.__version__} cannot read {source}, the format of Paddle 3; install "
            "Paddle 3 (for a GPU from Paddle's own index, see docs/tensorrt.md), or use onnxruntime"
        )
    own = options.own_of(PaddleOptions)
    index = device_index(options.device)
    slim = ("int8",) if source.name in INT8_PROGRAMS else ()
    if index is None:
        if own.tensorrt:
            raise EngineError(
                "TensorRT needs a GPU, and the device is cpu; use a GPU, or drop use_tensorrt"
            )
        if options.precision == "bf16" and not cpu_has_bf16():
            raise EngineError(
                "bf16 needs a CPU with avx512_bf16 or amx_bf16, which this one lacks; use fp32"
            )
        if options.precision == "bf16" and own.onednn is False:
            raise EngineError("bf16 on a CPU runs in oneDNN; set enable_mkldnn=True, or use fp32")
        if options.precision not in ("fp32", "bf16", *slim):
            raise EngineError(
                f"the paddle engine cannot run {options.precision} on a CPU, available: fp32, bf16"
            )
        return None
    if not paddle.is_compiled_with_cuda():
        raise EngineError(
            f"{options.device} was asked for, but this paddlepaddle is the CPU build; {USE_CPU}, "
            "or install paddlepaddle-gpu from Paddle's own index (docs/tensorrt.md)"
        )
    count = paddle.device.cuda.device_count()
    if index >= count:
        available = ", ".join(["cpu", *(f"gpu:{i}" for i in range(count))])
        raise EngineError(f"{options.device} does not exist here, available: {available}")
    allowed = ("fp32", "fp16", "int8") if own.tensorrt else ("fp32", *slim)
    if options.precision not in allowed:
        raise EngineError(
            f"the paddle engine cannot run {options.precision} on a GPU "
            f"{'with' if own.tensorrt else 'without'} TensorRT, available: "
            f"{', '.join(allowed)}"
        )
    return index


def precision_warnings(options: EngineOptions) -> tuple[str, ...]:
    """Return a line if a program computes in another precision than it is in."""
    if options.precision != "int8" or options.device == "cpu":
        return ()
    if options.own_of(PaddleOptions).tensorrt:
        return ()
    return (
        "Paddle computes int8 on a GPU in TensorRT only: without it PaddleSlim's program runs in "
        "fp32, with weights rounded to int8 (-o Global.use_tensorrt=True turns it on)",
    )


def build_config(source: Path, params: Path, options: EngineOptions, index: int | None) -> Any:
    """Build Paddle's configuration, with every switch set explicitly."""
    from paddle.inference import Config

    own = options.own_of(PaddleOptions)
    config = Config(str(source), str(params))
    config.disable_glog_info()
    config.switch_ir_optim(options.graph_optimization)
    if source.suffix == ".json":
        config.enable_new_executor(True)
    config.enable_memory_optim()
    if options.profile:
        config.enable_profile()
    if index is not None:
        config.enable_use_gpu(own.gpu_memory_mb, index)
        return config
    config.disable_gpu()
    config.set_cpu_math_library_num_threads(options.cpu_threads)
    if own.onednn is False:
        config.disable_mkldnn()
        return config
    config.enable_mkldnn()
    # oneDNN caches primitives by shape; the bound keeps many batch sizes from filling the memory.
    config.set_mkldnn_cache_capacity(10)
    if options.precision == "bf16":
        config.enable_mkldnn_bfloat16()
    return config


def open_predictor(config: Any, source: Path) -> Any:
    """Make a Paddle predictor.

    Raises:
        BundleError: Paddle cannot load the model.
    """
    from paddle.inference import create_predictor

    try:
        with ieee_fp32() if config.use_gpu() else contextlib.nullcontext():
            return create_predictor(config)
    except (ValueError, RuntimeError, OSError, MemoryError, IndexError) as error:
        raise BundleError(
            f"Paddle cannot load {source} with its .pdiparams: {one_line(error)}; check that both "
            "files come from one export and are complete"
        ) from error


@contextlib.contextmanager
def ieee_fp32() -> Iterator[None]:
    """Make what is loaded meanwhile compute fp32 as IEEE fp32, as ONNX Runtime does here.

    Paddle's own switches are for its convolutions and matrix products, where convolutions use TF32
    by default. Its TensorRT subgraphs are built while a predictor is made, and heed only the
    variable, which TensorRT advises to leave unset when an engine runs.

    Source: NVIDIA's developer guide of TensorRT, on TF32; Paddle's fused_conv2d_add_act_kernel.cu.
    """
    from paddle.base import core

    core.set_cudnn_switch(False)
    core.set_cublas_switch(False)
    with environment(_TF32, "0"):
        yield


def provider_names(options: EngineOptions, index: int | None) -> tuple[str, ...]:
    """Return what Paddle computes with, most preferred first, for `RuntimeInfo.providers`."""
    own = options.own_of(PaddleOptions)
    if index is not None:
        return ("TensorRT", "CUDA") if own.tensorrt else ("CUDA",)
    return ("CPU",) if own.onednn is False else ("oneDNN", "CPU")
