# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's `-o` overrides, applied to the tree of keys that its YAML file is."""

from __future__ import annotations

from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.system.kinds import parse_literal

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
            # What stands in Global may be a path, such as a folder that is called 2024.
            node[index] = value if keys[0] == "Global" and depth else parse_literal(value)
        elif isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        node = node[index]
