# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy benchmark`: measure a suite, or the cases that the flags name."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from hgdeploy.benchmark.case import Suite
from hgdeploy.benchmark.case_result import OK, CaseResult
from hgdeploy.benchmark.machine import describe_environment
from hgdeploy.benchmark.record import Record, claiming_record
from hgdeploy.benchmark.result_file import Head
from hgdeploy.benchmark.suite import Runner, run_suite
from hgdeploy.benchmark.suite_file import load_suite, threads_of
from hgdeploy.benchmark.worker.prepare import bundle_folder, photograph, served
from hgdeploy.cli.measure.benchmark_report import (
    add_compare_arguments,
    add_report_arguments,
    run_compare,
    run_report,
)
from hgdeploy.cli.terminal import Verbs, aligned, interrupted_exit_code, refuse_without_effect, say
from hgdeploy.errors import EXIT_OK, EXIT_SOME_IMAGES_FAILED, ConfigError
from hgdeploy.system.digests import file_sha256

Run = Callable[[argparse.Namespace, TextIO], int]


def add_benchmark(verbs: Verbs) -> None:
    """Add `hgdeploy benchmark`, `benchmark report` and `benchmark compare`."""
    parser = verbs.add_parser("benchmark", help="measure models, engines, precisions")
    _add_arguments(parser)
    parser.set_defaults(run=run_benchmark)
    actions = parser.add_subparsers(metavar="ACTION")
    report = actions.add_parser("report", help="make tables and plots of results")
    add_report_arguments(report)
    report.set_defaults(run=_alone(run_report, "report"))
    compare = actions.add_parser("compare", help="show what became faster or slower")
    add_compare_arguments(compare)
    compare.set_defaults(run=_alone(run_compare, "compare"))


def _alone(run: Run, action: str) -> Run:
    """Return what an action runs, once it is sure that no flags of a measurement were given."""
    flags = (
        *_LISTS,
        *_SINGLE,
        "suite",
        "tensorrt",
        "interleave",
        "resume",
        "min_seconds",
        "min_iterations",
    )

    def checked(arguments: argparse.Namespace, out: TextIO) -> int:
        refuse_without_effect(arguments, flags, f"on benchmark {action}")
        return run(arguments, out)

    return checked


