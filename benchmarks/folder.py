# SPDX-License-Identifier: Apache-2.0
"""Measure folders of images: HGDeploy's pipeline against the loop of PaddleClas's script.

python benchmarks/folder.py --bundle deploy/models/PPHGNet_tiny_infer --output folder.json

The reference reads one image, transforms it, gathers a batch of 8, infers with Paddle (oneDNN,
fp32, all CPUs), takes the Top-5 and prints, one after the other. Each case has a process of its
own, and all take turns round by round, so that what disturbs the machine disturbs all of them.
Reported are ratios with 95 % intervals, each stage's share of the time, how near the pipeline comes
to what the engine and the reading of files allow on these CPUs, memory by the number of images, and
the time from the start of a process to its first result.
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
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "deploy" / "python"))

import numpy as np

from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.stats import compare_samples
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.names import PADDLE_PROGRAMS
from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import classify_files, folder_options
from hgdeploy.classify.settings import ClassifierSettings, StageTimes
from hgdeploy.classify.summary import Summary
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import HGDeployError
from hgdeploy.images.find import find_images
from hgdeploy.images.reader import ImageReader, ReadImage
from hgdeploy.results.writers import LineWriter
from hgdeploy.system.machine import available_cpus, child_processes, peak_memory_mb
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import imagenet_ops

BATCH = 8  # of the reference
ENGINE_SECONDS = 2.0
STARTS = 5
SIZES = {"500x375": (500, 375), "4000x3000": (4000, 3000)}


@dataclass(frozen=True)
class Case:
    """What one process measures.

    Attributes:
        name: what to call it.
        bundle: the model's folder.
        photos: the folder of images.
        engine: `reference` for PaddleClas's loop, else an engine's name.
        precision: of the engine.
        fast_decode: decode JPEG files at a reduced scale.
        division: (threads of one inference, inferences at once); None for HGDeploy's own.
    """

    name: str
    bundle: str
    photos: str
    engine: str
    precision: str = "fp32"
    fast_decode: bool = False
    division: tuple[int, int] | None = None


class Reference:
    """PaddleClas's loop, in sequence."""

    def __init__(self, case: Case) -> None:
        bundle = open_bundle(case.bundle)
        self._engine = load_engine("paddle", bundle.find(PADDLE_PROGRAMS), EngineOptions())
        self._files = [file.path for file in find_images(case.photos)]
        self._mean = np.array([0.485, 0.456, 0.406], np.float32)
        self._std = np.array([0.229, 0.224, 0.225], np.float32)

    def run(self) -> dict[str, Any]:
        """Classify the folder once."""
        start = time.perf_counter()
        batch: list[Any] = []
        with open(os.devnull, "w", encoding="utf-8") as out:  # noqa: PTH123 (no file)
            for number, path in enumerate(self._files, 1):
                batch.append(self._read(path))
                if len(batch) == BATCH or number == len(self._files):
                    feeds = {self._engine.inputs[0].name: np.stack(batch)}
                    (rows,) = self._engine.infer(feeds).values()
                    for row in rows:
                        best = row.argsort()[-5:][::-1]
                        out.write(f"{path.name}: {best.tolist()} {row[best].tolist()}\n")
                    batch = []
        return {"seconds": time.perf_counter() - start, "images": len(self._files)}

    def _read(self, path: Path) -> Any:
        import cv2

        image = cv2.imread(str(path))[:, :, ::-1]
        height, width = image.shape[:2]
        scale = 256 / min(height, width)
        image = cv2.resize(image, (round(width * scale), round(height * scale)))
        top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
        image = image[top : top + 224, left : left + 224]
        image = (image.astype(np.float32) * np.float32(1 / 255) - self._mean) / self._std
        return image.transpose(2, 0, 1)


class TimedReader(ImageReader):
    """The pipeline's reader, with the CPU time that each file takes."""

    def __init__(self, ops: Sequence[Op], fast_decode: bool) -> None:
        super().__init__(ops, fast_decode)
        self.cpu: list[float] = []

    def read_file(self, path: Path, out: Any = None) -> ReadImage:
        """Read a file."""
        start = time.thread_time()
        read = super().read_file(path, out)
        self.cpu.append(time.thread_time() - start)
        return read


