# SPDX-License-Identifier: Apache-2.0
"""TensorRT's log, handed to a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def forwarding_logger(trt: Any, on_message: Callable[[str, str], None]) -> Any:
    """Return a logger for TensorRT that passes each message to a function.

    Args:
        trt: the library; its logger's class is known only when it is loaded.
        on_message: called with the severity's name, such as `ERROR`, and the message, in whichever
            thread the library logs.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            on_message(severity.name, msg)

    return Logger()
