# SPDX-License-Identifier: Apache-2.0
"""What a value from outside may be: the kinds that `hgdeploy.system.checks` checks it by."""

from __future__ import annotations

import ast
import dataclasses
import math
import numbers
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hgdeploy.errors import nearest
from hgdeploy.system.checks import MISSING, Given, Kind, cut, joined, mapping

T = TypeVar("T")
_MOST_DIGITS = 18


def whole(least: int | None = None, most: int | None = None) -> Kind[int]:
    """Return the kind of whole numbers from `least` to `most`."""
    words = f"a whole number{_bounds(least, most)}"

    def read(given: Given) -> int:
        value = given.value
        if isinstance(value, bool) or not isinstance(value, numbers.Integral):
            raise given.refused(words)
        size = int(value)  # numpy's whole numbers are others, which JSON does not take
        if (least is not None and size < least) or (most is not None and size > most):
            raise given.refused(words)
        return size

    return read


def number(
    least: float | None = None,
    most: float | None = None,
    *,
    above: float | None = None,
    below: float | None = None,
    finite: bool = True,
) -> Kind[float]:
    """Return the kind of numbers in a range; not-a-number is in none.

    Args:
        least: the smallest.
        most: the largest.
        above: what it must be larger than.
        below: what it must be smaller than.
        finite: infinity is none of them.
    """
    start = _bounds(least, None) if above is None else f" above {above:g}"
    end = _bounds(None, most) if below is None else f" below {below:g}"
    words = f"a number{start}{' and' if start and below is not None else ''}{end}"

    def read(given: Given) -> float:
        value = _float(given.value)
        fits = (
            not math.isnan(value)
            and (math.isfinite(value) or not finite)
            and (least is None or value >= least)
            and (most is None or value <= most)
            and (above is None or value > above)
            and (below is None or value < below)
        )
        if not fits:
            raise given.refused(words)
        return value

    return read


def flag(given: Given) -> bool:
    """Is the kind of true and false."""
    if not isinstance(given.value, bool):
        raise given.refused("true or false")
    return given.value


_SWITCH = {"true": True, "yes": True, "on": True, "1": True}
_SWITCH |= {"false": False, "no": False, "off": False, "0": False}


def switch(given: Given) -> bool:
    """Is the kind of true and false as configs write them: also 0, 1, and YAML's yes, no, on, off.

    Each may be a text, as it is after `-o`.
    """
    value = given.value
    if isinstance(value, bool | int | str):
        word = str(value).strip().lower()
        if word in _SWITCH:
            return _SWITCH[word]
    raise given.refused("true or false")


def text(given: Given) -> str:
    """Is the kind of texts that are not empty."""
    if not isinstance(given.value, str) or not given.value:
        raise given.refused("a text")
    return given.value


def as_text(given: Given) -> str:
    """Is the kind of texts, and of numbers as texts: a folder may be called 2024."""
    if isinstance(given.value, int | float) and not isinstance(given.value, bool):
        return str(given.value)
    return text(given)


def is_class_id(written: str) -> bool:
    """Return whether a text is a class id: some digits, though not thousands of them."""
    return written.isdecimal() and len(written) <= _MOST_DIGITS


def path(given: Given) -> Path:
    """Is the kind of paths, as a text or a path object."""
    if not isinstance(given.value, str | os.PathLike) or not os.fspath(given.value):
        raise given.refused("a path")
    return Path(given.value)


def one_of(names: Collection[str]) -> Kind[str]:
    """Return the kind of some names; the error for another name suggests the nearest."""

    def read(given: Given) -> str:
        if not isinstance(given.value, str):
            raise given.refused(f"one of: {', '.join(names)}")
        if given.value not in names:
            raise given.unknown(names)
        return given.value

    return read


def exactly(*values: T) -> Kind[T]:
    """Return the kind of a few values, which the error lists."""
    *first, last = map(repr, values)
    words = f"{', '.join(first)} or {last}" if first else last

    def read(given: Given) -> T:
        for value in values:
            if type(given.value) is type(value) and given.value == value:
                return value
        raise given.refused(words)

    return read


def list_of(
    kind: Kind[T], least: int = 0, most: int | None = None, *, words: str = "a list"
) -> Kind[tuple[T, ...]]:
    """Return the kind of lists with values of one kind.

    Args:
        kind: of each value.
        least: how many values there must be.
        most: how many values there may be.
        words: what the error says was expected.
    """

    def read(given: Given) -> tuple[T, ...]:
        values = given.value
        if not isinstance(values, list | tuple) or len(values) < least:
            raise given.refused(words)
        if most is not None and len(values) > most:
            raise given.refused(words)
        return tuple(kind(given.item(index, value)) for index, value in enumerate(values))

    return read


def mapping_of(kind: Kind[T]) -> Kind[dict[str, T]]:
    """Return the kind of mappings from any keys to values of one kind."""
    return lambda given: {key: given.read(key, kind) for key in mapping(given)}


def keys(kinds: Mapping[str, Kind[T]]) -> Kind[dict[str, T]]:
    """Return the kind of mappings with some of these keys; an unknown one is refused."""

    def read(given: Given) -> dict[str, T]:
        values = mapping(given)
        for key in values:
            if key not in kinds:
                near = nearest(str(key), kinds) if kinds else "there are none"
                raise given.wrong(f"unknown key {joined(given.where, key)}, {near}")
        return {key: given.read(key, kinds[key]) for key in values}

    return read


def all_keys(kinds: Mapping[str, Kind[T]]) -> Kind[dict[str, T]]:
    """Return the kind of mappings with all of these keys and no others; see `optional`."""

    def read(given: Given) -> dict[str, T]:
        keys(kinds)(given)
        return {key: given.read(key, kind) for key, kind in kinds.items()}

    return read


def optional(kind: Kind[T]) -> Kind[T | None]:
    """Return the kind that also takes None, and a missing key for it."""

    def read(given: Given) -> T | None:
        return None if given.value is None or given.value is MISSING else kind(given)

    return read


def literal(kind: Kind[T]) -> Kind[T]:
    """Return the kind that also takes a text with such a value, as `parse_literal` reads it."""

    def read(given: Given) -> T:
        parsed = parse_literal(given.value)
        return kind(dataclasses.replace(given, value=parsed, shown=cut(given.value)))

    return read


def rounded(kind: Kind[T]) -> Kind[T]:
    """Return the kind that also takes a whole number that is written as a float, such as 256.0."""
    return lambda given: kind(dataclasses.replace(given, value=as_whole(given.value)))


def as_whole(value: object) -> object:
    """Return a float that is a whole number as one; anything else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def anything(given: Given) -> Any:
    """Is the kind of all values; a key must be there."""
    if given.value is MISSING:
        raise given.refused("a value")
    return given.value


def parse_literal(value: object) -> object:
    """Return what a Python literal in a text means; a text that is none, and no text, as it is.

    PaddleClas evaluates values as Python; literals are the part of that which is safe.
    """
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return ast.literal_eval(value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return value


def _bounds(least: float | None, most: float | None) -> str:
    start = "" if least is None else f" from {least:g}"
    return start if most is None else f"{start} to {most if isinstance(most, int) else f'{most:g}'}"


def _float(value: object) -> float:
    """Return a number as float; not-a-number for what is none, or is too large for a float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.nan


# More than any machine has use for, and less than what makes libraries abort or take all memory.
THREADS = whole(1, 1024)
BATCH_SIZE = whole(1, 65_536)
# The most of what there is no other limit for, such as classes or rows.
MANY = 1_000_000
WEEK_SECONDS = 604_800
