# SPDX-License-Identifier: Apache-2.0
"""What one run answers for each labelled image, and two runs compared image by image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hgdeploy.validation.accuracy import wilson_interval
from hgdeploy.validation.evaluation.share import Share

Change = Literal["", "lost", "gained", "other"]
"""What an answer is beside the reference's: the same, no longer right, newly right, or other."""


@dataclass(frozen=True)
class Judged:
    """What a run answers for one image.

    Attributes:
        answer: its class; of a model for several labels, those that it finds.
        right: whether that is what the image shows; for several labels, in all that are known.
        score: the probability of the one class, or NaN for several labels.
    """

    answer: tuple[int, ...]
    right: bool
    score: float


@dataclass(frozen=True)
class Paired:
    """A run against a reference on the same images.

    Attributes:
        same: the share of images with the same answer.
        both: images that both answer right.
        lost: images that only the reference answers right.
        gained: images that only the run answers right.
        neither: images that neither answers right.
    """

    same: Share
    both: int
    lost: int
    gained: int
    neither: int

    @property
    def images(self) -> int:
        """How many images were compared."""
        return self.same.images

    @property
    def difference(self) -> float:
        """The run's accuracy less the reference's, -1 to 1."""
        return (self.gained - self.lost) / self.images

    @property
    def p_value(self) -> float:
        """How likely so unequal a `lost` and `gained` is if both runs are equally good.

        It is the exact, two-sided test of Q. McNemar (Psychometrika 12, 1947): each image that only
        one answers right is as likely the one's as the other's.
        """
        trials, least = self.lost + self.gained, min(self.lost, self.gained)
        ways, total = 1, 0
        for k in range(least + 1):
            total += ways
            ways = ways * (trials - k) // (k + 1)
        return min(1.0, 2 * total / 2**trials) if trials else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `difference`.

        It is method 10 of R. G. Newcombe (Statistics in Medicine 17, 1998, 2635-2650): Wilson's
        intervals of both accuracies, joined by how far the two depend on each other.
        """
        count = self.images
        own, other = self.both + self.gained, self.both + self.lost
        (low, high), (least, most) = (wilson_interval(hits, count) for hits in (own, other))
        share, reference = own / count, other / count
        phi = self._dependence(own, other)
        down, up = share - low, high - share
        back, forth = reference - least, most - reference
        # Rounding may take the sum of an exact tie below 0.
        below = math.sqrt(max(0.0, down**2 - 2 * phi * down * forth + forth**2))
        above = math.sqrt(max(0.0, up**2 - 2 * phi * up * back + back**2))
        return max(-1.0, self.difference - below), min(1.0, self.difference + above)

    def _dependence(self, own: int, other: int) -> float:
        """Return phi, the correlation of being right, with Newcombe's correction for continuity."""
        count = self.images
        spread = own * (count - own) * other * (count - other)
        if not spread:
            return 0.0
        covered = float(self.both * self.neither - self.lost * self.gained)
        if covered > 0:
            covered = max(covered - count / 2, 0.0)
        return covered / math.sqrt(spread)


def changes(judged: Mapping[int, Judged], reference: Mapping[int, Judged]) -> dict[int, Change]:
    """Return how a run's answer differs from the reference's, for each image that both classify.

    Args:
        judged: the run's answers, by the image's number.
        reference: the reference's.
    """
    found: dict[int, Change] = {}
    for number, own in judged.items():
        other = reference.get(number)
        if other is None:
            continue
        if own.answer == other.answer:
            found[number] = ""
        elif own.right != other.right:
            found[number] = "gained" if own.right else "lost"
        else:
            found[number] = "other"
    return found


def paired(judged: Mapping[int, Judged], reference: Mapping[int, Judged]) -> Paired:
    """Compare two runs on the images that both classify; there is at least one.

    Args:
        judged: the run's answers, by the image's number.
        reference: the reference's.
    """
    common = [(own, reference[n]) for n, own in judged.items() if n in reference]
    right = Counter((own.right, other.right) for own, other in common)
    same = sum(own.answer == other.answer for own, other in common)
    return Paired(
        Share(same, len(common)),
        right[True, True],
        right[False, True],
        right[True, False],
        right[False, False],
    )


def confusion(labels: Sequence[int], judged: Mapping[int, Judged]) -> Counter[tuple[int, int]]:
    """Count the pairs of class and answer.

    Args:
        labels: the class of each image.
        judged: the answers, by the image's number.
    """
    return Counter((labels[number], each.answer[0]) for number, each in judged.items())
