# SPDX-License-Identifier: Apache-2.0
"""What only an NVIDIA GPU can show: `make gpu-check`. It needs no network.

Checks each installed engine that runs on a GPU, then times it as trtexec does. Every check has its
own process, so a crash gives a failed line and not the end. Every result is saved at once, and the
same command continues after an interruption. The exit code is 0 if every check that ran passed, 11
if one failed and 6 if none could run.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gpu_check_record import CheckRecord
from gpu_checks import CHECKS, DEVICE, FP16_FILE, PROFILE, ROOT, RUNTIME_OF, TARGETS, Task

from hgdeploy import zoo
from hgdeploy.benchmark import (
    Case,
    Head,
    Record,
    Runner,
    describe_environment,
    load_suite,
    run_suite,
)
from hgdeploy.benchmark.worker.prepare import bundle_folder
from hgdeploy.bundle.names import ONNX_FILE
from hgdeploy.cli.measure.benchmark import results_table
from hgdeploy.engines import engine_module
from hgdeploy.engines.options import CPU_PRECISIONS, PRECISIONS
from hgdeploy.errors import EngineError, HGDeployError, ValidationError, one_line
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.system.libraries import installing

LIMIT_S = 3600.0
STATUSES = ("passed", "failed", "skipped")
SUITE = ROOT / "benchmarks" / "suites" / "gpu.yaml"


class GpuCheck:
    """All checks, then all timings, on what this machine has."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.environment = describe_environment()
        self.arguments = arguments
        self.output: Path = arguments.output or _default_output(self.environment)
        self.bundles: Path = arguments.bundles.absolute()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        path = self.output.with_suffix(".checks.json")
        self.checks = CheckRecord(path, self.environment["id"])

    def run(self) -> int:
        """Run all checks and timings, and return the exit code."""
        targets = [target for target in self.arguments.targets if self._is_here(target)]
        if not targets:
            return EngineError.exit_code
        chosen = self.arguments.models[:1] if self.arguments.quick else self.arguments.models
        models = [model for model in chosen if self._is_made(model)]
        for target in targets:
            for model in models:
                for precision in self.arguments.precisions:
                    self._check(target, model, precision, model == models[0])
        runtimes = [target for target in targets if target in RUNTIME_OF]
        # A results file cannot distinguish the two kinds of TensorRT: the second has its own.
        kinds = dict.fromkeys("tensorrt" if t in RUNTIME_OF else t for t in targets)
        if models:
            self._time(runtimes[0] if runtimes else targets[0], list(kinds), models, self.output)
        for runtime in runtimes[1:] if models else ():
            other = self.output.with_stem(f"{self.output.stem}-{runtime}")
            self._time(runtime, ["tensorrt"], models, other)
        counts = {s: sum(result["status"] == s for result in self.checks.results) for s in STATUSES}
        print(", ".join(f"{count} {status}" for status, count in counts.items()))
        if counts["failed"]:
            return ValidationError.exit_code
        return 0 if counts["passed"] else EngineError.exit_code

    def _is_here(self, target: str) -> bool:
        """Return whether a target can run; add a skipped result if it cannot."""
        found = engine_module("tensorrt" if target in RUNTIME_OF else target).capability()
        reason = "" if DEVICE in found.devices else "; ".join(found.notes)
        if target in RUNTIME_OF:
            runtime = RUNTIME_OF[target]
            if importlib.util.find_spec(runtime.module) is None:
                reason = f"{target} is not installed; {installing(runtime.extra)}"
        if reason:
            self.checks.add(Task("installed", target, "", "", ""), "skipped", reason)
        return not reason

    def _is_made(self, model: str) -> bool:
        """Make a model's fp32 and fp16 ONNX files if missing; return whether they exist."""
        task = Task("make", "onnx", model, "fp32", str(bundle_folder(Case(model), self.bundles)))
        folder = Path(task.bundle)
        if not (folder / ONNX_FILE).is_file():
            for name in ("paddle", "paddle2onnx"):
                if importlib.util.find_spec(name) is None:
                    reason = f"{folder} has no {ONNX_FILE}; to make it, install {name}"
                    self.checks.add(task, "skipped", reason)
                    return False
        elif (folder / FP16_FILE).is_file():
            return True
        return self._run_task(task)

    def _check(self, target: str, model: str, precision: str, is_first: bool) -> None:
        """Run the checks of one target on one model in one precision."""
        source = bundle_folder(Case(model), self.bundles)
        if reason := _why_not(target, precision, source):
            self.checks.add(Task("agree", target, model, precision, ""), "skipped", reason)
            return
        task = Task(
            "build", target, model, precision, str(self._linked_bundle(target, PROFILE, source))
        )
        for name, check in CHECKS.items():
            chosen = is_first or check.every_model
            fits = target in RUNTIME_OF or not check.tensorrt_only
            if check.run is None or not chosen or not fits:
                continue
            if not self._run_task(dataclasses.replace(task, check=name)) and name == "build":
                return

    def _time(self, target: str, engines: Sequence[str], models: Sequence[str], out: Path) -> None:
        """Build an engine for each batch, and time it as `hgdeploy benchmark` does."""
        suite = load_suite(SUITE)
        settings = suite.settings
        if self.arguments.quick:
            settings = dataclasses.replace(settings, min_seconds=0.3)
        suite = dataclasses.replace(
            suite,
            settings=settings,
            models=tuple(models),
            engines=tuple(engines),
            precisions=tuple(self.arguments.precisions),
            batches=tuple(self.arguments.batches),
        )
        ready = [case for case in suite.cases() if self._is_ready(target, case)]
        if not ready:
            return
        head = Head(
            suite=suite.name,
            command=("python", "benchmarks/gpu_check.py", *sys.argv[1:]),
            settings={**dataclasses.asdict(settings), "image": None},
            environment=self.environment,
        )
        record = Record(out, head, ready, resume=True)
        for batch in sorted({case.batch for case in ready}):
            part = dataclasses.replace(suite, batches=(batch,))
            absent = [case for case in part.cases() if case not in ready]
            keys = ("model", "engine", "precision")
            left_out = tuple({key: getattr(case, key) for key in keys} for case in absent)
            part = dataclasses.replace(part, exclude=(*part.exclude, *left_out))
            run_suite(part, Runner(record, self._folder_of(target, (batch,) * 3), print))
        print(f"\n{out}\n{results_table(record.results)}")
        for result in record.results:
            case = result.case
            check = "compute" if case.scope == "gpu" else "timing"
            task = Task(
                check, _kind(target, case), case.model, case.precision, "", (case.batch,) * 3
            )
            if result.stats is None:
                self.checks.add(task, "failed", result.reason or result.status)
            else:
                self.checks.add(task, "passed", f"median {result.stats.median:.3f} ms")

    def _is_ready(self, target: str, case: Case) -> bool:
        """Return whether a case can be timed, after building its engine if it needs one."""
        source, kind = bundle_folder(case, self.bundles), _kind(target, case)
        if _why_not(kind, case.precision, source):
            return False  # the checks have given the reason
        profile = (case.batch,) * 3
        folder = self._linked_bundle(target, profile, source)
        task = Task("build", kind, case.model, case.precision, str(folder), profile)
        return kind not in RUNTIME_OF or self._run_task(task)

    def _folder_of(self, target: str, profile: Sequence[int]) -> Path:
        return self.bundles / "gpu-check" / target / "-".join(map(str, profile))

    def _linked_bundle(self, target: str, profile: Sequence[int], source: Path) -> Path:
        """Make a copy of a bundle for one target and profile, of links to its files."""
        folder = self._folder_of(target, profile) / source.name
        folder.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            place = folder / file.name
            if not file.is_file() or ".engine" in file.name:
                continue
            if not (place.exists() and place.samefile(file)):
                place.unlink(missing_ok=True)
                try:
                    os.link(file, place)
                except OSError:  # a file system without hard links
                    shutil.copy2(file, place)
        return folder

    def _run_task(self, task: Task) -> bool:
        """Run a check in its own process, and return whether it passed."""
        # A build is always repeated: that shows whether the engine is still there.
        if task.check not in ("build", "make") and self.checks.reuse(task):
            return True
        script = Path(__file__).with_name("gpu_checks.py")
        command = [sys.executable, str(script), json.dumps(dataclasses.asdict(task))]
        start = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
            status, detail = _status_of(done)
        except subprocess.TimeoutExpired:
            status, detail = "failed", f"it took longer than {LIMIT_S:g} s"
        self.checks.add(task, status, detail, time.monotonic() - start)
        return status == "passed"


