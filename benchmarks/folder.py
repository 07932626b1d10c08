# SPDX-License-Identifier: Apache-2.0
"""Measure folders of images: HGDeploy's pipeline against the loop of PaddleClas's script.

python benchmarks/folder.py --bundle deploy/models/PPHGNet_tiny_infer --output folder.json

The reference reads one image, transforms it, gathers a batch of 8, infers with Paddle (oneDNN,
fp32, all CPUs), takes the Top-5 and prints, one after the other. Each case has its own process, and
all take turns round by round, so that what disturbs the machine disturbs all of them. The report
has ratios with 95 % intervals, each stage's share of the time, how close the pipeline comes to what
the engine and the reading of files allow on these CPUs, memory by the number of images, and the
time from the start of a process to its first result.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

import numpy as np
from folder_cases import FolderCase

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.stats import compare_samples
from hgdeploy.errors import HGDeployError
from hgdeploy.system.machine import available_cpus
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess

STARTS = 5
# Engines that compute 3x3 convolutions by Winograd's algorithm, and those to compare them with.
WINOGRAD = ("mnn", "ncnn")
BASELINES = (("onnxruntime", "fp32"), ("openvino", "fp32"))
SIZES = {"500x375": (500, 375), "4000x3000": (4000, 3000)}


class FolderCaseProcess:
    """The parent's side of a case's process."""

    def __init__(self, case: FolderCase) -> None:
        self.case = case
        self._child = ChildProcess("folder_cases", quiet=True)
        try:
            self._ask({"do": "load", "case": dataclasses.asdict(case)})
        except BaseException:
            self.close()
            raise

    def ask(self, request: str) -> dict[str, Any]:
        """Send a request without arguments, and return its answer."""
        return self._ask({"do": request})

    def close(self) -> None:
        """End the process."""
        self._child.close()

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return dict(self._child.ask(Message(request)).values)
        except ChildError as error:
            raise SystemExit(f"{self.case.name}: its process {error}") from None
        except HGDeployError as error:
            raise SystemExit(f"{self.case.name}: {error}") from None


def photographs(folder: Path, size: tuple[int, int], count: int) -> Path:
    """Make `count` JPEG files of one size from the shipped photographs; most are hard links."""
    import cv2

    folder.mkdir()
    sources = sorted((ROOT / "deploy" / "images").glob("*.jpg"))
    for number in range(count):
        path = folder / f"{number:06d}.jpg"
        if number < len(sources):
            picture = cv2.resize(cv2.imread(str(sources[number])), size)
            cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 90])
        else:
            os.link(folder / f"{number % len(sources):06d}.jpg", path)
    return folder


def throughput(cases: list[FolderCase], rounds: int) -> list[dict[str, Any]]:
    """Measure all cases in turns; the others are compared with the first."""
    with contextlib.ExitStack() as stack:
        processes = []
        for case in cases:
            process = FolderCaseProcess(case)
            stack.callback(process.close)
            process.ask("run")  # warm-up
            processes.append(process)
        runs: list[list[dict[str, Any]]] = [[] for _ in cases]
        alone: list[list[dict[str, Any]]] = [[] for _ in cases]
        for number in range(rounds):
            for process, taken, limits in zip(processes, runs, alone, strict=True):
                taken.append(process.ask("run"))
                if process.case.engine != "reference":
                    limits.append(process.ask("alone"))
            print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    rows = [_summary(*of_case, runs[0]) for of_case in zip(cases, runs, alone, strict=True)]
    usual = [n for n, one in enumerate(cases) if (one.engine, one.precision) in BASELINES]
    if usual:
        best = max(usual, key=lambda n: float(rows[n]["images_per_s"]))
        for case, row, taken in zip(cases, rows, runs, strict=True):
            if case.engine in WINOGRAD:
                row["over_best"] = {"best": cases[best].name, **_times(runs[best], taken)}
    return rows


def _times(reference: list[dict[str, Any]], runs: list[dict[str, Any]]) -> dict[str, float]:
    """Return how many times faster `runs` are, with the ends of the 95 % interval."""
    sides = [[[run["seconds"] / run["images"]] for run in side] for side in (reference, runs)]
    return dataclasses.asdict(compare_samples(*sides))


def _summary(
    case: FolderCase,
    runs: list[dict[str, Any]],
    alone: list[dict[str, Any]],
    reference: list[dict[str, Any]],
) -> dict[str, Any]:
    """Return a case's speed, its ratio to the reference, and its share of what is possible."""
    rates = [run["images"] / run["seconds"] for run in runs]
    row: dict[str, Any] = {
        "name": case.name,
        "model": Path(case.bundle).name.removesuffix("_infer"),
        "images_per_s": float(np.median(rates)),
        "runs": runs,
        "alone": alone,
    }
    if case.engine == "reference":
        return row
    # If only the engine and reading took time, a run would take as long as the engine alone, plus
    # the CPU time of reading spread over all CPUs: the engine then has what reading leaves.
    cpus = available_cpus()
    shares = [
        (run["images"] / limit["engine_rate"] + run["read_cpu_seconds"] / cpus) / run["seconds"]
        for run, limit in zip(runs, alone, strict=True)
    ]
    row["speedup"] = _times(reference, runs)
    row["of_possible"] = float(np.median(shares))
    row["shares"] = runs[-1]["shares"]
    return row


