# SPDX-License-Identifier: Apache-2.0
"""What an engine file was built for, and whether this GPU and this library can run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hgdeploy.bundle.engine_key import EngineKey
from hgdeploy.bundle.names import RUNTIMES, TensorRtRuntime, runtime_of
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError
from hgdeploy.gpu.device import Device


def read_key(source: Path) -> EngineKey | None:
    """Return what the engine was built for, from its sidecar; None if no sidecar says it.

    Raises:
        BundleError: the sidecar cannot be read.
    """
    key = (read_sidecar(source) or {}).get("key")
    return EngineKey.from_json(key, str(sidecar_path(source))) if key is not None else None


def runtime_from_name(source: Path) -> TensorRtRuntime:
    """Return the library that a file is for, by the end of its name.

    Raises:
        BundleError: the name does not say.
    """
    runtime = runtime_of(source.name)
    if runtime is None:
        raise BundleError(
            f"{source} has no sidecar, and its name does not say which library it is for; call it "
            + " or ".join(f"NAME{runtime.suffix} ({runtime.name})" for runtime in RUNTIMES)
        )
    return runtime


def check_key(
    key: EngineKey, source: Path, trt: Any, device: Device, options: EngineOptions
) -> None:
    """Refuse a file that was built for something else.

    Raises:
        BundleError: it does not fit; the message says what it was built for, and what is here.
    """
    if key.precision != options.precision:
        raise BundleError(
            f"{source} was built in {key.precision}, but {options.precision} was asked for; build "
            f"that with hgdeploy build --precision {options.precision}"
        )
    capabilities = ", ".join(key.compute_capabilities)
    if key.version != str(trt.__version__) or (
        device.compute_capability not in key.compute_capabilities
    ):
        raise BundleError(
            f"{source} was built with {key.runtime} {key.version} for compute capability "
            f"{capabilities}, here is {trt.__version__} on {device.compute_capability} "
            f"({device.name}); build it again with hgdeploy build"
        )
