# SPDX-License-Identifier: Apache-2.0
"""The rows of a result file: what a row holds, made from predictions and lines, and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.system.documents import parse_json
from hgdeploy.transforms.prediction import Prediction

Row = dict[str, Any]
"""One row of a result file: the values of `COLUMNS` or `ATTRIBUTES`, by name, in their order."""

COLUMNS = ("path", "class_ids", "scores", "labels", "error", "size", "mtime_ns")
ATTRIBUTES = (*COLUMNS, "attributes", "output")
"""The columns of a row of an attribute model."""
# The largest integer in Parquet, as a time in the year 2262; file systems allow later times.
_MOST_NS = 2**63 - 1
_MOST_CLASS = 2**31 - 1  # likewise


@dataclass(frozen=True)
class FileFacts:
    """An image's file as it was when it was read, to find out whether it has changed since.

    Attributes:
        path: its path.
        size: its bytes; None if the file could not be accessed.
        mtime_ns: when it was last modified, in nanoseconds since 1970; None like `size`.
    """

    path: Path
    size: int | None
    mtime_ns: int | None


def file_facts(path: Path) -> FileFacts:
    """Return size and time of an image's file.

    Call it before the file is read: a change during the reading then shows as a change, and is not
    mistaken for what was classified.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a null character in the path
        return FileFacts(path, None, None)
    return FileFacts(path, status.st_size, min(status.st_mtime_ns, _MOST_NS))


def row_from_prediction(prediction: Prediction, facts: FileFacts) -> Row:
    """Return a prediction as a row: scores rounded to five decimals, no tuples."""
    row = {
        "path": prediction.path,
        "class_ids": None if prediction.class_ids is None else list(prediction.class_ids),
        "scores": [round(score, 5) for score in prediction.scores],
        "labels": list(prediction.labels),
        "error": prediction.error,
        "size": facts.size,
        "mtime_ns": facts.mtime_ns,
    }
    if prediction.output is not None:
        found = prediction.attributes
        row["attributes"] = found if isinstance(found, str) else list(found or ())
        row["output"] = list(prediction.output)
    return row


def prediction_from_row(row: Row) -> Prediction:
    """Return a row as the prediction that it was made from."""
    ids, found, output = row["class_ids"], row.get("attributes"), row.get("output")
    return Prediction(
        row["path"],
        None if ids is None else tuple(ids),
        tuple(row["scores"]),
        tuple(row["labels"]),
        row["error"],
        tuple(found) if isinstance(found, list) else found,
        None if output is None else tuple(output),
    )


def line_from_row(row: Row) -> bytes:
    """Return a row as a line of JSON; ASCII, so that no name can break the line."""
    return json.dumps(row).encode("ascii") + b"\n"


def row_from_line(line: bytes) -> Row:
    """Return the row that a line of JSON holds.

    Raises:
        ValueError: the line is not a row of a result file.
    """
    row = parse_json(line)
    if not isinstance(row, dict) or tuple(row) not in (COLUMNS, ATTRIBUTES):
        raise ValueError("not a row of a result file")
    if not (_is_prediction(row) and _is_file(row) and _has_attributes(row)):
        raise ValueError("not a value that a result file has in this column")
    return row


def _is_prediction(row: Row) -> bool:
    """Tell whether `row_from_prediction` can have made these; lists of one row belong together."""
    ids, scores, labels = row["class_ids"], row["scores"], row["labels"]
    if not isinstance(scores, list) or not isinstance(labels, list):
        return False
    if ids is None:
        fits = not labels
    else:
        fits = (
            isinstance(ids, list)
            and all(type(i) is int and 0 <= i <= _MOST_CLASS for i in ids)
            and len(scores) == len(ids)
            and len(labels) in (0, len(ids))
        )
    return (
        fits
        and all(type(score) is float and math.isfinite(score) for score in scores)
        and all(isinstance(label, str) for label in labels)
        and isinstance(row["error"], str | None)
    )


def _has_attributes(row: Row) -> bool:
    """Tell whether a row that has attributes has what `row_from_prediction` makes."""
    found, output = row.get("attributes", []), row.get("output", [])
    texts = [found] if isinstance(found, str) else found
    return (
        isinstance(texts, list)
        and all(isinstance(text, str) for text in texts)
        and isinstance(output, list)
        and all(type(bit) is int and bit in (0, 1) for bit in output)
    )


def _is_file(row: Row) -> bool:
    sizes = row["size"], row["mtime_ns"]
    return isinstance(row["path"], str) and all(
        size is None or (type(size) is int and abs(size) <= _MOST_NS) for size in sizes
    )
