# SPDX-License-Identifier: Apache-2.0
"""A share of images, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

from hgdeploy.validation.accuracy import wilson_interval


@dataclass(frozen=True)
class Share:
    """A share of images, with its 95 % Wilson interval.

    Attributes:
        hits: how many of them.
        images: of how many.
    """

    hits: int
    images: int

    @property
    def value(self) -> float:
        """The share, 0 to 1; 0 where there are no images, as in PaddleClas."""
        return self.hits / self.images if self.images else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % Wilson interval; 0 to 1 where there are no images."""
        return wilson_interval(self.hits, self.images) if self.images else (0.0, 1.0)

    def __str__(self) -> str:
        """Return it in per cent with its interval; `-` where there are no images."""
        if not self.images:
            return "-"
        low, high = self.interval
        return f"{self.value:.2%} ({low:.2%} to {high:.2%})"
