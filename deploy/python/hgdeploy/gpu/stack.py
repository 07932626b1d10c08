# SPDX-License-Identifier: Apache-2.0
"""What a machine has for GPUs: the GPUs, their driver, and the libraries that are installed."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.gpu.driver import NvidiaGpu, driver_cuda, nvidia_gpu_list
from hgdeploy.system.libraries import installed_version

Release = tuple[int, ...]

TENSORRT = ("tensorrt", "tensorrt-cu12", "tensorrt-cu13")
TENSORRT_RTX = ("tensorrt-rtx", "tensorrt-rtx-cu12", "tensorrt-rtx-cu13")
TENSORRTS = (*TENSORRT, *TENSORRT_RTX)
"""The names under which the two libraries are installed: they say which CUDA it brings."""

DISTRIBUTIONS = (
    "onnxruntime", "onnxruntime-gpu", "paddlepaddle", "paddlepaddle-gpu", *TENSORRTS,
    "cuda-python", "cuda-bindings", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13",
)  # fmt: skip
"""The distributions that use a GPU, or exclude one that does."""

LIBRARIES = (
    "libcudart.so.11.0", "libcudart.so.12", "libcudart.so.13", "libcudnn.so.8", "libcudnn.so.9"
)  # fmt: skip
"""The shared libraries by whose names the versions of CUDA and cuDNN can be told."""


@dataclass(frozen=True)
class Stack:
    """A machine as the rules see it.

    Attributes:
        cuda: the newest CUDA version that the driver supports, such as `12.4`; None without one.
        gpus: the GPUs that the driver finds.
        versions: the version of each of `DISTRIBUTIONS` that is installed.
        libraries: those of `LIBRARIES` that can be loaded; None where they are not looked for.
    """

    cuda: str | None
    gpus: tuple[NvidiaGpu, ...]
    versions: Mapping[str, str]
    libraries: frozenset[str] | None = None


def stack_here() -> Stack:
    """Return this machine's GPUs, driver and libraries."""
    versions = {name: installed_version(name) for name in DISTRIBUTIONS}
    found = {name: version for name, version in versions.items() if version is not None}
    can_look = sys.platform == "linux"
    libraries = frozenset(name for name in LIBRARIES if _is_there(name)) if can_look else None
    return Stack(driver_cuda(), nvidia_gpu_list(), found, libraries)


def release(version: str) -> Release:
    """Return the numbers at the start of a version: (2, 6, 2) of `2.6.2.post120`."""
    found = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, found[0].split("."))) if found else ()


def _is_there(soname: str) -> bool:
    """Return whether a library lies where pip's nvidia packages put it, or the system loads it."""
    folders = [Path(entry or ".") / "nvidia" for entry in sys.path]
    if any(any(folder.glob(f"*/lib/{soname}")) for folder in folders):
        return True
    try:
        ctypes.CDLL(soname)
    except OSError:
        return False
    return True