def _why_not(target: str, precision: str, source: Path) -> str:
    """Return why a target cannot run a precision of a model; empty if it can."""
    if target == "onnxruntime" and precision == "bf16":
        return "ONNX Runtime is not checked in bf16: that file is for TensorRT"
    if target == "onnxruntime" and precision == "int8":
        return "ONNX Runtime computes no int8 on a GPU: that file is for TensorRT"
    name = engine_module("onnxruntime").artifact_names(precision)[0]
    if (source / name).is_file():
        return ""
    how = {
        "int8": "quantize FOLDER --calibration IMAGES",
        "bf16": "convert FOLDER --precision bf16",
    }
    return f"{source} has no {name}; hgdeploy {how.get(precision, 'convert FOLDER')} makes it"


def _kind(target: str, case: Case) -> str:
    """Return the target of a case: the kind of TensorRT that is being timed, or another engine."""
    return target if case.engine == "tensorrt" else case.engine


def _default_output(environment: dict[str, Any]) -> Path:
    """Return the path of the results file, which is named after the GPU."""
    name = str((environment["gpu"] or ["unknown"])[0]).partition(" (")[0]
    words = "".join(letter if letter.isalnum() else " " for letter in name).lower().split()
    return ROOT / "benchmarks" / "results" / f"gpu-{'-'.join(words)}.json"


