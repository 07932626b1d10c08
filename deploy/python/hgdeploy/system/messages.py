# SPDX-License-Identifier: Apache-2.0
"""What a child process and its parent send each other, and `serve`, the child's side of that.

A message is a line of JSON and, behind it, the bytes of the arrays that the line describes.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from typing import IO, Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import kind_and_message
from hgdeploy.system.documents import parse_json


class Message(NamedTuple):
    """A request or its answer.

    Attributes:
        values: anything that JSON can hold; `do` of a request names what is wanted.
        arrays: arrays by name.
    """

    values: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]] = {}


# The name of the only value of a message that is no answer yet: see `tell_parent`.
LINE = "line"

Handler = Callable[[Message], Message]
"""Answers one kind of request; an exception is raised again in the parent."""


def write_message(stream: IO[bytes], message: Message) -> None:
    """Write one message.

    Args:
        stream: a pipe.
        message: what to write.

    Raises:
        OSError: nobody reads the pipe any more.
    """
    arrays = {name: np.ascontiguousarray(array) for name, array in message.arrays.items()}
    described = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    stream.write(json.dumps([message.values, described]).encode("ascii") + b"\n")
    for array in arrays.values():
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def read_message(stream: Any) -> Message | None:
    """Read one message.

    Args:
        stream: a pipe, buffered.

    Returns:
        The message; None at the end of the stream.

    Raises:
        ValueError: the stream ends within a message.
    """
    line = stream.readline()
    if not line:
        return None
    values, described = parse_json(line)
    arrays = {}
    for name, (dtype, shape) in described.items():
        arrays[name] = array = np.empty(shape, dtype)
        if stream.readinto(array.reshape(-1).view(np.uint8).data) != array.nbytes:
            raise ValueError("the message stops early")
    return Message(values, arrays)


def serve(handlers: Mapping[str, Handler]) -> None:
    """Answer the parent's requests, until there are no more; inside a child process.

    Args:
        handlers: by what a request may ask to `do`. `error` and `line` are no names for values of
            an answer.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # for the parent, which ends this process
        signal.signal(number, signal.SIG_IGN)
    requests = os.fdopen(os.dup(0), "rb")
    # Never closed, not even while Python shuts down: where the answers end, this process has ended,
    # and its exit code is the true one.
    answers = os.fdopen(os.dup(1), "wb", closefd=False)
    _to_parent.append(answers)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    if hasattr(select, "poll"):
        threading.Thread(target=_end_with_parent, args=[requests.fileno()], daemon=True).start()
    # The parent may end within a message. What this process has started ends in any case: this
    # thread may see the end before the other one does, and Python would then only end this process.
    with contextlib.suppress(BrokenPipeError, ValueError):
        while (request := read_message(requests)) is not None:
            write_message(answers, _answer(handlers, request))
    _end_group()


_to_parent: list[IO[bytes]] = []
_one_line_at_a_time = threading.Lock()


def tell_parent(line: str) -> None:
    """Give the parent a line about how far a handler is, before its answer; from any thread.

    Outside of a child process, where nobody listens, it does nothing.
    """
    with _one_line_at_a_time:
        for answers in _to_parent:
            write_message(answers, Message({LINE: line}))


def _answer(handlers: Mapping[str, Handler], request: Message) -> Message:
    try:
        return handlers[request.values["do"]](request)
    except Exception as error:  # raised again in the parent
        return Message({"error": kind_and_message(error)})


def _end_with_parent(requests: int) -> None:
    """Wait, asleep, until nobody can send requests any more; end this process and its group."""
    parent = select.poll()
    parent.register(requests, 0)  # no event but that the other end is closed
    parent.poll()
    _end_group()


def _end_group() -> NoReturn:
    """End this process, and its group where it leads one."""
    if hasattr(os, "killpg") and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
