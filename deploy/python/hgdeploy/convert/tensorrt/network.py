# SPDX-License-Identifier: Apache-2.0
"""One build in TensorRT or TensorRT-RTX: parse, configure, build, describe.

The two libraries, and TensorRT 10 and 11, are used in the same way. The network is strongly typed,
so that the ONNX file alone decides the precision. They report a failure by returning None and by
writing the reason to their log, so every result is checked and the log is kept.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy.bundle.engine_key import Profile
from hgdeploy.bundle.names import TensorRtRuntime
from hgdeploy.convert.tensorrt.builder import capabilities_of
from hgdeploy.convert.tensorrt.layers import Layer, layers_of_inspector, layers_of_log
from hgdeploy.convert.tensorrt.log import BuildLog, progress_monitor
from hgdeploy.convert.tensorrt.settings import BuildSettings, apply_settings
from hgdeploy.convert.tensorrt.target_gpu import Gpu, working_on
from hgdeploy.convert.tensorrt.timing_cache import load_timing_cache, save_timing_cache
from hgdeploy.engines.tensorrt.logger import cannot_start, hearing, shared_logger
from hgdeploy.errors import BundleError, EngineError, drop_locals, one_line
from hgdeploy.system.progress import OnLine

# The library's names of element types, where they are not numpy's names in capitals.
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
_COMPUTED_IN = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_MOST_ERRORS = 3  # of the parser, in one message


@dataclass(frozen=True)
class BuildJob:
    """What one build should make.

    Attributes:
        runtime: which of the two libraries builds.
        onnx: the ONNX file; its external data are beside it.
        precision: what the ONNX file must compute in.
        profile: the shapes to serve.
        compute_capabilities: the GPUs to build for, such as `8.6`.
        gpu: the one of them that this machine has and that may be used; None to use no GPU.
        settings: the builder's settings.
        timing_cache: the file that keeps kernel times between builds; None to keep none.
        content: what to build instead of what is in the ONNX file, which is then only named.
        more_profiles: further optimisation profiles.
    """

    runtime: TensorRtRuntime
    onnx: Path
    precision: str
    profile: Profile
    compute_capabilities: tuple[str, ...]
    gpu: Gpu | None = None
    settings: BuildSettings = field(default_factory=BuildSettings)
    timing_cache: Path | None = None
    content: bytes | None = None
    more_profiles: tuple[Profile, ...] = ()


def write_engine(
    trt: Any, job: BuildJob, target: Path, stop: threading.Event, on_progress: OnLine
) -> dict[str, Any]:
    """Build one engine and write its file.

    Args:
        trt: the library.
        job: what to build.
        target: where the file goes.
        stop: ends the build from another thread, at its next step.
        on_progress: called with the library's warnings and, every few seconds, with a line on how
            far the build is.

    Returns:
        What was built, JSON-ready: `inputs` and `outputs`; `layers`, the number of all layers;
        `layer_precisions`, how many layers compute each output type; `layer_types`; `plan_bytes`;
        and `engine`, the layers as they run, None where the library does not tell.

    Raises:
        BundleError: the ONNX file cannot be built, or does not compute in the job's precision.
        EngineError: the library fails.
        OSError: a file cannot be written.
    """
    log = BuildLog(stop, on_progress)
    with hearing(log), contextlib.nullcontext() if job.gpu is None else working_on(job.gpu):
        try:
            return _build(trt, job, target, log)
        except BaseException as error:
            drop_locals(error)  # the library's objects must go before the GPU is left
            raise


def _build(trt: Any, job: BuildJob, target: Path, log: BuildLog) -> dict[str, Any]:
    logger = shared_logger(trt)
    builder = _made(lambda: trt.Builder(logger), "a builder", job, log, cannot_start)
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = _made(lambda: builder.create_network(typed), "a network", job, log)
    _parse(trt, network, logger, job, log)
    facts = _described(network)
    _check_precision(facts, job)
    config = _made(builder.create_builder_config, "a configuration", job, log)
    monitor = progress_monitor(trt, log, job.runtime)
    config.progress_monitor = monitor
    _configure(trt, config, job)
    for ranges in (job.profile, *job.more_profiles):
        _add_profile(builder, network, config, ranges, job, log)
    if job.timing_cache is not None:
        load_timing_cache(config, job.timing_cache, log.on_progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise EngineError(f"{job.runtime.name} cannot build {job.onnx}: {log.reason()}")
    with target.open("wb") as file:
        file.write(plan)
    if job.timing_cache is not None:
        save_timing_cache(config, job.timing_cache)
    for warning in dict.fromkeys(log.warnings):
        log.on_progress(f"{job.runtime.name} warns: {one_line(RuntimeWarning(warning))}")
    if job.gpu is not None:
        engine = _loaded(trt, logger, plan, job, log)
    else:
        engine = _layer_facts(layers_of_log(log.layers)) if log.layers else None
    return {**facts, "plan_bytes": plan.nbytes, "engine": engine}


def _made(
    make: Callable[[], Any],
    what: str,
    job: BuildJob,
    log: BuildLog,
    explain: Callable[[str, str], str] = lambda _, reason: reason,
) -> Any:
    """Return what `make` returns; None, or an error of the bindings, is a failure.

    The bindings make a TypeError of a null pointer, and a RuntimeError of some refusals.
    """
    try:
        made = make()
    except (RuntimeError, TypeError) as error:
        log.raised = one_line(error)
        made = None
    if made is None:
        why = explain(job.runtime.name, log.reason())
        raise EngineError(f"{job.runtime.name} cannot create {what}: {why}")
    return made


def _parse(trt: Any, network: Any, logger: Any, job: BuildJob, log: BuildLog) -> None:
    parser = _made(lambda: trt.OnnxParser(network, logger), "a parser", job, log)
    if job.content is None:
        parsed = parser.parse_from_file(str(job.onnx))
    else:
        parsed = parser.parse(job.content)
    if parsed:
        return
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    reasons = [_parser_error(error) for error in errors[:_MOST_ERRORS]]
    if len(errors) > len(reasons):
        reasons.append(f"and {len(errors) - len(reasons)} more")
    reason = "; ".join(reasons) or "it gives no reason"
    if job.precision == "int8":
        reason += "; it reads what hgdeploy quantize makes with --activations int8, not uint8"
    raise BundleError(f"{job.runtime.name} cannot read {job.onnx}: {reason}")


def _parser_error(error: Any) -> str:
    kind = error.code().name.replace("_", " ").lower()
    where = ""
    if error.node() >= 0:
        where = f"node {error.node_name() or error.node()!r} ({error.node_operator()}): "
    return f"{where}{kind}: {one_line(RuntimeError(error.desc()))}"


def _described(network: Any) -> dict[str, Any]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    computing = [layer for layer in layers if layer.num_outputs and layer.type.name != "CONSTANT"]
    precisions = Counter(_dtype(layer.get_output(0)) for layer in computing)
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return {
        "inputs": [_tensor(tensor) for tensor in inputs],
        "outputs": [_tensor(tensor) for tensor in outputs],
        "layers": len(layers),
        "layer_precisions": dict(sorted(precisions.items())),
        "layer_types": dict(sorted(Counter(layer.type.name for layer in layers).items())),
    }


def _tensor(tensor: Any) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": _dtype(tensor), "shape": list(tensor.shape)}


def _dtype(tensor: Any) -> str:
    name = str(tensor.dtype.name)
    return _DTYPES.get(name, name.lower())


def _check_precision(facts: dict[str, Any], job: BuildJob) -> None:
    """Refuse a network that does not compute in the precision that was asked for."""
    kinds = dict.fromkeys(_COMPUTED_IN.values())
    floats = [dtype for dtype in kinds if dtype in facts["layer_precisions"]]
    quantized = "QUANTIZE" in facts["layer_types"]
    if job.precision == "int8":
        fits = quantized
    elif _COMPUTED_IN[job.precision] == "float32":
        fits = floats == ["float32"] and not quantized
    else:
        fits = _COMPUTED_IN[job.precision] in floats and not quantized
    if not fits:
        found = ", ".join(["int8"] * quantized + floats)
        raise BundleError(
            f"{job.onnx} computes in {found or 'no floating point type'}, but {job.precision} was "
            "asked for; make it again with hgdeploy convert or quantize"
        )


def _configure(trt: Any, config: Any, job: BuildJob) -> None:
    apply_settings(trt, config, job.settings, job.precision)
    if job.runtime.needs_gpu:
        return
    constants = capabilities_of(trt)
    config.num_compute_capabilities = len(job.compute_capabilities)
    for index, name in enumerate(job.compute_capabilities):
        if not config.set_compute_capability(constants[name], index):
            raise EngineError(f"{job.runtime.name} refuses the compute capability {name}")


def _add_profile(
    builder: Any, network: Any, config: Any, ranges: Profile, job: BuildJob, log: BuildLog
) -> None:
    profile = _made(builder.create_optimization_profile, "a profile", job, log)
    x = network.get_input(0)
    axes = zip(ranges.batch, ranges.height, ranges.width, strict=True)
    shapes = [(batch, x.shape[1], height, width) for batch, height, width in axes]
    try:
        profile.set_shape(x.name, *shapes)
        added = config.add_optimization_profile(profile)
    except RuntimeError as error:  # of shapes that do not fit the network
        log.raised, added = one_line(error), -1
    if added < 0:
        raise EngineError(f"{job.runtime.name} refuses the profile {ranges.text()}: {log.reason()}")


def _loaded(
    trt: Any, logger: Any, plan: Any, job: BuildJob, log: BuildLog
) -> dict[str, Any] | None:
    """Load the engine on the GPU it was built for, and return facts about the layers it runs.

    None where the library describes them in words of its own that we do not know.
    """
    runtime = _made(lambda: trt.Runtime(logger), "a runtime", job, log, cannot_start)
    runtime.engine_host_code_allowed = True  # the file was built just now, from ONNX
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(
            f"{job.runtime.name} cannot load the engine it built from {job.onnx}: {log.reason()}"
        )
    inspector = _made(engine.create_engine_inspector, "an inspector", job, log)
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    layers = layers_of_inspector(text)
    if layers is None:
        log.on_progress(f"{job.runtime.name} does not describe its engine in words that we know")
    return None if layers is None else _layer_facts(layers)


def _layer_facts(layers: list[Layer]) -> dict[str, Any]:
    precisions = Counter(layer.precision for layer in layers)
    return {
        "layers": len(layers),
        "precisions": dict(sorted(precisions.items())),
        "layer_list": [layer.to_json() for layer in layers],
    }
