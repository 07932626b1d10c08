# SPDX-License-Identifier: Apache-2.0
"""The checks of `make gpu-check`; each runs in a process of its own: `gpu_checks.py TASK`."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import io
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))
try:
    import numpy as np
    from gpu_life_checks import build, check_captures, check_end, check_lives, check_same
    from gpu_trtexec_check import SkippedError, check_trtexec

    from hgdeploy import cli
    from hgdeploy.benchmark import Case
    from hgdeploy.benchmark.worker.prepare import make_missing
    from hgdeploy.bundle.model_bundle import open_bundle
    from hgdeploy.bundle.names import ONNX_FILE, RUNTIMES, engine_name
    from hgdeploy.engines import engine_module, infer_rows, load_engine
    from hgdeploy.engines.options import EngineOptions
    from hgdeploy.errors import EngineError, HGDeployError, TensorError, ValidationError
    from hgdeploy.gpu.device import chosen_library, open_device
    from hgdeploy.images.find import find_images
    from hgdeploy.validation.compare import compare
    from hgdeploy.validation.inputs import random_rows
    from hgdeploy.validation.tolerance import TOLERANCES, tolerance_misses
except ModuleNotFoundError as error:
    sys.exit(
        f"hgdeploy: error: {error.name} is not installed; "
        "run pip install '.[gpu-cu12,convert,tensorrt-cu12]' in HGDeploy's folder"
    )

DEVICE, GPU = "gpu:0", 0
CALLERS, CALLS = 4, 64
LOADS, SLACK_MB = 4, 16
PROFILE = (1, 8, 32)
IMAGES = ROOT / "deploy" / "images"
FP16_FILE = "inference.fp16.onnx"
RUNTIME_OF = {runtime.name: runtime for runtime in RUNTIMES}
TARGETS = ("onnxruntime", *RUNTIME_OF)


@dataclass(frozen=True)
class Task:
    """One check of one model on one target: what a process is started with.

    Attributes:
        check: a name in `CHECKS`.
        target: one of `TARGETS`.
        model: the model's name.
        precision: one of `PRECISIONS`.
        bundle: the model's folder for this target.
        profile: (min, opt, max) batch of its engine.
    """

    check: str
    target: str
    model: str
    precision: str
    bundle: str
    profile: tuple[int, int, int] = PROFILE

    def key(self) -> dict[str, Any]:
        """Return what identifies this task, as it is read back from JSON."""
        return {**dataclasses.asdict(self), "bundle": None, "profile": list(self.profile)}

    def load(self, device: str = DEVICE) -> Any:
        """Load the engine on a GPU."""
        name = "onnxruntime" if self.target == "onnxruntime" else "tensorrt"
        options = EngineOptions(device=device, precision=self.precision, max_batch=self.profile[-1])
        return load_engine(name, Path(self.bundle) / artifact(self.target, self.precision), options)

    def rows(self, engine: Any) -> Any:
        """Return the largest batch of inputs, the same each time."""
        return random_rows(engine.inputs[0], open_bundle(self.bundle), self.profile[-1], 0)


def artifact(target: str, precision: str) -> str:
    """Return the name of the file that a target loads."""
    if target in RUNTIME_OF:
        return engine_name(precision, RUNTIME_OF[target])
    return engine_module(target).artifact_names(precision)[0]


def check_build(task: Task) -> str:
    """Build twice; the second time there must be nothing to build."""
    lines_of_both: list[list[str]] = [[], []]
    for lines in lines_of_both:
        made = build(task, lines.append)
    if made.built:
        raise ValidationError(f"the second time it was built again: {lines_of_both[1][0]}")
    return lines_of_both[0][-1]


def check_agree(task: Task) -> str:
    """Compare with ONNX Runtime in fp32 on the CPU, within validate's tolerance."""
    worst = 0.0
    source = Path(task.bundle) / ONNX_FILE
    with (
        task.load() as engine,
        contextlib.closing(load_engine("onnxruntime", source, EngineOptions())) as cpu,
    ):
        rows = task.rows(engine)
        wanted = np.concatenate([infer_rows(cpu, row[None]) for row in rows])
        batches = sorted(set(task.profile))
        for batch in (*batches, *batches):  # a graph must be right after those of other shapes too
            for _ in range(2 * engine.concurrency):  # the later runs come from a CUDA graph
                found = compare(wanted[:batch], infer_rows(engine, rows[:batch]))
                misses = tolerance_misses(found, TOLERANCES[task.precision], "random")
                if misses:
                    raise ValidationError(f"batch {batch}: {'; '.join(misses)}")
                worst = max(worst, found.max_abs)
    return f"largest difference {worst:.2g}, allowed {TOLERANCES[task.precision].max_abs:g}"


def check_limits(task: Task) -> str:
    """Feed one image more than the profile allows, then what it allows."""
    with task.load() as engine:
        rows = task.rows(engine)
        before = infer_rows(engine, rows)
        try:
            infer_rows(engine, np.concatenate([rows, rows[:1]]))
        except TensorError as error:
            message = str(error)
        else:
            raise ValidationError(f"a batch of {len(rows) + 1} ran, above the profile")
        check_same(before, infer_rows(engine, rows), "after the error the outputs differ")
    return message


def check_graphs(task: Task) -> str:
    """Compare the first run of a shape, which has no CUDA graph, with later ones, which have."""
    if chosen_library() == "pycuda":
        raise EngineError("pycuda cannot capture CUDA graphs; unset HGDEPLOY_CUDA")
    with task.load() as engine:
        rows = task.rows(engine)[: task.profile[0]]
        first = infer_rows(engine, rows)
        for number in range(2, 1 + 4 * engine.concurrency):
            check_same(first, infer_rows(engine, rows), f"run {number} differs from the first")
        note = str(engine.runtime.providers[1])
    if note.startswith("no CUDA graph"):
        raise ValidationError(note)
    return f"{note}; equal bits"


