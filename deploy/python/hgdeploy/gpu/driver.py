# SPDX-License-Identifier: Apache-2.0
"""What the NVIDIA driver itself says about the GPUs, without any GPU library."""

from __future__ import annotations

import ctypes


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
        return 0, f"the NVIDIA driver returns error {status}"
    return count.value, "" if count.value else "the NVIDIA driver finds no GPU"


def reason_gpu_is_missing(index: int) -> str | None:
    """Return why this machine has no GPU number `index`; None if it has one."""
    count, reason = nvidia_gpus()
    if index < count:
        return None
    return reason or f"this machine has only {', '.join(f'gpu:{i}' for i in range(count))}"


def driver_cuda() -> str | None:
    """Return the newest CUDA version that the NVIDIA driver supports; None without a driver."""
    driver = _nvidia_driver()
    if driver is None:
        return None
    version = ctypes.c_int(0)
    driver.cuDriverGetVersion(ctypes.byref(version))
    return f"{version.value // 1000}.{version.value % 1000 // 10}"


def nvidia_gpu_names() -> tuple[str, ...]:
    """Return each NVIDIA GPU's name with the CUDA version that the driver supports."""
    driver, cuda = _nvidia_driver(), driver_cuda()
    if driver is None:
        return ()
    names = []
    for index in range(nvidia_gpus()[0]):
        device, name = ctypes.c_int(0), ctypes.create_string_buffer(256)
        driver.cuDeviceGet(ctypes.byref(device), index)
        driver.cuDeviceGetName(name, len(name), device)
        names.append(f"{name.value.decode(errors='replace')} (driver for CUDA {cuda})")
    return tuple(names)


def _nvidia_driver() -> ctypes.CDLL | None:
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None
