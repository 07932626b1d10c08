# SPDX-License-Identifier: Apache-2.0
"""stdout and stderr as they may be: for results and for messages, closed, full, or read by nobody.

What cannot be said on stderr is dropped, and the run goes on. What cannot be written to stdout is
an error, since it is a result; except that a reader such as `head` may stop when it has enough.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO

from hgdeploy.errors import HGDeployError, OutputError

if TYPE_CHECKING:
    from typing_extensions import Buffer  # of the standard library from Python 3.12 on


class ReaderGoneError(BrokenPipeError):
    """Nobody reads stdout any more."""


def open_lost_streams() -> None:
    """Open what this process was started without, as `>&-` does; else a file takes its number.

    A closed stdout then refuses to be written to, and a closed stderr takes everything.
    """
    for number, way in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, way)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def tell(line: str) -> None:
    """Print one line to stderr; it is dropped where nobody can read it."""
    try:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
    except (OSError, ValueError):  # its reader has gone, its disk is full, or it is closed
        _drop(2)


def print_stdout(text: str = "") -> None:
    """Write a text to stdout, with what was printed before it.

    Raises:
        ReaderGoneError: nobody reads it.
        OutputError: it cannot be written.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        _drop(1)  # or Python itself would complain at its end
        raise _stdout_error(error) from None


@contextlib.contextmanager
def own_stdout() -> Iterator[TextIO]:
    """Yield a stream to the real stdout, and meanwhile point file descriptor 1 at stderr.

    Paddle's C++ kernels print to stdout; without this, their output would get between the lines
    that scripts parse.

    Raises:
        ReaderGoneError: nobody reads stdout any more; also raised by the stream's methods.
        OutputError: stdout cannot be written; likewise.
    """
    print_stdout()
    try:
        is_real = sys.stdout.fileno() == 1
    except (OSError, ValueError):
        is_real = False
    if not is_real:  # a test or a notebook has replaced stdout
        yield sys.stdout
        return
    raw = _Stdout(os.dup(1))
    os.dup2(2, 1)
    stream = io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=sys.stdout.encoding,
        errors="backslashreplace",
        line_buffering=os.isatty(raw.number),
    )
    try:
        yield stream
        stream.flush()
    finally:
        os.dup2(raw.number, 1)
        os.close(raw.number)
        raw.lost = True
        stream.close()


class _Stdout(io.RawIOBase):
    """Raises why stdout cannot be written, once; what is written after that is dropped."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.lost = False

    def writable(self) -> bool:
        return True

    def write(self, data: Buffer, /) -> int:
        view = memoryview(data)
        if self.lost:
            return view.nbytes
        try:
            return os.write(self.number, view)
        except OSError as error:
            self.lost = True
            raise _stdout_error(error) from None


def _stdout_error(error: OSError) -> ReaderGoneError | HGDeployError:
    if isinstance(error, BrokenPipeError):
        return ReaderGoneError(*error.args)
    return OutputError(f"stdout cannot be written: {error.strerror}; write the results to a file")


def _drop(number: int) -> None:
    """Let a stream take, and forget, what is written to it from now on, also by C++ libraries."""
    with contextlib.suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, number)
        os.close(null)