def check_concurrent(task: Task) -> str:
    """Let several callers run different batches at once."""
    with task.load() as engine:
        rows = task.rows(engine)
        feeds = [rows[start : start + 1 + start % len(rows)] for start in range(CALLERS)]
        wanted = [infer_rows(engine, feed) for feed in feeds]
        with ThreadPoolExecutor(CALLERS) as pool:
            calls = [pool.submit(infer_rows, engine, feeds[i % CALLERS]) for i in range(CALLS)]
            for i, call in enumerate(calls):
                check_same(
                    wanted[i % CALLERS],
                    call.result(),
                    "a caller's outputs differ from those it gets alone",
                )
    return f"{CALLS} runs by {CALLERS} callers, equal bits"


def check_memory(task: Task) -> str:
    """Load, run and close several times, and ask the driver for the free memory after each."""
    with open_device(GPU).activate():
        free = []
        for _ in range(LOADS):
            with task.load() as engine:
                infer_rows(engine, task.rows(engine))
                loaded = free_mb()
            free.append(free_mb())
    # What the libraries load once for the process stays loaded, so the first time does not count.
    lost, used = free[0] - free[-1], free[-1] - loaded
    if lost > SLACK_MB or used <= 0:
        raise ValidationError(
            f"{used} MiB were in use, and {lost} MiB are missing after {LOADS} loads"
        )
    return f"{used} MiB in use, freed by close; {lost} MiB less after {LOADS} loads"


def free_mb() -> int:
    """Return the free memory of the active GPU in MiB."""
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    status = driver.cuMemGetInfo_v2(ctypes.byref(free), ctypes.byref(total))
    if status != 0:
        raise EngineError(f"the NVIDIA driver answers cuMemGetInfo with error {status}")
    return free.value // 2**20


def check_command(task: Task) -> str:
    """Classify the photographs as a user does."""
    engine = "tensorrt" if task.target in RUNTIME_OF else task.target
    flags = ("--engine", engine, "--device", DEVICE, "--precision", task.precision)
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = cli.main(["predict", task.bundle, str(IMAGES), *flags])
    lines, images = out.getvalue().splitlines(), len(find_images(IMAGES))
    if code != 0 or len(lines) != images:
        raise ValidationError(f"exit code {code} and {len(lines)} lines for {images} photographs")
    return f"{images} photographs classified"


@dataclass(frozen=True)
class Check:
    """A check: what it shows, whether it runs on every model, and whether on TensorRT only."""

    shows: str
    run: Callable[[Task], str] | None
    every_model: bool = False
    tensorrt_only: bool = False


CHECKS = {
    "build": Check(
        "an engine builds for this GPU, and a second time there is nothing to build",
        check_build,
        every_model=True,
        tensorrt_only=True,
    ),
    "agree": Check(
        "batches 1, 8 and 32 agree with ONNX Runtime fp32 on the CPU within validate's tolerance",
        check_agree,
        every_model=True,
    ),
    "limits": Check(
        "a batch above the profile is an error that names it, and the next run is right",
        check_limits,
        tensorrt_only=True,
    ),
    "graphs": Check(
        "runs from a CUDA graph give the bits of runs without one", check_graphs, tensorrt_only=True
    ),
    "concurrent": Check("four callers at once get the bits that each gets alone", check_concurrent),
    "memory": Check("close frees the GPU's memory, and loading again takes no more", check_memory),
    "captures": Check(
        "runs after a capture that failed give the bits of runs from a CUDA graph",
        check_captures,
        tensorrt_only=True,
    ),
    "lives": Check(
        "a build and loads in one process; two engines (on two GPUs, if alike) close in any order",
        check_lives,
        tensorrt_only=True,
    ),
    "end": Check("a process that leaves its engine open ends without an error", check_end),
    "command": Check("hgdeploy predict classifies the photographs on the GPU", check_command),
    "trtexec": Check(
        "where trtexec is on PATH, its GPU compute time of the same plan, measured in turns, is "
        "within 2 % of ours",
        check_trtexec,
        every_model=True,
        tensorrt_only=True,
    ),
    "compute": Check(
        "the GPU's own time as trtexec gives it, with and without a CUDA graph, batch 1 and 32",
        None,
        tensorrt_only=True,
    ),
    "timing": Check(
        "latency as trtexec splits it (h2d, compute, d2h, enqueue, host), batch 1 and 32", None
    ),
}


def make(task: Task) -> str:
    """Make a model's bundle, if there is none, and its ONNX files in fp32 and fp16."""
    from hgdeploy.convert import fp16_from_onnx
    from hgdeploy.validation.verify import verify_precision

    folder = Path(task.bundle)
    lines: list[str] = []
    make_missing(Case(task.model, "onnxruntime"), folder, lines.append)
    source, target = folder / ONNX_FILE, folder / FP16_FILE
    if not target.is_file():
        fp16_from_onnx(source, target, None, verify=verify_precision("fp16", ()))
        lines.append(f"made {target} without real images")
    return "; ".join(lines)


def main(text: str) -> None:
    """Do one check, and print its status and detail on the last line."""
    facts = json.loads(text)
    task = Task(**{**facts, "profile": tuple(facts["profile"])})
    run = make if task.check == "make" else CHECKS[task.check].run
    try:
        answer = ["passed", "" if run is None else run(task)]
    except SkippedError as error:
        answer = ["skipped", str(error)]
    except HGDeployError as error:
        answer = ["failed", str(error)]
    print("\n" + json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
