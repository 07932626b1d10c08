# SPDX-License-Identifier: Apache-2.0
"""The one logger that TensorRT is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def logger_to(trt: Any, take: Callable[[str, str], None]) -> Any:
    """Return a logger that hands on what the library says.

    Args:
        trt: the library; its logger's class is known only when it is loaded.
        take: called with the severity's name, such as `ERROR`, and the message; from whichever
            thread the library speaks on.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            take(severity.name, msg)

    return Logger()
