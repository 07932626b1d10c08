# SPDX-License-Identifier: Apache-2.0
"""What machine this is and what is installed on it."""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from pathlib import Path


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
    """Return the processor's marketing name as the system reports it."""
    return _cpuinfo().get("model name") or platform.processor() or platform.machine()


def cpu_flags() -> frozenset[str]:
    """Return the processor's feature flags; empty where the system does not list them."""
    return frozenset(_cpuinfo().get("flags", "").split())


def int8_saturates() -> bool:
    """Tell whether int8 kernels overflow on this CPU where weights use all their 8 bits.

    An x86 CPU without VNNI adds pairs of products in 16 bits, which saturate: 2 x 255 x 127 is more
    than 32,767, while 2 x 255 x 64, the most with weights of 7 bits, is not. ONNX Runtime and
    OpenVINO compute with it all the same. Where the system lists no flags, nobody can know.

    Source: https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
    """
    flags = cpu_flags()
    return "sse2" in flags and not flags & {"avx512_vnni", "avx_vnni", "amx_int8"}


def memory_mb() -> int | None:
    """Return the machine's memory in MiB; None where the system does not report it."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    except (AttributeError, ValueError, OSError):
        return None


def out_of_memory_kills() -> int | None:
    """Return how many processes the system has ended because memory, or a container's, was short.

    None where it does not count them. Source: proc_vmstat(5), `oom_kill`.
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/vmstat").read_text(encoding="ascii").splitlines():
            name, _, number = line.partition(" ")
            if name == "oom_kill":
                return int(number)
    return None


def cpu_governor() -> str | None:
    """Return what sets the CPU's clock, such as `performance`; None where it cannot be read."""
    return _read_cpufreq("scaling_governor")


def cpu_mhz() -> float | None:
    """Return the first CPU's clock as it is now; None where it cannot be read."""
    khz = _read_cpufreq("scaling_cur_freq")
    return int(khz) / 1000 if khz is not None and khz.isdecimal() else None


def _read_cpufreq(name: str) -> str | None:
    cpu = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    try:
        path = Path(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/{name}")
        return path.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def child_processes(pid: int | None = None) -> list[int]:
    """Return the running processes that this one, or `pid`, started.

    None are found where the system does not list them.
    """
    found: list[int] = []
    for task in Path(f"/proc/{pid or 'self'}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has just ended
            found += map(int, task.read_text(encoding="ascii").split())
    return found


def peak_memory_mb(pid: int | None = None) -> float | None:
    """Return the most memory this process, or that of `pid`, has had in use, in MiB.

    It is None where the system does not report it. Linux's `ru_maxrss` starts at what the parent
    had in use when it made this process, so the system's own account of the process is read where
    there is one.
    """
    try:
        path = Path(f"/proc/{pid or 'self'}/status")
        status = path.read_text(encoding="ascii", errors="replace")
        lines = (line.split() for line in status.splitlines())
        return next((int(words[1]) / 1024 for words in lines if words[0] == "VmHWM:"), None)
    except OSError:
        if pid is not None:
            return None
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes
