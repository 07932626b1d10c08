# SPDX-License-Identifier: Apache-2.0
"""Which library builds an engine, and for which GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hgdeploy.convert.tensorrt.options import BuildOptions
from hgdeploy.convert.tensorrt.target_gpu import Gpu, local_gpu
from hgdeploy.errors import ConfigError, EngineError
from hgdeploy.system.libraries import import_library


@dataclass(frozen=True)
class Builder:
    """A library that can build here, and the GPUs it builds for.

    Attributes:
        trt: the library.
        compute_capabilities: those of the GPUs to build for.
        gpu: the GPU of this machine, if that is what is built for; else None.
    """

    trt: Any
    compute_capabilities: tuple[str, ...]
    gpu: Gpu | None


def open_builder(options: BuildOptions) -> Builder:
    """Load the library and decide which GPUs to build for.

    Raises:
        EngineError: the library or the GPU it needs is missing, or it does not build for that GPU.
        ConfigError: the compute capabilities asked for cannot be built for, or they or the library
            lack what the options ask for.
    """
    builder = _builder(options)
    options.check_library(builder.trt, options.runtime)
    options.check_gpus(options.precision, builder.compute_capabilities)
    return builder


def _builder(options: BuildOptions) -> Builder:
    runtime, wanted = options.runtime, options.compute_capabilities
    if runtime.needs_gpu:
        gpu = local_gpu(options.gpu, runtime)
        if wanted not in ((), (gpu.compute_capability,)):
            raise ConfigError(
                f"{runtime.name} builds for the GPU on this machine, {gpu.name} of compute "
                f"capability {gpu.compute_capability}, but {', '.join(wanted)} was asked for; "
                "build on such a GPU, or with --runtime tensorrt-rtx"
            )
        trt = import_library(runtime.module, runtime.extra)
        return Builder(trt, (gpu.compute_capability,), gpu)
    trt = import_library(runtime.module, runtime.extra)
    allowed = sorted(capabilities_of(trt), key=float)
    if wanted:
        for name in wanted:
            if name not in allowed:
                raise ConfigError(
                    f"{runtime.name} does not build for compute capability {name!r}, expected one "
                    f"of: {', '.join(allowed)}"
                )
        return Builder(trt, tuple(sorted(set(wanted), key=float)), None)
    try:
        gpu = local_gpu(options.gpu, runtime)
    except EngineError as error:
        raise EngineError(
            f"{error}; to build without a GPU, name the GPUs to build for with hgdeploy build "
            "--compute-capability, such as 8.6"
        ) from None
    if gpu.compute_capability not in allowed:
        raise EngineError(
            f"{runtime.name} does not build for {gpu.name} (compute capability "
            f"{gpu.compute_capability}), only for {', '.join(allowed)}; use --runtime tensorrt"
        )
    return Builder(trt, (gpu.compute_capability,), gpu)


def capabilities_of(trt: Any) -> dict[str, Any]:
    """Return what a library builds for without a GPU: its constants, by names such as `8.6`."""
    members = trt.ComputeCapability.__members__
    return {f"{n[2:-1]}.{n[-1]}": value for n, value in members.items() if n.startswith("SM")}
