# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy quantize`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.terminal import Verbs, opened_bundle, say, warn
from hgdeploy.errors import EXIT_OK


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
        "--min-agreement", type=float, default=0.99, help="agreement with fp32 to reach (0.99)"
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
    from hgdeploy.convert.int8.options import QuantizeOptions
    from hgdeploy.convert.int8.variants import quantize
    from hgdeploy.images.find import find_images

    options = QuantizeOptions(
        images=arguments.images,
        method=arguments.method,
        min_agreement=arguments.min_agreement,
        activations=arguments.activations,
    )
    if arguments.weight_bits is not None:
        options = dataclasses.replace(options, weight_bits=arguments.weight_bits)
    images = find_images(arguments.calibration, warn)
    report = quantize(opened_bundle(arguments.bundle), images, options, say, warn)
    out.write(f"{report.path}\n")
    return EXIT_OK
