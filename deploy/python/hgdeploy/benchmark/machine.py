# SPDX-License-Identifier: Apache-2.0
"""What a result was measured on, and a short name for it that tells environments apart."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.gpu.driver import nvidia_gpu_names
from hgdeploy.system.libraries import installed_version
from hgdeploy.system.machine import available_cpus, cpu_flags, cpu_governor, cpu_model, memory_mb

# What is looked up as a distribution, first found; the key is what a reader calls it.
_LIBRARIES = {
    "paddle": ("paddlepaddle-gpu", "paddlepaddle"),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-rtx"),
    "numpy": ("numpy",),
    "opencv": ("opencv-python-headless", "opencv-python"),
    "pillow": ("pillow",),
}
# These may differ between two runs that are still of one environment.
_NOT_IN_ID = ("memory_mb", "commit", "dirty")
_GIT_SECONDS = 10


def describe_environment() -> dict[str, Any]:
    """Return the facts of this machine and its software that a result depends on.

    `id` is a short hash of these, without the commit (work on a text must not end a suite) and the
    memory (which a kernel tells slightly differently from boot to boot).
    """
    found = {k: installed_version(*names) for k, names in _LIBRARIES.items()}
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
        | {name: version for name, version in found.items() if version is not None},
        "gpu": list(nvidia_gpu_names()),
        "commit": commit,
        "dirty": dirty,
    }
    telling = {key: value for key, value in facts.items() if key not in _NOT_IN_ID}
    digest = hashlib.sha256(json.dumps(telling, sort_keys=True).encode()).hexdigest()
    return {"id": digest[:12], **facts}


def _git_state() -> tuple[str | None, bool | None]:
    """Return the checkout's commit and whether it has changes; nothing where this is none.

    An installed package may lie inside somebody else's checkout, which does not track it.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", "--", str(here)) is None:
        return None, None
    changes = _git(here.parent, "status", "--porcelain", "--untracked-files=no")
    return _git(here.parent, "rev-parse", "HEAD"), None if changes is None else bool(changes)


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says in `folder`; None where there is no git or it fails."""
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
