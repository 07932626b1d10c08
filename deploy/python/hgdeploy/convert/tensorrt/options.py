# SPDX-License-Identifier: Apache-2.0
"""How to build an engine, the shapes it serves, and the result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.bundle.engine_key import Profile
from hgdeploy.bundle.names import RUNTIMES, TensorRtRuntime
from hgdeploy.convert.graph_parts import Dims
from hgdeploy.convert.tensorrt.settings import BuildSettings
from hgdeploy.engines.fit import channels_last
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import one_of, whole

Range = tuple[int, int, int]
# For an ONNX file with a dynamic batch where no batch is asked for.
DEFAULT_BATCH: Range = (1, 8, 32)


@dataclass(frozen=True)
class Shapes:
    """The shapes to serve as (min, opt, max); None for what the ONNX file says.

    Attributes:
        batch: images; None for `DEFAULT_BATCH` where the file leaves the batch open.
        height: pixels; must be given where the file leaves the height open.
        width: pixels; must be given where the file leaves the width open.
        more_batches: those of further optimisation profiles; `batch` must then be given.
    """

    batch: Range | None = None
    height: Range | None = None
    width: Range | None = None
    more_batches: tuple[Range, ...] = ()


@dataclass(frozen=True)
class BuildOptions(BuildSettings):
    """How to build.

    Attributes:
        runtime: which of the two libraries builds.
        precision: what the ONNX file computes in: `fp32`, `tf32`, `fp16`, `bf16` or `int8`.
        compute_capabilities: the GPUs to build for, such as `8.6`; empty for the GPU here.
        gpu: the number of the GPU on this machine.
        cache_dir: where kernel times are kept; None for beside the engine.
        force: build even if there is an engine with the same key.
        accept_wider: use an existing engine if it serves at least these shapes and GPUs, whatever
            its flags; and use the batch that the ONNX file fixes, whatever is asked for.
        apart: leave an existing engine alone; use it if it serves exactly these shapes, or is tuned
            for them, whatever its flags. Else build in `cache_dir`, in a folder named by the key.
    """

    runtime: TensorRtRuntime = RUNTIMES[0]
    precision: str = "fp32"
    compute_capabilities: tuple[str, ...] = ()
    gpu: int = 0
    cache_dir: Path | None = None
    force: bool = False
    accept_wider: bool = False
    apart: bool = False

    def __post_init__(self) -> None:
        self.check()
        check_fields(
            self,
            precision=one_of(PRECISIONS),
            gpu=whole(0, 1023),
        )


@dataclass(frozen=True)
class EngineBuild:
    """An engine file, built just now or earlier.

    Attributes:
        path: the file.
        built: whether it was built just now; if not, an earlier one fits.
    """

    path: Path
    built: bool


def profiles_to_serve(dims: Dims, shapes: Shapes, onnx: Path) -> tuple[Profile, ...]:
    """Return the optimisation profiles of an engine, one for each batch; see `profile_to_serve`."""
    batches = dict.fromkeys((shapes.batch, *shapes.more_batches))
    each = (dataclasses.replace(shapes, batch=batch) for batch in batches)
    return tuple(profile_to_serve(dims, wanted, onnx) for wanted in each)


def profile_to_serve(dims: Dims, shapes: Shapes, onnx: Path) -> Profile:
    """Return the shapes to serve, from those asked for and those the file allows.

    Args:
        dims: the dimensions of the model's input.
        shapes: the shapes that were asked for.
        onnx: the ONNX file, for errors.

    Raises:
        BundleError: the file does not fix its channels, or has them last.
        ConfigError: the shapes do not fit the file.
    """
    if channels_last(dims):
        raise BundleError(
            f"{onnx} takes NHWC {dims} (channels last), but engines are built for NCHW; export the "
            "model with channels first"
        )
    if not isinstance(dims[1], int):
        raise BundleError(f"{onnx} leaves its channels open ({dims}), expected a fixed number")
    batch, _, height, width = dims
    return Profile(
        _range("batch", batch, shapes.batch or _open(batch), onnx),
        _range("height", height, shapes.height, onnx),
        _range("width", width, shapes.width, onnx),
    )


def _open(batch: int | str) -> Range | None:
    return None if isinstance(batch, int) else DEFAULT_BATCH


def _range(name: str, size: int | str, wanted: Range | None, onnx: Path) -> Range:
    if isinstance(size, str):
        if wanted is None:
            raise ConfigError(
                f"{onnx} leaves its {name} open; say which sizes to serve with --input-size"
            )
        return wanted
    if wanted is not None and wanted != (size, size, size):
        flag = "--batch dynamic" if name == "batch" else "--dynamic-size"
        raise ConfigError(
            f"{onnx} has a fixed {name} of {size}, but {','.join(map(str, wanted))} was asked for; "
            f"leave it out, or make the file again with hgdeploy convert {flag}"
        )
    return (size, size, size)
