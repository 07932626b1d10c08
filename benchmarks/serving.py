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
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

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
    write_triton_by_hand,
)
from serving_load import Load
from serving_local import Local
from serving_report import lines_of
from serving_rounds import MANY, QUICK, LocalProcess, Plan, Rounds, poisoned, say

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.errors import ConfigError
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
            model = write_triton_by_hand(bundle, scratch / "by-hand")
            asked["triton, by hand"] = (stack.enter_context(triton(scratch / "by-hand")), model)
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
    parser.add_argument("--bundle", nargs="+", type=Path, default=[], help="models' folders")
    parser.add_argument("--report", nargs="+", type=Path, default=[], metavar="FILE",
                        help="print saved results instead")  # fmt: skip
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
    if bool(arguments.bundle) == bool(arguments.report):
        parser.error("give --bundle to measure, or --report to print what was measured")
    if arguments.report:
        saved = [json.loads(path.read_text(encoding="utf-8")) for path in arguments.report]
        print("\n".join(lines_of(saved)))
        return
    try:
        plan = plan_of(arguments)
    except ConfigError as error:
        parser.error(str(error))
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
    print("\n".join(lines_of([document])))


if __name__ == "__main__":
    main()
