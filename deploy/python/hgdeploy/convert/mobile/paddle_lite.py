# SPDX-License-Identifier: Apache-2.0
"""From a Paddle 2 program to Paddle-Lite's format, by Paddle-Lite's own program.

Its package has had no release since 2.13rc0 of March 2023, which has wheels for Python up to 3.10,
so its program may come from another environment.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import PADDLE_PARAMS, PADDLE_PROGRAMS
from hgdeploy.convert.mobile.from_onnx import run_converter
from hgdeploy.errors import BundleError, EngineError

_PROGRAM = "paddle_lite_opt"
_PIR, _PADDLE_2 = PADDLE_PROGRAMS
LITE_FILE = "inference.nb"


def paddle_lite_source(bundle: ModelBundle) -> Path:
    """Return the program that Paddle-Lite can read.

    Raises:
        BundleError: the bundle has none.
    """
    if bundle.file is None and (bundle.root / _PIR).is_file():
        raise BundleError(
            f"{bundle.root / _PIR} is Paddle 3's format, which Paddle-Lite cannot read; export the "
            f"model as {_PADDLE_2} (FLAGS_enable_pir_api=0 in Paddle 3), or use --to ncnn or mnn"
        )
    return bundle.find([_PADDLE_2])


def check_paddle_lite(source: Path) -> str:
    """Return the path of Paddle-Lite's program: that of this environment, or the one on PATH.

    Args:
        source: the program of the bundle, for the error.

    Raises:
        EngineError: it is not installed; with the command that would be run.
    """
    beside = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    found = shutil.which(_PROGRAM, path=beside)
    if found is None:
        command = " ".join((_PROGRAM, *_options(source, source.with_suffix(""))))
        raise EngineError(
            f"{_PROGRAM} is not installed; its package paddlelite==2.13rc0 has wheels for Python "
            f"up to 3.10: install it in an environment of such a Python, and put {_PROGRAM} on "
            f"PATH, or run there: {command}"
        )
    return found


def write_paddle_lite(source: Path, aside: Path) -> None:
    """Write Paddle-Lite's form of a program, for the CPUs of phones, in fp32.

    Args:
        source: the program, with its parameters beside it.
        aside: where the file goes.

    Raises:
        BundleError: Paddle-Lite cannot convert it.
        EngineError: Paddle-Lite is missing.
    """
    program = check_paddle_lite(source)
    first, *options = _options(source.absolute(), aside.absolute().with_suffix(""))
    request = {"do": "program", "program": program, "source": first, "options": options}
    run_converter(request, _PROGRAM, source, aside.parent, aside)


def _options(source: Path, target: Path) -> list[str]:
    """Return the program's options; it adds `.nb` to the target itself."""
    return [
        f"--model_file={source}",
        f"--param_file={source.with_name(PADDLE_PARAMS)}",
        "--valid_targets=arm",
        "--optimize_out_type=naive_buffer",
        f"--optimize_out={target}",
    ]
