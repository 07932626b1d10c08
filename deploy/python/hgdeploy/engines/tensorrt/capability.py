# SPDX-License-Identifier: Apache-2.0
"""What TensorRT can do on this machine."""

from __future__ import annotations

from hgdeploy.bundle.names import RUNTIMES
from hgdeploy.engines.base import Capability
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.gpu.stack import TENSORRT, TENSORRT_RTX
from hgdeploy.system.libraries import installed_version, installing

_DISTRIBUTIONS = {"tensorrt": TENSORRT, "tensorrt-rtx": TENSORRT_RTX}


def capability() -> Capability:
    """Return what TensorRT can do on this machine."""
    found = {r.name: installed_version(*_DISTRIBUTIONS[r.name]) for r in RUNTIMES}
    version = next((version for version in found.values() if version is not None), None)
    extras = installing(*(runtime.extra for runtime in RUNTIMES))
    if version is None:
        return Capability(None, notes=(f"{extras}; it needs an NVIDIA GPU to run",))
    notes = ["installed: " + ", ".join(f"{name} {v}" for name, v in found.items() if v is not None)]
    count, reason = nvidia_gpus()
    if count == 0:
        return Capability(version, notes=(f"needs an NVIDIA GPU: {reason}", *notes))
    if installed_version("cuda-bindings", "cuda-python", "pycuda") is None:
        missing = f"needs cuda-bindings (or pycuda) to use the GPU: {extras}"
        return Capability(version, notes=(missing, *notes))
    notes.append(
        "each precision needs its engine file; hgdeploy build makes it for this GPU (tf32 from "
        "compute capability 8.0 on)"
    )
    return Capability(version, tuple(f"gpu:{i}" for i in range(count)), PRECISIONS, tuple(notes))
