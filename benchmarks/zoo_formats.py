# SPDX-License-Identifier: Apache-2.0
"""Convert every network of the zoo for MNN and ncnn, and compare each with Paddle.

python benchmarks/zoo_formats.py --bundles /tmp/zoo --output benchmarks/results/zoo-formats.json

It runs the commands that a user would: `export --weights none` (unless the bundle is there),
`convert --to`, and `validate` on the shipped photographs and on noise. The file is complete after
every network, and a second start goes on from there. The table of docs/convert.md is what it
prints.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.system.files import write_text
from hgdeploy.zoo.models import MODELS

TARGETS = ("mnn", "ncnn")


class CommandError(Exception):
    """A command failed; the message is its last line."""


def hgdeploy(*words: object) -> None:
    """Run `hgdeploy WORDS` in a process of its own."""
    command = [sys.executable, "-c", "import sys; from hgdeploy.cli import main; sys.exit(main())"]
    path = os.pathsep.join(filter(None, [str(ROOT / "deploy/python"), os.getenv("PYTHONPATH")]))
    done = subprocess.run(
        [*command, *map(str, words)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise CommandError(said[-1].removeprefix("hgdeploy: error: "))


def outcome(bundle: Path, target: str) -> dict[str, Any]:
    """Convert a bundle for an engine and validate it; return the figures, or the reason."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        command = ("validate", bundle, "--engines", f"paddle,{target}")
        try:
            hgdeploy("convert", bundle, "--to", target)
            seconds = time.perf_counter() - start
            hgdeploy(*command, "--images", ROOT / "deploy" / "images", "--report", report)
        except CommandError as error:
            return {"works": False, "reason": str(error).replace(f"{bundle}/", "")}
        pairs = json.loads(report.read_text(encoding="utf-8"))["pairs"]
    gap = max(pair["comparison"]["max_log"] for pair in pairs)
    return {"works": True, "max_log": gap, "convert_seconds": round(seconds, 1)}


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """Yield the results as a Markdown table, with the reasons below it."""
    reasons: dict[str, int] = {}

    def cell(result: dict[str, Any]) -> str:
        if result["works"]:
            return f"{result['max_log']:.1e}"
        return f"refused ({reasons.setdefault(result['reason'], len(reasons) + 1)})"

    yield f"| network | {' | '.join(TARGETS)} |"
    yield "|---|---:|---:|"
    for network, row in found["networks"].items():
        yield f"| {network} | {' | '.join(cell(row[target]) for target in TARGETS)} |"
    if reasons:
        yield ""
    for reason, number in reasons.items():
        yield f"{number}. `{reason}`"


def main() -> None:
    """Try what the arguments name, save it, and print it."""
    networks = list(dict.fromkeys(model.architecture for model in MODELS.values()))
    parser = argparse.ArgumentParser(description="Convert the zoo for MNN and ncnn.")
    parser.add_argument("--network", nargs="+", default=networks, choices=networks, metavar="NAME")
    parser.add_argument("--bundles", type=Path, required=True, help="where the bundles lie")
    parser.add_argument("--output", type=Path, required=True, help="the results, as JSON")
    parser.add_argument("--again", action="store_true", help="also what the file has already")
    parser.add_argument("--delete", action="store_true", help="delete each bundle when it is done")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"networks": {}}
    if arguments.output.is_file():
        found = json.loads(arguments.output.read_text(encoding="utf-8"))
    environment = {"schema": 1, "environment": describe_environment()}
    for network in arguments.network:
        if network in found["networks"] and not arguments.again:
            continue
        bundle = arguments.bundles / f"{network}_infer"
        if not bundle.is_dir():
            hgdeploy("export", network, "--weights", "none", "--output", bundle)
        found["networks"][network] = {target: outcome(bundle, target) for target in TARGETS}
        print(network, found["networks"][network], file=sys.stderr, flush=True)
        if arguments.delete:
            shutil.rmtree(bundle)
        ordered = {name: found["networks"][name] for name in networks if name in found["networks"]}
        found = {**environment, "networks": ordered}
        write_text(arguments.output, json.dumps(found, indent=1) + "\n")
    print("\n".join(lines_of(found)))


if __name__ == "__main__":
    main()
