# SPDX-License-Identifier: Apache-2.0
"""Measure `hgdeploy serve` under load: JPEG files in, classes out, over loopback.

python benchmarks/serving.py --bundle deploy/models/EfficientNetLite0_infer --output serving.json

The server, the folder's pipeline, single calls of `Classifier.predict` and, on request, NVIDIA's
Triton are all loaded at once, and take turns round by round, so that what disturbs the machine
disturbs all of them. The load generator shares the CPUs with the server; the report has its part.
Every answer is compared with what the folder's pipeline finds.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

import numpy as np
from serving_cases import (
    TRITON_RUNS,
    Expected,
    Server,
    hgdeploy_server,
    pictures,
    poison,
    protocol_request,
    request_of,
    triton,
    write_triton,
)
from serving_load import Load
from serving_local import Local
from serving_rounds import MANY, OVERLOAD, QUICK, LocalProcess, Plan, Rounds, poisoned, say

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.stats import Ratio, compare_samples
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.system.machine import available_cpus

_DISTINCT = 48
_CLASSES = 5


def measure(
    bundle: Path, arguments: argparse.Namespace, plan: Plan, scratch: Path
) -> dict[str, Any]:
    """Measure one model; return what is kept."""
    engine, _, precision = arguments.engine.partition(":")
    precision = precision or "fp32"
    name = open_bundle(bundle).model_name or bundle.name
    say(f"{name}: loading it for {engine} {precision}")
    samples = pictures(scratch / "samples", _DISTINCT, _DISTINCT)
    pictures(scratch / "photos", min(_DISTINCT, plan.photos), plan.photos)
    images = [path.read_bytes() for path in samples]
    bad = poison(images[0])
    for number, data in enumerate(bad):
        (scratch / "samples" / f"poison-{number}").write_bytes(data)
    folders = str(scratch / "photos"), str(scratch / "samples")
    with contextlib.ExitStack() as stack:
        local = LocalProcess(Local(str(bundle), engine, precision, *folders, plan.single))
        stack.callback(local.close)
        expected = Expected(local.ask("expected")["answers"])
        flags = ("--engine", engine, "--precision", precision)
        server = stack.enter_context(hgdeploy_server(bundle, *flags))
        requests = [request_of("/predict", data) for data in (*images, *bad)]

        def load_of(asked: Server) -> Load:
            load = Load(asked.port, requests[: len(images)], expected.of_predict)
            stack.callback(load.close)
            return load

        rounds = Rounds(plan)
        rounds.add_local(local, len(images))
        rounds.add_loops(server, load_of(server))
        if plan.single:
            alone = stack.enter_context(hgdeploy_server(bundle, *flags, "--streams", "1"))
            rounds.add_closed("one stream, closed 1", alone, load_of(alone), 1)
        if arguments.triton:
            asked: dict[str, tuple[Server, str]] = {"protocol": (server, name)}
            for instances in sorted({1, available_cpus()}):
                repository = scratch / f"triton-{instances}"
                model = write_triton(bundle, repository, instances)
                other = stack.enter_context(triton(repository))
                asked[f"triton, {instances} instances"] = (other, model)
            for case, (one, model) in asked.items():
                sent = [protocol_request(one.http, model, data, _CLASSES) for data in images]
                load = Load(one.port, sent, expected.of_protocol)
                stack.callback(load.close)
                rounds.add_closed(case, one, load)
        found: dict[str, Any] = {"model": name, "engine": engine, "precision": precision}
        found |= {"runtime": local.runtime, "cases": rounds.run() if plan.rounds else {}}
        if plan.poison_seconds:
            found["poison"] = poisoned(server, requests, len(images), expected, plan)
        return found


def ratio_of(found: dict[str, Any], case: str, reference: str) -> Ratio | None:
    """Return how many times as many images a second a case answers as another; None without it."""
    cases = found["cases"]
    if case not in cases or reference not in cases:
        return None
    sides = [
        [[1 / max(rate_of(run), 1e-9)] for run in cases[name]["runs"]] for name in (reference, case)
    ]
    return compare_samples(*sides)


def rate_of(run: dict[str, Any]) -> float:
    """Return the images a second of a run."""
    return float(run["per_s"] if "per_s" in run else run["images"] / run["seconds"])


def capacity_of(found: dict[str, Any]) -> str:
    """Return the closed loop that answers the most."""
    closed: list[str] = [name for name in found["cases"] if name.startswith("closed")]
    return max(closed, key=lambda one: _rate(found, one), default="")


def _rate(found: dict[str, Any], case: str) -> float:
    return float(np.median([rate_of(run) for run in found["cases"][case]["runs"]]))


def lines_of(document: dict[str, Any]) -> Iterator[str]:
    """Yield the results as text."""
    head = ("model", "case", "answers/s", "of the folder's", "median ms", "p99 ms", "refused",
            "wrong or lost", "load generator")  # fmt: skip
    yield f"| {' | '.join(head)} |"
    yield f"|---|---|{'---:|' * (len(head) - 2)}"
    for found in document["models"]:
        for case, kept in found["cases"].items():
            yield _table_row(found, case, kept)
    for found in document["models"]:
        yield from _verdicts(found)


def _table_row(found: dict[str, Any], case: str, kept: dict[str, Any]) -> str:
    runs, latency, title = kept["runs"], kept["latency"], f"{found['model']}, {found['engine']}"
    cells = [f"{title} {found['precision']}", case]
    if case.startswith("predict"):
        cells += ["", "", f"{latency['p50_ms']:.1f}", f"{latency['p99_ms']:.1f}", "", "", ""]
        return f"| {' | '.join(cells)} |"
    cells.append(f"{_rate(found, case):.1f}")
    if case == "folder":
        return f"| {' | '.join([*cells, '', '', '', '', '', ''])} |"
    share = ratio_of(found, case, "folder")
    of_capacity = case.startswith(("closed", "protocol", "triton"))
    cells.append(f"{100 * share.ratio:.0f} %" if share is not None and of_capacity else "")
    cells += [f"{latency[key]:.1f}" if latency else "" for key in ("p50_ms", "p99_ms")]
    sums = {key: sum(run[key] for run in runs) for key in ("refused", "wrong", "lost")}
    cells += [str(sums["refused"]), str(sums["wrong"] + sums["lost"])]
    used = sum(run["cpu_seconds"] for run in runs) / sum(run["seconds"] for run in runs)
    return f"| {' | '.join([*cells, f'{100 * used / available_cpus():.1f} %'])} |"


def _verdicts(found: dict[str, Any]) -> Iterator[str]:
    """Yield what the figures say of a model, one line for each aim."""
    name, cases = found["model"], found["cases"]
    if cases:
        best = capacity_of(found)
        for case, reference, words in (
            (best, "folder", "of the folder's pipeline"),
            (f"open {OVERLOAD} %", best, "of the capacity"),
            *(("protocol", one, f"of {one}") for one in cases if one.startswith("triton")),
        ):
            times = ratio_of(found, case, reference)
            if times is not None:
                low, high = 100 * times.low, 100 * times.high
                share = f"{100 * times.ratio:.1f} % ({low:.1f} to {high:.1f})"
                yield f"{name}, {case}: {share} {words}"
        for case, reference in (
            ("closed 1", "predict"),
            ("one stream, closed 1", "predict, all CPUs"),
        ):
            if case in cases and reference in cases:
                added = cases[case]["latency"]["p50_ms"] - cases[reference]["latency"]["p50_ms"]
                yield f"{name}, {case}: the median is {added:.2f} ms above that of {reference}"
    if "poison" in found:
        kept = found["poison"]
        memory = [sample["memory_mb"] for sample in kept["samples"]]
        yield (
            f"{name}, 1 % poison for {sum(one['seconds'] for one in kept['samples']):.0f} s: "
            f"{kept['sent']} requests, {kept['wrong']} wrong, {kept['lost']} lost, "
            f"{memory[0]:.0f} MiB at first, {memory[-1]:.0f} at the end, {max(memory):.0f} at most"
        )


def plan_of(arguments: argparse.Namespace) -> Plan:
    """Return what the arguments ask for."""
    if arguments.quick:
        return QUICK
    return Plan(
        rounds=arguments.rounds,
        seconds=arguments.seconds,
        photos=arguments.images,
        clients=arguments.clients,
        loads=arguments.loads,
        single=arguments.single,
        poison_seconds=60 * arguments.poison_minutes,
    )


def main() -> None:
    """Measure what the arguments name, save it, and print it."""
    parser = argparse.ArgumentParser(description="Measure hgdeploy serve under load.")
    parser.add_argument("--bundle", nargs="+", type=Path, required=True, help="models' folders")
    parser.add_argument("--engine", default="openvino:fp32", metavar="ENGINE:PRECISION")
    parser.add_argument(
        "--rounds", type=int, default=6, help="0 for none, but for --poison-minutes"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case in a round")
    parser.add_argument("--images", type=int, default=400, help="in the folder")
    parser.add_argument("--poison-minutes", type=float, default=0.0,
                        help="also ask so long, with 1 %% of the files no images")  # fmt: skip
    parser.add_argument("--clients", type=int, nargs="+", default=Plan.clients)
    parser.add_argument("--loads", type=int, nargs="*", default=Plan.loads, metavar="PERCENT")
    parser.add_argument("--single", action=argparse.BooleanOptionalAction, default=True,
                        help="single calls of Classifier.predict, too")  # fmt: skip
    parser.add_argument("--triton", action="store_true",
                        help="NVIDIA's Triton, too, with --engine onnxruntime:fp32")  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    parser.add_argument("--output", type=Path, help="save the results in this JSON file")
    arguments = parser.parse_args()
    if arguments.triton and arguments.engine != TRITON_RUNS:
        parser.error(f"--triton needs --engine {TRITON_RUNS}, as Triton's Python runs it")
    plan = plan_of(arguments)
    document: dict[str, Any] = {
        "schema": 1,
        "environment": describe_environment(),
        "command": " ".join(["python", "benchmarks/serving.py", *sys.argv[1:]]),
        "plan": dataclasses.asdict(plan),
        "many": MANY,
        "models": [],
    }
    for bundle in arguments.bundle:
        with tempfile.TemporaryDirectory() as scratch:
            document["models"].append(measure(bundle, arguments, plan, Path(scratch)))
        if arguments.output is not None:  # a later failure loses nothing
            text = json.dumps(document, indent=1) + "\n"
            arguments.output.write_text(text, encoding="utf-8")
    print("\n".join(lines_of(document)))


if __name__ == "__main__":
    main()
