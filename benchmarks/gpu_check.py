# SPDX-License-Identifier: Apache-2.0
"""What only an NVIDIA GPU can show: `make gpu-check`. No network is needed.

Checks each engine that runs on a GPU and is installed, then times it as trtexec does. Every check
is a process of its own, so that a crash is a line and not the end. What is done is saved at once;
the same command goes on where it was broken off. Ends with 0 where all that ran is well, 11 where
something failed, 6 where nothing could run.
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

from gpu_checks import CHECKS, DEVICE, FP16_FILE, PROFILE, ROOT, RUNTIME_OF, TARGETS, Job

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
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.errors import ConfigError, EngineError, HGDeployError, ValidationError, one_line
from hgdeploy.gpu.driver import nvidia_gpus

LIMIT_S = 3600.0
STATUSES = ("passed", "failed", "skipped")
SUITE = ROOT / "benchmarks" / "suites" / "gpu.yaml"


class Account:
    """The rows so far: printed, saved beside the results, and kept from one start to the next."""

    def __init__(self, path: Path, environment: str) -> None:
        self._path = path
        self._head = {"environment": environment}
        self.rows: list[dict[str, Any]] = []
        self._kept: list[dict[str, Any]] = []
        if path.is_file():
            old = json.loads(path.read_text(encoding="utf-8"))
            if old["environment"] != environment:
                raise ConfigError(f"{path} is of another environment; name another --output")
            self._kept = [row for row in old["checks"] if row["status"] == "passed"]

    def earlier(self, job: Job) -> bool:
        """Take over the row of a job that passed at an earlier start."""
        found = [row for row in self._kept if row["job"] == job.key()]
        if found:
            self.rows += found
        return bool(found)

    def add(self, job: Job, status: str, detail: str, seconds: float = 0.0) -> None:
        """Print a row and save it."""
        words = (job.target, job.model, job.precision, job.check)
        batch = "/".join(map(str, job.profile)) if job.check == "build" else ""
        print(f"{status:8}{' '.join(filter(None, (*words, batch)))}: {detail}", flush=True)
        row = {"job": job.key(), "status": status, "detail": detail, "seconds": round(seconds, 1)}
        self.rows.append(row)
        done = [row["job"] for row in self.rows]
        later = [row for row in self._kept if row["job"] not in done]
        aside = self._path.with_name(f".{self._path.name}.tmp")
        document = {**self._head, "checks": [*self.rows, *later]}
        aside.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        aside.replace(self._path)


class GpuCheck:
    """All checks, then all timings, on what this machine has."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.environment = describe_environment()
        self.asked = arguments
        self.output: Path = arguments.output or _default_output(self.environment)
        self.bundles: Path = arguments.bundles.absolute()
        self.output.parent.mkdir(parents=True, exist_ok=True)
        path = self.output.with_suffix(".checks.json")
        self.account = Account(path, self.environment["id"])

    def run(self) -> int:
        """Do everything; return the exit code."""
        targets = [target for target in self.asked.targets if self._is_here(target)]
        if not targets:
            return EngineError.exit_code
        chosen = self.asked.models[:1] if self.asked.quick else self.asked.models
        models = [model for model in chosen if self._is_made(model)]
        for target in targets:
            for model in models:
                for precision in self.asked.precisions:
                    self._check(target, model, precision, model == models[0])
        runtimes = [target for target in targets if target in RUNTIME_OF]
        # One file tells the two kinds of TensorRT not apart: the second gets a file of its own.
        kinds = dict.fromkeys("tensorrt" if t in RUNTIME_OF else t for t in targets)
        if models:
            self._time(runtimes[0] if runtimes else targets[0], list(kinds), models, self.output)
        for runtime in runtimes[1:] if models else ():
            other = self.output.with_stem(f"{self.output.stem}-{runtime}")
            self._time(runtime, ["tensorrt"], models, other)
        counts = {s: sum(row["status"] == s for row in self.account.rows) for s in STATUSES}
        print(", ".join(f"{count} {status}" for status, count in counts.items()))
        if counts["failed"]:
            return ValidationError.exit_code
        return 0 if counts["passed"] else EngineError.exit_code

    def _is_here(self, target: str) -> bool:
        """Tell whether a target can run; say so where it cannot."""
        found = engine_module("tensorrt" if target in RUNTIME_OF else target).capability()
        reason = "" if DEVICE in found.devices else "; ".join(found.notes)
        if target in RUNTIME_OF:
            runtime = RUNTIME_OF[target]
            if importlib.util.find_spec(runtime.module) is None:
                reason = f"{target} is not installed; pip install 'hgdeploy[{runtime.extra}]'"
        if reason:
            self.account.add(Job("installed", target, "", "", ""), "skipped", reason)
        return not reason

    def _is_made(self, model: str) -> bool:
        """Make a model's ONNX files in fp32 and fp16 where they are missing; tell whether."""
        job = Job("make", "onnx", model, "fp32", str(bundle_folder(Case(model), self.bundles)))
        folder = Path(job.bundle)
        if not (folder / ONNX_FILE).is_file():
            for name in ("paddle", "paddle2onnx"):
                if importlib.util.find_spec(name) is None:
                    reason = f"{folder} has no {ONNX_FILE}, and {name} is not here to make it"
                    self.account.add(job, "skipped", reason)
                    return False
        elif (folder / FP16_FILE).is_file():
            return True
        return self._child(job)

    def _check(self, target: str, model: str, precision: str, is_first: bool) -> None:
        """Run the checks of one target on one model in one precision."""
        source = bundle_folder(Case(model), self.bundles)
        if reason := _unfit(target, precision, source):
            self.account.add(Job("agree", target, model, precision, ""), "skipped", reason)
            return
        job = Job("build", target, model, precision, str(self._folder(target, PROFILE, source)))
        for name, check in CHECKS.items():
            chosen = is_first or check.every_model
            fits = target in RUNTIME_OF or not check.tensorrt_only
            if check.run is None or not chosen or not fits:
                continue
            if not self._child(dataclasses.replace(job, check=name)) and name == "build":
                return

    def _time(self, target: str, engines: Sequence[str], models: Sequence[str], out: Path) -> None:
        """Build an engine for each batch, and time it by the harness of `hgdeploy benchmark`."""
        suite = load_suite(SUITE)
        settings = suite.settings
        if self.asked.quick:
            settings = dataclasses.replace(settings, min_seconds=0.3)
        suite = dataclasses.replace(
            suite,
            settings=settings,
            models=tuple(models),
            engines=tuple(engines),
            precisions=tuple(self.asked.precisions),
            batches=tuple(self.asked.batches),
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
            part = dataclasses.replace(part, exclude=left_out)
            run_suite(part, Runner(record, self._work(target, (batch,) * 3), print))
        print(f"\n{out}\n{results_table(record.results)}")
        for result in record.results:
            case = result.case
            job = Job(
                "timing", _kind(target, case), case.model, case.precision, "", (case.batch,) * 3
            )
            if result.stats is None:
                self.account.add(job, "failed", result.reason or result.status)
            else:
                self.account.add(job, "passed", f"median {result.stats.median:.3f} ms")

    def _is_ready(self, target: str, case: Case) -> bool:
        """Tell whether a case can be timed, after building its engine where it has one."""
        source, kind = bundle_folder(case, self.bundles), _kind(target, case)
        if _unfit(kind, case.precision, source):
            return False  # the checks have said so
        profile = (case.batch,) * 3
        folder = self._folder(target, profile, source)
        job = Job("build", kind, case.model, case.precision, str(folder), profile)
        return kind not in RUNTIME_OF or self._child(job)

    def _work(self, target: str, profile: Sequence[int]) -> Path:
        return self.bundles / "gpu-check" / target / "-".join(map(str, profile))

    def _folder(self, target: str, profile: Sequence[int], source: Path) -> Path:
        """Return a bundle's copy for one target and profile, of links to its files."""
        folder = self._work(target, profile) / source.name
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

    def _child(self, job: Job) -> bool:
        """Run a check in a process of its own; tell whether it passed."""
        # A build that passed is asked for again: it says whether the engine is still there.
        if job.check not in ("build", "make") and self.account.earlier(job):
            return True
        script = Path(__file__).with_name("gpu_checks.py")
        command = [sys.executable, str(script), json.dumps(dataclasses.asdict(job))]
        start = time.monotonic()
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=LIMIT_S, check=False
            )
            status, detail = _outcome(done)
        except subprocess.TimeoutExpired:
            status, detail = "failed", f"it took longer than {LIMIT_S:g} s"
        self.account.add(job, status, detail, time.monotonic() - start)
        return status == "passed"


