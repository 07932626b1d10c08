# SPDX-License-Identifier: Apache-2.0
"""What PaddleClas's package gives and prints for an image, and the logger that prints it."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from hgdeploy.results.rows import FileFacts
from hgdeploy.transforms.prediction import Prediction, printable

Answer = dict[str, Any]
"""What is found in one image, by PaddleClas's keys and in their order."""

COMPLETE = "Predict complete!"
_DECIMALS = 5
_NAME, _DATE = "ppcls", "%Y/%m/%d %H:%M:%S"


def answer_of(prediction: Prediction, filename: str | None) -> Answer:
    """Return a prediction as PaddleClas's package gives it.

    Args:
        prediction: of an image that did not fail.
        filename: the image's path as it was found; None for pixels, which have none.
    """
    answer: Answer
    if prediction.output is not None:
        found = prediction.attributes
        attributes = found if isinstance(found, str) else list(found or ())
        answer = {"attributes": attributes, "output": list(prediction.output)}
    else:
        scores = [round(score, _DECIMALS) for score in prediction.scores]
        answer = {"scores": scores}
        if prediction.class_ids is not None:
            ids, names = list(prediction.class_ids), list(prediction.labels)
            answer = {"class_ids": ids, "scores": scores, "label_names": names}
    return answer if filename is None else {**answer, "filename": filename}


def printed(answer: Answer) -> str:
    """Return PaddleClas's line for an image, without what stands before it in the log."""
    return printable(", ".join(f"{key}: {value}" for key, value in answer.items()))


def naming(source: str | os.PathLike[str]) -> Callable[[str, str], str]:
    """Return the function that gives an image's path as PaddleClas does: from what was given on.

    Args:
        source: a file, folder, pattern or text list.

    Returns:
        A function of an image's place and of its name relative to a folder.
    """
    given = os.fspath(source)
    if Path(given).is_dir():
        return lambda _, name: os.path.join(given, name)  # noqa: PTH118 (./ stays)
    return lambda place, _: given if Path(given) == Path(place) else place


class _Lines(logging.Handler):
    """Prints results to stdout, and what else is said to stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one line."""
        stream = sys.stdout if getattr(record, "result", False) else sys.stderr
        stream.write(f"{self.format(record)}\n")
        stream.flush()


def logger() -> logging.Logger:
    """Return PaddleClas's logger, which a script may silence by its name, `ppcls`."""
    found = logging.getLogger(_NAME)
    if not found.handlers:
        handler = _Lines()
        form = "[%(asctime)s] %(name)s %(levelname)s: %(message)s"
        handler.setFormatter(logging.Formatter(form, _DATE))
        found.addHandler(handler)
        found.propagate = False
        if found.level == logging.NOTSET:
            found.setLevel(logging.INFO)
    return found


def print_result(line: str) -> None:
    """Print a line of results to stdout."""
    logger().info("%s", line, extra={"result": True})


def tell(line: str) -> None:
    """Tell something about the work, on stderr."""
    logger().info("%s", printable(line))


def warn(line: str) -> None:
    """Tell a warning, on stderr."""
    logger().warning("%s", printable(line))


def write_logged(stream: TextIO, line: str) -> None:
    """Write a line as PaddleClas's logger does, at once."""
    stream.write(f"[{time.strftime(_DATE)}] {_NAME} INFO: {line}\n")
    stream.flush()


class AnswerWriter:
    """Writes the lines of PaddleClas's command.

    Args:
        source: what was to be classified, as it was given.
        stream: for the lines.
    """

    def __init__(self, source: str, stream: TextIO) -> None:
        self._name, self._stream = naming(source), stream

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Write one line at once; failures are reported elsewhere."""
        if prediction.error is None:
            filename = self._name(str(facts.path), prediction.path)
            write_logged(self._stream, printed(answer_of(prediction, filename)))

    def finish(self) -> None:
        """Write PaddleClas's last line."""
        write_logged(self._stream, COMPLETE)

    def close(self) -> None:
        """Leave the stream to its owner."""
