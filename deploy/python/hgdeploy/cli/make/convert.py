# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy convert`."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.terminal import Verbs, opened_bundle, refuse_without_effect, say, warn
from hgdeploy.errors import EXIT_OK, ConfigError
from hgdeploy.system.checks import Given, check
from hgdeploy.system.kinds import one_of, parse_literal


def add_convert(verbs: Verbs) -> None:
    """Add `hgdeploy convert`."""
    parser = verbs.add_parser("convert", help="make a bundle's ONNX variants, or MNN's or ncnn's")
    parser.add_argument("bundle", type=Path, help="the model's folder")
    parser.add_argument(
        "--to", default="onnx", help="onnx (default); or mnn or ncnn, made from the ONNX file"
    )
    parser.add_argument("--opset", type=int, help="ONNX opset, 7 to 21 (17)")
    parser.add_argument("--batch", help="dynamic (default) or a fixed number")
    parser.add_argument(
        "--dynamic-size", action="store_true", default=None, help="leave height and width open"
    )
    parser.add_argument("--precision", default="fp32", help="fp32 (default), fp16 or bf16")
    parser.add_argument("--images", help="real images that show where fp16 would overflow")
    parser.add_argument("--check", default="on", help="on (default): compare with the source; off")
    parser.set_defaults(run=_convert)


def _convert(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.bundle.names import ONNX_FILE
    from hgdeploy.convert import OnnxOptions
    from hgdeploy.convert.mobile.from_onnx import TARGETS
    from hgdeploy.convert.onnx.from_paddle import recorded_options
    from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
    from hgdeploy.images.find import find_images

    check("--check", arguments.check, one_of(("on", "off")))
    check("--to", arguments.to, one_of(("onnx", *TARGETS)))
    if arguments.to != "onnx":
        return _convert_for_engine(arguments, out)
    check("--precision", arguments.precision, one_of(("fp32", "fp16", "bf16")))
    if arguments.precision == "fp32":
        refuse_without_effect(arguments, ["images"], "with --precision fp32")
    given = {name: getattr(arguments, name) for name in ("opset", "batch", "dynamic_size")}
    given = {name: value for name, value in given.items() if value is not None}
    if "batch" in given:
        given["batch"] = check("--batch", given["batch"], _batch)
    earlier = arguments.bundle / ONNX_FILE
    kept = OnnxOptions() if arguments.precision == "fp32" else recorded_options(earlier)
    options = ConvertOptions(
        dataclasses.replace(kept, **given) if given else None,
        arguments.precision,
        find_images(arguments.images, warn) if arguments.images else (),
        arguments.check == "on",
    )
    out.write(f"{convert_to_onnx(opened_bundle(arguments.bundle), options, warn, say)}\n")
    return EXIT_OK


def _convert_for_engine(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.convert.mobile.variants import convert_for_engine

    of_onnx = ("opset", "batch", "dynamic_size", "images")
    refuse_without_effect(arguments, of_onnx, f"with --to {arguments.to}")
    if arguments.precision != "fp32":
        raise ConfigError(
            f"--to {arguments.to} makes fp32; leave --precision out (docs/mobile.md has the others)"
        )
    bundle, checked = opened_bundle(arguments.bundle), arguments.check == "on"
    out.write(f"{convert_for_engine(bundle, arguments.to, warn, say, check=checked)}\n")
    return EXIT_OK


def _batch(given: Given) -> int | None:
    """Accept `dynamic`, which gives None, and numbers from 1."""
    if given.value == "dynamic":
        return None
    size = parse_literal(given.value)
    if type(size) is not int or size < 1:
        raise given.refused("dynamic or a number from 1")
    return size
