# SPDX-License-Identifier: Apache-2.0
"""The CPUs and the memory that a process may use, as its cgroups limit them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hgdeploy.system import machine
from hgdeploy.system.machine import available_cpus, memory_mb

MiB = 1 << 20
UNLIMITED = "9223372036854771712"  # how version 1 writes it


@pytest.fixture
def limits(tmp_path, monkeypatch):
    """Give this process a membership, and cgroup files by their paths below the root."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.setattr(machine, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "_MEMBERSHIP", tmp_path / "membership")

    def give(membership: str | None, files: dict[str, str]) -> tuple[int, int | None]:
        if membership is not None:
            (tmp_path / "membership").write_text(membership)
        for name, text in files.items():
            path: Path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return available_cpus(), memory_mb()

    return give


def test_without_limits_the_machine_counts(limits):
    whole = limits(None, {})
    assert whole[0] == 16
    assert whole[1] is None or whole[1] > 512
    assert limits("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}) == whole
    unlimited = {"memory/memory.limit_in_bytes": UNLIMITED, "cpu/cpu.cfs_quota_us": "-1"}
    assert limits("4:memory:/\n1:cpu:/\n", unlimited) == whole


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [
        ("100000 100000", 1),
        ("150000 100000", 2),  # a fraction of a CPU is used too
        ("20000 100000", 1),
        ("400000 100000", 4),
        ("9000000 100000", 16),  # more than there are
        ("0 0", 16),
        ("nonsense", 16),
        ("", 16),
    ],
)
def test_a_container_has_the_cpus_of_its_quota(limits, quota, cpus):
    found, memory = limits("0::/\n", {"cpu.max": quota, "memory.max": str(512 * MiB)})
    assert (found, memory) == (cpus, 512)


def test_the_least_limit_of_all_cgroups_around_counts(limits):
    """A service in a slice of systemd: the slice may be the narrower one."""
    slices = "0::/user.slice/user-1000.slice/job.service\n"
    files = {
        "user.slice/cpu.max": "300000 100000",
        "user.slice/user-1000.slice/cpu.max": "max 100000",
        "user.slice/user-1000.slice/job.service/cpu.max": "800000 100000",
        "user.slice/user-1000.slice/memory.max": str(2048 * MiB),
        "user.slice/user-1000.slice/job.service/memory.max": str(1024 * MiB),
        "other.slice/cpu.max": "100000 100000",
    }
    assert limits(slices, files) == (3, 1024)


@pytest.mark.parametrize("path", ["/", "/docker/abc", "/../../docker/abc"])
def test_a_container_that_sees_its_own_cgroup_as_the_root_is_limited_by_it(limits, path):
    """Without a namespace of its own, it is told a path that it cannot see."""
    files = {
        "cpu/cpu.cfs_quota_us": "250000",
        "cpu/cpu.cfs_period_us": "100000",
        "memory/memory.limit_in_bytes": str(256 * MiB),
    }
    assert limits(f"5:cpu,cpuacct:{path}\n4:memory:{path}\n0::/\n", files) == (3, 256)
