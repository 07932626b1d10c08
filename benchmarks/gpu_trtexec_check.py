# SPDX-License-Identifier: Apache-2.0
"""The check of `make gpu-check` that measures the same plan as trtexec does, and with trtexec."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgdeploy.benchmark.worker.on_gpu import OnGpu, check_queueing
from hgdeploy.bundle.names import RUNTIMES, engine_name
from hgdeploy.errors import ValidationError

if TYPE_CHECKING:
    from gpu_checks import Task

ROUNDS, ROUND_SECONDS, WARMUP_MS, ITERATIONS = 3, 1, 200, 10
MARGIN = 0.02


class SkippedError(Exception):
    """A check has nothing to check here; the message says why."""


def check_trtexec(task: Task) -> str:
    """Measure in turns, ours and theirs; the medians of the GPU's time agree within 2 %."""
    program = shutil.which("trtexec")
    if program is None or task.target != RUNTIMES[0].name:
        raise SkippedError("trtexec is not on PATH" if program is None else "trtexec is TensorRT's")
    plan = Path(task.bundle) / engine_name(task.precision, RUNTIMES[0])
    batch = task.profile[1]
    ours: list[float] = []
    theirs: list[float] = []
    with task.load() as engine:
        spec = engine.inputs[0]
        rows = task.rows(engine)[:batch]
        measured = OnGpu(check_queueing(engine), {spec.name: rows}, 1)
        command = _command(program, plan, spec, rows.shape)
        for _ in range(ROUNDS):
            [runs], _ = measured.queued(ROUND_SECONDS, ITERATIONS, graph=True)
            ours.append(statistics.median(runs.compute_ms))
            theirs.append(_median_of(command))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    said = (
        f"batch {batch}: {statistics.median(ours):.3f} ms, by trtexec "
        f"{statistics.median(theirs):.3f} ms, ratio {ratio:.3f}"
    )
    if abs(ratio - 1) > MARGIN:
        raise ValidationError(f"{said}, further from 1 than {MARGIN:g}")
    return said


def _command(program: str, plan: Path, spec: Any, shape: tuple[int, ...]) -> list[str]:
    """Return trtexec's command line for one plan and shape, without transfers, from a CUDA graph.

    Both are the default of TensorRT 11's trtexec; flags that a version does not have are left out.
    """
    said = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
    known = said.stdout + said.stderr
    flags = [flag for flag in ("--noDataTransfers", "--useCudaGraph") if flag in known]
    if -1 in spec.shape:
        flags.append(f"--shapes={spec.name}:{'x'.join(map(str, shape))}")
    flags += [f"--warmUp={WARMUP_MS}", f"--duration={ROUND_SECONDS}", f"--iterations={ITERATIONS}"]
    return [program, f"--loadEngine={plan}", *flags]


def _median_of(command: list[str]) -> float:
    """Return the median of trtexec's GPU compute times, in ms."""
    with tempfile.TemporaryDirectory() as folder:
        times = Path(folder) / "times.json"
        words = [*command, f"--exportTimes={times}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not times.is_file():
            lines = (done.stdout + done.stderr).splitlines() or ["nothing"]
            raise ValidationError(f"trtexec ends with {done.returncode}; it says: {lines[-1]}")
        runs = json.loads(times.read_text(encoding="utf-8"))
    return statistics.median(float(run["computeMs"]) for run in runs)
