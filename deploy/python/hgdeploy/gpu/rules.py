# SPDX-License-Identifier: Apache-2.0
"""Which releases of the GPU's libraries go together, and with which driver and GPU.

Two tables hold what is known of releases and of generations of GPUs, and `_RULES` holds what can be
wrong.

Sources: NVIDIA's CUDA compatibility page (drivers), TensorRT's support matrix and release notes
(GPUs), the metadata of the distributions (CUDA).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from hgdeploy.gpu.driver import NvidiaGpu
from hgdeploy.gpu.stack import Release, Stack, release, stack_here
from hgdeploy.system.libraries import installing

_NEVER: Release = (1_000_000,)


class _Build(NamedTuple):
    """The releases of a distribution, from `first` to before `end`, that are for one CUDA."""

    distribution: str
    first: Release
    end: Release
    cuda: int
    extra: str


_BUILDS = (
    _Build("onnxruntime-gpu", (0,), (1, 19), 11, "gpu"),
    _Build("onnxruntime-gpu", (1, 19), (1, 27), 12, "gpu"),
    _Build("onnxruntime-gpu", (1, 27), _NEVER, 13, "gpu"),
    _Build("tensorrt-cu12", (0,), _NEVER, 12, "tensorrt"),
    _Build("tensorrt-cu13", (0,), _NEVER, 13, "tensorrt"),
    _Build("tensorrt-rtx-cu12", (0,), _NEVER, 12, "tensorrt-rtx"),
    _Build("tensorrt-rtx-cu13", (0,), _NEVER, 13, "tensorrt-rtx"),
    _Build("cuda-bindings", (12,), (13,), 12, "tensorrt"),
    _Build("cuda-bindings", (13,), _NEVER, 13, "tensorrt"),
)
# The first driver that runs libraries for any release of a CUDA version.
_FIRST_DRIVER = {11: "R450", 12: "R525", 13: "R580"}


class _Generation(NamedTuple):
    """GPUs from a compute capability on, until the next row: TensorRT's releases, the last CUDA."""

    since: tuple[int, int]
    first: Release | None
    last: Release = _NEVER
    last_cuda: int = _NEVER[0]


_GENERATIONS = (
    _Generation((0, 0), None, last_cuda=12),
    _Generation((7, 0), (10, 0), (10, 4), last_cuda=12),  # Volta
    _Generation((7, 5), (10, 0)),  # Turing, Ampere, Ada, Hopper
    _Generation((10, 0), (10, 8)),  # Blackwell
    _Generation((10, 7), (11, 3)),  # Rubin
    _Generation((11, 0), (10, 13)),  # Jetson Thor
    _Generation((12, 0), (10, 8)),  # Blackwell, GeForce and workstation
)
_RTX = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))

