# SPDX-License-Identifier: Apache-2.0
"""The whole chain on labelled images: train, export, convert, and measure every artifact.

apt-get install dataset-fashion-mnist
python benchmarks/chain.py --work /tmp/chain --output benchmarks/results/chain.json

The data set is Fashion-MNIST (H. Xiao, K. Rasul, R. Vollgraf, 2017; MIT licence) as Debian packages
it; `--data` takes any folder with files of the same four names. The script runs the commands that a
user would, skips those whose result is there already, and prints the table of
benchmarks/README.md. The JSON file is complete after every artifact.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

from chain_data import DEBIAN, Recipe, config_of, write_images

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.system.files import write_text
from hgdeploy.validation.evaluation import Judged, Share, paired

REFERENCE, RTX = "paddle", "tensorrt-rtx"
RUNS = (
    REFERENCE,
    *("onnxruntime", "openvino", "mnn", "ncnn"),
    *("onnxruntime:fp16", "ncnn:fp16", "openvino:bf16", "paddle:bf16"),
    *("onnxruntime:int8", "openvino:int8"),
    *(RTX, f"{RTX}:fp16"),  # built, and not run: that needs a GPU
)
# What int8 has to show: answers as fp32's, or as good ones.
LEAST_AGREEMENT = 0.99

Runner = Callable[[list[str], Path], int]
"""Runs `hgdeploy` with these words, adds what it says to a file, and returns the exit code."""


def in_a_process(words: list[str], log: Path) -> int:
    """Run `hgdeploy` in a process of its own, from this checkout."""
    command = [sys.executable, "-c", "import sys; from hgdeploy.cli import main; sys.exit(main())"]
    path = os.pathsep.join(filter(None, [str(ROOT / "deploy/python"), os.getenv("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    with log.open("a", encoding="utf-8") as stream:
        done = subprocess.run(
            [*command, *words], stdout=stream, stderr=stream, env=environment, check=False
        )
    return done.returncode


class Chain:
    """The commands, and how long each took.

    Args:
        work: everything but the result lies here.
        seconds: of the steps that ran before, by name; is added to.
        run: runs a command.
    """

    def __init__(self, work: Path, seconds: dict[str, float], run: Runner) -> None:
        self.work, self.seconds, self._run = work, seconds, run

    @property
    def bundle(self) -> Path:
        """The exported model."""
        return self.work / "bundle"

    def hgdeploy(self, *words: object, step: str) -> str | None:
        """Run `hgdeploy WORDS` as this step; return the error's line where it fails."""
        print("hgdeploy", *words, file=sys.stderr, flush=True)
        log, start = self.work / "commands.log", time.perf_counter()
        log.touch()
        begin = log.stat().st_size
        code = self._run(list(map(str, words)), log)
        self.seconds[step] = round(time.perf_counter() - start, 1)
        if not code:
            return None
        said = log.read_bytes()[begin:].decode(errors="replace")
        errors = [line for line in said.splitlines() if "error: " in line]
        error = errors[0].partition("error: ")[2] if errors else f"exit code {code}"
        return error.replace(f"{self.work}/", "")

    def must(self, *words: object, step: str) -> None:
        """Run `hgdeploy WORDS` as this step; nothing works without it."""
        error = self.hgdeploy(*words, step=step)
        if error is not None:
            raise SystemExit(f"{step}: {error}; see {self.work / 'commands.log'}")


def make_bundle(chain: Chain) -> None:
    """Train, and export the best epoch, unless that is done."""
    if (chain.bundle / "inference.json").is_file():
        return
    config = chain.work / "config.yaml"
    chain.must("train", "-c", config, step="train")
    best = next((chain.work / "output").rglob("best_model.pdparams"))
    weights = f"Global.pretrained_model={best.with_suffix('')}"
    chain.must(
        *("export", "-c", config, "-o", weights, "-o", "Global.export_for_fd=True"), step="export"
    )


def make_artifact(chain: Chain, run: str, images: int) -> str | None:
    """Make the file that a run reads, unless it is there; return the error's line if it fails.

    Args:
        chain: the chain.
        run: the run.
        images: how many calibrate int8.
    """
    engine, _, precision = run.partition(":")
    bundle, calibration = chain.bundle, chain.work / "images" / "calibration.txt"
    if engine == "paddle":
        return None
    if engine == RTX:
        name = f"rtx.{precision or 'fp32'}.engine"
        words: tuple[object, ...] = ("build", bundle, "--runtime", RTX, "--output", bundle / name)
        words += ("--compute-capability", "8.6", "--precision", precision or "fp32")
    elif engine in ("mnn", "ncnn"):
        name = "inference.mnn" if engine == "mnn" else "inference.ncnn.param"
        words = ("convert", bundle, "--to", engine)
    elif precision == "int8":
        name = "inference.int8.onnx"
        # uint8, since OpenVINO computes int8 activations wrongly on CPUs without AMX.
        words = ("quantize", bundle, "--calibration", calibration, "--images", images)
        words += ("--activations", "uint8")
    elif precision == "fp16":
        name, words = "inference.fp16.onnx", ("convert", bundle, "--precision", "fp16")
    else:  # OpenVINO rounds fp32's file to bf16 itself
        name, words = "inference.onnx", ("convert", bundle)
    return None if (bundle / name).is_file() else chain.hgdeploy(*words, step=name)


