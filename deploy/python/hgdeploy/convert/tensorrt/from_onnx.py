# SPDX-License-Identifier: Apache-2.0
"""Build a TensorRT engine file from ONNX, unless one with the same key is there already."""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hgdeploy.bundle.engine_key import EngineKey, Profile
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.convert.artifact import converter_versions, source_facts, write_artifact
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import Dims, dims_of
from hgdeploy.convert.tensorrt.builder import Builder, open_builder
from hgdeploy.convert.tensorrt.int8_rest import fp16_rest_of
from hgdeploy.convert.tensorrt.network import BuildJob, write_engine
from hgdeploy.convert.tensorrt.options import BuildOptions, EngineBuild, Shapes, profiles_to_serve
from hgdeploy.errors import BundleError
from hgdeploy.gpu.stack import TENSORRTS
from hgdeploy.system.digests import combined_digest, file_sha256
from hgdeploy.system.files import remove_abandoned, writing
from hgdeploy.system.locks import wait_for
from hgdeploy.system.progress import OnLine

_LIBRARIES = (*TENSORRTS, "onnx")


def engine_from_onnx(
    onnx: Path, target: Path, shapes: Shapes, options: BuildOptions, on_progress: OnLine
) -> EngineBuild:
    """Build an engine file, unless there is one with the same key already.

    TF32 is off except for the precision tf32: fp32 is IEEE fp32. If several processes build into
    one folder, one works and the others wait, then find its engine. Ctrl-C ends the build at its
    next step and leaves nothing behind.

    Args:
        onnx: the ONNX file, in the precision to build; its external data are beside it.
        target: the engine file.
        shapes: the shapes to serve.
        options: how to build.
        on_progress: called with one line at a time: why it builds or does not, how far the build
            is, and what was built.

    Returns:
        The engine file, and whether it was built just now.

    Raises:
        BundleError: the ONNX file cannot be read or built, or has another precision.
        ConfigError: the shapes do not fit it, or the compute capabilities cannot be built for.
        EngineError: the library or a GPU is missing, or the library fails, for the reason that
            the message gives.
        OutputError: the engine cannot be written.
    """
    builder = open_builder(options)
    graph = OnnxGraph.read(onnx)
    dims = dims_of(graph.input)
    profiles = profiles_to_serve(dims, _left_open(dims, shapes, options), onnx)
    folder = target.parent
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    waiting = f"another process builds in {folder}: waiting for it"
    with wait_for(folder, waiting, on_progress):
        remove_abandoned(folder)  # also where there is nothing to build
        sources = source_facts(onnx)
        key = _key(sources["source"], profiles, builder, options)
        reason = "it was asked for" if options.force else _why_build(target, key, options)
        if reason is not None and options.apart:
            target = _place_of_its_own(target, key, options)
            reason = _why_build(target, key, options)
        if reason is None:
            on_progress(f"{target} fits: there is nothing to build")
            return EngineBuild(target, False)
        on_progress(f"building {target}: {reason}")
        facts: dict[str, Any] = {
            **sources,
            "converter": converter_versions(*_LIBRARIES),
            "precision": options.precision,
            "ending": graph.activations(),
            "verdict": None,
            "key": key.to_json(),
        }
        job = _build_job(onnx, target, profiles, builder, options)
        if options.precision == "int8" and options.int8_rest == "fp16":
            job = dataclasses.replace(job, content=fp16_rest_of(onnx, on_progress))
        _publish(builder.trt, job, target, facts, on_progress)
    on_progress(f"{target}: {_summary(facts['network'])}")
    return EngineBuild(target, True)


def _place_of_its_own(target: Path, key: EngineKey, options: BuildOptions) -> Path:
    """Return where an engine lies apart from the usual one, in a folder that is there."""
    kept = options.cache_dir or target.parent
    folder = kept / options.runtime.name / key.digest()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    remove_abandoned(folder)
    return folder / target.name


def _left_open(dims: Dims, shapes: Shapes, options: BuildOptions) -> Shapes:
    """Return the shapes without what the file fixes, as far as the options leave that to it."""
    batch, _, height, width = (isinstance(size, int) for size in dims)
    return dataclasses.replace(
        shapes,
        batch=None if batch and options.accept_wider else shapes.batch,
        height=None if height and options.apart else shapes.height,
        width=None if width and options.apart else shapes.width,
    )