class Pipeline:
    """HGDeploy's folder pipeline, loaded once."""

    def __init__(self, case: Case) -> None:
        self._files = find_images(case.photos)
        options = EngineOptions(precision=case.precision)
        if case.division is not None:
            threads, streams = case.division
            options = dataclasses.replace(options, threads=threads, streams=streams)
        options = folder_options(options, len(self._files))
        settings = ClassifierSettings(
            case.engine,
            options=options,
            preprocess=imagenet_ops(256, 224),  # as the reference, whatever the model's own is
            fast_decode=case.fast_decode,
        )
        self._classifier = Classifier.from_settings(case.bundle, settings)
        self._reader = TimedReader(self._classifier.reader.preprocessor.ops, case.fast_decode)
        self._classifier.reader = self._reader

    def run(self) -> dict[str, Any]:
        """Classify the folder once."""
        self._classifier.times = StageTimes()
        self._reader.cpu.clear()
        summary = Summary(found=len(self._files))
        with open(os.devnull, "w", encoding="utf-8") as out:  # noqa: PTH123 (no file)
            cpu = time.process_time()
            classify_files(self._classifier, self._files, [LineWriter(out)], print, summary)
            cpu = time.process_time() - cpu
        if summary.failed:
            raise SystemExit(f"{summary.failed} images failed: {summary.reasons}")
        return {
            "seconds": summary.seconds,
            "images": summary.done,
            "cpu_seconds": cpu,
            "read_cpu_seconds": sum(self._reader.cpu),
            "workers": summary.workers,
            "shares": {name: round(share, 4) for name, share in summary.shares().items()},
            "peak_mb": _peak_mb(),
        }

    def alone(self) -> dict[str, Any]:
        """Run the engine on a ready tensor from as many threads as it takes."""
        engine, spec = self._classifier.engine, self._classifier.engine.inputs[0]
        ready = self._reader.read_file(self._files[0].path).tensor[None]
        counts: list[int] = []
        end = time.perf_counter() + ENGINE_SECONDS

        def work() -> None:
            count = 0
            while time.perf_counter() < end:
                engine.infer({spec.name: ready})
                count += 1
            counts.append(count)

        threads = [threading.Thread(target=work) for _ in range(engine.concurrency)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"engine_rate": sum(counts) / (time.perf_counter() - start)}


def _peak_mb() -> float:
    """Return the peaks of this process and of those it has started; they share some of it."""
    sizes = [peak_memory_mb(), *map(peak_memory_mb, child_processes())]
    return sum(size for size in sizes if size is not None)


def child(text: str) -> None:
    """Load a case, then do what each line of stdin names, answering in JSON."""
    case = Case(**json.loads(text))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        loaded: Any = Reference(case) if case.engine == "reference" else Pipeline(case)
        answers.write(json.dumps({"loaded": True}) + "\n")
        answers.flush()
        for line in sys.stdin:
            answers.write(json.dumps(getattr(loaded, line.strip())()) + "\n")
            answers.flush()
    except HGDeployError as error:
        answers.write(json.dumps({"error": str(error)}) + "\n")


