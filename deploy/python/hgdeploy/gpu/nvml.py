# SPDX-License-Identifier: Apache-2.0
"""How fast a GPU runs at the moment, and why not faster, through NVIDIA's nvidia-ml-py (pynvml)."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

from hgdeploy.gpu.driver import driver_cuda, driver_release, nvidia_gpu_list, pci_bus_id
from hgdeploy.system.libraries import installed_version

# Bits of nvmlDeviceGetCurrentClocksEventReasons that slow a GPU down, by the ends of their names in
# nvml.h. The others are an idle GPU, and clocks that its user has set.
_HELD_BACK = {
    "SwPowerCap": "power limit",
    "HwSlowdown": "hardware slowdown",
    "SyncBoost": "another GPU's clock",
    "SwThermalSlowdown": "heat",
    "HwThermalSlowdown": "heat, in hardware",
    "HwPowerBrakeSlowdown": "power brake",
}


def gpu_facts(device: str) -> dict[str, Any] | None:
    """Return the name, compute capability and driver of a GPU.

    Args:
        device: `cpu`, for which there are none, or `gpu:N`.

    Returns:
        `name`, `compute_capability`, `driver` (its release, such as `550.54.15`), `cuda` (the
        newest that it serves), and `nvidia_ml_py` (the version that reads the clocks); None each
        where that is not known.
    """
    index = _index(device)
    found = [gpu for gpu in nvidia_gpu_list() if gpu.index == index]
    if not found:
        return None
    return {
        "name": found[0].name,
        "compute_capability": found[0].capability,
        "driver": driver_release(),
        "cuda": driver_cuda(),
        "nvidia_ml_py": installed_version("nvidia-ml-py"),
    }


def gpu_state(device: str) -> dict[str, Any] | None:
    """Return a GPU's clocks, power, temperature and what holds it back, at this moment.

    Args:
        device: `cpu`, which has none, or `gpu:N`.

    Returns:
        `sm_mhz`, `memory_mhz`, `power_w`, `temperature_c`, `held_back` (reasons, in words), each
        left out where this GPU does not tell; None where nothing can be read.
    """
    index = _index(device)
    place = None if index is None else pci_bus_id(index)
    if place is None:
        return None
    with _library() as nvml:
        if nvml is None:
            return None
        try:
            handle = nvml.nvmlDeviceGetHandleByPciBusId(place)
        except nvml.NVMLError:
            return None
        watts = _told(nvml, lambda: nvml.nvmlDeviceGetPowerUsage(handle) / 1000)
        state = {
            "sm_mhz": _told(nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "memory_mhz": _told(
                nvml, lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_MEM)
            ),
            "power_w": None if watts is None else round(watts, 1),
            "temperature_c": _told(
                nvml, lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            "held_back": _told(nvml, lambda: _reasons(nvml, handle)),
        }
    return {name: value for name, value in state.items() if value is not None}


def _index(device: str) -> int | None:
    kind, _, number = device.partition(":")
    return int(number) if kind == "gpu" and number.isdigit() else None


@contextlib.contextmanager
def _library() -> Iterator[Any]:
    """Give pynvml, ready for use; None where it or the driver's part of it is missing."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # its own errors are known only once it is imported
        yield None
        return
    try:
        yield nvml
    finally:
        nvml.nvmlShutdown()


def _told(nvml: Any, ask: Callable[[], Any]) -> Any:
    """Return an answer, or None: virtual GPUs and old ones do not tell everything."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def _reasons(nvml: Any, handle: Any) -> list[str]:
    try:
        bits = nvml.nvmlDeviceGetCurrentClocksEventReasons(handle)
    except (AttributeError, nvml.NVMLError):  # before driver 535 it had another name
        bits = nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
    names = ((f"nvmlClocksThrottleReason{end}", words) for end, words in _HELD_BACK.items())
    return [words for name, words in names if bits & getattr(nvml, name, 0)]
