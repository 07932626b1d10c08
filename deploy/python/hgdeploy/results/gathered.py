# SPDX-License-Identifier: Apache-2.0
"""What the page of a run is made from: counts, and the few images that it shows.

Its size does not grow with the number of images.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path

from hgdeploy.results.rows import FileFacts
from hgdeploy.transforms.prediction import Prediction, printable

PICTURES = 24  # in each of the two galleries
DISTINCT_REASONS = 1000  # that are counted; some have figures that are never the same twice
OTHER = "other reasons"
_FAILURES = 100
_CHARACTERS = 200  # of a name or a reason


@dataclass
class Picture:
    """An image that the page will show.

    Attributes:
        prediction: what it was classified as.
        file: its path.
        size: its bytes; None where that is not known.
        count: how many images are equal to it, itself included.
    """

    prediction: Prediction
    file: Path
    size: int | None
    count: int = 1

    @property
    def content(self) -> Hashable:
        """What equal images have in common: files of one size with one answer to the last digit."""
        if self.size is None:
            return id(self)
        return self.size, self.prediction.class_ids, self.prediction.scores

    @property
    def best(self) -> int | None:
        """Which of its scores is the highest; None where it has none."""
        scores = self.prediction.scores
        return max(range(len(scores)), key=scores.__getitem__, default=None)

    @property
    def best_class(self) -> str:
        """The name of the most likely class; `no class` where the image has none."""
        if self.best is None or self.prediction.class_ids is None:
            return "no class"
        return class_name(self.prediction, self.best)


@dataclass
class Gathered:
    """Counts and images of a run.

    Attributes:
        classified: how many images were classified.
        failed: how many failed.
        bare_scores: whether the model gives scores without classes.
        classes: how many images have each best class.
        reasons: how many images failed for each reason.
        failures: name and reason of the first that failed.
        sample: classified images, each as likely as any other.
    """

    classified: int = 0
    failed: int = 0
    bare_scores: bool = False
    classes: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    sample: list[Picture] = field(default_factory=list)
    # A heap whose first entry is the surest of those kept: (-confidence, -number, picture).
    _unsure: list[tuple[float, int, Picture]] = field(default_factory=list)
    # What is in it, by content: equal images are kept once.
    _kept: dict[Hashable, Picture] = field(default_factory=dict)
    # Equal runs give equal pages.
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    def take(self, prediction: Prediction, facts: FileFacts) -> None:
        """Take one prediction."""
        if prediction.error is not None:
            self._take_failure(prediction.path, prediction.error)
            return
        self.classified += 1
        picture = Picture(prediction, facts.path, facts.size)
        self._sample(picture)
        if prediction.class_ids is None:
            self.bare_scores = True
            return
        self.classes[picture.best_class] += 1
        self._keep_unsure(picture)

    @property
    def least_sure(self) -> list[Picture]:
        """The images whose best class is the least likely, the least sure first."""
        return [picture for *_, picture in sorted(self._unsure, key=lambda e: (-e[0], -e[1]))]

    def _take_failure(self, path: str, error: str) -> None:
        self.failed += 1
        reason = cut(error)
        if reason not in self.reasons and len(self.reasons) >= DISTINCT_REASONS:
            reason = OTHER
        self.reasons[reason] += 1
        if len(self.failures) < _FAILURES:
            self.failures.append((cut(path), cut(error)))

    def _sample(self, picture: Picture) -> None:
        """Keep it with such a probability that every image is equally likely to be shown."""
        if len(self.sample) < PICTURES:
            self.sample.append(picture)
        else:
            place = self._random.randrange(self.classified)
            if place < PICTURES:
                self.sample[place] = picture

    def _keep_unsure(self, picture: Picture) -> None:
        """Keep it if it is among those whose best class is the least likely."""
        content = picture.content
        if content in self._kept:
            self._kept[content].count += 1
            return
        confidence = 0.0 if picture.best is None else picture.prediction.scores[picture.best]
        self._kept[content] = picture
        heapq.heappush(self._unsure, (-confidence, -self.classified, picture))
        if len(self._unsure) > PICTURES:
            surest = heapq.heappop(self._unsure)[2]
            del self._kept[surest.content]


def class_name(prediction: Prediction, i: int) -> str:
    """Return a class's id and, where it has one, its label."""
    ids, labels = prediction.class_ids or (), prediction.labels
    return cut(f"{ids[i]} {labels[i]}" if labels else str(ids[i]))


def cut(text: str) -> str:
    """Return text as the page may show it: printable, and of limited length."""
    shown = printable(text)
    return shown if len(shown) <= _CHARACTERS else shown[:_CHARACTERS] + "…"
