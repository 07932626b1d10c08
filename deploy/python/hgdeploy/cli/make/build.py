# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy build`."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from hgdeploy.cli.terminal import Verbs, opened_model, refuse_without_effect, say, warn
from hgdeploy.errors import EXIT_OK, ConfigError
from hgdeploy.system.checks import Given

if TYPE_CHECKING:
    from hgdeploy.convert.tensorrt.options import BuildOptions, Range


# Flags that are fields of `BuildSettings`.
_SETTINGS = (
    *("workspace_mb", "optimization_level", "int8_rest", "hardware_compatibility"),
    *("version_compatible", "max_aux_streams", "tiling_level", "sparsity"),
)
# Flags that say how to build an engine.
_OF_ENGINES = (
    *("runtime", "batch", "input_size", "compute_capability", "device", "force", "output"),
    "profile",
    *_SETTINGS,
)


def add_build(verbs: Verbs) -> None:
    """Add `hgdeploy build`."""
    parser = verbs.add_parser("build", help="build the TensorRT engine of a bundle")
    parser.add_argument("bundle", type=Path, help="the model's folder, or an .onnx file")
    parser.add_argument("--runtime", help="tensorrt (default) or tensorrt-rtx")
    parser.add_argument(
        "--precision", default="fp32", help="fp32 (default), tf32, fp16, bf16 or int8"
    )
    parser.add_argument(
        "--batch",
        action="append",
        help="min,opt,max images; min,max tunes for max; one number is fixed (1,8,32, or what the "
        "ONNX file fixes); given again, it adds an optimisation profile",
    )
    parser.add_argument(
        "--input-size",
        help="pixels, as 224 or HxW, or min,opt,max of these (what the ONNX file fixes)",
    )
    parser.add_argument(
        "--compute-capability",
        help="GPUs to build for, such as 8.6 or 8.6,12.0 (default: the GPU of this machine)",
    )
    parser.add_argument("--device", help="the GPU to build on and for: gpu:N (gpu:0)")
    parser.add_argument("--workspace-mb", type=int, help="memory a layer may take, in MiB")
    parser.add_argument(
        "--optimization-level", type=int, help="0 (fast to build) to 5 (fast to run)"
    )
    parser.add_argument(
        "--int8-rest", help="what int8 computes in elsewhere: fp16 (default) or fp32"
    )
    parser.add_argument(
        "--hardware-compatibility",
        help="GPUs that shall run it too: none (default), ampere+ or same-compute-capability",
    )
    parser.add_argument(
        "--version-compatible",
        action="store_true",
        help="let later versions of the same major version run it",
    )
    parser.add_argument("--max-aux-streams", type=int, help="streams beside the main one")
    parser.add_argument(
        "--tiling-level", type=int, help="0 to 3: how long to search for tilings for the L2 cache"
    )
    parser.add_argument(
        "--sparsity", help="disable (default), or enable to use weights that are half zeros"
    )
    parser.add_argument(
        "--force", action="store_true", help="build even if there is an engine that fits"
    )
    parser.add_argument(
        "--profile",
        action="store_true",
        help="print the engine's layers, with their times where there is a GPU, and write them as "
        "ENGINE.profile.html",
    )
    parser.add_argument("--output", type=Path, help="the engine file (default: in the bundle)")
    parser.add_argument(
        "--triton", type=Path, metavar="DIR", help="also write a Triton model repository there"
    )
    parser.add_argument(
        "--triton-backend",
        default="tensorrt",
        help="tensorrt (default); or onnxruntime or openvino, which read the ONNX file itself, so "
        "that no engine is built; or python, which takes image files",
    )
    parser.set_defaults(run=_build)


