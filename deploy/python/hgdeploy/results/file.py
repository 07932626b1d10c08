# SPDX-License-Identifier: Apache-2.0
"""A result file that survives its process: started or resumed, one row for each image.

Rows are appended as JSON lines, in the order of the images, to the result file itself or, for CSV
and Parquet, to `NAME.rows.jsonl` beside it, from which the table is made once all rows are there.
Each row is handed to the system at once, so that a process that dies can lose only the row that it
is writing; half a line at the end is dropped. `NAME.run.json` says what the rows were made with.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hgdeploy.errors import ConfigError, OutputError, one_line
from hgdeploy.images.find import ImageFile
from hgdeploy.results.match import Match, whole_lines
from hgdeploy.results.outputs import claiming
from hgdeploy.results.rows import (
    FileFacts,
    Row,
    line_from_row,
    prediction_from_row,
    row_from_line,
    row_from_prediction,
)
from hgdeploy.results.rows_file import (
    RowsFile,
    all_rows,
    in_order,
    ordered_lines,
    results_files,
)
from hgdeploy.results.run_record import RunRecord
from hgdeploy.results.tables import stored_name, table_format
from hgdeploy.results.writers import Writer
from hgdeploy.system.files import remove_leftovers, replacing, writing
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.prediction import Prediction

OnChange = Literal["refuse", "redo"]
"""What to do with rows that were made with something else: refuse them, or make them again."""


@dataclass(frozen=True)
class Plan:
    """What is left to do.

    Attributes:
        remaining: the images without a row, in order.
        kept: rows of an earlier run that are kept.
        kept_failed: how many of those are of images that failed.
        dropped: rows of an earlier run whose image has changed or is no longer found.
        killed: how many runs, one after the other, were killed before the first of `remaining` had
            its row.
    """

    remaining: Sequence[ImageFile]
    kept: int = 0
    kept_failed: int = 0
    dropped: int = 0
    killed: int = 0


class ResultsFile:
    """The rows of one run: open it, load the model, `begin`, `write` each row, `finish`, `close`.

    Nothing that exists is changed before `begin`. Use it as a context manager, or close it.

    Args:
        path: a `.jsonl`, `.csv` or `.parquet` file.
        on_warning: called with a line if a second run cannot be kept from writing the same file.

    Raises:
        ConfigError: as for `results_files`.
        OutputError: it cannot be written, or another process is writing it.
    """

    def __init__(self, path: Path, on_warning: OnLine = nothing) -> None:
        self._path = path
        self._table = table_format(path)
        self._target, self._rows_path, _ = results_files(path)
        self._record = RunRecord(self._target)
        self._rows: RowsFile | None = None
        self._files: Sequence[ImageFile] = ()
        self._plan = Plan(())
        self._order = array("q")  # for each row, in the file's order, the index of its image
        self._made: os.stat_result | None = None  # of the finished file
        beside = [self._record.path] + ([] if self._table is None else [self._rows_path])
        with contextlib.ExitStack() as claims:
            claims.enter_context(claiming([path, *beside], on_warning))
            if self._rows_path.exists():
                with writing(path), self._rows_path.open("r+b"):
                    pass
            self._claims = claims.pop_all()

    def begin(
        self,
        files: Sequence[ImageFile],
        fingerprint: Mapping[str, str],
        resume: OnChange | None = None,
    ) -> Plan:
        """Start a run, or resume one that ended before all of its images were done.

        Args:
            files: all images, in order; the same name may occur several times.
            fingerprint: what the rows depend on, by name: model, engine, precision and so on.
            resume: None replaces what is there. Otherwise the rows of unchanged images are kept; if
                an image (by its size and time) or the fingerprint has changed, `refuse` raises and
                changes nothing, and `redo` classifies that image, or all of them, again. Without
                rows to go on with, the run starts from the first image.

        Returns:
            What is left to do: give `write` the predictions of `remaining`, in order.

        Raises:
            ConfigError: what is there does not fit, and `resume` is `refuse`.
            OutputError: a file cannot be written.
        """
        self._files = files
        with writing(self._path):
            remove_leftovers(self._target, self._rows_path, self._record.path)
            match = Match(files)
            if resume is not None and self._has_rows() and self._fits(fingerprint, resume):
                match.take_all(self._old_lines())
                if match.misfits and resume == "refuse":
                    raise ConfigError(match.refusal(self._path))
            if match.order:
                self._keep(match)
            else:
                # Emptied first, on disk: no row may ever stand beside another run's fingerprint.
                with replacing(self._rows_path):
                    pass
            killed = self._record.begin(fingerprint, len(match.order), again=resume is not None)
            self._rows = RowsFile(self._rows_path)
        places = match.remaining()
        self._order = match.order + places
        self._plan = Plan(
            [files[place] for place in places],
            len(match.order),
            match.failed,
            match.misfits,
            killed,
        )
        return self._plan

    def write(self, prediction: Prediction, facts: FileFacts) -> None:
        """Append the row of the next remaining image; once this returns, no signal can lose it.

        Args:
            prediction: what was found, or why nothing was.
            facts: the image's file, as it was before it was read.

        Raises:
            OutputError: the disk is full, for example; the rows before this one are intact. Or
                something else has changed the file.
        """
        if self._rows is None or self._rows.written == len(self._plan.remaining):
            raise ValueError("no row is expected: begin() was not called, or all rows are written")
        expected = self._plan.remaining[self._rows.written].name
        if prediction.path != expected:
            raise ValueError(f"the next row is that of {expected!r}, not of {prediction.path!r}")
        try:
            self._rows.append(line_from_row(row_from_prediction(prediction, facts)))
        except OSError as error:
            raise OutputError(
                f"{self._path} cannot be written: {error.strerror}; {self.progress()}"
            ) from None

    def replay(self, writers: Sequence[Writer]) -> None:
        """Hand the rows that `begin` kept to other writers, such as that of a report."""
        if not writers or not self._plan.kept:
            return
        with writing(self._path):
            kept = itertools.islice(whole_lines(self._rows_path), self._plan.kept)
            for line, place in zip(kept, self._order, strict=False):
                row = row_from_line(line)
                facts = FileFacts(self._files[place].path, row["size"], row["mtime_ns"])
                for writer in writers:
                    writer.write(prediction_from_row(row), facts)

    def progress(self) -> str:
        """Return how many images are done, and how to resume after an interruption."""
        again = "run the same command with --resume to do the rest"
        if self._rows is not None and self._made is None and self._rows.spoiled():
            return again
        done = self._plan.kept + (0 if self._rows is None else self._rows.written)
        holder = self._rows_path if self._made is None else self._target
        return (
            f"{done} of {len(self._files)} images are done and their rows are in {holder.name}; "
            f"{again}"
        )

    def finish(self) -> None:
        """Put the rows into the order of the images and make the file that was asked for.

        Raises:
            OutputError: it cannot be written; the rows are intact, and a resumed run tries again.
                Or something else has changed the rows.
        """
        if self._rows is None or self._rows.written != len(self._plan.remaining):
            raise ValueError(f"finished too early: {self.progress()}")
        try:
            with writing(self._path):
                self._rows.check()
                self._rows.to_disk()
                if self._table is not None:
                    with replacing(self._target) as stream:
                        self._table.write(stream, all_rows(self._rows_path, self._order))
                    self._rows_path.unlink()
                elif not in_order(self._order):
                    with replacing(self._target) as stream:
                        stream.writelines(ordered_lines(self._rows_path, self._order))
                self._made = self._target.stat()
        except OutputError as error:
            raise OutputError(f"{error}; {self.progress()}") from None

    def close(self) -> None:
        """Make sure that the rows are on disk, and let others write; a second call does nothing.

        Raises:
            OutputError: the rows could not be written to the disk, or the finished file is gone.
        """
        with self._claims:
            if self._rows is None or self._rows.closed:
                return
            with writing(self._path):
                self._rows.close()
            self._record.end()
            if self._made is not None and not self._is_there(self._made):
                raise OutputError(
                    f"{self._path} was removed, replaced or cut by something else before the run "
                    "ended; run the same command again"
                )

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_there(self, made: os.stat_result) -> bool:
        try:
            now = self._target.stat()
        except OSError:
            return False
        return os.path.samestat(made, now) and made.st_size == now.st_size

    def _has_rows(self) -> bool:
        """Return whether an earlier run left rows; unfinished rows win over a finished table."""
        if self._rows_path.exists():
            return self._rows_path.stat().st_size > 0
        return self._target.exists()

    def _fits(self, fingerprint: Mapping[str, str], resume: OnChange) -> bool:
        """Return whether the fingerprint is unchanged; raise if a change is to be refused."""
        reason = self._record.difference(fingerprint)
        if reason and resume == "refuse":
            raise ConfigError(
                f"--resume: {self._path} was not made by this run: {reason}; add --redo-changed to "
                "classify all images again, or name another --output"
            )
        return not reason

    def _old_lines(self) -> Iterator[bytes]:
        if self._table is None or self._rows_path.exists():
            return whole_lines(self._rows_path)
        return self._table_lines(self._table.read(self._target))

    def _table_lines(self, rows: Iterator[Row]) -> Iterator[bytes]:
        """Yield a finished table's rows as lines."""
        # A name that a table cannot hold is recognised by what it holds instead.
        places = ((stored_name(file.name), file.name) for file in self._files)
        names = {stored: name for stored, name in places if stored != name}
        try:
            for row in rows:
                row["path"] = names.get(row["path"], row["path"])
                yield line_from_row(row)
        except (OSError, ValueError, TypeError) as error:
            raise ConfigError(
                f"--resume: {self._path} cannot be read: {one_line(error)}; leave out --resume to "
                "replace it"
            ) from None

    def _keep(self, match: Match) -> None:
        """Leave in the rows file the rows that are kept and nothing else."""
        whole = self._rows_path.exists() and not match.misfits
        # A second name of the file is somebody's copy of it, which stays as it is.
        if whole and self._rows_path.stat().st_nlink == 1:
            os.truncate(self._rows_path, match.size)
            return
        with replacing(self._rows_path) as stream:
            stream.writelines(itertools.compress(self._old_lines(), match.keeps))
