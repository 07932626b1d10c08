# SPDX-License-Identifier: Apache-2.0
"""Reads YAML, JSON and lists from outside, within bounds; what is wrong is an error of one line.

A file of a few hundred bytes may nest ten thousand lists, or name one list a billion times over.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from hgdeploy.errors import ConfigError, HGDeployError
from hgdeploy.system.checks import cut

# Descriptions of 21,000 classes take 1 MB; PyYAML itself needs a second for each 300 kB, and with
# libyaml one for each 3 MB.
_MOST_YAML_BYTES = 4 << 20
# What the YAML holds once each alias stands for a copy of what it names.
_MOST_YAML_VALUES = 1_000_000
_MOST_YAML_DEPTH = 64
_MOST_DIGITS = 1_000  # of one number; those of base 60 (1:00:00) take quadratic time
_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_PRINTED = (*_NUMBERS, "tag:yaml.org,2002:bool")
_MERGE = "tag:yaml.org,2002:merge"
_TEXT = "tag:yaml.org,2002:str"
# Programs of the largest models are tens of MB, as are the samples of long benchmarks.
_MOST_JSON_BYTES = 256 << 20
# Lists of ImageNet-21k for validation have half a million lines.
_MOST_LIST_BYTES = 256 << 20
_PATIENCE_SECONDS = 5


# Tabs, marks of the byte order, bare tags and question marks in a list mean other things to libyaml
# than to PyYAML, and it takes a comment right behind the head of a block.
_OTHERWISE = re.compile(r"[\t\ufeff!?]|[|>][-+0-9]*#")


class AsPrinted(str):
    """A number or switch that was written as Python prints it, and is shown without quotes."""

    def __repr__(self) -> str:
        """Return the text itself: PaddleClas prints the value that YAML makes of it."""
        return str(self)


def read_yaml(
    path: Path,
    what: str,
    error: type[HGDeployError] = ConfigError,
    *,
    texts: Collection[str] = (),
) -> dict[Any, Any]:
    """Read a YAML file of keys and values.

    YAML 1.1 makes false of `no`, 8 of `010` and 750 of `12:30`. Under the keys `texts` nothing is
    made of them, of null or of dates: they stay texts, as they are written.

    Args:
        path: a UTF-8 text file.
        what: what the file is called in the error, such as `config file`.
        error: what is raised.
        texts: keys, at any depth, that hold a text or a list of texts.

    Raises:
        HGDeployError: `error`, where the file is missing, too large, is no YAML, or holds no keys.
    """
    try:
        text = _content(path, _MOST_YAML_BYTES).decode("utf-8-sig")
        raw = _loaded(text, texts)
    except FileNotFoundError:
        raise error(f"{what} {path} does not exist") from None
    except (OSError, UnicodeDecodeError, _TooLargeError) as reason:
        raise error(f"{what} {path} cannot be read: {reason}") from None
    except RecursionError:
        raise error(f"{what} {path} is not valid YAML: it is nested too deep") from None
    # PyYAML lets through what Python says of a value, such as a date of month 13.
    except (yaml.YAMLError, ValueError, AttributeError, LookupError, TypeError) as reason:
        raise error(f"{what} {path} is not valid YAML: {' '.join(str(reason).split())}") from None
    if not isinstance(raw, dict):
        raise error(f"{what} {path} has no keys, expected some with their values")
    return raw


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: a UTF-8 text file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or `parse_json` refuses it.
    """
    return parse_json(_content(path, _MOST_JSON_BYTES))


def parse_json(text: str | bytes) -> Any:
    """Return what a text of JSON holds.

    Raises:
        ValueError: it is not JSON, or is nested too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise
    except ValueError:  # which tells how to have Python take more digits
        raise ValueError("a number in it has too many digits") from None


def read_lines(path: Path) -> list[str]:
    """Return the lines of a list, split where PaddleClas's are: at `\\n`, `\\r\\n` and `\\r` only.

    A form feed or a Unicode line separator, where `str.splitlines` splits too, is part of a name.

    Args:
        path: a UTF-8 text file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is too large, or not UTF-8.
    """
    text = _content(path, _MOST_LIST_BYTES).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _loaded(text: str, texts: Collection[str]) -> Any:
    """Return what a text of YAML holds, and raise PyYAML's own error where it is none.

    Where libyaml's parser takes a text, PyYAML's own finds the same in it, but for `_OTHERWISE`.
    libyaml refuses some that PyYAML takes, such as `[x:]`.
    """
    if yaml.__with_libyaml__ and _OTHERWISE.search(text) is None:
        with contextlib.suppress(yaml.YAMLError):
            return _BoundedLoader(yaml.CSafeLoader(text), texts).get_single_data()
    return _BoundedLoader(yaml.SafeLoader(text), texts).get_single_data()


class _TooLargeError(ValueError):
    pass


def _content(path: Path, most: int) -> bytes:
    """Return what a file holds, and not more of it than there may be: a device has no end."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(number, "rb") as file:
        if stat.S_ISFIFO(os.fstat(number).st_mode):  # such as bash's <(...)
            _wait_for_a_writer(number)
        data = file.read(most + 1)
    if len(data) > most:
        raise _TooLargeError(f"it is larger than {most >> 20} MiB")
    return data


