# SPDX-License-Identifier: Apache-2.0
"""The machine and software that a result was measured on, with a short hash to identify them."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.engines.auto.machine import LIBRARIES
from hgdeploy.gpu.driver import nvidia_gpu_names
from hgdeploy.gpu.stack import TENSORRTS
from hgdeploy.system.libraries import installed_version
from hgdeploy.system.machine import available_cpus, cpu_flags, cpu_governor, cpu_model, memory_mb

# A library's usual name, and the names of the distributions that may have installed it.
_LIBRARIES = {
    **{engine: names for engine, names in LIBRARIES.items() if engine != "tensorrt"},
    **{name: (name,) for name in (*TENSORRTS, "cuda-bindings")},
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "pillow": ("pillow",),
}
# Facts that may differ between two runs in the same environment.
_NOT_IN_ID = ("memory_mb", "commit", "dirty")
_GIT_SECONDS = 10


def describe_environment() -> dict[str, Any]:
    """Return the facts about this machine and its software that a result depends on.

    `id` is a short hash of these, without the commit (a suite must survive an edit of the docs) and
    the memory (which a kernel reports slightly differently from boot to boot).
    """
    versions = {name: installed_version(*names) for name, names in _LIBRARIES.items()}
    commit, dirty = _git_state()
    facts: dict[str, Any] = {
        "cpu": cpu_model(),
        "cpus": available_cpus(),
        "flags": sorted(cpu_flags()),
        "governor": cpu_governor(),
        "memory_mb": memory_mb(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "libraries": {"hgdeploy": __version__}
        | {name: version for name, version in versions.items() if version is not None},
        "gpu": list(nvidia_gpu_names()),
        "commit": commit,
        "dirty": dirty,
    }
    identity = {key: value for key, value in facts.items() if key not in _NOT_IN_ID}
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return {"id": digest[:12], **facts}


def _git_state() -> tuple[str | None, bool | None]:
    """Return this checkout's commit and whether it has changes; (None, None) if it is no checkout.

    An installed package may lie inside the checkout of another project, which does not track it.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", "--", str(here)) is None:
        return None, None
    changes = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return _git(here.parent, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    """Return git's output in `folder`; None if git is missing or fails."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