# Each flag and the field of the suite that it replaces.
_LISTS = {
    "model": "models",
    "engine": "engines",
    "precision": "precisions",
    "batch": "batches",
    "threads": "threads",
    "streams": "streams",
    "scope": "scopes",
}
_SINGLE = ("device", "image")
_COLUMNS = ("model", "engine", "precision", "batch", "threads", "scope")
_FIGURES = ("median", "p90", "p99")


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `hgdeploy benchmark`."""
    parser.add_argument("--suite", type=Path, help="YAML of lists; flags replace its values")

    def add_list(name: str, kind: Callable[[str], Any], help_text: str) -> None:
        parser.add_argument(f"--{name}", nargs="+", action="extend", type=kind, help=help_text)

    add_list("model", str, "models of the zoo, folders of bundles, .onnx, .engine or .plan files")
    add_list(
        "engine",
        str,
        "paddle (default where it reads the bundle), onnxruntime, openvino, tensorrt, ...; or "
        "auto, what hgdeploy tune found",
    )
    add_list(
        "precision",
        str,
        "fp32 (default; PaddleSlim's int8 where it is), tf32, fp16, bf16, int8",
    )
    add_list("batch", int, "images per inference (1)")
    add_list("threads", str, "CPU threads, a number or all (all)")
    add_list("streams", int, "runs at once, in the scope gpu or on the CPU (1)")
    add_list(
        "scope",
        str,
        "engine (default): infer() alone; pipeline: from JPEG to classes; gpu: the GPU's own time, "
        "as trtexec gives it",
    )
    parser.add_argument("--device", help="cpu or gpu:N (default: gpu:0 for tensorrt, else cpu)")
    parser.add_argument(
        "--tensorrt", action="store_true", help="the paddle engine hands parts to TensorRT"
    )
    parser.add_argument("--image", type=Path, help="photograph for the scope pipeline")
    parser.add_argument("--output", type=Path, help="results file, JSON, saved after each case")
    parser.add_argument(
        "--bundles", type=Path, default=Path("deploy/models"), help="parent folder (deploy/models)"
    )
    parser.add_argument(
        "--interleave", action="store_true", help="measure the cases in turns, so drift cancels out"
    )
    parser.add_argument("--resume", action="store_true", help="continue the run in --output")
    parser.add_argument("--min-seconds", type=float, help="least seconds to measure each case (3)")
    parser.add_argument("--min-iterations", type=int, help="least iterations of each case (10)")


def run_benchmark(arguments: argparse.Namespace, out: TextIO) -> int:
    """Measure as the flags say, and print a table.

    Args:
        arguments: the parsed flags.
        out: the stream for the table.

    Returns:
        0; 3 if cases failed; 130 or 143 if it was interrupted, with all finished cases saved.

    Raises:
        ConfigError: the suite or a flag is wrong, or the file to resume does not fit.
        OutputError: the results cannot be written.
    """
    suite = suite_of(arguments)
    if suite.settings.interleave and arguments.resume:
        raise ConfigError("--resume does not go with interleaving: all cases take turns at once")
    suite = served(suite, arguments.bundles, say)
    cases = suite.cases()
    for case in cases:
        bundle_folder(case, arguments.bundles)
    head = Head(
        suite=suite.name,
        command=("hgdeploy", *sys.argv[1:]),
        settings=_settings(suite),
        environment=describe_environment(),
    )
    with claiming_record(arguments.output):
        record = Record(arguments.output, head, cases, resume=arguments.resume)
        try:
            run_suite(suite, Runner(record, arguments.bundles, say))
        except KeyboardInterrupt as interruption:
            say(_interrupted(sum(map(record.done, cases)), len(cases), arguments.output, suite))
            return interrupted_exit_code(interruption)
    results = [result for result in record.results if result.case in cases]
    out.write(results_table(results))
    failed = sum(result.status != OK for result in results)
    if failed:
        say(f"{failed} of {len(results)} cases failed")
    # As with images: the run finished, its failures are named, and scripts see the exit code.
    return EXIT_SOME_IMAGES_FAILED if failed else EXIT_OK


def suite_of(arguments: argparse.Namespace) -> Suite:
    """Return the suite that the flags name, with their values in place of its own.

    Raises:
        ConfigError: the suite or a flag is wrong.
    """
    if arguments.suite is None and not arguments.model:
        raise ConfigError("there is nothing to measure; name a --suite or a --model")
    suite = load_suite(arguments.suite) if arguments.suite is not None else Suite()
    given = {field: getattr(arguments, flag) for flag, field in _LISTS.items()}
    changes: dict[str, Any] = {field: tuple(v) for field, v in given.items() if v is not None}
    if "threads" in changes:
        changes["threads"] = tuple(map(threads_of, changes["threads"]))
    for name in _SINGLE:
        if getattr(arguments, name) is not None:
            changes[name] = getattr(arguments, name)
    measuring = {
        name: getattr(arguments, name)
        for name in ("min_seconds", "min_iterations")
        if getattr(arguments, name) is not None
    }
    if arguments.interleave:
        measuring["interleave"] = True
    if arguments.tensorrt:
        changes["tensorrt"] = True
    settings = dataclasses.replace(suite.settings, **measuring)
    suite = dataclasses.replace(suite, settings=settings, **changes)
    if "pipeline" not in suite.scopes:
        refuse_without_effect(arguments, ["image"], "without --scope pipeline")
    return suite


def _settings(suite: Suite) -> dict[str, Any]:
    """Return the settings that a resumed suite must have in common with its results file."""
    facts = dataclasses.asdict(suite.settings)
    image = None
    if any(case.scope == "pipeline" for case in suite.cases()):
        path = photograph(suite.image)
        image = {"name": path.name, "sha256": file_sha256(path)}
    return {**facts, "image": image}


def _interrupted(done: int, count: int, output: Path | None, suite: Suite) -> str:
    if output is None:
        return "interrupted; without --output nothing is saved"
    if suite.settings.interleave:
        return f"interrupted; {done} of {count} cases are saved, the rounds must begin again"
    return (
        f"interrupted; {done} of {count} cases are saved in {output}; the same command with "
        "--resume goes on with the others"
    )


def results_table(results: Sequence[CaseResult]) -> str:
    """Return results as a table for people, with times in milliseconds."""
    several = any(result.case.streams > 1 for result in results)
    columns = (*_COLUMNS, *(["streams"] if several else []))
    lines = [(*columns, *(f"{name} ms" for name in _FIGURES), "images/s", "")]
    for result in results:
        facts = {name: getattr(result.case, name) for name in columns}
        facts["engine"] = result.case.engine_name
        cells = ["all" if fact is None else str(fact) for fact in facts.values()]
        if result.stats is None:
            cells += ["-"] * (len(_FIGURES) + 1) + [result.failure()]
        else:
            cells += [f"{getattr(result.stats, name):.3f}" for name in _FIGURES]
            cells += [f"{result.stats.throughput:.1f}", ""]
        lines.append(tuple(cells))
    return aligned(lines)