class Process:
    """A case's process, asked from here."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", json.dumps(dataclasses.asdict(case))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._answer()

    def ask(self, request: str) -> dict[str, Any]:
        """Let the process do one thing."""
        if self._process.stdin is None:
            raise SystemExit("a process without stdin")
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout is not None else ""
        answer: dict[str, Any] = json.loads(line or "{}")
        if "error" in answer or not answer:
            raise SystemExit(f"{self.case.name}: {answer.get('error', 'the process died')}")
        return answer


def photographs(folder: Path, size: tuple[int, int], count: int) -> Path:
    """Make `count` JPEG files of a size from the shipped photographs; most are hard links."""
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


def throughput(cases: list[Case], rounds: int) -> list[dict[str, Any]]:
    """Let all cases take turns; the first is what the others are compared with."""
    with contextlib.ExitStack() as stack:
        processes = []
        for case in cases:
            process = Process(case)
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
    return [_row(*parts, runs[0]) for parts in zip(cases, runs, alone, strict=True)]


def _row(
    case: Case,
    runs: list[dict[str, Any]],
    alone: list[dict[str, Any]],
    reference: list[dict[str, Any]],
) -> dict[str, Any]:
    """Sum up a case: its speed, its ratio to the reference, and its share of what is possible."""
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
    # The ratio is of seconds: the reference's over ours is how many times faster ours is.
    ratio = compare_samples(
        [[run["seconds"] / run["images"]] for run in reference],
        [[run["seconds"] / run["images"]] for run in runs],
    )
    # If nothing but the engine and reading took time, a run would take as long as the engine alone
    # and, spread over all CPUs, the CPU time of reading: the engine then has what reading leaves.
    cpus = available_cpus()
    shares = [
        (run["images"] / limit["engine_rate"] + run["read_cpu_seconds"] / cpus) / run["seconds"]
        for run, limit in zip(runs, alone, strict=True)
    ]
    row["speedup"] = dataclasses.asdict(ratio)
    row["of_possible"] = float(np.median(shares))
    row["shares"] = runs[-1]["shares"]
    return row


def memory(case: Case, counts: list[int], folder: Path) -> list[dict[str, Any]]:
    """Classify folders of so many hard links, each in a process of its own."""
    rows = []
    for count in counts:
        photos = photographs(folder / f"memory-{count}", SIZES["500x375"], count)
        process = Process(dataclasses.replace(case, photos=str(photos)))
        try:
            run = process.ask("run")
        finally:
            process.close()
        rows.append({"images": count, "peak_mb": run["peak_mb"], "seconds": run["seconds"]})
        print(f"{count} images: {run['peak_mb']:.0f} MiB", file=sys.stderr, flush=True)
    return rows


def first_results(case: Case) -> list[float]:
    """Return seconds from the start of a process to its first line of output, several times."""
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
            raise SystemExit(f"{case.name}: no result came")
    return seconds[1:]


def cases_of(bundle: str, photos: str, size: str, arguments: argparse.Namespace) -> list[Case]:
    """Return the reference, then what is compared with it."""
    found = [Case(f"PaddleClas's loop, {size}", bundle, photos, "reference")]
    for text in arguments.case:
        engine, _, precision = text.partition(":")
        for fast in (False, True) if size != "500x375" else (False,):
            name = f"{engine} {precision or 'fp32'}{', fast decode' if fast else ''}, {size}"
            found.append(Case(name, bundle, photos, engine, precision or "fp32", fast))
    for text in arguments.division:
        threads, _, streams = text.partition("x")
        base = found[1]
        name = f"{base.name}, {threads} threads x {streams} inferences"
        division = (int(threads), int(streams))
        found.append(dataclasses.replace(base, name=name, division=division))
    return found


def _table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| model | case | images/s | times the loop | 95 % interval | of what is possible |"
    yield "|---|---|---:|---:|---:|---:|"
    for row in rows:
        speedup, share = row.get("speedup"), row.get("of_possible")
        told = ("1", "", "") if speedup is None else (
            f"{speedup['ratio']:.2f}",
            f"{speedup['low']:.2f} to {speedup['high']:.2f}",
            f"{100 * share:.0f} %",
        )  # fmt: skip
        yield f"| {row['model']} | {row['name']} | {row['images_per_s']:.1f} | " + (
            " | ".join(told) + " |"
        )


def main() -> None:
    """Measure what was asked for, save it, and print it."""
    parser = argparse.ArgumentParser(description="Measure folders of images.")
    parser.add_argument("--bundle", nargs="+", default=[], help="folders of models")
    parser.add_argument("--case", nargs="+", default=["openvino:fp32"], metavar="ENGINE:PRECISION")
    parser.add_argument(
        "--division", nargs="+", default=[], metavar="THREADSxINFERENCES",
        help="also divide the CPUs like this, in the first case",
    )  # fmt: skip
    parser.add_argument("--size", nargs="+", default=["500x375"], choices=SIZES)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", nargs="+", type=int, default=[], metavar="IMAGES")
    parser.add_argument("--first-result", action="store_true", help="time starts of processes")
    parser.add_argument("--output", type=Path, help="save all samples in this JSON file")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child)
        return
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


def measure_rest(cases: list[Case], arguments: argparse.Namespace, found: dict[str, Any]) -> None:
    """Measure memory in the first case, and starts in all of them, where asked for."""
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
            told = ", ".join(f"{k} {100 * v:.0f} %" for k, v in row["shares"].items())
            yield f"{row['model']}, {row['name']}: {told}"
    for row in found["memory"]:
        yield f"{row['name']}: {row['images']} images, at most {row['peak_mb']:.0f} MiB"
    for row in found["first_result"]:
        yield f"{row['name']}: first result after {np.median(row['seconds']):.2f} s"


if __name__ == "__main__":
    main()