def memory(case: FolderCase, counts: list[int], folder: Path) -> list[dict[str, Any]]:
    """Classify folders of `counts` hard links, each in its own process."""
    rows = []
    for count in counts:
        photos = photographs(folder / f"memory-{count}", SIZES["500x375"], count)
        process = FolderCaseProcess(dataclasses.replace(case, photos=str(photos)))
        try:
            run = process.ask("run")
        finally:
            process.close()
        rows.append({"images": count, "peak_mb": run["peak_mb"], "seconds": run["seconds"]})
        print(f"{count} images: {run['peak_mb']:.0f} MiB", file=sys.stderr, flush=True)
    return rows


def first_results(case: FolderCase) -> list[float]:
    """Return the seconds from the start of a process to its first line of output, several times."""
    command = [sys.executable, "-c", "import sys; from hgdeploy.cli import main; sys.exit(main())"]
    command += ["predict", case.bundle, case.photos, "--engine", case.engine]
    command += ["--precision", case.precision]
    path = os.pathsep.join(filter(None, [str(ROOT / "deploy/python"), os.getenv("PYTHONPATH")]))
    seconds = []
    for _ in range(STARTS + 1):  # the first one fills the cache
        start = time.perf_counter()
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONPATH": path},
        )
        line = process.stdout.readline() if process.stdout is not None else b""
        seconds.append(time.perf_counter() - start)
        process.kill()
        process.wait()
        if not line:
            raise SystemExit(f"{case.name}: hgdeploy predict printed no result")
    return seconds[1:]


def cases_of(
    bundle: str, photos: str, size: str, arguments: argparse.Namespace
) -> list[FolderCase]:
    """Return the reference, then the cases to compare with it."""
    found = [FolderCase(f"PaddleClas's loop, {size}", bundle, photos, "reference")]
    for text in arguments.case:
        engine, _, precision = text.partition(":")
        for fast in (False, True) if size != "500x375" else (False,):
            name = f"{engine} {precision or 'fp32'}{', fast decode' if fast else ''}, {size}"
            found.append(FolderCase(name, bundle, photos, engine, precision or "fp32", fast))
    for level in arguments.winograd_level:
        name = f"mnn fp32, Winograd level {level}, {size}"
        found.append(FolderCase(name, bundle, photos, "mnn", winograd_level=level))
    for text in arguments.division:
        threads, _, streams = text.partition("x")
        base = found[1]
        name = f"{base.name}, {threads} threads x {streams} inferences"
        division = (int(threads), int(streams))
        found.append(dataclasses.replace(base, name=name, division=division))
    return found


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    head = ("model", "case", "images/s", "times the loop", "times the best of ONNX Runtime and "
            "OpenVINO", "of what is possible")  # fmt: skip
    yield f"| {' | '.join(head)} |"
    yield "|---|---|---:|---:|---:|---:|"

    def times(found: dict[str, Any] | None) -> str:
        return f"{found['ratio']:.2f} ({found['low']:.2f} to {found['high']:.2f})" if found else ""

    for row in rows:
        possible = f"{100 * row['of_possible']:.0f} %" if "of_possible" in row else ""
        cells = [row["model"], row["name"], f"{row['images_per_s']:.1f}"]
        cells += [times(row.get("speedup")), times(row.get("over_best")), possible]
        yield f"| {' | '.join(cells)} |"


