# SPDX-License-Identifier: Apache-2.0
"""Make whatever a bundle lacks for the engines that are installed here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import ONNX_FILE, RUNTIMES, engine_name, mnn_name, ncnn_name, onnx_name
from hgdeploy.convert.engine_files import CACHE, ensure_artifact, installed_runtime
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.int8.variants import quantize
from hgdeploy.convert.mobile.variants import convert_for_engine
from hgdeploy.convert.variants import ensure_fp32_onnx
from hgdeploy.engines import engine_module
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import HGDeployError
from hgdeploy.images.find import ImageFile
from hgdeploy.system.progress import OnLine

_GPU = "gpu:0"
# The precisions of TensorRT that take no images; fp16 is compared on some before it is chosen.
_BUILT = ("fp32", "tf32", "fp16")
MADE, THERE, SKIPPED = "made", "there", "skipped"


@dataclass(frozen=True)
class Variant:
    """What became of a file that an engine reads.

    Attributes:
        name: the file's name.
        state: `made`, `there` or `skipped`.
        reason: why it was skipped; empty if it was not.
    """

    name: str
    state: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.state}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True)
class MissingOptions:
    """What may be made.

    Attributes:
        calibration: real images for int8; without any it is not made.
        reduced: make files of 16 bits where they are fast: for a GPU.
        max_batch: the largest batch that an engine file will be fed.
        may_begin: called before each conversion, which is skipped where it returns False.
    """

    calibration: Sequence[ImageFile] = ()
    reduced: bool = False
    max_batch: int = 1
    may_begin: Callable[[], bool] = lambda: True


@dataclass(frozen=True)
class _Step:
    """A file to make: which engines read it, and how it is made."""

    name: str
    engines: Sequence[str]
    make: Callable[[], object]


def make_missing(
    bundle: ModelBundle, options: MissingOptions, on_progress: OnLine, on_warning: OnLine
) -> list[Variant]:
    """Make each file that an installed engine would read, where it is missing or stale.

    One that cannot be made is skipped with its reason, and the others are made.

    Args:
        bundle: the bundle; the files are written into it.
        options: what may be made.
        on_progress: called with one line at a time.
        on_warning: called with each thing the user should know about a result.

    Returns:
        What became of each file.
    """
    found = []
    for step in _steps(bundle, options, on_progress, on_warning):
        try:
            found.append(_made(bundle, step, options))
        except HGDeployError as error:
            found.append(Variant(step.name, SKIPPED, str(error)))
        on_progress(str(found[-1]))
    return found


def _made(bundle: ModelBundle, step: _Step, options: MissingOptions) -> Variant:
    built = step.engines == ("tensorrt",)  # whether it fits this GPU is known to its maker alone
    if not built and bundle.fresh(step.name) is not None:
        return Variant(step.name, THERE)
    installed = [engine_module(name).capability() for name in step.engines]
    if all(found.version is None for found in installed):
        return Variant(step.name, SKIPPED, f"{step.engines[0]}: {installed[0].notes[0]}")
    if step.name == onnx_name("int8") and not options.calibration:
        return Variant(step.name, SKIPPED, "int8 needs real images; name some with --calibration")
    if not options.may_begin():
        return Variant(step.name, SKIPPED, "half of the time is used up; the same command goes on")
    before = _time(bundle.path(step.name))
    step.make()
    return Variant(step.name, THERE if before == _time(bundle.path(step.name)) else MADE)


def _time(path: Path) -> int | None:
    """Return when a file was written, in nanoseconds; None where there is none."""
    return path.stat().st_mtime_ns if path.is_file() else None


def _steps(
    bundle: ModelBundle, options: MissingOptions, on_progress: OnLine, on_warning: OnLine
) -> Iterator[_Step]:
    """Yield the files to make, each after what it is made from."""
    readers = ("onnxruntime", "openvino", "mnn", "ncnn", "tensorrt")
    yield _Step(ONNX_FILE, readers, lambda: ensure_fp32_onnx(bundle, on_progress, on_warning))

    def convert(engine: str) -> Callable[[], object]:
        return lambda: convert_for_engine(bundle, engine, on_warning, on_progress)

    yield _Step(mnn_name("fp32"), ("mnn",), convert("mnn"))
    yield _Step(ncnn_name("fp32"), ("ncnn",), convert("ncnn"))
    images, how = options.calibration, QuantizeOptions()
    yield _Step(
        onnx_name("int8"),
        ("onnxruntime", "openvino"),
        lambda: quantize(bundle, images, how, on_progress, on_warning),
    )
    if _GPU not in engine_module("tensorrt").capability().devices:
        return

    def build(precision: str) -> Callable[[], object]:
        asked = EngineOptions(
            _GPU, precision, max_batch=options.max_batch, cache_dir=bundle.root / CACHE
        )
        return lambda: ensure_artifact(bundle, "tensorrt", asked, on_progress, on_warning)

    for precision in _BUILT if options.reduced else _BUILT[:1]:
        name = engine_name(precision, installed_runtime(RUNTIMES))
        yield _Step(name, ("tensorrt",), build(precision))
