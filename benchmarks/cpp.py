# SPDX-License-Identifier: Apache-2.0
"""Measure `hgdeploy-predict` beside `hgdeploy predict`: speed, start, memory.

python benchmarks/cpp.py --bundle deploy/models/EfficientNetLite0_infer --output cpp.json

Both classify the same folder with OpenVINO, in turns, each run a process of its own; the speed is
the one that each run's summary states, which leaves loading out. The start is the time from the
start of a process to its first line, with a model that OpenVINO keeps compiled. Memory is the peak
of the process. CPU time, which other programs on the machine disturb less, is that of a whole run,
loading included. Before anything is measured, the lines of both must be equal.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

import numpy as np
from folder import photographs

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.stats import compare_samples

SECONDS = re.compile(r"classified (\d+) \+ failed 0.*, ([0-9.]+) images/s")
STARTS = 9


def main() -> None:
    """Measure, and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, help="with its inference.onnx")
    parser.add_argument("--build", type=Path, default=ROOT / "build" / "cpp")
    parser.add_argument("--output", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    python = [sys.executable, "-c", "from hgdeploy.cli import main; raise SystemExit(main())"]
    ways = {
        "python": [*python, "predict", str(arguments.bundle), "--engine", "openvino"],
        "cpp": [str(arguments.build / "hgdeploy-predict"), str(arguments.bundle)],
    }
    os.environ["PYTHONPATH"] = str(ROOT / "deploy" / "python")
    with tempfile.TemporaryDirectory() as scratch:
        folder = photographs(Path(scratch) / "photos", (500, 375), arguments.images)
        outputs = {name: run_once([*way, str(folder)])[0] for name, way in ways.items()}
        if outputs["python"] != outputs["cpp"]:
            raise SystemExit("the lines of C++ are not those of Python")
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for number in range(arguments.rounds):
            for name, way in ways.items():
                runs[name].append(run_once([*way, str(folder)])[1])
            print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr, flush=True)
        one = sorted(folder.iterdir())[0]
        starts: dict[str, list[float]] = {name: [] for name in ways}
        for number in range(STARTS + 1):
            for name, way in ways.items():
                seconds = first_line_seconds([*way, str(one)])
                if number:  # the first fills the cache
                    starts[name].append(seconds)
    sides = [[[1 / run["images_per_s"]] for run in runs[name]] for name in ("python", "cpp")]
    result = {
        "environment": describe_environment(),
        "bundle": arguments.bundle.name,
        "images": arguments.images,
        "lines": "equal",
        "runs": runs,
        "starts": starts,
        "speedup": dataclasses.asdict(compare_samples(*sides)),
        "summary": {name: summary(runs[name], starts[name]) for name in ways},
    }
    arguments.output.write_text(json.dumps(result, indent=1, default=str) + "\n")
    print(json.dumps({key: result[key] for key in ("summary", "speedup")}, indent=1))


def summary(runs: list[dict[str, float]], starts: list[float]) -> dict[str, Any]:
    """Return the medians of one way."""
    return {
        "images_per_s": float(np.median([run["images_per_s"] for run in runs])),
        "cpu_ms_per_image": float(np.median([run["cpu_ms_per_image"] for run in runs])),
        "start_s": float(np.median(starts)),
        "least_start_s": min(starts),
        "peak_mb": float(np.median([run["peak_mb"] for run in runs])),
    }


def run_once(command: list[str]) -> tuple[bytes, dict[str, float]]:
    """Return what a run printed, its speed and its peak memory."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, stdout=out, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        said.seek(0)
        text = said.read().decode()
        found = SECONDS.search(text)
        if process.returncode or found is None:
            raise SystemExit(f"{command[0]} ended with {process.returncode}: {text}")
        return out.read(), {
            "images_per_s": float(found[2]),
            "peak_mb": usage.ru_maxrss / 1024,
            "cpu_ms_per_image": 1000 * (usage.ru_utime + usage.ru_stime) / int(found[1]),
        }


def first_line_seconds(command: list[str]) -> float:
    """Return how long a process takes from its start to its first line."""
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        if process.stdout is not None:
            process.stdout.readline()
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
