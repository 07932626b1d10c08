# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy doctor`: what this machine can run."""

from __future__ import annotations

import argparse
import os
import platform
from typing import TextIO

from hgdeploy._version import __version__
from hgdeploy.cli.terminal import Verbs
from hgdeploy.engines import ENGINES, engine_module
from hgdeploy.engines.auto.machine import INSTRUCTIONS
from hgdeploy.errors import EXIT_OK, EngineError
from hgdeploy.gpu.driver import driver_release, nvidia_gpus
from hgdeploy.gpu.rules import problems
from hgdeploy.gpu.stack import Stack, stack_here
from hgdeploy.system.libraries import installed_version
from hgdeploy.system.machine import available_cpus, cpu_flags, cpu_model

_LIBRARIES = (
    ("opencv", ("opencv-python-headless", "opencv-python")),
    ("pillow", ("pillow",)),
    ("numpy", ("numpy",)),
    ("pyarrow (--output x.parquet)", ("pyarrow",)),
)


def add_doctor(verbs: Verbs) -> None:
    """Add `hgdeploy doctor`."""
    parser = verbs.add_parser("doctor", help="show what this machine can run, and why not more")
    parser.set_defaults(run=_doctor)


def _doctor(_: argparse.Namespace, out: TextIO) -> int:
    out.write(_report())
    return EXIT_OK


def _report() -> str:
    """Return lines about the machine, about each engine, and the versions of libraries."""
    flags = [flag for flag in INSTRUCTIONS if flag in cpu_flags()]
    stack = stack_here()
    lines = [
        f"hgdeploy {__version__}, Python {platform.python_version()}, {platform.platform()}",
        f"CPU: {cpu_model()}, {available_cpus()} usable, "
        f"{' '.join(flags) or 'no vector extensions known'}",
        *_gpu_lines(stack),
        "",
        "Engines",
    ]
    for name in ENGINES:
        lines += _engine_lines(name)
    lines += ["", "Libraries"]
    for label, distributions in _LIBRARIES:
        version = installed_version(*distributions)
        lines.append(f"  {label}: {version or 'not installed'}")
    lines += [f"  {name}: {version}" for name, version in stack.versions.items()]
    found = problems(stack)
    if found:
        lines += ["", "Problems", *(f"  {problem.text}" for problem in found)]
    return "\n".join(lines) + "\n"


def _gpu_lines(stack: Stack) -> list[str]:
    """Say which driver there is, and describe each GPU that it finds."""
    count, reason = nvidia_gpus()
    notes = [reason] * bool(reason)
    if stack.cuda is not None:
        notes.append(f"driver {driver_release() or 'of unknown version'} for CUDA {stack.cuda}")
    if (chosen := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        notes.append(f"those of CUDA_VISIBLE_DEVICES={chosen!r}")
    head = f"GPU: {count} NVIDIA" + (f" ({', '.join(notes)})" if notes else "")
    return [head] + [
        f"  gpu:{gpu.index}: {gpu.name}, compute capability {gpu.capability}, {gpu.memory_mb} MiB"
        for gpu in stack.gpus
    ]


def _engine_lines(name: str) -> list[str]:
    """Describe one engine; a library that is installed but broken is reported, not raised."""
    try:
        found = engine_module(name).capability()
    except EngineError as error:
        return [f"  {name}: broken", f"    {error}"]
    head = f"  {name}: not installed"
    if found.version is not None:
        runs = f"{', '.join(found.devices)}; {', '.join(found.precisions)}"
        head = f"  {name} {found.version}: {runs if found.devices else 'no device here'}"
    return [head, *(f"    {note}" for note in found.notes)]
