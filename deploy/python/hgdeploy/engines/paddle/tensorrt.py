# SPDX-License-Identifier: Apache-2.0
"""Parts of a Paddle program handed to TensorRT, in the two ways that Paddle has.

Paddle's own configuration does so for a Paddle 2 program. The tensors of a Paddle 3 program are
named after memory addresses, so the ranges of their shapes cannot be kept on disk: there
`paddle.tensorrt.convert` writes another program that holds the engines.
"""

from __future__ import annotations

import gc
import importlib
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.bundle.model_files import model_digest
from hgdeploy.engines.base import TensorSpec, device_index
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.config import build_config, ieee_fp32, open_predictor
from hgdeploy.errors import BundleError, EngineError, one_line
from hgdeploy.gpu.driver import nvidia_gpu_list
from hgdeploy.gpu.stack import TENSORRT
from hgdeploy.system.digests import combined_digest
from hgdeploy.system.files import updating_folder, writing
from hgdeploy.system.libraries import environment, installed_version

# Subgraphs below this many operators stay in Paddle; PaddleClas uses the same figure.
_MIN_SUBGRAPH = 30
_WORKSPACE_BYTES = 1 << 30
_CONVERTED = "inference.json"


def converted(source: Path, options: EngineOptions, inputs: tuple[TensorSpec, ...]) -> Path:
    """Return a Paddle 3 program with TensorRT engines in it; make it once, and keep it.

    Args:
        source: the program, `.json`.
        options: `max_batch` is the largest batch, and what the engines are tuned for.
        inputs: the program's inputs.

    Raises:
        EngineError: this Paddle has no TensorRT, or the options ask for what it cannot do.
        BundleError: it cannot convert the program.
    """
    cache = _cache(source, options).absolute()  # what is converted has paths in it
    target = cache / _CONVERTED
    if target.is_file():
        return target
    export = _converter(source)
    if options.precision not in ("fp32", "fp16"):
        raise EngineError(
            f"TensorRT in Paddle 3 computes fp32 and fp16, and {options.precision} was asked for; "
            "use the engine tensorrt, or a Paddle 2 program (inference.pdmodel)"
        )
    if device_index(options.device) != 0:
        raise EngineError(
            f"paddle.tensorrt.convert works on gpu:0 alone, and {options.device} was asked for; "
            "choose the GPU with CUDA_VISIBLE_DEVICES, and ask for gpu:0"
        )
    config = _config(export, source, options, inputs)
    with writing(cache):
        cache.mkdir(parents=True, exist_ok=True)
    with updating_folder(cache) as folder:
        config.save_model_dir = str(folder / Path(_CONVERTED).stem)  # a prefix of files' names
        try:
            # Paddle writes engines into `.pp_trt_cache` at home, under names made of the operators
            # alone, and what it converts has the path: another model of the same network would
            # replace them. See `get_cache_path` in Paddle's python/paddle/tensorrt/util.py.
            with ieee_fp32(), environment("HOME", str(cache)):
                export.convert(str(source), config)
        except (ValueError, RuntimeError, TypeError, OSError, MemoryError) as error:
            raise BundleError(
                f"paddle.tensorrt.convert cannot convert {source}: {one_line(error)}; use the "
                "engine tensorrt, or drop TensorRT"
            ) from error
        if not (folder / _CONVERTED).is_file():
            raise EngineError(f"paddle.tensorrt.convert did not write what it made of {source}")
        if not any(cache.rglob("*.trt")):
            raise EngineError(
                f"paddle.tensorrt.convert keeps the engines of {source} where those of another "
                "model may take their names; use the engine tensorrt, or drop TensorRT"
            )
    return target


def _config(
    export: Any, source: Path, options: EngineOptions, inputs: tuple[TensorSpec, ...]
) -> Any:
    """Return Paddle's configuration of a conversion."""
    shapes = [_shapes(spec, options.max_batch, source) for spec in inputs]
    asked = [
        export.Input(
            min_input_shape=least,
            optim_input_shape=most,
            max_input_shape=most,
            input_data_type=spec.dtype,
            name=spec.name,
        )
        for spec, (least, most) in zip(inputs, shapes, strict=True)
    ]
    return export.TensorRTConfig(
        asked,
        min_subgraph_size=_MIN_SUBGRAPH,
        precision_mode=export.PrecisionMode[options.precision.upper()],
        workspace_size=_WORKSPACE_BYTES,
    )


