# SPDX-License-Identifier: Apache-2.0
"""Stands for numpy's random generator: what is drawn next is written down."""

from __future__ import annotations

from typing import Any

import numpy as np


class ScriptedChance:
    """Gives the numbers of a list in turn; fails a test that draws more, or leaves some.

    Args:
        numbers: each is what one draw gives: of a range, where in it, from 0 to 1.

    Attributes:
        asked: the arguments of each draw.
    """

    def __init__(self, *numbers: Any) -> None:
        self._numbers = list(numbers)
        self.asked: list[tuple[Any, ...]] = []

    def random(self) -> float:
        return self._next()

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * self._next(low, high)

    def normal(self, mean: float, deviation: float) -> float:
        return mean + deviation * self._next(mean, deviation)

    def integers(self, low: int, high: int | None = None, endpoint: bool = False) -> int:
        return self._next(low, high, endpoint)

    def standard_normal(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        return np.full(shape, self._next(shape), dtype)

    def choice(self, count: int, size: int, replace: bool, p: Any) -> list[int]:
        return self._next(count, size, replace, p)

    def permutation(self, count: int) -> np.ndarray:
        return np.array(self._next(count))

    def beta(self, a: float, b: float) -> float:
        return self._next(a, b)

    def finished(self) -> bool:
        return not self._numbers

    def _next(self, *asked: Any) -> Any:
        self.asked.append(asked)
        return self._numbers.pop(0)
