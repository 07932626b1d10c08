# SPDX-License-Identifier: Apache-2.0
"""How long work says where it is: `on_progress` and `on_warning` each take one line."""

from __future__ import annotations

from collections.abc import Callable

OnLine = Callable[[str], None]
"""Called with one line for people, without a line end."""


def nothing(_: str) -> None:
    """Drop a line."""
