# SPDX-License-Identifier: Apache-2.0
"""Libraries that are installed here or not, imported when they are used."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from types import ModuleType

from hgdeploy.errors import EngineError, one_line


def installed_version(*distributions: str) -> str | None:
    """Return the version of the first of `distributions` that is installed, else None."""
    for name in distributions:
        for found in importlib.metadata.distributions(name=name):
            return found.version
    return None


@contextlib.contextmanager
def keeping_sigterm() -> Iterator[None]:
    """Give SIGTERM back what it does now, after a library has taken it for itself.

    Paddle would print a C++ traceback instead, and Ray would end with another exit code.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and before is not None:  # else it cannot be set, or is no handler of Python's
            signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """Give a variable of the environment, which libraries read, a value for the `with` block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def installing(*extras: str) -> str:
    """Return how one of HGDeploy's extras is installed, as the end of an error.

    No package index has HGDeploy, so pip installs it from where its user has it: mostly a clone.
    """
    commands = " or ".join(f"'.[{extra}]'" for extra in extras)
    return (
        f"install hgdeploy's extra {' or '.join(extras)} (in its clone: pip install -e {commands})"
    )


def import_library(name: str, extra: str) -> ModuleType:
    """Import a heavy library, silencing what it says of itself while it loads.

    Args:
        name: the module, such as `paddle`.
        extra: the extra of HGDeploy that installs it, for the error.

    Raises:
        EngineError: it is not installed, or does not load on this machine.
    """
    # Paddle's C++ log reads this when it loads: 2 leaves errors and drops notes and warnings.
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        with warnings.catch_warnings(), keeping_sigterm():
            warnings.simplefilter("ignore")  # Paddle warns of a compiler cache it lacks
            return importlib.import_module(name)
    except (ImportError, OSError) as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C in the start of a C++ library
            raise error.__cause__ from None
        raise EngineError(
            f"{name} does not import here ({one_line(error)}); {installing(extra)}"
        ) from None