def _converter(source: Path) -> Any:
    """Return Paddle's module, which only a build for GPUs has.

    Raises:
        EngineError: this one has not.
    """
    try:
        return importlib.import_module("paddle.tensorrt.export")
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{source} is a Paddle 3 program, and this Paddle cannot hand parts of it to TensorRT "
            f"({one_line(error)}); install paddlepaddle-gpu 3 from Paddle's own index and tensorrt "
            "(docs/tensorrt.md), use the engine tensorrt, or drop TensorRT"
        ) from None


def _cache(source: Path, options: EngineOptions) -> Path:
    """Return the folder for what is built of a program, by what that depends on.

    Engines are for one TensorRT and one kind of GPU.
    """
    index = device_index(options.device)
    gpus = [(gpu.name, gpu.capability) for gpu in nvidia_gpu_list() if gpu.index == index]
    built_by = repr((installed_version(*TENSORRT), gpus))
    digest = combined_digest([model_digest(source), built_by])
    version = installed_version("paddlepaddle-gpu") or "source"
    key = f"{digest[:16]}-{version}-{options.precision}-b{options.max_batch}-ieee"
    return (options.cache_dir or source.parent / ".cache") / "paddle-tensorrt" / key


def _shapes(spec: TensorSpec, most: int, source: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return an input's smallest and largest shape.

    Raises:
        EngineError: the image size is open.
    """
    if -1 in spec.shape[1:]:
        raise EngineError(
            f"TensorRT needs the image size, and {source} leaves it open "
            f"({list(spec.shape)}); export the model with a fixed height and width"
        )
    batches = (1, most) if spec.shape[0] == -1 else (spec.shape[0],) * 2
    return (batches[0], *spec.shape[1:]), (batches[1], *spec.shape[1:])


def use_tensorrt(
    config: Any, source: Path, params: Path, options: EngineOptions, inputs: tuple[TensorSpec, ...]
) -> None:
    """Give subgraphs to TensorRT, for every batch from 1 to `max_batch`, and keep engines on disk.

    Dynamic shapes need the range of every tensor inside the model. Paddle collects the ranges in
    real runs; this is done once, and they are kept beside the engines. The cache is keyed by what
    the engines depend on, so that a changed model or Paddle never meets an old engine.
    """
    from paddle.inference import PrecisionType

    precision = {"fp32": "Float32", "fp16": "Half", "int8": "Int8"}[options.precision]
    cache = _cache(source, options)
    ranges = cache / "shape_ranges.pbtxt"
    if not ranges.exists():
        with updating_folder(cache) as folder:
            _collect_shape_ranges(source, params, options, inputs, folder / ranges.name)
    config.set_optim_cache_dir(str(cache))
    config.enable_tensorrt_engine(
        workspace_size=_WORKSPACE_BYTES,
        max_batch_size=options.max_batch,
        min_subgraph_size=_MIN_SUBGRAPH,
        precision_mode=getattr(PrecisionType, precision),
        use_static=True,
        use_calib_mode=False,
    )
    config.enable_tuned_tensorrt_dynamic_shape(str(ranges), True)


def _collect_shape_ranges(
    source: Path,
    params: Path,
    options: EngineOptions,
    inputs: tuple[TensorSpec, ...],
    target: Path,
) -> None:
    """Run the smallest and the largest batch once, and let Paddle write the shapes it meets."""
    config = build_config(source, params, options, device_index(options.device))
    config.collect_shape_range_info(str(target))
    predictor = open_predictor(config, source)
    shapes = [_shapes(spec, options.max_batch, source) for spec in inputs]
    for end in (0, 1):
        for spec, ends in zip(inputs, shapes, strict=True):
            handle = predictor.get_input_handle(spec.name)
            handle.copy_from_cpu(np.zeros(ends[end], spec.dtype))
        predictor.run()
    del predictor
    gc.collect()  # Paddle writes the file when the predictor is freed
    if not target.is_file():
        raise EngineError(f"Paddle did not write the shapes that it met in {source}")
