# SPDX-License-Identifier: Apache-2.0
"""Suites read from YAML: lists of models, engines and so on, and how to measure them.

name: smoke
models: [PPHGNet_tiny, deploy/models/mine]
engines: [paddle, onnxruntime]
precisions: [fp32]
batches: [1, 8]
threads: [1, all]
scopes: [engine]
exclude: [{engine: paddle, batch: 8}]
min_seconds: 3
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hgdeploy.benchmark.case import LISTS, Settings, Suite
from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import Given, Kind, check
from hgdeploy.system.documents import read_yaml
from hgdeploy.system.kinds import anything, as_text, flag, keys, list_of, optional, path


def load_suite(path: Path) -> Suite:
    """Read a suite from a YAML file.

    Its `image` is relative to the file's folder; its models are relative to the current folder.

    Raises:
        ConfigError: the file, a key or a value is wrong.
    """
    raw = read_yaml(path, "suite")
    try:
        suite = parse_suite(raw, path.stem)
        suite.cases()
    except ConfigError as error:
        raise ConfigError(f"suite {path}: {error}") from None
    if suite.image is not None:
        suite = dataclasses.replace(suite, image=path.parent / suite.image)
    return suite


def parse_suite(raw: Mapping[str, Any], name: str) -> Suite:
    """Return the `Suite` for the keys and values of a YAML file.

    Args:
        raw: the content of the YAML file.
        name: the suite's name if the file gives none.

    Raises:
        ConfigError: a key is unknown or a value is wrong.
    """
    words = "a list with at least one value"
    lists = {key: list_of(_item(case_key), 1, words=words) for key, case_key in LISTS.items()}
    measuring = dict.fromkeys((field.name for field in dataclasses.fields(Settings)), anything)
    plain = {
        "name": as_text,
        "device": as_text,
        "tensorrt": flag,
        "image": optional(path),
        "exclude": anything,
    }
    values = keys({**lists, **plain, **measuring})(Given("", raw))
    settings = Settings(**{key: values.pop(key) for key in measuring if key in values})
    exclude = values.pop("exclude", ())
    suite = Suite(**{"name": name, **values}, settings=settings)
    entries = list_of(_exclusion(suite), words="a list of mappings such as {engine: paddle}")
    return dataclasses.replace(suite, exclude=check("exclude", exclude, entries))


def threads_of(value: object) -> Any:
    """Return None for `all` or null, the number for its digits, and anything else unchanged."""
    if value in (None, "all"):
        return None
    if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value):
        return int(value)
    return value


def _item(key: str) -> Kind[Any]:
    """Return the kind of a list's values; `Case` itself checks them further."""
    return (lambda given: threads_of(given.value)) if key == "threads" else anything


def _exclusion(suite: Suite) -> Kind[dict[str, Any]]:
    """Return the kind of an entry of `exclude`: fields of cases, with values that the suite has."""
    kinds = {key: _listed(key, suite.values(name)) for name, key in LISTS.items()}

    def read(given: Given) -> dict[str, Any]:
        entry = keys(kinds)(given)
        if not entry:
            raise given.refused("keys and values such as {engine: paddle, batch: 8}")
        return entry

    return read


def _listed(key: str, values: Sequence[Any]) -> Kind[Any]:
    """Return the kind of a value in `exclude`: one that is not in the suite's list is a typo."""

    def read(given: Given) -> Any:
        value = _item(key)(given)
        if value not in values:
            names = ", ".join("all" if one is None else str(one) for one in values)
            raise given.refused(f"one of the suite's own: {names}")
        return value

    return read
