# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's `-o` overrides, applied to the tree of keys that its YAML file is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.system.documents import AsPrinted
from hgdeploy.system.kinds import parse_literal
from hgdeploy.transforms.postprocess_config import LABEL_KEYS

SECTIONS = ("Global", "PreProcess", "PostProcess")


def override(raw: dict[str, Any], text: str) -> None:
    """Apply one `a.b.0.c=value` to the tree `raw`, creating mappings that are not there."""
    key, equals, value = text.partition("=")
    keys = key.strip().split(".")
    if not equals or not all(keys):
        raise ConfigError(f"override {text!r} is not of the form Section.key=value")
    node: Any = raw
    for depth, part in enumerate(keys):
        last = depth == len(keys) - 1
        where = ".".join(keys[: depth + 1])
        if isinstance(node, list):
            if part not in map(str, range(len(node))):
                raise ConfigError(f"override {where}: expected an index from 0 to {len(node) - 1}")
            index: Any = int(part)
        elif isinstance(node, dict):
            index = part
        else:
            raise ConfigError(f"override {where}: {'.'.join(keys[:depth])} holds no keys")
        if last:
            node[index] = _value(keys, value)
        elif isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        node = node[index]


def _value(keys: Sequence[str], written: str) -> object:
    """Return what is written after `-o`, as the tree of keys holds it."""
    # What stands in Global may be a path, such as a folder that is called 2024.
    if keys[0] == "Global" and len(keys) > 1:
        return _paths(written) or _unquoted(written)
    value = parse_literal(written)
    if set(keys).isdisjoint(LABEL_KEYS) or isinstance(value, str | list):
        return value
    # A name stays as it is written: 1.10 is not 1.1.
    return AsPrinted(written) if str(value) == written else written


def _paths(written: str) -> list[str] | None:
    """Return the texts of a list of paths; None for what is no list of some."""
    if not written.startswith("["):
        return None
    listed = parse_literal(written)
    some = isinstance(listed, list) and listed and all(isinstance(one, str) for one in listed)
    return listed if some else None  # type: ignore[return-value]


def _unquoted(value: str) -> str:
    """Return a path without the quotes around it: cmd.exe keeps them, PaddleClas evaluates them.

    Nothing else in it is evaluated, so that `'C:\\new'` has no line break.
    """
    quoted = len(value) > 2 and value[0] == value[-1] and value[0] in "'\""
    return value[1:-1] if quoted else value
