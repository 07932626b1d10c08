# SPDX-License-Identifier: Apache-2.0
"""Takes typed values out of parsed JSON, or says in one line what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hgdeploy.errors import ConfigError

_SHOWN = 60
_HUGE = 1e15  # also leaves out infinity and, since it compares false, NaN


class JsonReader:
    """One JSON object of a file, with its place in it for the errors.

    Every method takes a key and raises ConfigError where the value is not what it should be; those
    that end in `or_none` take a missing key for null.
    """

    def __init__(self, path: Path, values: object, where: str = "") -> None:
        self._path, self._where = path, where
        if not isinstance(values, Mapping):
            raise self._wrong(where or "the file", values, "an object")
        self._values: Mapping[str, Any] = values

    def wrong(self, key: str, expected: str) -> ConfigError:
        """Return the error that says what stands at `key` and what was expected."""
        return self._wrong(self._name(key), self._values.get(key), expected)

    def inner(self, key: str) -> JsonReader:
        """Return the object at `key`."""
        return JsonReader(self._path, self.raw(key), self._name(key))

    def inner_or_none(self, key: str) -> JsonReader | None:
        """Return the object at `key`."""
        return None if self._values.get(key) is None else self.inner(key)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return the object at `key` as it stands, whatever it holds."""
        return self.inner(key)._values

    def numbers_by_name(self, key: str) -> dict[str, tuple[float, ...]]:
        """Return the lists of numbers in the object at `key`; a missing key or null is empty."""
        if self._values.get(key) is None:
            return {}
        inner = self.inner(key)
        return {name: inner.numbers(name) for name in inner._values}

    def each(self, key: str) -> list[JsonReader]:
        """Return the objects of the list at `key`."""
        return [
            JsonReader(self._path, value, f"{self._name(key)}[{i}]")
            for i, value in enumerate(self.sequence(key))
        ]

    def raw(self, key: str) -> Any:
        """Return what stands at `key`, whatever it is."""
        if key not in self._values:
            raise ConfigError(
                f"{self._path}: {self._name(key)} is missing; is it a result of hgdeploy benchmark?"
            )
        return self._values[key]

    def sequence(self, key: str) -> Sequence[Any]:
        """Return the list at `key`."""
        value = self.raw(key)
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return value

    def text(self, key: str) -> str:
        """Return the text at `key`, which may not be empty."""
        value = self.raw(key)
        if not isinstance(value, str) or not value:
            raise self.wrong(key, "a text")
        return value

    def text_or_none(self, key: str) -> str | None:
        """Return the text at `key`."""
        return None if self._values.get(key) is None else self.text(key)

    def one_of(self, key: str, allowed: Sequence[str]) -> str:
        """Return the text at `key`, which must be one of `allowed`."""
        if self.text(key) not in allowed:
            raise self.wrong(key, f"one of {', '.join(allowed)}")
        return self.text(key)

    def count(self, key: str) -> int:
        """Return the whole number at `key`, at least 1."""
        value = self.raw(key)
        if type(value) is not int or value < 1:
            raise self.wrong(key, "a whole number from 1")
        return value

    def count_or_none(self, key: str) -> int | None:
        """Return the whole number at `key`."""
        return None if self._values.get(key) is None else self.count(key)

    def number(self, key: str) -> float:
        """Return the number at `key`: finite, and not negative."""
        return self._number(self._name(key), self.raw(key))

    def number_or_none(self, key: str) -> float | None:
        """Return the number at `key`."""
        return None if self._values.get(key) is None else self.number(key)

    def indices_or_none(self, key: str) -> tuple[int, ...] | None:
        """Return the whole numbers from 0 of the list at `key`."""
        if self._values.get(key) is None:
            return None
        values = self.sequence(key)
        if not all(type(value) is int and value >= 0 for value in values):
            raise self.wrong(key, "a list of whole numbers from 0")
        return tuple(values)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Return the numbers of the list at `key`."""
        name = self._name(key)
        return tuple(self._number(f"{name}[{i}]", v) for i, v in enumerate(self.sequence(key)))

    def _name(self, key: str) -> str:
        return f"{self._where}.{key}" if self._where else key

    def _number(self, name: str, value: object) -> float:
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _HUGE:
            return float(value)
        raise self._wrong(name, value, "a number from 0")

    def _wrong(self, name: str, value: object, expected: str) -> ConfigError:
        found = repr(value)
        found = found if len(found) <= _SHOWN else f"{found[: _SHOWN - 3]}..."
        return ConfigError(
            f"{self._path}: {name} is {found}, expected {expected}; is it a result of "
            "hgdeploy benchmark?"
        )
