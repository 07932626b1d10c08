# SPDX-License-Identifier: Apache-2.0
"""What all verbs share: a parser, lines on stderr, tables, and stdout kept for results."""

from __future__ import annotations

import argparse
import contextlib
import errno
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO, TypeAlias

from hgdeploy.cli.streams import (
    ReaderGoneError,
    open_lost_streams,
    own_stdout,
    print_stdout,
    tell,
)
from hgdeploy.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_TERMINATED,
    ConfigError,
    HGDeployError,
    ResourceError,
    nearest,
    one_line,
)
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.prediction import printable

if TYPE_CHECKING:
    from hgdeploy.bundle.model_bundle import ModelBundle

# pathlib makes one slash of two. A user without a password may be a token.
_USER = re.compile(r"(\b[a-z][a-z0-9+.-]+://?)(?:[^\s/@]*:\S*|[^\s/@]+)@", re.IGNORECASE)
_ADDRESS = re.compile(r"(?:[\w.]+=)?[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
# The arguments that take one; any other takes files and folders.
_TAKE_ADDRESSES = ("url", "ray", "infer_imgs")


def run_command(parse: Callable[[], Command]) -> int:
    """Parse a command line, run the command, and turn errors into one line and an exit code.

    Args:
        parse: parses the command line.

    Returns:
        The exit code; see `hgdeploy.errors`.
    """
    open_lost_streams()
    with _termination_interrupts():
        try:
            return _exit_code(parse)
        except KeyboardInterrupt as interruption:
            say("interrupted")
            return interrupted_exit_code(interruption)


def _exit_code(parse: Callable[[], Command]) -> int:
    try:
        printed = io.StringIO()
        try:
            # argparse itself would say nothing where --help cannot be written.
            with contextlib.redirect_stdout(printed):
                command = parse()
        except SystemExit:
            print_stdout(printed.getvalue())
            raise
        with own_stdout() as out:
            return command(out)
    except ReaderGoneError:
        return EXIT_OK
    except HGDeployError as error:
        say(f"error: {error}")
        return error.exit_code
    except MemoryError as error:
        say(f"error: the memory is not enough ({one_line(error)}); use smaller batches or images")
        return ResourceError.exit_code
    except OSError as error:
        if error.errno not in _NOT_OUR_FAULT and _has_current_folder():
            raise
        say(f"error: {_system_reason(error)}")
        return HGDeployError.exit_code


def _has_current_folder() -> bool:
    """Return whether the folder that relative paths count from has not been removed."""
    try:
        return bool(Path.cwd())
    except OSError:
        return False


def _system_reason(error: OSError) -> str:
    if not _has_current_folder():
        return "the current folder was removed; change into another"
    reason = (error.strerror or str(error)).lower()
    place = error.filename
    return reason if place is None else f"{os.fsdecode(place)[:_MOST_LETTERS]}: {reason}"


# What the system may say to any use of a file; an error of our own has another reason.
_NOT_OUR_FAULT = frozenset(
    getattr(errno, name)
    for name in (
        *("EACCES", "EPERM", "EROFS", "ENAMETOOLONG", "ELOOP", "ENOSPC", "EDQUOT", "EIO"),
        *("ESTALE", "EMFILE", "ENFILE", "ENOMEM"),
    )
    if hasattr(errno, name)
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came, as from `docker stop` or systemd: the run ends as it does by Ctrl-C."""


@contextlib.contextmanager
def _termination_interrupts() -> Iterator[None]:
    """Raise `Terminated` on the first SIGTERM; those after it would only disturb the ending."""

    def terminate(*_: object) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Terminated

    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:  # its owner has plans
        yield
        return
    signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def interrupted_exit_code(interruption: KeyboardInterrupt) -> int:
    """Return the exit code of a run that was interrupted: by Ctrl-C, or by SIGTERM."""
    return EXIT_TERMINATED if isinstance(interruption, Terminated) else EXIT_INTERRUPTED


# What a parsed command line does: it takes stdout and returns the exit code.
Command: TypeAlias = Callable[[TextIO], int]


# argparse shows a wrong value whole, which may have thousands of digits.
_MOST_LETTERS = 300


class Parser(argparse.ArgumentParser):
    """A parser that raises a one-line error instead of printing the usage."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse arguments; the address of a file in the web is refused in the place of a file."""
        self._refuse_unknown_flags(sys.argv[1:] if args is None else args)
        parsed, rest = super().parse_known_args(args, namespace)
        _refuse_addresses(parsed)
        return parsed, rest

    def _refuse_unknown_flags(self, args: Sequence[str]) -> None:
        """Name a flag that is unknown, which argparse does only where nothing else is wrong."""
        flags = [flag for action in self._actions for flag in action.option_strings]
        known = [flag for flag in flags if flag.startswith("--")]
        places = [action for action in self._actions if not action.option_strings]
        verbs = {str(verb) for place in places for verb in place.choices or ()}
        for arg in args:
            if arg == "--" or arg in verbs:
                return  # what follows is not a flag, or another parser's
            name = arg.partition("=")[0]
            if name.startswith("--") and not any(flag.startswith(name) for flag in known):
                self.error(f"unknown argument {name}, {nearest(name, known)}")

    def error(self, message: str) -> NoReturn:
        """Raise the error of a wrong command line."""
        shown = message if len(message) <= _MOST_LETTERS else f"{message[:_MOST_LETTERS]}..."
        raise ConfigError(f"{shown} (see {self.prog} --help)")


def _refuse_addresses(arguments: argparse.Namespace) -> None:
    for name, value in vars(arguments).items():
        for one in value if isinstance(value, list) else [value]:
            if name in _TAKE_ADDRESSES or not isinstance(one, str | Path):
                continue
            if _ADDRESS.match(str(one)) and not Path(one).exists():
                raise ConfigError(
                    f"{one}: is an address, expected a file or folder of this machine; "
                    "download it first (for a model of the zoo: hgdeploy models download NAME)"
                )


# argparse has no public name for what add_subparsers returns.
Verbs: TypeAlias = "argparse._SubParsersAction[Parser]"


def refuse_without_effect(arguments: argparse.Namespace, flags: Iterable[str], where: str) -> None:
    """Refuse flags that another argument makes meaningless.

    Args:
        arguments: the parsed flags; one that was not given is None or False.
        flags: their names in `arguments`.
        where: ends the error, such as `without --output`.

    Raises:
        ConfigError: one of them was given.
    """
    for flag in flags:
        value = getattr(arguments, flag)
        if value is not None and value is not False:
            raise ConfigError(f"--{flag.replace('_', '-')} has no effect {where}")


def say(text: str) -> None:
    """Print one line to stderr, after `hgdeploy: `.

    Control characters, as a server or a file's name may have, are escaped, and a URL's user and
    password are left out.
    """
    shown = printable(_USER.sub(r"\1***@", text))
    tell(f"hgdeploy: {shown}")


def warn(text: str) -> None:
    """Print a warning to stderr, on one line."""
    say(f"warning: {text}")


def opened_bundle(folder: str | Path, on_warning: OnLine = warn) -> ModelBundle:
    """Open a bundle, and tell what its user should know about its files.

    Raises:
        BundleError: there is no such folder, or its `inference.yml` is wrong.
    """
    from hgdeploy.bundle.model_bundle import open_bundle

    return _with_notes(open_bundle(folder), on_warning)


def opened_model(place: str | Path) -> ModelBundle:
    """Open a bundle, or a model file that stands alone, likewise.

    Raises:
        BundleError: as `opened_bundle`, or it is a file of another kind.
    """
    from hgdeploy.bundle.model_bundle import open_model

    return _with_notes(open_model(place), warn)


def _with_notes(bundle: ModelBundle, on_warning: OnLine) -> ModelBundle:
    for note in bundle.notes:
        on_warning(note)
    return bundle


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as lines, with each column as wide as its widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
    return "".join(f"{line}\n" for line in lines)
