# SPDX-License-Identifier: Apache-2.0
"""The rows of a result file: what one holds, and its forms in JSON lines, CSV and Parquet."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from hgdeploy.errors import ConfigError, nearest
from hgdeploy.transforms.prediction import Prediction

COLUMNS = ("path", "class_ids", "scores", "labels", "error", "size", "mtime_ns")
_KINDS: tuple[Any, ...] = (str, list | None, list, list, str | None, int | None, int | None)
Row = dict[str, Any]

# CSV has no lists: classes and scores are parted by a space, names (which hold commas) by this.
_CSV_LABEL_SEPARATOR = " | "
_PARQUET_ROWS = 4096
# Parquet's integers end here: in the year 2262, while file systems go on.
_MOST_NS = 2**63 - 1


@dataclass(frozen=True)
class FileFacts:
    """An image's file as it was when it was read; tells whether it has changed since.

    Attributes:
        path: where it is.
        size: its bytes; None if the file could not be looked at.
        mtime_ns: when it was last modified, in nanoseconds since 1970; None like `size`.
    """

    path: Path
    size: int | None
    mtime_ns: int | None


def file_facts(path: Path) -> FileFacts:
    """Look at an image's file.

    Call it before the file is read: a change during the reading then shows as a change, and is not
    taken for what was classified.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):  # ValueError: a null character in the path
        return FileFacts(path, None, None)
    return FileFacts(path, status.st_size, min(status.st_mtime_ns, _MOST_NS))


def row_of(prediction: Prediction, facts: FileFacts) -> Row:
    """Return a prediction as a row: scores rounded to five decimals, no tuples."""
    return {
        "path": prediction.path,
        "class_ids": None if prediction.class_ids is None else list(prediction.class_ids),
        "scores": [round(score, 5) for score in prediction.scores],
        "labels": list(prediction.labels),
        "error": prediction.error,
        "size": facts.size,
        "mtime_ns": facts.mtime_ns,
    }


def prediction_of(row: Row) -> Prediction:
    """Return a row as the prediction it was made of."""
    ids = row["class_ids"]
    return Prediction(
        row["path"],
        None if ids is None else tuple(ids),
        tuple(row["scores"]),
        tuple(row["labels"]),
        row["error"],
    )


def encoded(row: Row) -> bytes:
    """Return a row as a line of JSON; ASCII, so that no name can break the line."""
    return json.dumps(row).encode("ascii") + b"\n"


def decoded(line: bytes) -> Row:
    """Return the row that a line of JSON holds.

    Raises:
        ValueError: the line is no row of a result file.
    """
    row = json.loads(line)
    if not isinstance(row, dict) or tuple(row) != COLUMNS:
        raise ValueError("not a row of a result file")
    for value, kinds in zip(row.values(), _KINDS, strict=True):
        if not isinstance(value, kinds):
            raise ValueError("a value of another kind than a result file has there")
    return row


def stored_name(name: str) -> str:
    r"""Return an image's name as CSV and Parquet hold it: bytes that are not UTF-8 as `\udcff`."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class TableFormat:
    """A format that can only be written as a whole.

    Attributes:
        write: writes rows to a binary stream, holding a few thousand of them at most.
        read: yields the rows of a file, likewise.
    """

    write: Callable[[IO[bytes], Iterable[Row]], None]
    read: Callable[[Path], Iterator[Row]]


def table_format(path: Path) -> TableFormat | None:
    """Return the format that a result file's suffix names; None for JSON lines.

    Raises:
        ConfigError: another suffix, or Parquet without pyarrow.
    """
    formats = {
        ".jsonl": None,
        ".csv": TableFormat(_write_csv, _read_csv),
        ".parquet": TableFormat(_write_parquet, _read_parquet),
    }
    suffix = path.suffix.lower()
    if suffix not in formats:
        raise ConfigError(f"--output {path}: unknown suffix, {nearest(path.suffix, formats)}")
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"--output {path} needs pyarrow: pip install 'hgdeploy[parquet]', or choose .jsonl"
            ) from None
    return formats[suffix]


def _write_csv(stream: IO[bytes], rows: Iterable[Row]) -> None:
    """Write a header and one record a row; line breaks in a name are quoted, as RFC 4180 says."""
    text = io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline="")
    table = csv.writer(text)
    table.writerow(COLUMNS)
    for row in rows:
        cells = dict(row)
        cells["class_ids"] = " ".join(str(i) for i in row["class_ids"] or ())
        cells["scores"] = " ".join(f"{score:.5f}" for score in row["scores"])
        cells["labels"] = _CSV_LABEL_SEPARATOR.join(row["labels"])
        table.writerow("" if cells[name] is None else cells[name] for name in COLUMNS)
    text.flush()
    text.detach()  # the stream stays its owner's


def _read_csv(path: Path) -> Iterator[Row]:
    # The labels of one row may be longer than the reader's default limit of 128 KB.
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8", newline="") as file:
        records = _records(csv.reader(file))
        if tuple(next(records, ())) != COLUMNS:
            raise ValueError("its columns are not those of a result file")
        for record in records:
            name, ids, scores, labels, error, size, mtime_ns = record
            yield {
                "path": name,
                # A bare score has no class; an image that has neither got none or failed.
                "class_ids": None if scores and not ids else [int(i) for i in ids.split()],
                "scores": [float(score) for score in scores.split()],
                "labels": labels.split(_CSV_LABEL_SEPARATOR) if labels else [],
                "error": error or None,
                "size": int(size) if size else None,
                "mtime_ns": int(mtime_ns) if mtime_ns else None,
            }


def _records(table: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from table
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _write_parquet(stream: IO[bytes], rows: Iterable[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = (
        pyarrow.string(),
        pyarrow.list_(pyarrow.int32()),
        pyarrow.list_(pyarrow.float64()),
        pyarrow.list_(pyarrow.string()),
        pyarrow.string(),
        pyarrow.int64(),
        pyarrow.int64(),
    )
    schema = pyarrow.schema(list(zip(COLUMNS, kinds, strict=True)))
    remaining = iter(rows)
    writer = pyarrow.parquet.ParquetWriter(stream, schema)
    try:
        while group := [_utf8(row) for row in itertools.islice(remaining, _PARQUET_ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
        writer.close()
    finally:
        writer.is_open = False  # else it would try again, when it is freed, to write what failed


def _utf8(row: Row) -> Row:
    error = row["error"]
    return row | {
        "path": stored_name(row["path"]),
        "labels": [stored_name(label) for label in row["labels"]],
        "error": None if error is None else stored_name(error),
    }


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        if tuple(file.schema_arrow.names) != COLUMNS:
            raise ValueError("its columns are not those of a result file")
        for batch in file.iter_batches(_PARQUET_ROWS):
            yield from batch.to_pylist()
