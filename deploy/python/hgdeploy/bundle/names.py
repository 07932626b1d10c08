# SPDX-License-Identifier: Apache-2.0
"""What a bundle's files are called."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.system.checks import check
from hgdeploy.system.kinds import one_of

DESCRIPTION = "inference.yml"

# The choice that `hgdeploy tune` saves, see `engines/auto`.
RECOMMENDED = "recommended.json"


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


# The ends of the names of MNN's and ncnn's files, which cannot be run without their sidecar.
DESCRIBED = (".mnn", ".param")


def mnn_name(precision: str) -> str:
    """Return the name of MNN's file: `inference.mnn`, `inference.int8.mnn`."""
    return "inference.mnn" if precision == "fp32" else f"inference.{precision}.mnn"


def ncnn_name(precision: str) -> str:
    """Return the name of ncnn's graph, beside which its weights lie in `.bin`."""
    return "inference.ncnn.param" if precision == "fp32" else f"inference.{precision}.ncnn.param"


def made_by(name: str) -> str:
    """Return the command that makes a bundle's file of this name; empty where none does."""
    found = next((p for p in ("tf32", "fp16", "bf16", "int8") if f".{p}." in name), None)
    if found is not None and name.endswith(DESCRIBED):
        return ""  # these are made in fp32 only
    precision = "" if found is None else f" --precision {found}"
    commands = {
        ".onnx": "hgdeploy quantize" if found == "int8" else f"hgdeploy convert{precision}",
        ".engine": f"hgdeploy build{precision}",
        ".mnn": "hgdeploy convert --to mnn",
        ".param": "hgdeploy convert --to ncnn",
    }
    return commands.get(Path(name).suffix, "")


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


# The ends of the names of model files that may stand alone; trtexec's users call an engine `.plan`.
ALONE = (".onnx", ".engine", ".plan")
_PLAN = ".plan"
_STEM = "inference"
_PRECISION_END = re.compile("[._-](fp32|tf32|fp16|bf16|int8)$")


def runtime_of(name: str) -> TensorRtRuntime | None:
    """Return the library that an engine file is for, by the end of its name; None if it is none."""
    if name.endswith(_PLAN):
        return RUNTIMES[0]
    fitting = [runtime for runtime in RUNTIMES if name.endswith(runtime.suffix)]
    return max(fitting, key=lambda runtime: len(runtime.suffix), default=None)


def beside(file: Path, name: str) -> Path:
    """Return where the file that a bundle calls `name` lies, for a model file that stands alone.

    The others have its stem: beside `net.onnx`, the bundle's `inference.fp16.engine` is
    `net.fp16.engine`. An ONNX file is that of the precision with which its stem ends, else fp32. An
    engine file is the one for whatever precision is asked for: only its sidecar knows better.
    """
    runtime = runtime_of(file.name)
    if runtime is not None:
        if runtime_of(name) == runtime:
            return file
        stem = file.name.removesuffix(_PLAN).removesuffix(runtime.suffix)
    else:
        stem = file.stem
    own = _PRECISION_END.search(stem)
    if runtime is None and name == onnx_name(own[1] if own else "fp32"):
        return file
    return file.with_name(stem[: own.start() if own else None] + name.removeprefix(_STEM))


def engine_name(precision: str, runtime: TensorRtRuntime) -> str:
    """Return an engine file's name: `inference.engine`, `inference.fp16.rtx.engine`."""
    stem = "inference" if precision == "fp32" else f"inference.{precision}"
    return stem + runtime.suffix
