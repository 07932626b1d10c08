# SPDX-License-Identifier: Apache-2.0
"""How long work says where it is: `on_progress` and `on_warning` each take one line."""

from __future__ import annotations

from collections.abc import Callable

OnLine = Callable[[str], None]
"""Called with one line for people, without a line end."""


def nothing(_: str) -> None:
    """Drop a line."""


def once(on_line: OnLine) -> OnLine:
    """Return a function that passes each different line on, but none again."""
    passed = set[str]()

    def pass_on(line: str) -> None:
        if line not in passed:
            passed.add(line)
            on_line(line)

    return pass_on