def _refuse_twins(node: yaml.MappingNode) -> None:
    """Refuse two values of one key, of which YAML's readers drop the first in silence."""
    seen: dict[tuple[str, str], yaml.Node] = {}
    for key, _ in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
            continue
        first = seen.setdefault((key.tag, key.value), key)
        if first is not key:
            lines = f"{first.start_mark.line + 1} and {key.start_mark.line + 1}"
            raise yaml.YAMLError(f"the key {cut(key.value)} stands twice, in lines {lines}")


def _wait_for_a_writer(pipe: int) -> None:
    waiting = select.poll()
    waiting.register(pipe, select.POLLIN)
    if not waiting.poll(1000 * _PATIENCE_SECONDS):
        raise OSError(f"it is a pipe into which nothing came in {_PATIENCE_SECONDS} s")
    os.set_blocking(pipe, True)


class _TextNode(yaml.ScalarNode):
    """What is written, where YAML would make something else of it."""

    def __init__(self, node: yaml.ScalarNode, text: str) -> None:
        super().__init__(node.tag, node.value, node.start_mark, node.end_mark)
        self.text = text


class _BoundedLoader(yaml.SafeLoader):
    """Refuses, before anything is made of it, what is nested or repeated without measure."""

    def __init__(self, parser: yaml.SafeLoader | yaml.CSafeLoader, texts: Collection[str]) -> None:
        super().__init__("")
        self._parser = parser
        self._texts = texts
        self._depth = 0
        self._sizes: dict[yaml.Node, int] = {}  # with each alias counted as what it names

    def check_event(self, *choices: Any) -> bool:
        """Return whether the next event is of one of these kinds; of any kind, without any."""
        return bool(self._parser.check_event(*choices))

    def peek_event(self) -> Any:
        """Return the next event, which stays the next."""
        return self._parser.peek_event()

    def get_event(self) -> Any:
        """Return the next event, and go on."""
        return self._parser.get_event()

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose one value, and count it."""
        if self._depth >= _MOST_YAML_DEPTH:
            raise yaml.YAMLError(f"it is nested deeper than {_MOST_YAML_DEPTH} levels")
        is_alias = self.check_event(yaml.AliasEvent)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if is_alias and node not in self._sizes:
            raise yaml.YAMLError("an alias names what it stands in")
        if node is not None and not is_alias:
            self._sizes[node] = self._size(node)
            if isinstance(node, yaml.MappingNode):
                _refuse_twins(node)
        return node

    def _size(self, node: yaml.Node) -> int:
        if isinstance(node, yaml.ScalarNode):
            if node.tag in _NUMBERS and len(node.value) > _MOST_DIGITS:
                raise yaml.YAMLError(f"it holds a number of {len(node.value)} digits")
            return 1
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        else:
            inner = node.value
        size = 1 + sum(self._sizes[part] for part in inner)
        if size > _MOST_YAML_VALUES:
            raise yaml.YAMLError(f"its aliases make more than {_MOST_YAML_VALUES:,} values of it")
        return size

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Resolve merged keys, and set apart what stays as it is written."""
        super().flatten_mapping(node)
        node.value = [
            (key, self._as_written(value) if key.value in self._texts else value)
            for key, value in node.value
        ]

    def _as_written(self, node: yaml.Node) -> yaml.Node:
        if isinstance(node, yaml.SequenceNode):
            inner = [self._scalar_as_written(part) for part in node.value]
            return yaml.SequenceNode(node.tag, inner, node.start_mark, node.end_mark)
        return self._scalar_as_written(node)

    def _scalar_as_written(self, node: yaml.Node) -> yaml.Node:
        if not isinstance(node, yaml.ScalarNode) or node.tag == _TEXT:
            return node
        try:
            value = self.construct_object(node) if node.tag in _PRINTED else None
        except ValueError:  # 0x_
            value = None
        return _TextNode(node, AsPrinted(node.value) if str(value) == node.value else node.value)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Return what a node stands for."""
        if isinstance(node, _TextNode):
            return node.text
        return super().construct_object(node, deep)
