# SPDX-License-Identifier: Apache-2.0
"""Measure what dynamic batches give `hgdeploy serve`: one server for each `--max-batch`.

python benchmarks/serving_batches.py --bundle deploy/models/EfficientNetLite0_infer \
    --run onnxruntime:fp16@gpu:0 --output batches.json

The servers are loaded at once and asked in turns, round by round, by the clients of `serving.py`.
Every answer must have the best class, and about its score, that single calls of `Classifier` find.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

import numpy as np
from serving_cases import hgdeploy_server, pictures, request_of
from serving_load import Load, Result
from serving_rounds import say

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.stats import compare_samples
from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import Run, parse_run
from hgdeploy.errors import HGDeployError

_DISTINCT = 48
# An engine adds up the images of a batch in another order: what that changes of a score.
_SCORE_GAP = {"fp32": 1e-3, "tf32": 1e-2}
_SCORE_GAP_16_BITS = 5e-2


class Best:
    """The best class of each picture, and its score."""

    def __init__(self, bundle: Path, run: Run, images: list[bytes]) -> None:
        settings = ClassifierSettings(run.engine, 1, run.options(EngineOptions()))
        with Classifier(bundle, settings=settings) as one:
            found = [answer for data in images for answer in one.predict(data)]
        self._best = [(one.class_ids[0], one.scores[0]) for one in found if one.class_ids]
        self._gap = _SCORE_GAP.get(run.precision, _SCORE_GAP_16_BITS)

    def is_right(self, place: int, status: int, body: bytes) -> bool:
        """Return whether an answer of `/predict` is right."""
        if status != 200:
            return False
        first = json.loads(body)["predictions"][0]["classes"][0]
        wanted, score = self._best[place]
        near = abs(first["score"] - score) <= self._gap
        # Two classes that score nearly the same may change places.
        return bool(near and (first["id"] == wanted or score < 0.5))


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure all servers; return what is kept, by `--max-batch` and number of clients."""
    run = parse_run(arguments.run)
    with tempfile.TemporaryDirectory() as scratch:
        paths = pictures(Path(scratch, "images"), _DISTINCT, _DISTINCT)
        images = [path.read_bytes() for path in paths]
    best = Best(arguments.bundle, run, images)
    requests = [request_of("/predict", data) for data in images]
    flags = ["--engine", run.engine, "--precision", run.precision]
    flags += ["--device", run.device, "--max-queue", "1024"]
    kept: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        turns = []
        for batch in arguments.batches:
            server = stack.enter_context(
                hgdeploy_server(arguments.bundle, *flags, "--max-batch", str(batch))
            )
            load = Load(server.port, requests, best.is_right)
            stack.callback(load.close)
            load.closed(max(arguments.clients), arguments.seconds)  # warm-up of every batch size
            turns += [(f"batch {batch}, closed {n}", load, n) for n in arguments.clients]
        for number in range(arguments.rounds):
            for name, load, clients in turns:
                case = kept.setdefault(name, {"runs": [], "ms": []})
                result = load.closed(clients, arguments.seconds)
                case["runs"].append(_row(result))
                case["ms"] += result.latencies_ms
            say(f"round {number + 1} of {arguments.rounds}")
    for case in kept.values():
        times = case.pop("ms") or [float("nan")]
        case["p50_ms"], case["p99_ms"] = np.percentile(times, (50, 99)).round(3).tolist()
    return kept


def _row(result: Result) -> dict[str, Any]:
    counts = {name: getattr(result, name) for name in ("sent", "right", "refused", "wrong", "lost")}
    return {
        **counts,
        "per_s": round(result.right / max(result.seconds, 1e-9), 2),
        "load_generator_cpu_seconds": round(result.cpu_seconds, 3),
    }


def lines_of(cases: dict[str, Any], clients: list[int], batches: list[int]) -> list[str]:
    """Return the results as a table: one line for each case."""
    lines = [
        "| --max-batch | clients | answers/s | times batch "
        f"{batches[0]} | median ms | p99 ms | wrong, lost |",
        "|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for many in clients:
        reference = _times(cases[f"batch {batches[0]}, closed {many}"])
        for batch in batches:
            case = cases[f"batch {batch}, closed {many}"]
            ratio = compare_samples(reference, _times(case)).ratio
            bad = sum(run["wrong"] + run["lost"] + run["refused"] for run in case["runs"])
            rate = np.median([run["per_s"] for run in case["runs"]])
            lines.append(
                f"| {batch} | {many} | {rate:.1f} | {ratio:.2f} | {case['p50_ms']:.1f} "
                f"| {case['p99_ms']:.1f} | {bad} |"
            )
    return lines


def _times(case: dict[str, Any]) -> list[list[float]]:
    return [[1 / max(run["per_s"], 1e-9)] for run in case["runs"]]


def main() -> None:
    """Measure what the arguments name, save it, and print it."""
    parser = argparse.ArgumentParser(description="Measure hgdeploy serve with dynamic batches.")
    parser.add_argument("--bundle", type=Path, required=True, help="a model's folder")
    parser.add_argument("--run", default="openvino:fp32@cpu", metavar="ENGINE:PRECISION@DEVICE")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 8], help="--max-batch of each"
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case in a round")
    parser.add_argument("--output", type=Path, help="save the results in this JSON file")
    arguments = parser.parse_args()
    try:
        cases = measure(arguments)
    except HGDeployError as error:
        raise SystemExit(str(error)) from None
    document = {
        "schema": 1,
        "environment": describe_environment(),
        "command": " ".join(["python", "benchmarks/serving_batches.py", *sys.argv[1:]]),
        "model": arguments.bundle.name,
        "run": arguments.run,
        "cases": cases,
    }
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print("\n".join(lines_of(cases, arguments.clients, arguments.batches)))


if __name__ == "__main__":
    main()
