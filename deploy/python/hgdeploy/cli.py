# SPDX-License-Identifier: Apache-2.0
"""The commands: thin shells over the Python API.

stdout carries results only; progress, warnings, errors and whatever native libraries print go to
stderr.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from hgdeploy._version import __version__
from hgdeploy.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    ConfigError,
    HGDeployError,
    OutputError,
    ValidationError,
    nearest,
)

_PROGRESS_SECONDS = 5.0

if TYPE_CHECKING:
    from hgdeploy.classifier import Classifier
    from hgdeploy.folder import Summary
    from hgdeploy.results import Writer


class _Parser(argparse.ArgumentParser):
    """Raises our one-line error instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message} (see {self.prog} --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `hgdeploy` command.

    Args:
        argv: its arguments; None for the process's own.

    Returns:
        The exit code; see `hgdeploy.errors`.
    """
    return _run(lambda out: _hgdeploy(argv, out))


def predict_cls(argv: Sequence[str] | None = None) -> int:
    """Run `predict_cls.py`, with PaddleClas's arguments; see `main`."""
    return _run(lambda out: _predict_cls(argv, out))


def paddle2onnx(argv: Sequence[str] | None = None) -> int:
    """Run `deploy/paddle2onnx/convert.py`, with paddle2onnx's arguments; see `main`."""
    return _run(lambda out: _paddle2onnx(argv, out))


def _paddle2onnx(argv: Sequence[str] | None, out: TextIO) -> int:
    from hgdeploy.convert import command
    from hgdeploy.validate import verify_conversion

    parser = _Parser(prog="convert.py", description="Convert with paddle2onnx's arguments.")
    command.add_arguments(parser)
    return command.run(parser.parse_args(argv), out, verify_conversion, _warn)


def _run(command: Callable[[TextIO], int]) -> int:
    """Run a command with stdout to itself; turn errors into one line and an exit code."""
    try:
        with _own_stdout() as out:
            return command(out)
    except HGDeployError as error:
        _say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        return EXIT_OK


@contextlib.contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Yield a stream to the real stdout and point file descriptor 1 at stderr meanwhile.

    Paddle's C++ kernels print to stdout; without this their chatter would stand between the lines
    that scripts parse.
    """
    sys.stdout.flush()
    try:
        mine = sys.stdout.fileno() == 1
    except (OSError, ValueError):
        mine = False
    if not mine:  # a test or a notebook has put something else in stdout's place
        yield sys.stdout
        return
    saved = os.dup(1)
    os.dup2(2, 1)
    encoding = sys.stdout.encoding
    try:
        with open(
            saved, "w", encoding=encoding, errors="backslashreplace", closefd=False
        ) as stream:
            yield stream
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def _say(text: str) -> None:
    """Print one line to stderr under our name."""
    sys.stderr.write(f"hgdeploy: {text}\n")
    sys.stderr.flush()


def _warn(text: str) -> None:
    _say(f"warning: {text}")


def _hgdeploy(argv: Sequence[str] | None, out: TextIO) -> int:
    parser = _Parser(prog="hgdeploy", description="Deploy a PaddleClas-style classifier.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in (
        _add_predict,
        _add_export,
        _add_models,
        _add_convert,
        _add_quantize,
        _add_validate,
        _add_explain,
        _add_doctor,
    ):
        add(verbs)
    arguments = parser.parse_args(argv)
    code: int = arguments.run(arguments, out)
    return code


Verbs = argparse._SubParsersAction  # argparse has no public name for what add_subparsers returns


def _add_predict(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("predict", help="classify images with a bundle")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="file, folder, glob or text list"
    )
    parser.add_argument(
        "--engine", default="paddle", help="paddle (default), onnxruntime or openvino"
    )
    parser.add_argument("--precision", default="fp32", help="fp32 (default), fp16, bf16 or int8")
    parser.add_argument("--device", default="cpu", help="cpu (default) or gpu:N")
    parser.add_argument("--batch-size", type=int, default=1, help="images an inference takes (1)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all this process has)")
    parser.add_argument("--topk", type=int, help="classes to give (default: what the bundle says)")
    parser.add_argument(
        "--output", type=Path, help="write a .jsonl, .csv or .parquet file instead of lines"
    )
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.classifier import Classifier, ClassifierSettings
    from hgdeploy.config import EngineOptions
    from hgdeploy.results import LineWriter, open_writer

    settings = ClassifierSettings(
        engine=arguments.engine,
        batch_size=arguments.batch_size,
        options=EngineOptions(
            device=arguments.device,
            precision=arguments.precision,
            threads=arguments.threads,
            max_batch=arguments.batch_size,
        ),
        topk=arguments.topk,
    )

    def open_results() -> Writer:
        return LineWriter(out) if arguments.output is None else open_writer(arguments.output)

    def load() -> Classifier:
        return Classifier.from_settings(arguments.bundle, settings)

    return _classify(arguments.inputs, open_results, load, lambda _: None)


def _predict_cls(argv: Sequence[str] | None, out: TextIO) -> int:
    parser = _Parser(
        prog="predict_cls.py", description="Classify images, with PaddleClas's arguments."
    )
    parser.add_argument("-c", "--config", type=Path, help="PaddleClas YAML; see deploy/configs/")
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="Section.key=value"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="print what will be done")
    arguments = parser.parse_args(argv)
    from hgdeploy.classifier import Classifier, ClassifierSettings
    from hgdeploy.config import load_config
    from hgdeploy.results import LineWriter

    config = load_config(arguments.config, arguments.override)
    for warning in config.warnings:
        _warn(warning)
    if arguments.verbose:
        _say(str(config))
    settings = ClassifierSettings(
        config.engine, config.batch_size, config.options, config.preprocess, config.postprocess
    )

    def timing(classifier: Classifier) -> None:
        if config.benchmark:
            _report_times(classifier, config.benchmark_log)

    return _classify(
        config.inputs,
        lambda: LineWriter(out),
        lambda: Classifier.from_settings(config.bundle, settings),
        timing,
    )


def _classify(
    inputs: Sequence[str],
    open_results: Callable[[], Writer],
    load: Callable[[], Classifier],
    finish: Callable[[Classifier], None],
) -> int:
    """Find, open the output, load, classify, account: in the order in which mistakes are cheap."""
    from hgdeploy.folder import Summary, classify_files
    from hgdeploy.images import find_images

    files = find_images(inputs)
    summary = Summary(found=len(files))
    with contextlib.closing(open_results()) as writer, load() as classifier:
        for warning in classifier.warnings:
            _warn(warning)
        try:
            classify_files(classifier, files, [writer], _warn, summary)
            finish(classifier)
        except KeyboardInterrupt:
            _say(f"interrupted: {_so_far(summary)}")
            return EXIT_INTERRUPTED
    _say(summary.text())
    return summary.exit_code


def _so_far(summary: Summary) -> str:
    done = summary.classified + summary.failed
    return f"{done} of {summary.found} images are done and their results are written"


def _report_times(classifier: Classifier, log: Path | None) -> None:
    """Tell the mean time of each stage, and what really ran."""
    times, runtime = classifier.times, classifier.engine.runtime
    stages = {
        name: 1000 * getattr(times, name) / max(times.images, 1)
        for name in ("decode", "preprocess", "infer", "postprocess")
    }
    told = ", ".join(f"{name} {value:.2f} ms" for name, value in stages.items())
    ran = f"{runtime.engine} {runtime.version} {runtime.precision} on {runtime.device}"
    line = (
        f"benchmark: {times.images} images, mean per image: {told}; "
        f"{ran} ({', '.join(runtime.providers)})"
    )
    _say(line)
    if log is not None:
        try:
            with log.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            raise OutputError(f"Global.save_log_path {log}: {error.strerror}") from None


def _add_export(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("export", help="write a bundle from a zoo model and its weights")
    parser.add_argument("name", metavar="NAME", help="a model of the zoo; see hgdeploy models")
    parser.add_argument("--weights", required=True, help=".pdparams or .pth file, or 'none'")
    parser.add_argument("--output", type=Path, required=True, help="the bundle's folder")
    parser.add_argument(
        "--num-classes", type=int, default=1000, help="classes of the weights (1000)"
    )
    parser.add_argument("--labels", type=Path, help="label file, one 'ID NAME' a line")
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.export import bundle_from_weights
    from hgdeploy.postprocess import read_labels

    labels = None
    if arguments.labels is not None:
        named = read_labels(arguments.labels)
        if set(named) != set(range(arguments.num_classes)):
            raise ConfigError(
                f"--labels {arguments.labels} names {len(named)} classes, expected ids 0 to "
                f"{arguments.num_classes - 1}; check --num-classes"
            )
        labels = [named[i] for i in range(arguments.num_classes)]
    bundle = bundle_from_weights(
        arguments.name,
        None if arguments.weights == "none" else Path(arguments.weights),
        arguments.output,
        num_classes=arguments.num_classes,
        labels=labels,
    )
    out.write(f"{bundle}\n")
    return EXIT_OK


def _add_models(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("models", help="list the zoo, or download a model")
    parser.set_defaults(run=_models)
    actions = parser.add_subparsers(metavar="ACTION")
    download = actions.add_parser("download", help="fetch a model and make it a bundle")
    download.add_argument("name", metavar="NAME", help="a model of the zoo")
    download.add_argument(
        "--output", type=Path, default=Path("deploy/models"), help="parent folder (deploy/models)"
    )
    download.add_argument("--url", help="base URL of a mirror, instead of the official one")
    download.set_defaults(run=_download)


def _models(_: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy import zoo

    def shown(value: object) -> str:
        return "-" if value is None else str(value)

    head = ("model", "params M", "GMAC", "top-1", "top-5", "preprocessing", "archive", "weights")
    rows: list[tuple[str, ...]] = [head]
    for name in zoo.names():
        info = zoo.info(name)
        figures = (info.params_m, info.macs_g, info.top1, info.top5)
        package = f"package {info.package.name}=={info.package.version}" if info.package else None
        sources = (info.inference_url or package, info.weights_url or package)
        rows.append((name, *map(shown, figures), info.describe_preprocess(), *map(shown, sources)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        out.write("  ".join(cells).rstrip() + "\n")
    return EXIT_OK


def _download(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.export import download_model

    bundle = download_model(arguments.name, arguments.output, base_url=arguments.url, progress=True)
    out.write(f"{bundle}\n")
    return EXIT_OK


def _add_convert(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("convert", help="make the ONNX variant of a bundle")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument("--opset", type=int, default=17, help="ONNX opset, 7 to 21 (17)")
    parser.add_argument("--batch", default="dynamic", help="dynamic (default) or a fixed number")
    parser.add_argument("--dynamic-size", action="store_true", help="leave height and width open")
    parser.add_argument("--precision", default="fp32", help="fp32 (default), fp16 or bf16")
    parser.add_argument("--images", help="real images that show where fp16 would overflow")
    parser.add_argument("--check", default="on", help="on (default): compare with the source; off")
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.bundle import open_bundle
    from hgdeploy.convert import OnnxOptions
    from hgdeploy.images import find_images
    from hgdeploy.variants import ConvertRequest, converted

    for flag, allowed in (("check", ("on", "off")), ("precision", ("fp32", "fp16", "bf16"))):
        value = getattr(arguments, flag)
        if value not in allowed:
            raise ConfigError(f"--{flag} {value!r}, {nearest(value, allowed)}")
    if arguments.batch != "dynamic" and not arguments.batch.isdecimal():
        raise ConfigError(f"--batch {arguments.batch!r}, expected dynamic or a number from 1")
    request = ConvertRequest(
        OnnxOptions(
            opset=arguments.opset,
            batch=None if arguments.batch == "dynamic" else int(arguments.batch),
            dynamic_size=arguments.dynamic_size,
        ),
        arguments.precision,
        find_images(arguments.images) if arguments.images else (),
        arguments.check == "on",
    )
    out.write(f"{converted(open_bundle(arguments.bundle), request, _warn)}\n")
    return EXIT_OK


def _add_quantize(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("quantize", help="make the INT8 variant of a bundle")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument("--calibration", required=True, help="real images: folder, glob or list")
    parser.add_argument("--images", type=int, default=256, help="how many of them to use (256)")
    parser.add_argument(
        "--method", default="auto", help="auto (default), minmax, percentile or entropy"
    )
    parser.add_argument(
        "--min-agreement", type=float, default=0.99, help="top-1 share that must hold (0.99)"
    )
    parser.add_argument(
        "--activations",
        default="int8",
        help="int8 (default: ONNX Runtime, OpenVINO, TensorRT), or uint8 (faster in ONNX Runtime)",
    )
    parser.set_defaults(run=_quantize)


def _quantize(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.bundle import open_bundle
    from hgdeploy.convert.quantize import QuantizeOptions
    from hgdeploy.images import find_images
    from hgdeploy.variants import quantized

    options = QuantizeOptions(
        images=arguments.images,
        method=arguments.method,
        min_agreement=arguments.min_agreement,
        activations=arguments.activations,
    )
    images = find_images(arguments.calibration)
    report = quantized(open_bundle(arguments.bundle), images, options, progress=_say, warn=_warn)
    for reason in report.skipped:
        _warn(reason)
    _say(f"chosen: {report.chosen}, on {report.held_out_images} held-out images")
    out.write(f"{report.path}\n")
    return EXIT_OK


def _add_validate(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("validate", help="compare engines and precisions on the same inputs")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument(
        "--engines",
        default="paddle,onnxruntime",
        help="comma-separated ENGINE[:PRECISION]; the first is the reference",
    )
    parser.add_argument("--precision", default="fp32", help="of the engines after the first (fp32)")
    parser.add_argument("--images", help="folder, glob or list of real images")
    parser.add_argument("--labels", type=Path, help="'PATH LABEL' list, or the folder of --images")
    parser.add_argument("--random", type=int, default=16, help="random inputs besides (16)")
    parser.add_argument("--batch-size", type=int, default=8, help="rows an inference takes (8)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all this process has)")
    parser.add_argument("--report", type=Path, help="write a .json, .md or .html report")
    parser.add_argument(
        "--bisect", action="store_true", help="name the first layer where a failed pair parts"
    )
    parser.set_defaults(run=_validate)


def _validate(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.bundle import open_bundle
    from hgdeploy.divergence import bisect_failures
    from hgdeploy.images import find_images
    from hgdeploy.validate import ValidateOptions, parse_runs, read_image_labels, validate
    from hgdeploy.validate_report import as_markdown, check_report_path, write_report

    runs = parse_runs(arguments.engines, arguments.precision)
    if arguments.report is not None:
        check_report_path(arguments.report)
    bundle = open_bundle(arguments.bundle)
    labels = None
    if arguments.labels is not None:
        if arguments.images is None:
            raise ConfigError("--labels needs --images, the folder its paths count from")
        names = bundle.postprocess.output.labels if bundle.postprocess is not None else None
        images, labels = read_image_labels(arguments.labels, Path(arguments.images), names)
    else:
        images = tuple(find_images(arguments.images)) if arguments.images else ()
    options = ValidateOptions(
        runs,
        images,
        labels,
        random_rows=arguments.random,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
    )
    report = validate(bundle, options, _progress())
    for name, reason in report.failed:
        _warn(f"{name}: {reason}")
    if arguments.report is not None:
        write_report(report, arguments.report)
    out.write(as_markdown(report))
    if arguments.bisect:
        for line in bisect_failures(bundle, options, report):
            out.write(f"{line}\n")
    if not report.passed:
        missed = [p for p in report.pairs if p.misses]
        first = missed[0]
        raise ValidationError(
            f"{len(missed)} of {len(report.pairs)} comparisons are out of tolerance; "
            f"{first.reference} / {first.candidate} on {first.inputs}: {'; '.join(first.misses)}"
        )
    return EXIT_OK


def _add_explain(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("explain", help="tell which stage makes two runs differ on an image")
    parser.add_argument("image", type=Path, help="an image file")
    for side in ("a", "b"):
        parser.add_argument(
            side, metavar=side.upper(), help="a PaddleClas config, or BUNDLE[@ENGINE[:PRECISION]]"
        )
    parser.set_defaults(run=_explain)


def _explain(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.explain import explain, parse_side

    sides = parse_side(arguments.a), parse_side(arguments.b)
    out.write(explain(arguments.image, *sides).text())
    return EXIT_OK


def _progress() -> Callable[[str], None]:
    """Return a function that says where a long work is, at most every few seconds."""
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_SECONDS:
            last = time.monotonic()
            _say(text)

    return tell


def _add_doctor(verbs: Verbs[_Parser]) -> None:
    parser = verbs.add_parser("doctor", help="tell what this machine can run, and why not more")
    parser.set_defaults(run=_doctor)


def _doctor(_: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.doctor import report

    out.write(report())
    return EXIT_OK
