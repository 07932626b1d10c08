# SPDX-License-Identifier: Apache-2.0
"""What the NVIDIA driver itself says about the GPUs, without any GPU library."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass

# Numbers of cuda.h's enum CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_TEXT_LENGTH = 256


@dataclass(frozen=True)
class NvidiaGpu:
    """What the driver says about a GPU.

    Attributes:
        index: N of `gpu:N`.
        name: its name, such as `Tesla V100-SXM2-16GB`.
        compute_capability: its generation in two numbers, such as (7, 0).
        memory_mb: all of its memory, in MiB.
    """

    index: int
    name: str
    compute_capability: tuple[int, int]
    memory_mb: int

    @property
    def capability(self) -> str:
        """The compute capability as it is written, such as `7.0`."""
        return ".".join(map(str, self.compute_capability))


def nvidia_gpus() -> tuple[int, str]:
    """Count the NVIDIA GPUs that the driver finds; no other GPU library is loaded.

    Returns:
        The count, and the reason if it is zero, else an empty string.
    """
    driver = _nvidia_driver()
    if driver is None:
        return 0, "no NVIDIA driver is installed"
    status, count = driver.cuInit(0), ctypes.c_int(0)
    if status == 0:
        status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status != 0:
        return 0, f"the NVIDIA driver returns {_error(driver, status)}{_chosen()}"
    return count.value, "" if count.value else f"the NVIDIA driver finds no GPU{_chosen()}"


def reason_gpu_is_missing(index: int) -> str | None:
    """Return why this machine has no GPU number `index`; None if it has one."""
    count, reason = nvidia_gpus()
    if index < count:
        return None
    only = ", ".join(f"gpu:{i}" for i in range(count))
    return reason or f"this machine has only {only}{_chosen()}"


def _error(driver: ctypes.CDLL, status: int) -> str:
    """Return an error of the driver with its name and text, as far as the driver has them."""
    texts = []
    for function in (driver.cuGetErrorName, driver.cuGetErrorString):
        text = ctypes.c_char_p()
        if function(status, ctypes.byref(text)) == 0 and text.value:
            texts.append(text.value.decode(errors="replace"))
    return f"error {status}" + (f" ({': '.join(texts)})" if texts else "")


def _chosen() -> str:
    """Return what the environment leaves of the GPUs, to follow how many there are."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return "" if chosen is None else f" (CUDA_VISIBLE_DEVICES is {chosen!r})"


def driver_cuda() -> str | None:
    """Return the newest CUDA version that the NVIDIA driver supports; None without a driver."""
    driver = _nvidia_driver()
    if driver is None:
        return None
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def driver_release() -> str | None:
    """Return the driver's own version, such as `550.54.15`; None where NVML does not say it."""
    for name in ("libnvidia-ml.so.1", "nvml.dll"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        text = ctypes.create_string_buffer(_TEXT_LENGTH)
        if library.nvmlInit_v2() != 0:
            return None
        status = library.nvmlSystemGetDriverVersion(text, len(text))
        library.nvmlShutdown()
        return text.value.decode(errors="replace") if status == 0 else None
    return None


def nvidia_gpu_list() -> tuple[NvidiaGpu, ...]:
    """Return the NVIDIA GPUs that the driver finds."""
    driver = _nvidia_driver()
    if driver is None:
        return ()
    return tuple(_gpu(driver, index) for index in range(nvidia_gpus()[0]))


def pci_bus_id(index: int) -> str | None:
    """Return where a GPU sits, such as `0000:3B:00.0`; None if there is no such GPU.

    That is what tells a GPU: CUDA and NVML number them in different orders.
    """
    driver = _nvidia_driver()
    if driver is None or index >= nvidia_gpus()[0]:
        return None
    device, text = ctypes.c_int(0), ctypes.create_string_buffer(_TEXT_LENGTH)
    driver.cuDeviceGet(ctypes.byref(device), index)
    status = driver.cuDeviceGetPCIBusId(text, len(text), device)
    return text.value.decode(errors="replace") if status == 0 else None


def nvidia_gpu_names() -> tuple[str, ...]:
    """Return each NVIDIA GPU's name with the driver's release and the CUDA that it supports."""
    gpus = nvidia_gpu_list()
    driver = " ".join(filter(None, ("driver", driver_release()))) if gpus else ""
    return tuple(f"{gpu.name} ({driver} for CUDA {driver_cuda()})" for gpu in gpus)


def _gpu(driver: ctypes.CDLL, index: int) -> NvidiaGpu:
    device, name = ctypes.c_int(0), ctypes.create_string_buffer(_TEXT_LENGTH)
    major, minor, size = ctypes.c_int(0), ctypes.c_int(0), ctypes.c_size_t(0)
    driver.cuDeviceGet(ctypes.byref(device), index)
    driver.cuDeviceGetName(name, len(name), device)
    driver.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    driver.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    text = name.value.decode(errors="replace")
    return NvidiaGpu(index, text, (major.value, minor.value), size.value // 2**20)


def _nvidia_driver() -> ctypes.CDLL | None:
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
