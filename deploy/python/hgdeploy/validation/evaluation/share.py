# SPDX-License-Identifier: Apache-2.0
"""Shares of images and of their labels, with their intervals."""

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
        return _told(self.value, self.interval) if self.images else "-"


class LabelShare:
    """Gathers how many labels of images are one way, such as wrong; see `add`.

    The labels of one image are not independent, so that Wilson's interval of as many labels would
    be too narrow. Its count is instead the effective one of E. L. Korn and B. I. Graubard (Survey
    Methodology 24, 1998), with the images as clusters: as many independent labels as would vary as
    much. It is at least the number of images and at most that of labels.

    Attributes:
        hits: how many labels.
        labels: of how many.
        images: how many images have these.
    """

    def __init__(self) -> None:
        self.hits = self.labels = self.images = 0
        # Over the images: of the hits squared, the hits times the labels, the labels squared.
        self._squares = [0, 0, 0]

    def add(self, hits: int, labels: int) -> None:
        """Take one image; one without labels counts for nothing.

        Args:
            hits: how many of its labels.
            labels: how many it has.
        """
        self.hits, self.labels = self.hits + hits, self.labels + labels
        self.images += int(labels > 0)
        products = (hits * hits, hits * labels, labels * labels)
        self._squares = [total + one for total, one in zip(self._squares, products, strict=True)]

    @property
    def value(self) -> float:
        """The share, 0 to 1; 0 where there are no labels."""
        return self.hits / self.labels if self.labels else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Its 95 % interval; 0 to 1 where there are no labels."""
        if not self.labels:
            return (0.0, 1.0)
        count = self._effective
        return wilson_interval(self.value * count, count)

    @property
    def _effective(self) -> float:
        share, (own, mixed, known) = self.value, self._squares
        apart = own - 2 * share * mixed + share * share * known
        if self.images == 1 or not 0 < share < 1:
            return self.images
        variance = max(apart, 0.0) / self.labels**2 * self.images / (self.images - 1)
        least, most = self.images, self.labels
        return max(least, min(most, share * (1 - share) / variance)) if variance else most

    def __str__(self) -> str:
        """Return it in per cent with its interval; `-` where there are no labels."""
        return _told(self.value, self.interval) if self.labels else "-"


def _told(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{value:.2%} ({low:.2%} to {high:.2%})"