def _build(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.bundle.model_files import files_of_models
    from hgdeploy.bundle.names import RUNTIMES, runtime_of
    from hgdeploy.cli.make.build_profile import write_profile
    from hgdeploy.convert.tensorrt.options import Shapes
    from hgdeploy.convert.tensorrt.profile import profile_engine
    from hgdeploy.convert.variants import build_engine
    from hgdeploy.results.outputs import check_apart
    from hgdeploy.serving.triton.backends import TritonOptions
    from hgdeploy.serving.triton.repository import triton_repository

    options = _options(arguments)
    served = TritonOptions(backend=arguments.triton_backend, precision=arguments.precision)
    if arguments.triton is None and served.backend != TritonOptions().backend:
        raise ConfigError("--triton-backend has no effect without --triton DIR")
    if served.backend != TritonOptions().backend:
        reads = f"with --triton-backend {served.backend}, which reads the ONNX file itself"
        refuse_without_effect(arguments, _OF_ENGINES, reads)
    bundle = opened_model(arguments.bundle)
    if arguments.triton is not None and bundle.file is not None:
        raise ConfigError(
            f"--triton needs a bundle, which says how images are prepared, and {bundle.file} is a "
            "file alone"
        )
    if served.backend == TritonOptions().backend:
        height, width = _sizes(arguments.input_size)
        batches = tuple(_batch(text) for text in arguments.batch or ())
        if arguments.triton is not None and len(batches) > 1:
            raise ConfigError("--triton serves one optimisation profile; give --batch once")
        shapes = Shapes(next(iter(batches), None), height, width, batches[1:])
        if arguments.triton is not None and (arguments.output or options.runtime != RUNTIMES[0]):
            raise ConfigError(
                "--triton serves the engine in the bundle, and Triton has no backend for "
                "tensorrt-rtx; leave out --output, and build with --runtime tensorrt"
            )
        if arguments.output is not None:
            own = (path for path in files_of_models(bundle.root) if not runtime_of(path.name))
            read = [("a file of the model", path) for path in own]
            check_apart({"--output": [arguments.output]}, read)
        engine = build_engine(bundle, shapes, options, say, warn, arguments.output)
        out.write(f"{engine.path}\n")
        if arguments.profile:
            out.write(write_profile(engine.path, profile_engine(engine.path, options, warn)))
    if arguments.triton is not None:
        out.write(f"{triton_repository(bundle, arguments.triton, served, warn)}\n")
    return EXIT_OK


def _options(arguments: argparse.Namespace) -> BuildOptions:
    from hgdeploy.bundle.names import RUNTIMES, runtime_named
    from hgdeploy.convert.tensorrt.options import BuildOptions

    capabilities = arguments.compute_capability
    given: dict[str, Any] = {name: getattr(arguments, name) for name in _SETTINGS}
    if arguments.precision != "int8":
        refuse_without_effect(arguments, ["int8_rest"], "without --precision int8")
    runtime = runtime_named(arguments.runtime or RUNTIMES[0].name)
    if capabilities is not None and not runtime.needs_gpu:
        instead = "with --compute-capability, which names the GPUs to build for without one"
        refuse_without_effect(arguments, ["device"], instead)
    return BuildOptions(
        runtime=runtime,
        precision=arguments.precision,
        compute_capabilities=tuple(capabilities.split(",")) if capabilities is not None else (),
        gpu=_gpu(arguments.device),
        force=arguments.force,
        **{name: value for name, value in given.items() if value is not None},
    )


def _gpu(device: str | None) -> int:
    from hgdeploy.engines.base import device_index

    index = 0 if device is None else device_index(device)
    if index is None:
        raise Given("--device", device).refused("gpu:N such as gpu:0: engines are for GPUs")
    return index


def _batch(text: str) -> Range:
    numbers = text.split(",")
    if not all(re.fullmatch("[1-9][0-9]{,4}", number) for number in numbers) or len(numbers) > 3:
        expected = "one, two or three numbers from 1 to 99999, such as 1,8,32"
        raise Given("--batch", text).refused(expected)
    return _range([int(number) for number in numbers])


def _sizes(text: str | None) -> tuple[Range | None, Range | None]:
    """Return the heights and the widths."""
    if text is None:
        return None, None
    sizes = [
        re.fullmatch("([1-9][0-9]{,4})(?:x([1-9][0-9]{,4}))?", size) for size in text.split(",")
    ]
    pairs = [(int(size[1]), int(size[2] or size[1])) for size in sizes if size is not None]
    if len(pairs) < len(sizes) or len(pairs) > 3:
        expected = "one, two or three sizes such as 224 or 192x256"
        raise Given("--input-size", text).refused(expected)
    return _range([height for height, _ in pairs]), _range([width for _, width in pairs])


def _range(numbers: list[int]) -> Range:
    """Return (min, opt, max) of one number, of min and max, or of all three."""
    low, high = numbers[0], numbers[-1]
    return (low, numbers[1] if len(numbers) > 1 else low, high)
