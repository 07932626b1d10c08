# SPDX-License-Identifier: Apache-2.0
"""`NAME.run.json` beside a result file: what its rows were made with."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hgdeploy.errors import OutputError
from hgdeploy.system.documents import read_json
from hgdeploy.system.files import write_text

_SCHEMA = 1
_LONGEST_VALUE = 40  # a longer one, such as a hash, means nothing to a reader


class RunRecord:
    """The record of one result file.

    Args:
        target: the result file.

    Attributes:
        path: the record.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.run.json")
        self._record: dict[str, Any] = {}

    def begin(self, fingerprint: Mapping[str, str], rows: int, *, again: bool) -> int:
        """Write the record of a run that begins.

        Args:
            fingerprint: what the rows depend on, by name.
            rows: how many rows there are already.
            again: it goes on with an earlier run, if there was one.

        Returns:
            How many runs, one after the other, were killed when there were so many rows.

        Raises:
            OutputError: it cannot be written.
        """
        killed = 0
        if again and not self.difference(fingerprint):
            last = self._last_run()
            if last.get("running") is True:
                before = last.get("killed") if last.get("rows") == rows else 0
                killed = 1 + (before if isinstance(before, int) else 0)
        self._record = {
            "schema": _SCHEMA,
            "fingerprint": dict(fingerprint),
            "run": {"rows": rows, "killed": killed, "running": True},
        }
        # Rows that are there have their record already, and a full disk may have no room for more.
        with contextlib.suppress(*([OutputError] if rows else [])):
            self._write()
        return killed

    def end(self) -> None:
        """Write that the run was not killed, if that can be written."""
        self._record["run"]["running"] = False
        with contextlib.suppress(OutputError):
            self._write()

    def _write(self) -> None:
        write_text(self.path, json.dumps(self._record, indent=1) + "\n")

    def _last_run(self) -> Mapping[str, object]:
        """Return what a record that can be read says of its run; nothing in older ones."""
        last = read_json(self.path).get("run")
        return last if isinstance(last, dict) else {}

    def difference(self, fingerprint: Mapping[str, str]) -> str:
        """Return how the rows' fingerprint differs from this one; empty if it does not.

        A record that is missing or cannot be understood counts as a difference.
        """
        try:
            record = read_json(self.path)
            old = record["fingerprint"]
            texts = isinstance(old, dict) and all(isinstance(value, str) for value in old.values())
            if record["schema"] != _SCHEMA or not texts:
                raise ValueError
        except FileNotFoundError:
            return f"there is no {self.path.name} that says what its rows were made with"
        except (OSError, ValueError, KeyError, TypeError):
            return f"{self.path.name} cannot be understood"
        return "; ".join(_differences(old, fingerprint))


def _differences(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in sorted({*old, *new}):
        before, now = old.get(name, "not set"), new.get(name, "not set")
        if before == now:
            continue
        if max(len(before), len(now)) > _LONGEST_VALUE:
            yield f"{name} has changed"
        else:
            yield f"{name} was {before}, is {now}"
