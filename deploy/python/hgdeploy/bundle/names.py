# SPDX-License-Identifier: Apache-2.0
"""What a bundle's files are called."""

from __future__ import annotations

from dataclasses import dataclass

from hgdeploy.system.checks import check
from hgdeploy.system.kinds import one_of

DESCRIPTION = "inference.yml"


# Paddle's program in either format, best first, and the parameters that go with it.
PADDLE_PROGRAMS = ("inference.json", "inference.pdmodel")


PADDLE_PARAMS = "inference.pdiparams"

# What PaddleSlim writes. PaddleClas runs it wherever its parameters lie, beside any other program.
INT8_PROGRAMS = ("inference_int8.json", "inference_int8.pdmodel")


INT8_PARAMS = "inference_int8.pdiparams"


ONNX_FILE = "inference.onnx"


def onnx_name(precision: str) -> str:
    """Return an ONNX file's name: `inference.onnx`, also for tf32, or `inference.fp16.onnx`."""
    return ONNX_FILE if precision in ("fp32", "tf32") else f"inference.{precision}.onnx"


@dataclass(frozen=True)
class TensorRtRuntime:
    """One of the two libraries that share TensorRT's API.

    Attributes:
        name: what it is called on a command line.
        module: the Python module.
        extra: the extra of HGDeploy that installs it.
        suffix: the end of its engine files' names.
        needs_gpu: it builds on the GPU it builds for, and times its kernels there; the other one
            builds on any machine, for the compute capabilities it is given.
    """

    name: str
    module: str
    extra: str
    suffix: str
    needs_gpu: bool


RUNTIMES = (
    TensorRtRuntime("tensorrt", "tensorrt", "tensorrt", ".engine", True),
    TensorRtRuntime("tensorrt-rtx", "tensorrt_rtx", "tensorrt-rtx", ".rtx.engine", False),
)


def runtime_named(name: str) -> TensorRtRuntime:
    """Return the runtime called `name`.

    Raises:
        ConfigError: there is none of that name.
    """
    by_name = {runtime.name: runtime for runtime in RUNTIMES}
    return by_name[check("TensorRT runtime", name, one_of(by_name))]


def engine_name(precision: str, runtime: TensorRtRuntime) -> str:
    """Return an engine file's name: `inference.engine`, `inference.fp16.rtx.engine`."""
    stem = "inference" if precision == "fp32" else f"inference.{precision}"
    return stem + runtime.suffix