def evaluate(chain: Chain, run: str) -> dict[str, Any]:
    """Measure one artifact on the test images; return its figures, or why there are none."""
    engine, _, precision = run.partition(":")
    if engine == RTX:
        size = (chain.bundle / f"rtx.{precision or 'fp32'}.engine").stat().st_size
        return {"error": f"built ({size / 2**20:.1f} MiB), not run: that needs a GPU"}
    report, answers = (chain.work / f"{run.replace(':', '-')}.{kind}" for kind in ("json", "csv"))
    images = chain.work / "images"
    if not report.is_file():
        error = chain.hgdeploy(
            *("eval", chain.bundle, "--images", images, "--labels", images / "test.txt"),
            *("--engine", engine, "--precision", precision or "fp32"),
            *("--answers", answers, "--report", report),
            step=f"eval {run}",
        )
        if error is not None:
            return {"error": error}
    facts = json.loads(report.read_text(encoding="utf-8"))
    kept = ("images", "failed", "topk", "calibration", "confusion", "runtime")
    return {**{name: facts[name] for name in kept}, "against_fp32": compared(chain, run)}


def read_answers(chain: Chain, run: str) -> dict[int, Judged]:
    """Return what a run answered for each image."""
    text = (chain.work / f"{run.replace(':', '-')}.csv").read_text(encoding="utf-8")
    listed = (chain.work / "images" / "test.txt").read_text(encoding="utf-8").splitlines()
    numbers = {line.rpartition(" ")[0]: number for number, line in enumerate(listed)}
    return {
        numbers[row["path"]]: Judged(
            (int(row["answer"]),), row["right"] == "1", float(row["score"])
        )
        for row in csv.DictReader(text.splitlines())
    }


def compared(chain: Chain, run: str) -> dict[str, Any]:
    """Compare a run's answers with the reference's."""
    found = paired(read_answers(chain, run), read_answers(chain, REFERENCE))
    return {
        "images": found.images,
        "same": found.same.hits,
        "lost": found.lost,
        "gained": found.gained,
        "difference": found.difference,
        "difference_interval": found.interval,
        "mcnemar_p": found.p_value,
    }


def as_good(found: dict[str, Any], run: str) -> bool:
    """Tell whether a run agrees with fp32, or its accuracy lies in the interval of fp32's."""
    facts, reference = found["runs"][run], found["runs"][REFERENCE]
    low, high = reference["topk"]["1"]["interval"]
    pair = facts["against_fp32"]
    share = float(facts["topk"]["1"]["share"])
    return pair["same"] / pair["images"] >= LEAST_AGREEMENT or bool(low <= share <= high)


def lines_of(found: dict[str, Any]) -> Iterator[str]:
    """Yield the results as a Markdown table."""
    head = ("artifact", "top-1 (95 % interval)", "calibration error", "as fp32 answers")
    yield f"| {' | '.join((*head, 'lost', 'gained', 'p'))} |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    for run, facts in found["runs"].items():
        if "error" in facts:
            yield f"| {run} | {facts['error']} | | | | | |"
            continue
        top1, pair = facts["topk"]["1"], facts["against_fp32"]
        cells = [str(Share(top1["hits"], top1["images"])), f"{facts['calibration']['error']:.2%}"]
        if run != REFERENCE:
            same = f"{pair['same'] / pair['images']:.2%}"
            cells += [same, str(pair["lost"]), str(pair["gained"]), f"{pair['mcnemar_p']:.2g}"]
        yield f"| {run} | {' | '.join(cells + [''] * (6 - len(cells)))} |"


def parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train, convert and measure every artifact.")
    parser.add_argument("--data", type=Path, default=DEBIAN, help="the four idx files")
    parser.add_argument("--work", type=Path, required=True, help="where all but the result lies")
    parser.add_argument("--output", type=Path, required=True, help="the results, as JSON")
    for field in dataclasses.fields(Recipe):
        kind = int if field.default is None else type(field.default)
        shown = "(all)" if field.default is None else f"({field.default})"
        parser.add_argument(f"--{field.name}", type=kind, default=field.default, help=shown)
    parser.add_argument("--calibrate", type=int, default=256, help="images for int8")
    parser.add_argument("--run", nargs="+", default=list(RUNS), help="what is measured")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None, run: Runner = in_a_process) -> None:
    """Run the chain, save what it found, and print it.

    Args:
        argv: the arguments; None for those of the process.
        run: runs each command.
    """
    arguments = parsed(argv)
    work, output = arguments.work, arguments.output
    work.mkdir(parents=True, exist_ok=True)
    before = json.loads(output.read_text(encoding="utf-8")) if output.is_file() else {}
    recipe = Recipe(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Recipe)})
    write_images(arguments.data, work / "images", recipe.images)
    config = yaml.safe_dump(config_of(work, recipe), sort_keys=False)
    write_text(work / "config.yaml", config)
    chain = Chain(work, before.get("seconds", {}), run)
    found: dict[str, Any] = {
        "schema": 1,
        "environment": describe_environment(),
        "recipe": dataclasses.asdict(recipe),
        "calibration_images": arguments.calibrate,
        "seconds": chain.seconds,
        "runs": {},
    }
    make_bundle(chain)
    for one in dict.fromkeys((REFERENCE, *arguments.run)):
        error = make_artifact(chain, one, arguments.calibrate)
        found["runs"][one] = evaluate(chain, one) if error is None else {"error": error}
        write_text(output, json.dumps(found, indent=1) + "\n")
    print("\n".join(lines_of(found)))
    for one in found["runs"]:
        if one.endswith(":int8") and "error" not in found["runs"][one]:
            proven = "as good as" if as_good(found, one) else "NOT as good as"
            print(f"{one} is {proven} fp32")


if __name__ == "__main__":
    main()