# Distributions that install the same files, and what to do once all of them are removed.
_SAME_FILES = (
    (("onnxruntime", "onnxruntime-gpu"), installing("gpu-cu12", "gpu-cu13", "cpu")),
    (("paddlepaddle", "paddlepaddle-gpu"), "install the one that you need"),
    (("tensorrt-cu12", "tensorrt-cu13"), installing("tensorrt-cu12", "tensorrt-cu13")),
    (
        ("tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
        installing("tensorrt-rtx-cu12", "tensorrt-rtx-cu13"),
    ),
    (("nvidia-cudnn-cu12", "nvidia-cudnn-cu13"), installing("gpu-cu12", "gpu-cu13")),
)
_FREE_BINDINGS: Release = (12, 9, 1)


class Problem(NamedTuple):
    """What is wrong.

    Attributes:
        distribution: what does not work because of it.
        text: what is wrong and what to do, in one line.
    """

    distribution: str
    text: str


def problems(stack: Stack) -> list[Problem]:
    """Return what is wrong with a machine's GPU libraries, the causes before their effects."""
    return [problem for rule in _RULES for problem in rule(stack)]


def problems_here(library: str) -> list[str]:
    """Return why a library does not work on this machine, as far as the rules know.

    Args:
        library: a distribution's name, without the CUDA version at its end.
    """
    names = (library, f"{library}-cu12", f"{library}-cu13")
    return [found.text for found in problems(stack_here()) if found.distribution in names]


def _installed(versions: Mapping[str, str]) -> Iterator[_Build]:
    for build in _BUILDS:
        version = versions.get(build.distribution)
        if version is not None and build.first <= release(version) < build.end:
            yield build


def _same_files(stack: Stack) -> Iterator[Problem]:
    for names, instead in _SAME_FILES:
        if all(name in stack.versions for name in names):
            both = " and ".join(f"{name} {stack.versions[name]}" for name in names)
            yield Problem(
                names[-1],
                f"{both} overwrite each other's files: pip uninstall "
                f"{' '.join(map(_parts, names))}, then {instead}",
            )


def _driver_too_old(stack: Stack) -> Iterator[Problem]:
    if stack.cuda is None:
        return
    driver = release(stack.cuda)[0]
    for build in _installed(stack.versions):
        if build.cuda > driver:
            name = build.distribution
            smaller = f"{_instead(name)}{installing(f'{build.extra}-cu12')}, or " * (driver == 12)
            yield Problem(
                name,
                f"{name} {stack.versions[name]} is for CUDA {build.cuda}, and the driver is for "
                f"CUDA {stack.cuda} at most: {smaller}install a driver from "
                f"{_FIRST_DRIVER[build.cuda]} on",
            )


def _instead(name: str) -> str:
    """Return what has to go before another CUDA's TensorRT, which has the same files, comes."""
    return f"pip uninstall {_parts(name)}, then " if name.endswith("-cu13") else ""


def _parts(name: str) -> str:
    """Return the distributions that make up one; TensorRT's are three."""
    is_tensorrt = re.fullmatch(r"tensorrt.*-cu\d+", name)
    return f"{name} {name}-bindings {name}-libs" if is_tensorrt else name


def _gpu_too_old_for_cuda(stack: Stack) -> Iterator[Problem]:
    for build in _installed(stack.versions):
        for gpu in _kinds(stack.gpus):
            if build.extra == "gpu" and build.cuda > _generation(gpu).last_cuda:
                name = build.distribution
                yield Problem(
                    name,
                    f"{name} {stack.versions[name]} is for CUDA {build.cuda}, which does not serve "
                    f"{_named(gpu)} any more: {installing('gpu-cu12')}",
                )


def _gpu_not_for_tensorrt(stack: Stack) -> Iterator[Problem]:
    installed = [n for n in ("tensorrt-cu12", "tensorrt-cu13", "tensorrt") if n in stack.versions]
    for name in installed[:1]:  # a plain tensorrt comes with one of the others, or alone
        version = stack.versions[name]
        for gpu in _kinds(stack.gpus):
            generation = _generation(gpu)
            text = f"{name} {version} does not serve {_named(gpu)}: "
            if generation.first is None:
                yield Problem("tensorrt", f"{text}no TensorRT from 10 on does, use another engine")
            elif release(version)[:2] > generation.last:
                last = ".".join(map(str, generation.last))
                yield Problem(
                    "tensorrt",
                    f"{text}TensorRT {last} is the last that does, {_instead(name)}"
                    f"{installing('tensorrt-cu12')}, then pip install 'tensorrt-cu12=={last}.*'",
                )
            elif release(version) < generation.first:
                first = ".".join(map(str, generation.first))
                yield Problem(
                    "tensorrt",
                    f"{text}TensorRT {first} is the first that does, pip install '{name}>={first}'",
                )


def _gpu_not_for_rtx(stack: Stack) -> Iterator[Problem]:
    names = ("tensorrt-rtx-cu12", "tensorrt-rtx-cu13", "tensorrt-rtx")
    for name in [n for n in names if n in stack.versions][:1]:
        for gpu in _kinds(stack.gpus):
            if gpu.compute_capability not in _RTX:
                capabilities = ", ".join(f"{major}.{minor}" for major, minor in _RTX)
                yield Problem(
                    "tensorrt-rtx",
                    f"{name} {stack.versions[name]} does not serve {_named(gpu)}, only compute "
                    f"capabilities {capabilities}: use tensorrt there",
                )


def _libraries_missing(stack: Stack) -> Iterator[Problem]:
    for build in _installed(stack.versions):
        missing = [n for n in _sonames(build) if n not in (stack.libraries or ())]
        if stack.libraries is not None and missing:
            name = build.distribution
            fix = installing(f"gpu-cu{max(build.cuda, 12)}")
            yield Problem(
                name,
                f"{name} {stack.versions[name]} needs {' and '.join(missing)}, which pip's nvidia "
                f"packages and the system lack: {fix}",
            )


def _bindings_hold_the_lock(stack: Stack) -> Iterator[Problem]:
    for name in [n for n in ("cuda-bindings", "cuda-python") if n in stack.versions][:1]:
        version = stack.versions[name]
        if release(version) < _FREE_BINDINGS:
            yield Problem(
                name,
                f"{name} {version} holds Python's lock while it waits for the GPU, so that nothing "
                "else runs: pip install 'cuda-python>=12.9.1,<13' (without <13 for CUDA 13)",
            )


def _paddle_reads_no_json(stack: Stack) -> Iterator[Problem]:
    for name in ("paddlepaddle-gpu", "paddlepaddle"):
        version = stack.versions.get(name, "")
        if (1,) <= release(version) < (3,):  # 0.0.0 is a nightly build
            yield Problem(
                name,
                f"{name} {version} cannot read inference.json, the format of Paddle 3: install "
                "Paddle 3" + " from Paddle's own index (docs/tensorrt.md)" * name.endswith("-gpu"),
            )


_RULES = (
    _same_files,
    _driver_too_old,
    _gpu_too_old_for_cuda,
    _gpu_not_for_tensorrt,
    _gpu_not_for_rtx,
    _libraries_missing,
    _bindings_hold_the_lock,
    _paddle_reads_no_json,
)


def _sonames(build: _Build) -> tuple[str, ...]:
    """Return what ONNX Runtime loads, of which the names tell the versions apart."""
    if build.distribution != "onnxruntime-gpu":
        return ()
    return ("libcudart.so.11.0", "libcudnn.so.8") if build.cuda == 11 else (
        f"libcudart.so.{build.cuda}", "libcudnn.so.9",
    )  # fmt: skip


def _kinds(gpus: Iterable[NvidiaGpu]) -> list[NvidiaGpu]:
    """Return the first GPU of each compute capability."""
    return list({gpu.compute_capability: gpu for gpu in reversed(tuple(gpus))}.values())[::-1]


def _generation(gpu: NvidiaGpu) -> _Generation:
    return [row for row in _GENERATIONS if row.since <= gpu.compute_capability][-1]


def _named(gpu: NvidiaGpu) -> str:
    return f"gpu:{gpu.index} {gpu.name} (compute capability {gpu.capability})"