def _unfit(target: str, precision: str, source: Path) -> str:
    """Tell why a target cannot run a precision of a model; empty where it can."""
    if target == "onnxruntime" and precision == "bf16":
        return "ONNX Runtime is not asked for bf16: that file is for TensorRT"
    name = engine_module("onnxruntime").artifact_names(precision)[0]
    if (source / name).is_file():
        return ""
    how = {
        "int8": "quantize FOLDER --calibration IMAGES",
        "bf16": "convert FOLDER --precision bf16",
    }
    return f"{source} has no {name}; hgdeploy {how.get(precision, 'convert FOLDER')} makes it"


def _kind(target: str, case: Case) -> str:
    """Name what a case's engine is: the one kind of TensorRT that is timed, or another engine."""
    return target if case.engine == "tensorrt" else case.engine


def _default_output(environment: dict[str, Any]) -> Path:
    """Name the results after the GPU."""
    name = str((environment["gpu"] or ["unknown"])[0]).partition(" (")[0]
    words = "".join(letter if letter.isalnum() else " " for letter in name).lower().split()
    return ROOT / "benchmarks" / "results" / f"gpu-{'-'.join(words)}.json"


def _outcome(done: subprocess.CompletedProcess[str]) -> tuple[str, str]:
    """Return what a check's process says; how it ended where it does not."""
    if done.returncode == 0:
        status, detail = json.loads(done.stdout.splitlines()[-1])
        return str(status), str(detail)
    said = one_line(RuntimeError("\n".join(done.stderr.splitlines()[-1:])))
    return "failed", f"its process ended with {done.returncode}; it said: {said}"


def main() -> int:
    """Check what was asked for."""
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
    parser.add_argument("--precisions", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--bundles", type=Path, default=ROOT / "deploy" / "models")
    parser.add_argument("--quick", action="store_true", help="the first model, timed briefly")
    parser.add_argument("--list", action="store_true", help="say what is checked, and end")
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
