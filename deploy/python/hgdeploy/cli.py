# SPDX-License-Identifier: Apache-2.0
"""The command lines: what they share, and where each verb is found.

stdout carries results only; progress, warnings, errors and whatever native libraries print go to
stderr.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TextIO

from hgdeploy._version import __version__
from hgdeploy.commands.benchmark import add_benchmark, add_recommend
from hgdeploy.commands.build import add_build
from hgdeploy.commands.common import Command, Parser, say
from hgdeploy.commands.convert import add_convert, add_quantize, paddle2onnx_command
from hgdeploy.commands.doctor import add_doctor
from hgdeploy.commands.models import add_export, add_models
from hgdeploy.commands.predict import add_predict, predict_cls_command
from hgdeploy.commands.validate import add_explain, add_validate
from hgdeploy.errors import EXIT_INTERRUPTED, EXIT_OK, HGDeployError

_VERBS = (
    add_predict,
    add_export,
    add_models,
    add_convert,
    add_quantize,
    add_build,
    add_validate,
    add_explain,
    add_benchmark,
    add_recommend,
    add_doctor,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `hgdeploy` command.

    Args:
        argv: its arguments; None for the process's own.

    Returns:
        The exit code; see `hgdeploy.errors`.
    """
    return _run(lambda: _hgdeploy(argv))


def predict_cls(argv: Sequence[str] | None = None) -> int:
    """Run `predict_cls.py`, with PaddleClas's arguments; see `main`."""
    return _run(lambda: predict_cls_command(argv))


def paddle2onnx(argv: Sequence[str] | None = None) -> int:
    """Run `deploy/paddle2onnx/convert.py`, with paddle2onnx's arguments; see `main`."""
    return _run(lambda: paddle2onnx_command(argv))


def _run(parse: Callable[[], Command]) -> int:
    """Parse, then run with stdout to itself; turn errors into one line and an exit code."""
    try:
        command = parse()  # first, so that --help goes where it belongs
        with _own_stdout() as out:
            return command(out)
    except HGDeployError as error:
        say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        say("interrupted")
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


def _hgdeploy(argv: Sequence[str] | None) -> Command:
    parser = Parser(prog="hgdeploy", description="Deploy a PaddleClas-style classifier.")
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for add in _VERBS:
        add(verbs)
    arguments = parser.parse_args(argv)
    return functools.partial(arguments.run, arguments)
