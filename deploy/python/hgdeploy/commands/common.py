# SPDX-License-Identifier: Apache-2.0
"""What the verbs share: saying things on stderr, and the type of a parser's verbs."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from typing import NoReturn, TextIO, TypeAlias

from hgdeploy.errors import ConfigError

# What a parsed command line does: it takes stdout and returns the exit code.
Command: TypeAlias = Callable[[TextIO], int]

_PROGRESS_SECONDS = 5.0


class Parser(argparse.ArgumentParser):
    """Raises our one-line error instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse a command line."""
        raise ConfigError(f"{message} (see {self.prog} --help)")


# argparse has no public name for what add_subparsers returns.
Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


def say(text: str) -> None:
    """Print one line to stderr under our name."""
    sys.stderr.write(f"hgdeploy: {text}\n")
    sys.stderr.flush()


def warn(text: str) -> None:
    """Print a warning to stderr, on one line."""
    say(f"warning: {text}")


def progress() -> Callable[[str], None]:
    """Return a function that says where a long work is, at most every few seconds."""
    last = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_SECONDS:
            last = time.monotonic()
            say(text)

    return tell
