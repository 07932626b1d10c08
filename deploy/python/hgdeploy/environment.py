# SPDX-License-Identifier: Apache-2.0
"""What machine this is and what is installed on it."""

from __future__ import annotations

import ctypes
import functools
import importlib
import importlib.metadata
import os
import platform
import warnings
from pathlib import Path
from types import ModuleType

from hgdeploy.errors import EngineError, one_line


def available_cpus() -> int:
    """Return how many CPUs this process may use: its affinity, not the machine's total."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """Return the first processor's fields of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    first = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def cpu_model() -> str:
    """Return the processor's marketing name as the system tells it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags; empty where the system does not list them."""
    return frozenset(_cpuinfo().get("flags", "").split())


def installed_version(*distributions: str) -> str | None:
    """Return the version of the first of `distributions` that is installed, else None."""
    for name in distributions:
        for found in importlib.metadata.distributions(name=name):
            return found.version
    return None


def import_library(name: str, extra: str) -> ModuleType:
    """Import a heavy library, silencing what it says of itself while it loads.

    Args:
        name: the module, such as `paddle`.
        extra: the extra of HGDeploy that installs it, for the error.

    Raises:
        EngineError: it is not installed, or does not load on this machine.
    """
    # Paddle's C++ log reads this when it loads: 2 leaves errors and drops notes and warnings.
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Paddle warns of a compiler cache it lacks
            return importlib.import_module(name)
    except (ImportError, OSError) as error:
        raise EngineError(
            f"{name} does not import here ({one_line(error)}); pip install 'hgdeploy[{extra}]'"
        ) from None


def nvidia_gpus() -> tuple[int, str]:
    """Count the NVIDIA GPUs the driver shows, without loading any GPU library but the driver.

    Returns:
        The count, and the reason why it is zero (empty where it is not).
    """
    for name in ("libcuda.so.1", "nvcuda.dll"):
        try:
            driver = ctypes.CDLL(name)
        except OSError:
            continue
        status, count = driver.cuInit(0), ctypes.c_int(0)
        if status == 0:
            status = driver.cuDeviceGetCount(ctypes.byref(count))
        if status != 0:
            return 0, f"the NVIDIA driver answers with error {status}"
        return count.value, "" if count.value else "the NVIDIA driver shows no device"
    return 0, "no NVIDIA driver is installed"
