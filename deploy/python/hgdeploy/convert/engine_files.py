# SPDX-License-Identifier: Apache-2.0
"""The engine files of runs: one that serves a run, one that is tuned for what is measured."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Sequence
from pathlib import Path

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import RUNTIMES, TensorRtRuntime, engine_name, onnx_name, runtime_of
from hgdeploy.bundle.sidecar import sidecar_path
from hgdeploy.convert.tensorrt.builder import open_builder
from hgdeploy.convert.tensorrt.options import BuildOptions, Range, Shapes
from hgdeploy.convert.variants import build_engine
from hgdeploy.engines import engine_module
from hgdeploy.engines.base import device_index
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError
from hgdeploy.system.progress import OnLine
from hgdeploy.validation.inputs import usual_image

CACHE = ".cache"


def ensure_artifact(
    bundle: ModelBundle,
    engine: str,
    options: EngineOptions,
    on_progress: OnLine,
    on_warning: OnLine,
) -> None:
    """Build the file that an engine loads, if it is one that is built from ONNX for this GPU.

    An engine file that serves these options is left alone. So is one without a sidecar, which
    somebody else has made, and one without its ONNX file, which was copied to this machine alone.

    Args:
        bundle: the bundle.
        engine: the engine's name.
        options: what will be asked of the engine.
        on_progress: called with one line at a time.
        on_warning: called with each warning, on one line.

    Raises:
        HGDeployError: as `build_engine`.
    """
    gpu = device_index(options.device)
    if not is_built(engine, options.precision) or gpu is None:
        return
    runtime, own, known = _own_engine(bundle, options.precision)
    if own is not None and not known:
        return
    how = BuildOptions(
        runtime, options.precision, gpu=gpu, cache_dir=options.cache_dir, accept_wider=True
    )
    most = options.max_batch
    build_engine(bundle, Shapes(batch=(1, most, most)), how, on_progress, on_warning)


def installed_runtime(runtimes: Sequence[TensorRtRuntime]) -> TensorRtRuntime:
    """Return the first that is installed; else the first, so that it is reported as missing."""
    found = (r for r in runtimes if importlib.util.find_spec(r.module) is not None)
    return next(found, runtimes[0])


def is_built(engine: str, precision: str) -> bool:
    """Return whether an engine runs files that are built for a GPU."""
    return any(runtime_of(name) for name in engine_module(engine).artifact_names(precision))


def check_buildable(options: EngineOptions) -> None:
    """Refuse, before anything that takes long, what cannot be built on this machine.

    Raises:
        EngineError: the GPU, its driver or TensorRT is missing.
    """
    open_builder(BuildOptions(installed_runtime(RUNTIMES), options.precision, gpu=_gpu(options)))


def with_engine(
    bundle: ModelBundle, options: EngineOptions, on_progress: OnLine, on_warning: OnLine
) -> ModelBundle:
    """Return a bundle with the engine file that is tuned for `max_batch`; build it where missing.

    It serves that batch alone, as trtexec's `--shapes` does, and lies in the bundle's cache in a
    folder named by its key (the model, GPU, library, options). The bundle's own engine is taken
    where it is tuned for that batch, or where nobody knows what it was made from.

    Args:
        bundle: a bundle, or an ONNX or engine file that stands for one.
        options: what will be asked of the engine.
        on_progress: called with one line at a time.
        on_warning: called with each warning, on one line.

    Raises:
        HGDeployError: as `build_engine`.
    """
    runtime, own, known = _own_engine(bundle, options.precision)
    if own is not None and (own == bundle.file or (bundle.file is None and not known)):
        return bundle
    how = BuildOptions(
        runtime,
        options.precision,
        gpu=_gpu(options),
        cache_dir=bundle.root / CACHE,
        apart=True,
    )
    built = build_engine(bundle, _shapes(bundle, options.max_batch), how, on_progress, on_warning)
    return dataclasses.replace(bundle, file=built.path)


def _own_engine(bundle: ModelBundle, precision: str) -> tuple[TensorRtRuntime, Path | None, bool]:
    """Return the library to use, and the bundle's engine file for it, if there is one.

    Also whether what that file was made from is known: its sidecar and its ONNX file are there.
    """
    onnx = bundle.path(onnx_name(precision))
    for runtime in RUNTIMES:
        own = bundle.path(engine_name(precision, runtime))
        if own.is_file():
            return runtime, own, sidecar_path(own).is_file() and onnx.is_file()
    return installed_runtime(RUNTIMES), None, False


def _gpu(options: EngineOptions) -> int:
    gpu = device_index(options.device)
    if gpu is None:
        raise EngineError(
            "TensorRT runs on an NVIDIA GPU, but the cpu was asked for; ask for gpu:0, or measure "
            "another engine"
        )
    return gpu


def _shapes(bundle: ModelBundle, batch: int) -> Shapes:
    """Return the one shape to serve: that of the rows of `random_rows`, where the model is open."""
    _, height, width = usual_image(bundle)
    return Shapes(_fixed(batch), _fixed(height), _fixed(width))


def _fixed(size: int) -> Range:
    return (size, size, size)
