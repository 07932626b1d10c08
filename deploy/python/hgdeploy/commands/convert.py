# SPDX-License-Identifier: Apache-2.0
"""Make variants of a bundle: `hgdeploy convert`, `quantize`, and paddle2onnx's command line."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from hgdeploy.commands.common import Command, Parser, Verbs, say, warn
from hgdeploy.errors import EXIT_OK, ConfigError, nearest


def add_convert(verbs: Verbs) -> None:
    """Add `hgdeploy convert`."""
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
    from hgdeploy.bundle.model_bundle import open_bundle
    from hgdeploy.convert import OnnxOptions
    from hgdeploy.convert.variants import ConvertRequest, converted
    from hgdeploy.images.find import find_images

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
    out.write(f"{converted(open_bundle(arguments.bundle), request, warn)}\n")
    return EXIT_OK


def add_quantize(verbs: Verbs) -> None:
    """Add `hgdeploy quantize`."""
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
    parser.add_argument(
        "--weight-bits",
        type=int,
        help="8, or 7 for CPUs without VNNI too (default: 8 where this CPU has it)",
    )
    parser.set_defaults(run=_quantize)


def _quantize(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.bundle.model_bundle import open_bundle
    from hgdeploy.convert.int8.options import QuantizeOptions
    from hgdeploy.convert.variants import quantized
    from hgdeploy.images.find import find_images

    options = QuantizeOptions(
        images=arguments.images,
        method=arguments.method,
        min_agreement=arguments.min_agreement,
        activations=arguments.activations,
    )
    if arguments.weight_bits is not None:
        options = dataclasses.replace(options, weight_bits=arguments.weight_bits)
    images = find_images(arguments.calibration)
    report = quantized(open_bundle(arguments.bundle), images, options, progress=say, warn=warn)
    for reason in report.skipped:
        warn(reason)
    say(f"chosen: {report.chosen}, on {report.held_out_images} held-out images")
    out.write(f"{report.path}\n")
    return EXIT_OK


def paddle2onnx_command(argv: Sequence[str] | None) -> Command:
    """Parse the command line of `deploy/paddle2onnx/convert.py`, which is paddle2onnx's."""
    from hgdeploy.convert import command
    from hgdeploy.validation.verify import verify_conversion

    parser = Parser(prog="convert.py", description="Convert with paddle2onnx's arguments.")
    command.add_arguments(parser)
    arguments = parser.parse_args(argv)
    return lambda out: command.run(arguments, out, verify_conversion, warn)