def _status_of(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Return the status and detail that a check's process has printed, or how it ended."""
    if done.returncode == 0:
        status, detail = json.loads(done.stdout.splitlines()[-1])
        return str(status), str(detail)
    said = one_line(RuntimeError("\n".join(done.stderr.splitlines()[-1:])))
    return "failed", f"its process ended with {done.returncode}; it said: {said}"


def main() -> int:
    """Run the checks that the arguments name."""
    parser = argparse.ArgumentParser(description="Check and time what only an NVIDIA GPU can show.")
    parser.add_argument("--output", type=Path, help="results file (benchmarks/results/gpu-NAME)")
    parser.add_argument(
        "--models", nargs="+", default=load_suite(SUITE).models, choices=zoo.names()
    )
    parser.add_argument(
        "--batches", type=lambda text: [int(part) for part in text.split(",")], default=[1, 32],
        help="to time (1,32)",
    )  # fmt: skip
    parser.add_argument("--targets", nargs="+", default=TARGETS, choices=TARGETS)
    parser.add_argument("--precisions", nargs="+", default=CPU_PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--bundles", type=Path, default=ROOT / "deploy" / "models")
    parser.add_argument("--quick", action="store_true", help="the first model, timed briefly")
    parser.add_argument("--list", action="store_true", help="list the checks and exit")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(f"{name}: {check.shows}" for name, check in CHECKS.items()))
        return 0
    count, reason = nvidia_gpus()
    if count == 0:
        print(f"gpu-check: nothing can run, it needs an NVIDIA GPU: {reason}", file=sys.stderr)
        return EngineError.exit_code
    try:
        return GpuCheck(arguments).run()
    except HGDeployError as error:
        print(f"gpu-check: error: {error}", file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
