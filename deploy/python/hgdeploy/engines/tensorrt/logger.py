# SPDX-License-Identifier: Apache-2.0
"""TensorRT's log: one logger for all builders and runtimes of a process, and who hears it.

TensorRT keeps the first logger that it is given, and warns about each other one. So there is one,
which passes each message on: to the thread that logs, if that uses the library itself, else to the
builds that go on, whose library has threads of its own.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from hgdeploy.gpu.driver import driver_cuda
from hgdeploy.gpu.rules import problems_here

_LONGEST_REASON = 400


class Messages:
    """What the library has said, for the reason of a failure.

    Attributes:
        errors: the errors so far, each on one line.
        warnings: the warnings so far, likewise.
        raised: what its bindings have raised, which seldom names a cause.
    """

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.raised = ""

    def take(self, severity: str, message: str) -> None:
        """Keep an error or a warning; drop everything else."""
        kept = {"INTERNAL_ERROR": self.errors, "ERROR": self.errors, "WARNING": self.warnings}
        if severity in kept:
            kept[severity].append(" ".join(message.split()))

    def clear(self) -> None:
        """Forget what was said."""
        self.errors.clear()
        self.warnings.clear()
        self.raised = ""

    def reason(self) -> str:
        """Return the errors on one line; without any the warnings, for some failures only warn."""
        said = "; ".join(dict.fromkeys(self.errors or self.warnings))
        return said[:_LONGEST_REASON] or self.raised or "it does not say why"


class _Here(threading.local):
    messages: Messages | None = None


_here = _Here()
_builds: list[Messages] = []
_loggers: dict[type, Any] = {}
_making = threading.Lock()


def messages_here() -> Messages:
    """Return what the library says in this thread, from the first call of this function on."""
    if _here.messages is None:
        _here.messages = Messages()
    return _here.messages


@contextlib.contextmanager
def hearing(messages: Messages) -> Iterator[None]:
    """Have `messages` take what is said in this thread, and in the library's own threads."""
    before, _here.messages = _here.messages, messages
    _builds.append(messages)
    try:
        yield
    finally:
        _here.messages = before
        _builds.remove(messages)


def shared_logger(trt: Any) -> Any:
    """Return the one logger of a library in this process; its plugins are registered with it.

    Args:
        trt: the library; its logger's class is known only when it is loaded.
    """

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            own = _here.messages
            for messages in tuple(_builds) if own is None else (own,):
                messages.take(severity.name, msg)

    with _making:
        if trt.ILogger not in _loggers:
            logger = _loggers[trt.ILogger] = Logger()
            # Plans and ONNX files may name NVIDIA's plugins, which exist once they are registered.
            trt.init_libnvinfer_plugins(logger, "")
        return _loggers[trt.ILogger]


def cannot_start(library: str, reason: str) -> str:
    """Return why a library gives no builder or runtime, which is mostly for want of a driver.

    Args:
        library: `tensorrt` or `tensorrt-rtx`.
        reason: what it said.
    """
    cuda = driver_cuda()
    driver = "there is no NVIDIA driver" if cuda is None else f"the driver here is for CUDA {cuda}"
    wrong = "; ".join(problems_here(library)) or (
        "if the library needs a newer one, update the driver or install a TensorRT for it, see "
        "docs/tensorrt.md"
    )
    return f"{reason} ({driver}; {wrong})"
