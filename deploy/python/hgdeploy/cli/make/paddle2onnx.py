# SPDX-License-Identifier: Apache-2.0
"""`convert.py`: paddle2onnx's command line for HGDeploy's conversion."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.bundle.model_files import files_of_models
from hgdeploy.bundle.names import PADDLE_PARAMS, PADDLE_PROGRAMS
from hgdeploy.cli.terminal import Command, Parser, say, warn
from hgdeploy.convert.onnx.from_paddle import OnnxOptions, onnx_from_paddle, onnx_notes
from hgdeploy.errors import EXIT_OK, ConfigError, HGDeployError
from hgdeploy.results.outputs import check_apart
from hgdeploy.system.files import writing
from hgdeploy.validation.verify import verify_conversion

_HARMLESS = ("False", "None", "{}", "")
# Flags that paddle2onnx has or had, and what HGDeploy does instead. Without the first the result is
# what the user wants; without the others it would be something else.
_NO_EFFECT = {
    "deploy_backend": "the ONNX file is the same for every backend",
    "external_filename": "weights above 2 GB go into SAVE_FILE.data, all others into the ONNX file",
    "enable_dev_version": "paddle2onnx has only one version left",
    "enable_verbose": "errors are reported on one line",
    "enable_optimization": "the graph is always folded, and the sidecar says how",
    "optimize_tool": "the graph is folded with onnxslim, and nothing is installed at run time",
}
_REFUSED = {
    "export_fp16_model": "paddle2onnx ignores it; use hgdeploy convert BUNDLE --precision fp16",
    "input_shape_dict": "paddle2onnx dropped it; use hgdeploy convert BUNDLE --batch N",
    "save_calibration_file": "use hgdeploy quantize BUNDLE --calibration FOLDER",
    "custom_ops": "HGDeploy's engines have no custom operators",
    "enable_dist_prim_all": "HGDeploy converts operators whole",
}


def paddle2onnx_command(argv: Sequence[str] | None) -> Command:
    """Parse the command line of `deploy/paddle2onnx/convert.py`, which is paddle2onnx's own."""
    parser = Parser(prog="convert.py", description="Convert with paddle2onnx's arguments.")
    _add_arguments(parser)
    return functools.partial(_convert, parser.parse_args(argv))


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add paddle2onnx's flags, under its names and short names."""
    parser.add_argument("--model_dir", "-m", type=Path, required=True, help="the model's folder")
    parser.add_argument(
        "--model_filename", "-mf", help="program in it (inference.json or inference.pdmodel)"
    )
    parser.add_argument(
        "--params_filename", "-pf", help="parameters in it (the program's name, .pdiparams)"
    )
    parser.add_argument("--save_file", "-s", type=Path, required=True, help="the ONNX file")
    parser.add_argument("--opset_version", "-ov", type=int, default=17, help="ONNX opset (17)")
    parser.add_argument(
        "--enable_auto_update_opset",
        type=_true_or_false,
        default=True,
        help="True (default): raise the opset where the model needs it; False: fail instead",
    )
    parser.add_argument(
        "--enable_onnx_checker",
        type=_true_or_false,
        default=True,
        help="True (default): also compare the result with Paddle; ONNX's rules are always checked",
    )
    for flag in (*_NO_EFFECT, *_REFUSED):
        parser.add_argument(f"--{flag}", help=argparse.SUPPRESS)


def _convert(arguments: argparse.Namespace, out: TextIO) -> int:
    """Convert as the flags say, and print the ONNX file's path.

    Args:
        arguments: the parsed flags.
        out: the stream for the path.

    Returns:
        The exit code 0.

    Raises:
        ConfigError: a flag is not supported, or a value is wrong.
        HGDeployError: as `onnx_from_paddle`.
    """
    for flag, reason in _REFUSED.items():
        value = getattr(arguments, flag)
        if value is not None and value not in _HARMLESS:
            raise ConfigError(f"--{flag} is not supported: {reason}")
    for flag, reason in _NO_EFFECT.items():
        if getattr(arguments, flag) is not None:
            warn(f"--{flag} has no effect: {reason}")
    options = OnnxOptions(
        opset=arguments.opset_version, exact_opset=not arguments.enable_auto_update_opset
    )
    names = arguments.model_filename, arguments.params_filename
    with _bundle(arguments.model_dir, *names) as bundle:
        own = (path for path in files_of_models(bundle.root) if ".onnx" not in path.suffixes)
        read = [("a file of the model", path) for path in own]
        check_apart({"--save_file": [arguments.save_file]}, read)
        verify = functools.partial(verify_conversion, output_name=bundle.output_name)
        check = verify if arguments.enable_onnx_checker else None
        target = arguments.save_file
        artifact = onnx_from_paddle(bundle, options, target, verify=check, on_progress=say)
    for note in onnx_notes(artifact):
        warn(note)
    out.write(f"{artifact}\n")
    return EXIT_OK


def _true_or_false(text: str) -> bool:
    if text not in ("True", "False"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")
    return text == "True"


@contextlib.contextmanager
def _bundle(folder: Path, model: str | None, params: str | None) -> Iterator[ModelBundle]:
    """Open the model's folder as a bundle; link files with other names under a bundle's names.

    Raises:
        BundleError: the folder or a file in it does not exist.
    """
    bundle = open_bundle(folder)
    program = bundle.find([model] if model else PADDLE_PROGRAMS)
    weights = bundle.find([params or program.with_suffix(".pdiparams").name])
    if (
        program == bundle.find([*PADDLE_PROGRAMS, program.name])
        and weights == bundle.root / PADDLE_PARAMS
    ):
        yield bundle
        return
    # Any other name than .json is Paddle 2's format: .pdmodel, or __model__ before it.
    name = PADDLE_PROGRAMS[0 if program.suffix == ".json" else 1]
    with tempfile.TemporaryDirectory(prefix="hgdeploy-names-") as scratch:
        root = Path(scratch)
        names = {root / name: program, root / PADDLE_PARAMS: weights}
        for new, path in names.items():
            _link(path, new)
        try:
            yield dataclasses.replace(bundle, root=root)
        except HGDeployError as error:
            text = str(error)
            for new, path in names.items():
                text = text.replace(str(new), str(path))
            raise type(error)(text) from error


def _link(path: Path, new: Path) -> None:
    try:
        new.symlink_to(path.resolve())
    except (OSError, NotImplementedError):  # Windows lets only some users make links
        with writing(new):
            shutil.copyfile(path, new)
