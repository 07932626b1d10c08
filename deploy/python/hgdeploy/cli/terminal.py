# SPDX-License-Identifier: Apache-2.0
"""What all verbs share: a parser, lines on stderr, tables, and stdout kept for results."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn, TextIO, TypeAlias

from hgdeploy.errors import EXIT_INTERRUPTED, EXIT_OK, ConfigError, HGDeployError


def run_command(parse: Callable[[], Command]) -> int:
    """Parse a command line, run the command, and turn errors into one line and an exit code.

    Args:
        parse: parses the command line.

    Returns:
        The exit code; see `hgdeploy.errors`.
    """
    try:
        command = parse()  # before stdout is redirected, so that --help is printed there
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
    """Yield a stream to the real stdout, and meanwhile point file descriptor 1 at stderr.

    Paddle's C++ kernels print to stdout; without this, their output would get between the lines
    that scripts parse.
    """
    sys.stdout.flush()
    try:
        is_real = sys.stdout.fileno() == 1
    except (OSError, ValueError):
        is_real = False
    if not is_real:  # a test or a notebook has replaced stdout
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


# What a parsed command line does: it takes stdout and returns the exit code.
Command: TypeAlias = Callable[[TextIO], int]


class Parser(argparse.ArgumentParser):
    """A parser that raises a one-line error instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Raise the error of a wrong command line."""
        raise ConfigError(f"{message} (see {self.prog} --help)")


# argparse has no public name for what add_subparsers returns.
Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


def say(text: str) -> None:
    """Print one line to stderr, after `hgdeploy: `."""
    sys.stderr.write(f"hgdeploy: {text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Print a warning to stderr, on one line."""
    say(f"warning: {text}")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as lines, with each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)
