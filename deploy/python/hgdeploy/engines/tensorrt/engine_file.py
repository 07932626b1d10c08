# SPDX-License-Identifier: Apache-2.0
"""What an engine file was built for, and whether this GPU and this library can run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hgdeploy.bundle.engine_key import EngineKey
from hgdeploy.bundle.names import RUNTIMES, TensorRtRuntime, runtime_of
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.tensorrt.session import Session
from hgdeploy.errors import BundleError
from hgdeploy.gpu.device import Device

# The first compute capability that runs what is built for Ampere and all later GPUs.
_AMPERE = 8.0


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
            f"that with {build_command(options.device)} --precision {options.precision}"
        )
    capabilities = ", ".join(key.compute_capabilities)
    if not (_is_for_version(key, str(trt.__version__)) and _is_for_gpu(key, device)):
        raise BundleError(
            f"{source} was built with {key.runtime} {key.version} for compute capability "
            f"{capabilities}, here is {trt.__version__} on {device.compute_capability} "
            f"({device.name}); build it again with {build_command(options.device)}"
        )


def _is_for_version(key: EngineKey, version: str) -> bool:
    """Tell whether a version runs a file: its own, or a later one where it was built for that."""
    if dict(key.flags).get("version_compatible") != "True":
        return key.version == version
    built, here = _numbers(key.version), _numbers(version)
    return built[:1] == here[:1] and built <= here


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".") if part.isdecimal()]


def _is_for_gpu(key: EngineKey, device: Device) -> bool:
    """Tell whether a GPU runs a file: of its compute capability, or of all from Ampere on."""
    wide = dict(key.flags).get("hardware_compatibility") == "ampere+"
    own = device.compute_capability
    return own in key.compute_capabilities or (wide and float(own) >= _AMPERE)


def tuned_elsewhere(key: EngineKey | None, device: Device) -> str | None:
    """Return `tuned on NAME` where a file was tuned on another GPU than the one that is to run it.

    With the same compute capability the library runs it all the same, and not at its best speed.
    """
    if key is None or key.gpu in (None, device.name):
        return None
    return f"tuned on {key.gpu}"


def check_batch(session: Session, source: Path, options: EngineOptions) -> None:
    """Refuse an engine that is too small for the batch that will be fed.

    Raises:
        BundleError: the message has both batches.
    """
    for tensor in session.inputs:
        if tensor.most and options.max_batch > tensor.most[0]:
            raise BundleError(
                f"{source} serves batches of {tensor.least[0]} to {tensor.most[0]}, and the batch "
                f"size is {options.max_batch}; use at most {tensor.most[0]}, or build it again "
                f"with {build_command(options.device)} --batch 1,{options.max_batch}"
            )


def warnings_of(
    session: Session, source: Path, options: EngineOptions, elsewhere: str | None
) -> Iterator[str]:
    """Yield what the user should know of a loaded file."""
    if elsewhere is not None:
        yield (
            f"{source} was {elsewhere} and runs on {session.device.name}, where another may be "
            f"faster; build it for this GPU with {build_command(options.device)}"
        )
    for tensor in session.inputs:
        least, most = tensor.least[0], tensor.most[0]
        if options.max_batch < least < most:
            yield (
                f"{source} serves batches of {least} to {most}: a smaller one is filled up with "
                f"zeros and takes as long as {least}; build it with {build_command(options.device)}"
                f" --batch {options.max_batch},{most} for less"
            )
    for warning in session.warnings:
        yield f"{session.name} warns: {warning}"


def build_command(device: str) -> str:
    """Return how to build for a device of this machine, such as `gpu:1`."""
    return "hgdeploy build" + ("" if device == "gpu:0" else f" --device {device}")
