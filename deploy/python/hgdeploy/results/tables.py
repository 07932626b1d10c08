# SPDX-License-Identifier: Apache-2.0
"""Results as CSV and Parquet files."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from hgdeploy.errors import ConfigError
from hgdeploy.results.outputs import check_suffix
from hgdeploy.results.rows import ATTRIBUTES, COLUMNS, Row
from hgdeploy.system.libraries import installing

# CSV has no lists: a space separates classes and scores, and this the labels, which have commas.
_CSV_LABEL_SEPARATOR = " | "
# Attributes are one text for a vehicle, else a list of more than one: neither format needs to say
# which, since no attribute has the separator in it.
_PARQUET_ROWS = 4096

TABLE_SUFFIXES = (".csv", ".parquet")
"""The suffixes of results that can only be written as a whole."""


def stored_name(name: str) -> str:
    r"""Return an image's name as CSV and Parquet hold it: bytes that are not UTF-8 as `\udcff`."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


@dataclass(frozen=True)
class TableFormat:
    """A format that can only be written as a whole.

    Attributes:
        write: writes rows to a binary stream, with a few thousand of them in memory at most.
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
    suffix = check_suffix("--output", path, formats)
    if suffix == ".parquet":
        try:
            import pyarrow.parquet  # noqa: F401
        except ImportError:
            raise ConfigError(
                f"--output {path} needs pyarrow: {installing('parquet')}, or choose .jsonl"
            ) from None
    return formats[suffix]


def _write_csv(stream: IO[bytes], rows: Iterable[Row]) -> None:
    """Write a header and one record per row; line breaks in a name are quoted, as in RFC 4180."""
    text = io.TextIOWrapper(stream, "utf-8", "backslashreplace", newline="")
    table = csv.writer(text)
    columns, rows = _columns(rows)
    table.writerow(columns)
    for row in rows:
        cells = dict(row)
        cells["class_ids"] = " ".join(str(i) for i in row["class_ids"] or ())
        cells["scores"] = " ".join(f"{score:.5f}" for score in row["scores"])
        cells["labels"] = _CSV_LABEL_SEPARATOR.join(row["labels"])
        if columns == ATTRIBUTES:
            found = row["attributes"]
            joined = found if isinstance(found, str) else _CSV_LABEL_SEPARATOR.join(found)
            cells |= {"attributes": joined, "output": " ".join(map(str, row["output"]))}
        table.writerow("" if cells[name] is None else cells[name] for name in columns)
    text.flush()
    text.detach()  # so that the stream stays open for its owner


def _columns(rows: Iterable[Row]) -> tuple[tuple[str, ...], Iterator[Row]]:
    """Return the columns of rows, which are those of the first, and all of them again."""
    remaining = iter(rows)
    first = list(itertools.islice(remaining, 1))
    columns = tuple(first[0]) if first else COLUMNS
    return columns, itertools.chain(first, remaining)


def _read_csv(path: Path) -> Iterator[Row]:
    # The labels of one row may be longer than the reader's default limit of 128 KB.
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8", newline="") as file:
        records = _records(csv.reader(file))
        columns = tuple(next(records, ()))
        if columns not in (COLUMNS, ATTRIBUTES):
            raise ValueError("its columns are not those of a result file")
        for record in records:
            name, ids, scores, labels, error, size, mtime_ns, *more = record
            row = {
                "path": name,
                # A bare score has no class; an image with neither got no class, or failed.
                "class_ids": None if scores and not ids else [int(i) for i in ids.split()],
                "scores": [float(score) for score in scores.split()],
                "labels": labels.split(_CSV_LABEL_SEPARATOR) if labels else [],
                "error": error or None,
                "size": int(size) if size else None,
                "mtime_ns": int(mtime_ns) if mtime_ns else None,
            }
            if columns == ATTRIBUTES:
                found, output = more
                texts = found.split(_CSV_LABEL_SEPARATOR) if found else []
                row["attributes"] = _one_or_many(texts)
                row["output"] = [int(bit) for bit in output.split()]
            yield row


def _one_or_many(texts: list[str]) -> list[str] | str:
    return texts[0] if len(texts) == 1 else texts


def _records(table: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from table
    except csv.Error as error:
        raise ValueError(str(error)) from None


def _write_parquet(stream: IO[bytes], rows: Iterable[Row]) -> None:
    import pyarrow
    import pyarrow.parquet

    columns, rows = _columns(rows)
    kinds = (
        pyarrow.string(),
        pyarrow.list_(pyarrow.int32()),
        pyarrow.list_(pyarrow.float64()),
        pyarrow.list_(pyarrow.string()),
        pyarrow.string(),
        pyarrow.int64(),
        pyarrow.int64(),
        pyarrow.list_(pyarrow.string()),
        pyarrow.list_(pyarrow.int8()),
    )
    schema = pyarrow.schema(list(zip(columns, kinds, strict=False)))
    remaining = iter(rows)
    writer = pyarrow.parquet.ParquetWriter(stream, schema)
    try:
        while group := [_utf8(row) for row in itertools.islice(remaining, _PARQUET_ROWS)]:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
        writer.close()
    finally:
        writer.is_open = False  # else it would try to write again when it is freed


def _utf8(row: Row) -> Row:
    error, found = row["error"], row.get("attributes")
    if isinstance(found, str):
        row = row | {"attributes": [found]}
    return row | {
        "path": stored_name(row["path"]),
        "labels": [stored_name(label) for label in row["labels"]],
        "error": None if error is None else stored_name(error),
    }


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        columns = tuple(file.schema_arrow.names)
        if columns not in (COLUMNS, ATTRIBUTES):
            raise ValueError("its columns are not those of a result file")
        for batch in file.iter_batches(_PARQUET_ROWS):
            for row in batch.to_pylist():
                if columns == ATTRIBUTES:
                    row["attributes"] = _one_or_many(row["attributes"])
                yield row
