# SPDX-License-Identifier: Apache-2.0
"""The learning rate of each update, as PaddleClas's schedules have it.

A rate is computed from the update's number alone, so a schedule has no state that a checkpoint
would have to keep.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

from hgdeploy.errors import ConfigError

KINDS = ("Constant", "Cosine", "Linear", "Step", "Piecewise")


@dataclass(frozen=True)
class Schedule:
    """How the learning rate changes.

    Attributes:
        kind: one of `KINDS`.
        learning_rate: the rate after the warm-up; for `Piecewise`, the first of `values`.
        warmup_epochs: for how long it rises in a straight line.
        warmup_start: where it rises from.
        by_epoch: it changes once an epoch, and not with each update.
        least: `Cosine` and `Linear` end here.
        power: of the polynomial that `Linear` is, 1 for a straight line.
        step_epochs: `Step` multiplies the rate by `gamma` each time so many have passed.
        gamma: see `step_epochs`.
        boundaries: the epochs at which `Piecewise` takes the next of `values`.
        values: the rates of `Piecewise`, one more than boundaries.
    """

    kind: str
    learning_rate: float
    warmup_epochs: float = 0.0
    warmup_start: float = 0.0
    by_epoch: bool = False
    least: float = 0.0
    power: float = 1.0
    step_epochs: float = 1.0
    gamma: float = 0.1
    boundaries: tuple[float, ...] = ()
    values: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check what relates several values.

        Raises:
            ConfigError: there is not one value more than boundaries.
        """
        if self.kind == "Piecewise" and len(self.values) != len(self.boundaries) + 1:
            raise ConfigError(
                f"Optimizer.lr has {len(self.values)} values for {len(self.boundaries)} "
                "decay_epochs, expected one more than those"
            )

    def rate(self, update: int, epochs: int, updates: int) -> float:
        """Return the learning rate of an update.

        After the warm-up, the schedule begins at its own start, as in PaddleClas: `Step` takes its
        first step `step_epochs` after it.

        Args:
            update: its number since the training began, from 0.
            epochs: how many the training has.
            updates: how many an epoch has.
        """
        now, epoch = (update // updates, 1) if self.by_epoch else (update, updates)
        warmup = min(self.warmup_epochs, epochs)
        rising = round(warmup * epoch)
        if now < rising:
            return self.warmup_start + (self.learning_rate - self.warmup_start) * now / rising
        return self._after_warmup(now - rising, (epochs - warmup) * epoch, epoch)

    def _after_warmup(self, now: int, end: float, epoch: int) -> float:
        """Return the rate at a time that counts from the end of the warm-up, in updates or epochs.

        Args:
            now: the time.
            end: when the training ends.
            epoch: the time that an epoch takes.
        """
        top, span = self.learning_rate, self.learning_rate - self.least
        if self.kind == "Cosine" and end > 0:
            return self.least + span * (1 + math.cos(math.pi * now / end)) / 2
        if self.kind == "Linear" and end > 0:
            return self.least + span * float((1 - min(now / end, 1)) ** self.power)
        if self.kind == "Step":
            return top * self.gamma ** int(now // (self.step_epochs * epoch))
        if self.kind == "Piecewise":
            return self.values[bisect.bisect_right([b * epoch for b in self.boundaries], now)]
        return top
