# SPDX-License-Identifier: Apache-2.0
"""What of a machine decides which engine is the fastest on it."""

from __future__ import annotations

from collections.abc import Mapping

from hgdeploy.engines.base import device_index
from hgdeploy.gpu.driver import driver_release, nvidia_gpu_list
from hgdeploy.gpu.stack import TENSORRTS
from hgdeploy.system.libraries import installed_version
from hgdeploy.system.machine import available_cpus, cpu_flags, cpu_model

Machine = Mapping[str, str]
"""Facts by what they are called in a message."""

INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""The instruction sets that decide which CPU kernels run, fastest last."""

LIBRARIES: Mapping[str, tuple[str, ...]] = {
    "paddle": ("paddlepaddle-gpu", "paddlepaddle"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "openvino": ("openvino",),
    "tensorrt": TENSORRTS,
    "mnn": ("MNN",),
    "ncnn": ("ncnn",),
}
"""The distributions that may have installed an engine's library."""


def library_version(engine: str) -> str | None:
    """Return the version of an engine's library, which is not loaded; None if it is missing."""
    return installed_version(*LIBRARIES[engine])


def machine_here(device: str) -> Machine:
    """Return what decides how fast a run is on this machine.

    Args:
        device: `cpu` or `gpu:N`, which adds that GPU and its driver.
    """
    flags = cpu_flags()
    facts = {
        "CPU": cpu_model(),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in flags),
        "usable CPUs": str(available_cpus()),
    }
    index = device_index(device)
    if index is not None:
        name = next((gpu.name for gpu in nvidia_gpu_list() if gpu.index == index), "none")
        facts |= {"GPU": name, "driver": driver_release() or "unknown"}
    return facts


def differences(there: Machine, here: Machine) -> list[str]:
    """Return each fact in which two machines differ, in words."""
    return [
        f"{name} {there.get(name) or 'unknown'}, here {here.get(name) or 'unknown'}"
        for name in {**there, **here}
        if there.get(name) != here.get(name)
    ]
