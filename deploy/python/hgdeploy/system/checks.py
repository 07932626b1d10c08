# SPDX-License-Identifier: Apache-2.0
"""Checks values from outside: of a file, a command line, or a constructor's arguments.

A kind says what a value may be. `check` returns the value, or raises one line that says what stands
where and what was expected:

    check("batch", 0, whole(1))                  batch is 0, expected a whole number from 1
    check("engine", "padle", one_of(ENGINES))    unknown engine 'padle', did you mean 'paddle'?

A kind is a function of a `Given`, so that kinds combine and a module can have kinds of its own.
Those that many need are in `hgdeploy.system.kinds`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

from hgdeploy.errors import ConfigError, HGDeployError, nearest

T = TypeVar("T")
_SHOWN = 60


class _Missing:
    """Stands for the value of a key that is not there."""

    def __repr__(self) -> str:
        return "missing"


MISSING = _Missing()


@dataclass(frozen=True)
class Given:
    """A value from outside, and how to refuse it.

    Attributes:
        where: names the value in errors, such as `PostProcess.Topk.topk`; what ends in a colon
            names a file, and its keys follow after a space.
        value: the value.
        hint: ends the errors: how to mend the value.
        error: what is raised.
        shown: how errors show the value, where it was written otherwise than it is now.
    """

    where: str
    value: object
    hint: str = ""
    error: type[HGDeployError] = ConfigError
    shown: str | None = None

    def refused(self, expected: str) -> HGDeployError:
        """Return the error that says what the value is and what was expected."""
        shown = cut(self.value) if self.shown is None else self.shown
        where = self.where.removesuffix(":")
        return self.wrong(f"{where} is {shown}, expected {expected}")

    def unknown(self, names: Collection[str]) -> HGDeployError:
        """Return the error that says which known name is nearest to the value."""
        near = nearest(str(self.value), names)
        return self.wrong(f"unknown {self.where} {cut(self.value)}, {near}")

    def wrong(self, text: str) -> HGDeployError:
        """Return the error of that text, ended by the hint."""
        return self.error(f"{text}; {self.hint}" if self.hint else text)

    def at(self, key: str) -> Given:
        """Return what stands at a key of this mapping; a kind then refuses it where it is missing.

        Raises:
            HGDeployError: the value is no mapping.
        """
        return self._inner(joined(self.where, key), mapping(self).get(key, MISSING))

    def read(self, key: str, kind: Kind[T]) -> T:
        """Return what stands at a key of this mapping, checked.

        Raises:
            HGDeployError: the value is no mapping, or what stands there is not of the kind.
        """
        return kind(self.at(key))

    def or_empty(self) -> Given:
        """Return this with an empty mapping for null: a YAML key with nothing behind it."""
        return dataclasses.replace(self, value={}) if self.value is None else self

    def item(self, index: int, value: object) -> Given:
        """Return one value of this list."""
        return self._inner(f"{self.where}[{index}]", value)

    def _inner(self, where: str, value: object) -> Given:
        return Given(where, value, self.hint, self.error)


Kind: TypeAlias = Callable[[Given], T]
"""Returns a given value as the program holds it, or raises the error that refuses it."""


def check(
    where: str,
    value: object,
    kind: Kind[T],
    *,
    hint: str = "",
    error: type[HGDeployError] = ConfigError,
) -> T:
    """Return a value from outside, checked.

    Args:
        where: names the value in the error.
        value: the value.
        kind: what it may be.
        hint: ends the error: how to mend the value.
        error: what is raised.

    Returns:
        The value as its kind reads it: a whole number as int, a number as float, a list as tuple.

    Raises:
        HGDeployError: `error`, where the value is of another kind.
    """
    return kind(Given(where, value, hint, error))


def check_fields(record: object, where: str = "", /, **kinds: Kind[Any]) -> None:
    """Check a dataclass's fields, for its `__post_init__`; each becomes what its kind reads.

    Args:
        record: the instance, frozen or not.
        where: names it in errors; nothing where the fields' names say enough.
        **kinds: what each named field may be.

    Raises:
        ConfigError: a field is of another kind.
    """
    for name, kind in kinds.items():
        value = check(joined(where, name), getattr(record, name), kind)
        object.__setattr__(record, name, value)


def mapping(given: Given) -> Mapping[Any, Any]:
    """Is the kind of mappings, whatever they hold."""
    if not isinstance(given.value, Mapping):
        raise given.refused("a mapping of keys to values")
    return given.value


def joined(where: str, key: object) -> str:
    """Return the place of a mapping's key; what would break the line is shown as a value is."""
    plain = isinstance(key, str) and key.isprintable() and 0 < len(key) <= _SHOWN
    name = str(key) if plain else cut(key)
    if not where:
        return name
    return f"{where} {name}" if where.endswith(":") else f"{where}.{name}"


def cut(value: object) -> str:
    """Return how errors show a value: on one line, not too long, and lists as users write them."""
    try:
        shown = " ".join(repr(list(value) if isinstance(value, tuple) else value).split())
    except (ValueError, RecursionError):  # a number of thousands of digits, or nested too deep
        return "too long to show"
    return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 3]}..."
