# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy validate`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.engine_flags import add_host_code_flag, host_code_options
from hgdeploy.cli.progress import occasional_lines
from hgdeploy.cli.terminal import Verbs, opened_model, refuse_without_effect, say, warn
from hgdeploy.errors import EXIT_OK, ConfigError, ValidationError

if TYPE_CHECKING:
    from hgdeploy.images.find import ImageFile


def add_validate(verbs: Verbs) -> None:
    """Add `hgdeploy validate`."""
    parser = verbs.add_parser("validate", help="compare engines and precisions on the same inputs")
    parser.add_argument(
        "bundle", type=Path, help="the model's folder, or a file: .onnx, .engine or .plan"
    )
    parser.add_argument(
        "--engines",
        default="paddle,onnxruntime",
        help="comma-separated ENGINE[:PRECISION][@gpu:N]; the first is the reference; auto "
        "is what hgdeploy tune found",
    )
    parser.add_argument("--precision", help="precision of the engines after the first (fp32)")
    parser.add_argument("--images", help="folder, glob or list of real images")
    parser.add_argument("--labels", type=Path, help="'PATH LABEL' list, or the folder of --images")
    parser.add_argument("--random", type=int, default=16, help="number of random inputs (16)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows per inference (8)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all this process has)")
    parser.add_argument("--report", type=Path, help="write a .json, .md or .html report")
    parser.add_argument(
        "--bisect", action="store_true", help="name the first layer where a failed pair differs"
    )
    add_host_code_flag(parser)
    parser.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.engines.auto.choose import name_auto
    from hgdeploy.engines.run import parse_runs
    from hgdeploy.images.find import find_images
    from hgdeploy.images.labelled import read_labelled_images
    from hgdeploy.validation.divergence import bisect_failures
    from hgdeploy.validation.report import as_markdown, check_report_path, write_report
    from hgdeploy.validation.validate import ValidateOptions, validate

    if arguments.report is not None:
        check_report_path(arguments.report)
    bundle = opened_model(arguments.bundle)
    engines = [name_auto(bundle.place, text, say) for text in arguments.engines.split(",")]
    if all(":" in text.partition("@")[0] for text in engines[1:]):
        where = "unless an engine after the first names no precision of its own"
        refuse_without_effect(arguments, ["precision"], where)
    runs = parse_runs(",".join(engines), arguments.precision or "fp32")
    labels = None
    if arguments.labels is not None:
        if arguments.images is None:
            raise ConfigError("--labels needs --images, the folder that its paths are relative to")
        root = Path(arguments.images)
        images, labels = read_labelled_images(arguments.labels, root, bundle.labels, warn)
    else:
        images = tuple(find_images(arguments.images, warn)) if arguments.images else ()
    if arguments.report is not None:
        _check_report_is_not_read(arguments, images)
    options = ValidateOptions(
        runs,
        images,
        labels,
        random_rows=arguments.random,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
        own=host_code_options(arguments, *(run.engine for run in runs)),
    )
    say(f"comparing {', '.join(run.name for run in runs)} on {len(images)} images")
    report = validate(bundle, options, occasional_lines(), warn)
    for name, reason in report.failed:
        warn(f"{name}: {reason}")
    if arguments.report is not None:
        write_report(report, arguments.report)
    out.write(as_markdown(report))
    if arguments.bisect:
        for line in bisect_failures(bundle, options, report):
            out.write(f"{line}\n")
    if not report.passed:
        missed = [pair for pair in report.pairs if pair.misses]
        first = missed[0]
        raise ValidationError(
            f"{len(missed)} of {len(report.pairs)} comparisons are out of tolerance; "
            f"{first.reference} / {first.candidate} on {first.inputs}: {'; '.join(first.misses)}"
        )
    return EXIT_OK


def _check_report_is_not_read(arguments: argparse.Namespace, images: Sequence[ImageFile]) -> None:
    from hgdeploy.bundle.model_files import files_of_models
    from hgdeploy.results.outputs import check_apart

    given = (arguments.images, arguments.labels)
    read = [("an input", path) for path in given if path is not None]
    read += [("an image of this run", image.place) for image in images]
    read += [("a file of the model", path) for path in files_of_models(arguments.bundle)]
    check_apart({"--report": [arguments.report]}, read)
