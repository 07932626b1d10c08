# SPDX-License-Identifier: Apache-2.0
"""Where an engine's time goes: its layers, timed on the GPU where there is one."""

from __future__ import annotations

from pathlib import Path

from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.convert.tensorrt.layers import Layer, layers_of_facts, with_times
from hgdeploy.convert.tensorrt.options import BuildOptions
from hgdeploy.convert.tensorrt.target_gpu import local_gpu
from hgdeploy.engines.tensorrt.layer_times import layer_times
from hgdeploy.engines.tensorrt.options import TensorRtOptions
from hgdeploy.engines.tensorrt.runtime_cache import RuntimeCache
from hgdeploy.engines.tensorrt.session import Session
from hgdeploy.errors import BundleError, EngineError
from hgdeploy.gpu.device import open_device
from hgdeploy.system.libraries import import_library
from hgdeploy.system.progress import OnLine


def profile_engine(engine: Path, options: BuildOptions, on_warning: OnLine) -> list[Layer]:
    """Return the layers of an engine in the order of a run, with their times.

    Args:
        engine: a file that `engine_from_onnx` has built with these options.
        options: how it was built, and on which GPU it is to be timed.
        on_warning: called with one line where it cannot be timed on this machine.

    Raises:
        BundleError: its sidecar does not list its layers.
        EngineError: the library or the GPU fails.
    """
    facts = read_sidecar(engine) or {}
    layers = layers_of_facts(facts)
    if layers is None:
        raise BundleError(
            f"{sidecar_path(engine)} does not list the engine's layers; build it again with "
            "hgdeploy build --force"
        )
    built_for = (facts.get("key") or {}).get("compute_capabilities", ())
    try:
        gpu = local_gpu(options.gpu, options.runtime)
    except EngineError as error:
        on_warning(f"the layers have no times: {error}")
        return layers
    if gpu.compute_capability not in built_for:
        on_warning(
            f"the layers have no times: {engine} is for compute capability {', '.join(built_for)}, "
            f"and {gpu.name} has {gpu.compute_capability}"
        )
        return layers
    trt = import_library(options.runtime.module, options.runtime.extra)
    # What was built here from ONNX may hold code for the CPU.
    session = Session(
        trt, open_device(gpu.index), TensorRtOptions(host_code=True), RuntimeCache(None)
    )
    try:
        with session.device.activate():
            session.load(engine)
        return with_times(layers, layer_times(session))
    finally:
        session.close()
