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
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

from chain_data import DEBIAN, Recipe, config_of, write_images

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.system.files import write_text
from hgdeploy.validation.evaluation import Judged, Share, paired

REFERENCE = "paddle"
RUNS = (
    REFERENCE,
    *("onnxruntime", "openvino", "mnn", "ncnn"),
    *("onnxruntime:fp16", "ncnn:fp16", "openvino:bf16", "paddle:bf16"),
    *("onnxruntime:int8", "openvino:int8"),
)
# What int8 has to show: answers as fp32's, or as good ones.
LEAST_AGREEMENT = 0.99


class Chain:
    """The commands, each in a process of its own, and how long each took.

    Args:
        work: everything but the result lies here.
        seconds: of the steps that ran before, by name; is added to.
    """

    def __init__(self, work: Path, seconds: dict[str, float]) -> None:
        self.work, self.seconds = work, seconds

    def hgdeploy(self, *words: object, step: str | None = None) -> str | None:
        """Run `hgdeploy WORDS`; return the error's line where it fails."""
        command = [
            sys.executable,
            "-c",
            "import sys; from hgdeploy.cli import main; sys.exit(main())",
        ]
        path = os.pathsep.join(filter(None, [str(ROOT / "deploy/python"), os.getenv("PYTHONPATH")]))
        print("hgdeploy", *words, file=sys.stderr, flush=True)
        start = time.perf_counter()
        with (self.work / "commands.log").open("a", encoding="utf-8") as log:
            begin = log.tell()
            done = subprocess.run(
                [*command, *map(str, words)],
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path},
                check=False,
            )
        if step is not None:
            self.seconds[step] = round(time.perf_counter() - start, 1)
        if not done.returncode:
            return None
        said = (self.work / "commands.log").read_bytes()[begin:].decode(errors="replace")
        last = [*said.strip().splitlines(), f"exit code {done.returncode}"]
        errors = [line for line in last if "error: " in line] or last
        return errors[0].partition("error: ")[2] or errors[0]

    def must(self, *words: object, step: str) -> None:
        """Run `hgdeploy WORDS` as this step; nothing works without it."""
        error = self.hgdeploy(*words, step=step)
        if error is not None:
            raise SystemExit(f"{step}: {error}; see {self.work / 'commands.log'}")


def make_bundle(chain: Chain) -> Path:
    """Train, and export the best epoch, unless that is done."""
    bundle, config = chain.work / "bundle", chain.work / "config.yaml"
    if not (bundle / "inference.json").is_file():
        chain.must("train", "-c", config, step="train")
        best = next((chain.work / "output").rglob("best_model.pdparams"))
        weights = f"Global.pretrained_model={best.with_suffix('')}"
        described = "Global.export_for_fd=True"
        chain.must("export", "-c", config, "-o", weights, "-o", described, step="export")
    return bundle


def make_artifacts(chain: Chain, bundle: Path, images: int) -> dict[str, str | None]:
    """Convert the bundle for every engine and precision; return what could not be made, and why."""
    calibrated = ("--calibration", chain.work / "images" / "calibration.txt", "--images", images)
    steps: dict[str, tuple[Any, ...]] = {
        "inference.onnx": ("convert", bundle),
        "inference.fp16.onnx": ("convert", bundle, "--precision", "fp16"),
        # uint8, since OpenVINO computes int8 activations wrongly on CPUs without AMX.
        "inference.int8.onnx": ("quantize", bundle, *calibrated, "--activations", "uint8"),
        "inference.mnn": ("convert", bundle, "--to", "mnn"),
        "inference.ncnn.param": ("convert", bundle, "--to", "ncnn"),
    }
    rtx = ("build", bundle, "--runtime", "tensorrt-rtx", "--compute-capability", "8.6")
    for precision in ("fp32", "fp16"):
        steps[f"rtx.{precision}.engine"] = (
            *(*rtx, "--precision", precision),
            *("--output", bundle / f"rtx.{precision}.engine"),
        )
    failed: dict[str, str | None] = {}
    for name, words in steps.items():
        if not (bundle / name).is_file():
            error = chain.hgdeploy(*words, step=name)
            failed[name] = None if error is None else error.replace(f"{bundle}/", "")
    return failed


def evaluate(chain: Chain, bundle: Path, run: str) -> dict[str, Any]:
    """Measure one artifact on the test images; return its figures, or why there are none."""
    report, answers = (chain.work / f"{run.replace(':', '-')}.{kind}" for kind in ("json", "csv"))
    engine, _, precision = run.partition(":")
    images = chain.work / "images"
    if not report.is_file():
        error = chain.hgdeploy(
            *("eval", bundle, "--images", images, "--labels", images / "test.txt"),
            *("--engine", engine, "--precision", precision or "fp32"),
            *("--answers", answers, "--report", report),
            step=f"eval {run}",
        )
        if error is not None:
            return {"error": error.replace(f"{bundle}/", "")}
    facts = json.loads(report.read_text(encoding="utf-8"))
    kept = ("images", "failed", "topk", "calibration", "confusion", "runtime")
    return {name: facts[name] for name in kept}


def read_answers(chain: Chain, run: str) -> dict[int, Judged]:
    """Return what a run answered for each image."""
    text = (chain.work / f"{run.replace(':', '-')}.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines())
    return {
        number: Judged((int(row["answer"]),), row["right"] == "1", float(row["score"]))
        for number, row in enumerate(rows)
    }


def compared(chain: Chain, run: str) -> dict[str, Any]:
    """Compare a run's answers with the reference's."""
    found = paired(read_answers(chain, run), read_answers(chain, REFERENCE))
    return {
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
    agreement = facts["against_fp32"]["same"] / facts["images"]
    return agreement >= LEAST_AGREEMENT or low <= facts["topk"]["1"]["share"] <= high


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
            same = f"{pair['same'] / facts['images']:.2%}"
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


def main(argv: Sequence[str] | None = None) -> None:
    """Run the chain, save what it found, and print it."""
    arguments = parsed(argv)
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    found: dict[str, Any] = {"seconds": {}}
    if arguments.output.is_file():
        found = json.loads(arguments.output.read_text(encoding="utf-8"))
    recipe = Recipe(**{f.name: getattr(arguments, f.name) for f in dataclasses.fields(Recipe)})
    write_images(arguments.data, work / "images", recipe.images)
    config = yaml.safe_dump(config_of(work, recipe), sort_keys=False)
    write_text(work / "config.yaml", config)
    chain = Chain(work, found["seconds"])
    found = {
        "schema": 1,
        "environment": describe_environment(),
        "recipe": dataclasses.asdict(recipe),
        "calibration_images": arguments.calibrate,
        "seconds": chain.seconds,
    }
    bundle = make_bundle(chain)
    found["not_made"] = {
        k: v for k, v in make_artifacts(chain, bundle, arguments.calibrate).items() if v
    }
    found["made"] = sorted(path.name for path in bundle.iterdir() if path.suffix != ".json")
    found["runs"] = {}
    for run in dict.fromkeys((REFERENCE, *arguments.run)):
        facts = evaluate(chain, bundle, run)
        if "error" not in facts:
            facts["against_fp32"] = compared(chain, run)
        found["runs"][run] = facts
        write_text(arguments.output, json.dumps(found, indent=1) + "\n")
    print("\n".join(lines_of(found)))


if __name__ == "__main__":
    main()
