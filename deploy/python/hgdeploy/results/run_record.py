# SPDX-License-Identifier: Apache-2.0
"""`NAME.run.json` beside a result file: what its rows were made with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

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

    def write(self, fingerprint: Mapping[str, str]) -> None:
        """Write what the rows depend on, by name.

        Raises:
            OutputError: it cannot be written.
        """
        record = {"schema": _SCHEMA, "fingerprint": dict(fingerprint)}
        write_text(self.path, json.dumps(record, indent=1) + "\n")

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
