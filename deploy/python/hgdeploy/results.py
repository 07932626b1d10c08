# SPDX-License-Identifier: Apache-2.0
"""Where predictions go: PaddleClas's lines, or a JSON-lines, CSV or Parquet file."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TextIO

from hgdeploy.errors import ConfigError, OutputError, nearest
from hgdeploy.postprocess import Prediction, text_line

_COLUMNS = ("path", "class_ids", "scores", "labels", "error")
# CSV has no lists: classes and scores are parted by a space, names (which hold commas) by this.
_CSV_LABEL_SEPARATOR = " | "
_PARQUET_ROWS = 4096


class Writer(Protocol):
    """Takes predictions one by one."""

    def write(self, prediction: Prediction) -> None:
        """Write one prediction."""

    def close(self) -> None:
        """Finish the file."""


def open_writer(path: Path) -> Writer:
    """Open a result file by its suffix; an existing file is replaced.

    Every row holds the path relative to the searched folder, class ids, scores rounded to five
    decimals, labels, and the reason where the image failed.

    Args:
        path: a `.jsonl`, `.csv` or `.parquet` file.

    Raises:
        ConfigError: another suffix, or Parquet without pyarrow.
        OutputError: the file cannot be written.
    """
    kinds: dict[str, Callable[[Path], Writer]] = {
        ".jsonl": JsonLinesWriter,
        ".csv": CsvWriter,
        ".parquet": ParquetWriter,
    }
    kind = kinds.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"--output {path}: unknown suffix, {nearest(path.suffix, kinds)}")
    try:
        return kind(path)
    except OSError as error:
        raise OutputError(f"--output {path} cannot be written: {error.strerror}") from None


def _row(prediction: Prediction) -> dict[str, Any]:
    scores = [round(score, 5) for score in prediction.scores]
    ids = None if prediction.class_ids is None else list(prediction.class_ids)
    values = (prediction.path, ids, scores, list(prediction.labels), prediction.error)
    return dict(zip(_COLUMNS, values, strict=True))


class LineWriter:
    """Writes PaddleClas's line for each classified image; failures are told elsewhere."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, prediction: Prediction) -> None:
        """Write one line, at once, so that a reader sees it when it is known."""
        if prediction.error is None:
            self._stream.write(text_line(prediction) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Leave the stream to its owner."""


class JsonLinesWriter:
    """Writes one JSON object a line; ASCII, so that no name can break a line."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="ascii", newline="\n")

    def write(self, prediction: Prediction) -> None:
        """Write one row."""
        self._file.write(json.dumps(_row(prediction)) + "\n")

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class CsvWriter:
    """Writes a header and one row an image."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._rows = csv.writer(self._file)
        self._rows.writerow(_COLUMNS)

    def write(self, prediction: Prediction) -> None:
        """Write one row."""
        row = _row(prediction)
        row["class_ids"] = " ".join(str(i) for i in row["class_ids"] or ())
        row["scores"] = " ".join(f"{score:.5f}" for score in row["scores"])
        row["labels"] = _CSV_LABEL_SEPARATOR.join(row["labels"])
        row["error"] = row["error"] or ""
        self._rows.writerow(row.values())

    def close(self) -> None:
        """Finish the file."""
        self._file.close()


class ParquetWriter:
    """Writes a Parquet file aside and renames it when it is whole: half of one cannot be read."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError:
            raise ConfigError(
                f"--output {path} needs pyarrow: pip install 'hgdeploy[parquet]', or choose .jsonl"
            ) from None
        self._schema = pyarrow.schema(
            [
                ("path", pyarrow.string()),
                ("class_ids", pyarrow.list_(pyarrow.int32())),
                ("scores", pyarrow.list_(pyarrow.float64())),
                ("labels", pyarrow.list_(pyarrow.string())),
                ("error", pyarrow.string()),
            ]
        )
        self._target = path
        self._aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._writer = pyarrow.parquet.ParquetWriter(self._aside, self._schema)
        self._rows: list[dict[str, Any]] = []

    def write(self, prediction: Prediction) -> None:
        """Keep one row; rows go to disk a group at a time."""
        row = _row(prediction)
        row["path"] = os.fsencode(row["path"]).decode("utf-8", "backslashreplace")
        self._rows.append(row)
        if len(self._rows) == _PARQUET_ROWS:
            self._flush()

    def close(self) -> None:
        """Finish the file under its name."""
        self._flush()
        self._writer.close()
        self._aside.replace(self._target)

    def _flush(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema))
        self._rows = []
