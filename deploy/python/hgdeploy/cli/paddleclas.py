# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy-paddleclas`, with the arguments of the command `paddleclas` of PaddleClas's package."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.metadata
import os
import shutil
import sys
import sysconfig
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from hgdeploy.cli.predict import run_job
from hgdeploy.cli.predict_job import config_job
from hgdeploy.cli.progress import download_progress
from hgdeploy.cli.streams import tell
from hgdeploy.cli.terminal import Command, Parser, say, warn
from hgdeploy.errors import EXIT_OK, ConfigError, OutputError
from hgdeploy.system.files import write_text, writing

_THEIRS = "paddleclas"
_MARK = "from hgdeploy.cli.main import paddleclas"
# A first line of any length and with any path, as pip writes it.
_SCRIPT = f"""\
#!/bin/sh
'''exec' "{{}}" "$0" "$@"
' '''
import sys
{_MARK}
sys.exit(paddleclas())
"""
_CMD = f'@rem {_MARK}\n@"%~dp0hgdeploy-paddleclas.exe" %*\n'


def paddleclas_command(argv: Sequence[str] | None) -> Command:
    """Parse the command line of PaddleClas's package."""
    from hgdeploy.paddleclas.arguments import ARGUMENTS, RETRIEVAL

    parser = Parser(
        prog="hgdeploy-paddleclas",
        description="Classify images, with the arguments of PaddleClas's command paddleclas.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        add_help=False,
    )
    parser.add_argument("-h", "--help", action="store_true", help="show this, and the models")
    for name in ARGUMENTS:
        parser.add_argument(f"--{name}", metavar="VALUE", help=_HELP[name])
    for name in RETRIEVAL:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    parser.add_argument(
        "-o", "--override", action="append", default=[], metavar="Section.key=value",
        help="a key of the model's config; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--install_as_paddleclas",
        action="store_true",
        help="make a command called paddleclas of this one, where PaddleClas's is not installed",
    )
    arguments = parser.parse_args(argv)
    if arguments.help:
        parser.epilog = _models()
        parser.print_help()
        parser.exit()
    if arguments.install_as_paddleclas:
        return _install
    return functools.partial(_paddleclas, arguments)


_HELP = {
    "infer_imgs": "an image, a folder of images, or the address of an image in the web",
    "model_name": "a model of the list below, which is downloaded to ~/.paddleclas",
    "predict_type": "cls, which is the default and all there is",
    "inference_model_dir": "the folder of a model, where no --model_name is given",
    "use_gpu": "true or false (default: a GPU where the engine can use one)",
    "enable_mkldnn": "use oneDNN on a CPU: true or false",
    "use_tensorrt": "use TensorRT on a GPU: true or false",
    "use_fp16": "compute in fp16: true or false",
    "gpu_mem": "MB of GPU memory for Paddle at first",
    "cpu_num_threads": "threads on a CPU",
    "batch_size": "images per inference (1)",
    "topk": "classes per image (5)",
    "class_id_map_file": "a file of labels: one `ID NAME` a line",
    "threshold": "the threshold of an output that has one",
    "color_threshold": "that of colours, of an attribute model",
    "type_threshold": "that of types, of an attribute model",
    "save_dir": "sort copies of the images into a folder for each class, in this one",
    "resize_short": "the short side of an image before the crop",
    "crop_size": "the side of the crop",
    "engine": "paddle (default), onnxruntime, openvino, tensorrt, mnn, ncnn or auto",
    "precision": "fp32 (default), tf32, fp16, bf16 or int8",
    "device": "cpu or gpu:N, instead of --use_gpu",
}


def _models() -> str:
    from hgdeploy.paddleclas.names import pulc, series

    def block(title: str, names: Sequence[str]) -> str:
        listed = " ".join(names)
        return textwrap.fill(f"{title}: {listed}", 96, subsequent_indent="  ")

    blocks = [block(name, models) for name, models in series().items()]
    return "\n".join(["models:", *blocks, block("PULC", list(pulc()))])


def _paddleclas(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.paddleclas.answers import AnswerWriter
    from hgdeploy.paddleclas.decided import decided
    from hgdeploy.paddleclas.names import fetched_image, is_address

    own = ("help", "install_as_paddleclas")
    given = {key: value for key, value in vars(arguments).items() if key not in own}
    if not arguments.infer_imgs:
        raise ConfigError("no images were given; give --infer_imgs=PATH, or an image's address")
    with download_progress() as on_bytes:
        found = decided(given, tell, on_bytes)
    for note in found.notes:
        warn(note)
    images = arguments.infer_imgs
    if is_address(images):
        images = fetched_image(images, say)
    job = config_job(found.config, None)
    lines = functools.partial(AnswerWriter, images)
    return run_job(dataclasses.replace(job, inputs=[images], lines=lines), out)


def _install(out: TextIO) -> int:
    """Write a command called `paddleclas` beside this one, and never over another."""
    name = f"{_THEIRS}.cmd" if os.name == "nt" else _THEIRS
    command = Path(sysconfig.get_path("scripts")) / name
    try:
        version = importlib.metadata.version(_THEIRS)
    except importlib.metadata.PackageNotFoundError:
        version = None
    if version is not None:
        raise ConfigError(
            f"PaddleClas's package paddleclas {version} is installed, and its command keeps the "
            "name; use hgdeploy-paddleclas, or uninstall that package first"
        )
    for other in {str(command), shutil.which(_THEIRS) or str(command)}:
        if os.path.lexists(other) and not _is_ours(Path(other)):
            raise ConfigError(
                f"{other} is another program, which keeps its name; use hgdeploy-paddleclas"
            )
    write_text(command, _CMD if os.name == "nt" else _SCRIPT.format(sys.executable))
    with writing(command):
        command.chmod(0o755)
    out.write(f"{command}\n")
    return EXIT_OK


def _is_ours(command: Path) -> bool:
    try:
        return _MARK.encode() in command.read_bytes()[:4096]
    except OSError as error:
        raise OutputError(f"{command} cannot be read: {error.strerror or error}") from None