def _build_job(
    onnx: Path,
    target: Path,
    profiles: Sequence[Profile],
    builder: Builder,
    options: BuildOptions,
) -> BuildJob:
    cache = (options.cache_dir or target.parent) / f"{options.runtime.name}.timing_cache"
    return BuildJob(
        runtime=options.runtime,
        onnx=onnx,
        precision=options.precision,
        profile=profiles[0],
        more_profiles=tuple(profiles[1:]),
        compute_capabilities=builder.compute_capabilities,
        gpu=builder.gpu,
        settings=options,
        timing_cache=cache if options.runtime.needs_gpu else None,
    )


def _publish(
    trt: Any, job: BuildJob, target: Path, facts: dict[str, Any], on_progress: OnLine
) -> None:
    """Build the engine and write it with its sidecar; the build adds `network` to the facts."""
    stop = threading.Event()

    def write(aside: Path) -> None:
        work = functools.partial(write_engine, trt, job, aside, stop, on_progress)
        facts["network"] = _interruptible(work, stop)

    write_artifact(target, write, facts)


def _interruptible(work: Callable[[], Any], stop: threading.Event) -> Any:
    """Run `work` in a thread; if this thread is interrupted, ask `work` to stop, and wait for it.

    Python's signal handlers run between the main thread's own steps. An exception that a handler
    raises inside the library's callbacks would be swallowed there.
    """
    with ThreadPoolExecutor(1, "tensorrt-build") as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except KeyboardInterrupt:
            stop.set()  # leaving the block waits until the work has noticed
            raise


def _key(
    digests: Mapping[str, str],
    profiles: Sequence[Profile],
    builder: Builder,
    options: BuildOptions,
) -> EngineKey:
    flags = options.flags(options.precision, options.runtime)
    if len(profiles) > 1:
        flags["batches"] = ", ".join("/".join(map(str, each.batch)) for each in profiles)
    # An engine that is not tuned on a GPU is the same whatever GPU this machine has.
    tuned_on = builder.gpu.name if builder.gpu and options.runtime.needs_gpu else None
    return EngineKey(
        combined_digest(list(digests.values())),
        options.runtime.name,
        str(builder.trt.__version__),
        builder.compute_capabilities,
        tuned_on,
        options.precision,
        profiles[0].joined(profiles[1:]),
        tuple(sorted(flags.items())),
    )


def _why_build(target: Path, wanted: EngineKey, options: BuildOptions) -> str | None:
    """Return why the file that is there does not serve; None if it does."""
    if not target.is_file():
        return "there is none yet"
    sidecar = sidecar_path(target)
    facts = read_sidecar(target)
    if facts is None:
        state = "cannot be read" if sidecar.is_file() else "does not exist"
        return f"its sidecar {sidecar.name} {state}, so it is unknown what it was built for"
    if facts.get("sha256") != file_sha256(target):
        return f"it is not the file that its sidecar {sidecar.name} describes"
    try:
        key = EngineKey.from_json(facts.get("key") or {}, str(sidecar))
    except BundleError:
        return f"its sidecar {sidecar.name} has no readable key"
    tuned = key.profile.covers(wanted.profile) and key.profile.best == wanted.profile.best
    if (options.accept_wider and _is_wider(key, wanted)) or (options.apart and tuned):
        key = dataclasses.replace(
            key,
            profile=wanted.profile,
            compute_capabilities=wanted.compute_capabilities,
            flags=wanted.flags,
        )
    return key.difference(wanted)


def _is_wider(key: EngineKey, wanted: EngineKey) -> bool:
    gpus = set(wanted.compute_capabilities) <= set(key.compute_capabilities)
    return gpus and key.profile.covers(wanted.profile)


def _summary(network: Mapping[str, Any]) -> str:
    """Describe what was built, on one line."""
    x, output = (
        f"{tensor['name']} {tensor['dtype']} {tensor['shape']}"
        for tensor in (network["inputs"][0], network["outputs"][0])
    )
    computed = ", ".join(f"{n} {name}" for name, n in network["layer_precisions"].items())
    quantize = network["layer_types"].get("QUANTIZE", 0)
    quantized = f"; {quantize} of them quantize" if quantize else ""
    size = network["plan_bytes"] / 2**20
    return f"{x} to {output}; {network['layers']} layers ({computed}{quantized}); {size:.1f} MiB"
