# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's YAML file and `-o` overrides as a tree of keys."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import yaml

from hgdeploy.errors import ConfigError

SECTIONS = ("Global", "PreProcess", "PostProcess")


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"config file {path} does not exist; check -c") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"config file {path} cannot be read: {error}") from None
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError as error:
        told = " ".join(str(error).split())
        raise ConfigError(f"config file {path} is not valid YAML: {told}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"config file {path} has no sections, expected {', '.join(SECTIONS)}")
    return raw


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
            if not part.isdigit() or int(part) >= len(node):
                raise ConfigError(f"override {where}: expected an index from 0 to {len(node) - 1}")
            index: Any = int(part)
        elif isinstance(node, dict):
            index = part
        else:
            raise ConfigError(f"override {where}: {'.'.join(keys[:depth])} holds no keys")
        if last:
            node[index] = literal(value) if keys[0] != "Global" else value
        elif isinstance(node, dict) and node.get(index) is None:
            node[index] = {}
        node = node[index]


def literal(text: object) -> object:
    """Return what a Python literal in `text` means, or `text` itself, as PaddleClas reads values.

    PaddleClas evaluates overrides as Python; literals are the part of that which is safe.
    """
    if not isinstance(text, str):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