def main() -> None:
    """Measure what the arguments name, save it, and print it."""
    parser = argparse.ArgumentParser(description="Measure folders of images.")
    parser.add_argument("--bundle", nargs="+", default=[], help="folders of models")
    parser.add_argument("--case", nargs="+", default=["openvino:fp32"], metavar="ENGINE:PRECISION")
    parser.add_argument(
        "--division", nargs="+", default=[], metavar="THREADSxINFERENCES",
        help="also divide the CPUs this way, in the first case",
    )  # fmt: skip
    parser.add_argument("--winograd-level", nargs="+", type=int, default=[],
                        help="also MNN with these")  # fmt: skip
    parser.add_argument("--size", nargs="+", default=["500x375"], choices=SIZES)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", nargs="+", type=int, default=[], metavar="IMAGES")
    parser.add_argument("--first-result", action="store_true", help="time starts of processes")
    parser.add_argument("--output", type=Path, help="save all samples in this JSON file")
    arguments = parser.parse_args()
    found: dict[str, Any] = {
        "schema": 1,
        "environment": describe_environment(),
        "command": " ".join(["python", "benchmarks/folder.py", *sys.argv[1:]]),
        "throughput": [],
        "memory": [],
        "first_result": [],
    }
    with tempfile.TemporaryDirectory() as scratch:
        for size in arguments.size:
            count = arguments.images if size == "500x375" else max(20, arguments.images // 5)
            photos = photographs(Path(scratch) / size, SIZES[size], count)
            for bundle in arguments.bundle:
                cases = cases_of(bundle, str(photos), size, arguments)
                found["throughput"] += throughput(cases, arguments.rounds)
                if size == arguments.size[0]:
                    measure_rest(cases[1 : 1 + len(arguments.case)], arguments, found)
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines_of(found)))


def measure_rest(
    cases: list[FolderCase], arguments: argparse.Namespace, found: dict[str, Any]
) -> None:
    """Measure memory in the first case, and starts in all, if the arguments ask for that."""
    if arguments.memory:
        with tempfile.TemporaryDirectory() as folder:
            rows = memory(cases[0], arguments.memory, Path(folder))
        found["memory"] += [
            {"name": cases[0].name, "bundle": cases[0].bundle} | row for row in rows
        ]
    for case in cases if arguments.first_result else ():
        row = {"name": case.name, "bundle": case.bundle, "seconds": first_results(case)}
        found["first_result"].append(row)


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """Yield the results as text."""
    yield from _table(found["throughput"])
    for row in found["throughput"]:
        if "shares" in row:
            shares = ", ".join(f"{k} {100 * v:.0f} %" for k, v in row["shares"].items())
            yield f"{row['model']}, {row['name']}: {shares}"
    for row in found["throughput"]:
        if "speedup" in row and row["runs"][-1]["processes"]:
            used = ", ".join(
                f"{one['rss']:.0f} (its part {one['pss']:.0f})"
                for one in row["runs"][-1]["processes"]
            )
            yield f"{row['model']}, {row['name']}: MiB of each process: {used}"
    for row in found["memory"]:
        yield f"{row['name']}: {row['images']} images, at most {row['peak_mb']:.0f} MiB"
    for row in found["first_result"]:
        yield f"{row['name']}: first result after {np.median(row['seconds']):.2f} s"


if __name__ == "__main__":
    main()
