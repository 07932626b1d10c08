# SPDX-License-Identifier: Apache-2.0
"""What machine this is and what is installed on it."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import platform
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from hgdeploy.errors import ResourceError

# Where Linux shows the limits of containers and services (control groups, cgroups).
_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


def available_cpus() -> int:
    """Return how many CPUs this process may use: not the machine's, but as its limits say.

    The limits are its affinity, and the CPU time that its cgroups get; of 1.5 CPUs it may use 2.
    """
    has_affinity = hasattr(os, "sched_getaffinity")
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    quota = _least(_cpu_quota(folder) for folder in _cgroups("cpu"))
    return cpus if quota is None else max(1, min(cpus, math.ceil(quota)))


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


def is_amd() -> bool:
    """Return whether this machine's processor is AMD's."""
    return _cpuinfo().get("vendor_id") == "AuthenticAMD"


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
    """Return the memory that this process may use, in MiB: the machine's, or what its cgroups get.

    None where the system does not report it.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        machine = None
    least = _least([machine, *(_memory_limit(folder) for folder in _cgroups("memory"))])
    return None if least is None else int(least) // 2**20


def raise_if_exhausted(error: OSError) -> None:
    """Tell what this process may not have more of from what is wrong with a single file.

    Raises:
        ResourceError: the system has no more open files or memory for it.
    """
    if error.errno in (errno.EMFILE, errno.ENFILE):
        raise ResourceError(
            f"{_sentence(error)}; raise the limit (ulimit -n), or use fewer --workers"
        ) from None
    if error.errno == errno.ENOMEM:
        raise ResourceError(f"{_sentence(error)}; use fewer --workers or smaller batches") from None


def _sentence(error: OSError) -> str:
    return f"the system refuses this process: {(error.strerror or str(error)).lower()}"


def _cgroups(controller: str) -> Iterator[Path]:
    """Yield the folders of this process's cgroups and of those around them, in both versions.

    A limit of any of them counts. In a container the root is often its own cgroup, whatever path
    the system gives, and then the inner folders are not there.

    Source: https://docs.kernel.org/admin-guide/cgroup-v2.html and cgroup-v1/cgroups.html
    """
    roots = {"": _CGROUPS, controller: _CGROUPS / controller}
    try:
        lines = _MEMBERSHIP.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        lines = []
    paths = {name: PurePosixPath("/") for name in roots}
    for line in lines:
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        for name in names.split(","):
            if name in paths and ".." not in path.split("/"):  # it is outside of what is seen here
                paths[name] = PurePosixPath(path)
    for name, root in roots.items():
        for inner in (paths[name], *paths[name].parents):
            yield root / inner.relative_to("/")


def _cpu_quota(folder: Path) -> float | None:
    """Return how many CPUs a cgroup's time is worth; None for any number."""
    words = _words(folder / "cpu.max")  # version 2; version 1 has a file for each number
    if not words:
        words = _words(folder / "cpu.cfs_quota_us") + _words(folder / "cpu.cfs_period_us")
    try:
        quota, period = map(int, words)
    except ValueError:  # such as "max 100000"
        return None
    return quota / period if quota > 0 and period > 0 else None


def _memory_limit(folder: Path) -> int | None:
    """Return the bytes that a cgroup may use; None for any number. Version 1's is then huge."""
    for name in ("memory.max", "memory.limit_in_bytes"):
        for word in _words(folder / name):
            return int(word) if word.isdecimal() else None
    return None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError):
        return []


def _least(limits: Iterable[float | None]) -> float | None:
    return min((limit for limit in limits if limit is not None), default=None)


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


def descendants(pid: int) -> Iterator[int]:
    """Yield the children of a process, their children, and so on."""
    for child in child_processes(pid):
        yield child
        yield from descendants(child)


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
