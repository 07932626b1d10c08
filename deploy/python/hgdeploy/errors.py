# SPDX-License-Identifier: Apache-2.0
"""Every error HGDeploy raises on purpose, and the exit code each one ends a command with.

    HGDeployError             1
    ├── ConfigError           2   arguments, config keys and values
    ├── ImageError            3   one image that cannot be read or preprocessed
    ├── InputError            4   nothing to classify
    ├── BundleError           5   model files: missing, corrupt, or not fitting their config
    ├── EngineError           6   a library, device, provider or precision that is not available
    │   └── TensorError       7   feeds that do not fit the model: name, shape or dtype
    ├── WeightsError          8   weights that cannot be read or do not fit the architecture
    ├── DownloadError         9   a network transfer or an archive
    ├── OutputError          10   a place that cannot be written
    ├── ValidationError      11   two engines, or an engine and the labels, do not agree
    ├── ResourceError        12   memory, threads or open files that the system does not give
    └── TrainingError        13   a training whose loss or weights are no numbers any more

A message is one line: what, where, what was allowed, how to fix it. Exit code 0 means that all went
well, 3 also that a run finished but some images failed, 130 that it was interrupted, and 143 that
SIGTERM ended it.
"""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator

EXIT_OK = 0
EXIT_SOME_IMAGES_FAILED = 3
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


class HGDeployError(Exception):
    """Base of all errors raised on purpose; a command ends with its `exit_code`."""

    exit_code = 1


class ConfigError(HGDeployError):
    """A wrong argument, config file, key or value."""

    exit_code = 2


class ImageError(HGDeployError):
    """One image cannot be read, decoded or preprocessed; the message is the reason."""

    exit_code = EXIT_SOME_IMAGES_FAILED


class InputError(HGDeployError):
    """There is nothing to classify at the given place."""

    exit_code = 4


class BundleError(HGDeployError):
    """Model files are missing, unreadable, or do not fit their own description."""

    exit_code = 5


class EngineError(HGDeployError):
    """A library, device, provider or precision that was asked for is not available here."""

    exit_code = 6


class TensorError(EngineError):
    """Feeds do not fit the model's inputs: name, shape or dtype."""

    exit_code = 7


class WeightsError(HGDeployError):
    """Weights cannot be read, or their names or shapes do not fit the architecture."""

    exit_code = 8


class DownloadError(HGDeployError):
    """A transfer failed, or what arrived is unsafe or not what was expected."""

    exit_code = 9


class OutputError(HGDeployError):
    """A file or folder cannot be written."""

    exit_code = 10


class ValidationError(HGDeployError):
    """The compared results differ by more than their tolerance allows."""

    exit_code = 11


class ResourceError(HGDeployError):
    """The system does not give this process the memory, threads or open files that it needs."""

    exit_code = 12


class TrainingError(HGDeployError):
    """A training cannot go on: its loss or its weights are not numbers any more."""

    exit_code = 13


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return the end of an error about an unknown name: the nearest allowed name, else all of them.

    Args:
        name: what the user wrote.
        allowed: the names that would have been right.

    Returns:
        `did you mean 'x'?` if one name is close, else `expected one of: a, b`.
    """
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"expected one of: {', '.join(names)}"


def kind_and_message(error: Exception) -> tuple[str, str]:
    """Return an error as two texts, from which `error_from_kind` makes it in another process."""
    if isinstance(error, HGDeployError):
        return type(error).__name__, str(error)
    return EngineError.__name__, f"{type(error).__name__}: {one_line(error)}"


def error_from_kind(kind: str, message: str) -> HGDeployError:
    """Return the error that `kind_and_message` was given; an EngineError if it was not ours."""
    kinds = {each.__name__: each for each in _family(HGDeployError)}
    return kinds.get(kind, EngineError)(message)


def _family(kind: type[HGDeployError]) -> Iterator[type[HGDeployError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _family(child)


def one_line(error: BaseException) -> str:
    """Return the lines of a library's error that matter, as one line.

    C++ libraries wrap their message in call stacks and source locations over many lines.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    useful = [line for line in lines if line and not line.startswith(("---", "C++ Traceback"))]
    marked = [line for line in useful if "Error" in line or "Hint" in line]
    return " ".join(marked or useful)[:400] or type(error).__name__


def drop_locals(error: BaseException) -> None:
    """Let go of what the functions that an error has left still hold; its traceback stays.

    Some libraries' objects must be freed before others, and a traceback would keep them alive.
    """
    left: BaseException | None = error
    while left is not None:
        traceback.clear_frames(left.__traceback__)
        left = left.__context__
