# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy benchmark report` and `hgdeploy benchmark compare`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from hgdeploy.benchmark.report.compare import as_markdown as comparison_as_markdown
from hgdeploy.benchmark.report.compare import compare_files, raise_where_slower
from hgdeploy.benchmark.report.formats import as_csv, as_html, as_markdown
from hgdeploy.benchmark.report.results import Results, read_all, read_measured
from hgdeploy.cli.terminal import refuse_without_effect
from hgdeploy.errors import EXIT_OK, ConfigError, OutputError
from hgdeploy.results.outputs import check_apart
from hgdeploy.system.checks import check
from hgdeploy.system.files import replacing
from hgdeploy.system.kinds import number, one_of

FORMATS = ("md", "csv", "html", "png")
_FIGURES = ("accuracy", "distribution")


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `benchmark report`."""
    parser.add_argument("results", nargs="+", type=Path, help="JSON files of hgdeploy benchmark")
    parser.add_argument(
        "--format", help="md, csv, html or png (default: by the suffix of --output, else md)"
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="file to write (default: stdout); png writes NAME-accuracy.png, NAME-distribution.png",
    )
    parser.add_argument(
        "--mix-environments",
        action="store_true",
        help="show results of different machines or libraries together, marked not comparable",
    )
    parser.add_argument(
        "--no-plots", action="store_true", help="leave the plots out of html: no matplotlib needed"
    )


def run_report(arguments: argparse.Namespace, out: TextIO) -> int:
    """Write a report to `out`; or to an output file, and the paths of the files to `out`.

    Raises:
        ConfigError: an argument or results file is wrong.
        EngineError: plots are asked for, but matplotlib is not installed.
        OutputError: a file cannot be written.
    """
    output: Path | None = arguments.output
    form = _format(arguments.format, output)
    if form != "html":
        refuse_without_effect(arguments, ["no_plots"], f"with --format {form}")
    if output is not None and not output.absolute().parent.is_dir():
        raise OutputError(f"--output {output}: its folder does not exist")
    if output is not None:
        read = [("a results file of this report", path) for path in arguments.results]
        check_apart({"--output": [output]}, read)
    results = read_all(arguments.results, arguments.mix_environments)
    if form == "png":
        _write(_png_files(results, output), out)
        return EXIT_OK
    if form == "html":
        text = as_html(results, () if arguments.no_plots else _svg_figures(results))
    else:
        text = as_csv(results) if form == "csv" else as_markdown(results)
    if output is None:
        out.write(text)
    else:
        _write({output: text.encode()}, out)
    return EXIT_OK


def _format(asked: str | None, output: Path | None) -> str:
    """Return the format: the one asked for, or that of the output's suffix; both must agree."""
    suffix = "" if output is None else output.suffix.lstrip(".").lower()
    form = asked or suffix or "md"
    check("--format" if asked else "format of --output", form, one_of(FORMATS))
    if suffix and suffix != form:
        raise ConfigError(f"--output {output} does not fit --format {form}, expected .{form}")
    if form == "png" and output is None:
        raise ConfigError("--format png needs --output NAME.png")
    return form


def _svg_figures(results: Results) -> list[tuple[str, str]]:
    from hgdeploy.benchmark.report import plot

    if not any(case.result.stats for case in results.cases()):
        return []
    return [
        ("Accuracy against latency", plot.as_svg(plot.accuracy_figure(results))),
        ("How the latencies are spread", plot.as_svg(plot.distribution_figure(results))),
    ]


def _png_files(results: Results, output: Path | None) -> dict[Path, bytes]:
    from hgdeploy.benchmark.report import plot

    stem = Path() if output is None else output.with_suffix("")
    figures = (plot.accuracy_figure(results), plot.distribution_figure(results))
    return {
        stem.with_name(f"{stem.name}-{name}.png"): plot.as_png(figure)
        for name, figure in zip(_FIGURES, figures, strict=True)
    }


def _write(files: Mapping[Path, bytes], out: TextIO) -> None:
    for path, data in files.items():
        with replacing(path) as stream:
            stream.write(data)
        out.write(f"{path}\n")


def add_compare_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `benchmark compare`."""
    parser.add_argument("a", metavar="A.json", type=Path, help="the results before")
    parser.add_argument("b", metavar="B.json", type=Path, help="the results after")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.05,
        help="relative difference that counts (0.05); two runs of the same may differ that much",
    )
    parser.add_argument(
        "--mix-environments",
        action="store_true",
        help="compare results of different machines or libraries anyway",
    )


def run_compare(arguments: argparse.Namespace, out: TextIO) -> int:
    """Write a comparison to `out`.

    Raises:
        ConfigError: an argument or results file is wrong.
        ValidationError: a case became slower than the threshold allows, or stopped running.
    """
    threshold = check("--threshold", arguments.threshold, number(0), hint="0.05 is 5 %")
    comparison = compare_files(
        read_measured(arguments.a),
        read_measured(arguments.b),
        threshold,
        arguments.mix_environments,
    )
    out.write(comparison_as_markdown(comparison))
    raise_where_slower(comparison)
    return EXIT_OK
