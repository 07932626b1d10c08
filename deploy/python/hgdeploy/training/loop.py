# SPDX-License-Identifier: Apache-2.0
"""One epoch: batches in, gradients, updates of the weights, and what there is to tell."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hgdeploy.errors import InputError, TrainingError
from hgdeploy.system.checks import cut
from hgdeploy.system.libraries import import_library
from hgdeploy.training.data import Batch, TrainingData
from hgdeploy.training.journal import OnEvent
from hgdeploy.training.optimize.average import MovingAverage
from hgdeploy.training.optimize.losses import total_loss
from hgdeploy.training.ranks import Ranks
from hgdeploy.training.recipe import Recipe

_SHOWN_FILES = 4
_LARGE = 1 << 31  # seeds of batches lie below it


@dataclass
class State:
    """What changes while a training runs.

    Attributes:
        network: the network itself.
        forward: the network as it is called: compiled, and with the other processes' gradients.
        teacher: the network whose answers are learned; None without one.
        optimizer: Paddle's.
        average: the moving average of the weights; None without one.
        scaler: what scales the loss in half precision; None without that.
        seed: where all random numbers begin.
        epoch: epochs that are complete.
        batch: batches of the next one that are done.
        update: updates that are done.
        loss_sum: the sum of losses times images over these batches.
        images: how many images they had.
    """

    network: Any
    forward: Any
    teacher: Any
    optimizer: Any
    average: MovingAverage | None
    scaler: Any
    seed: int
    epoch: int = 0
    batch: int = 0
    update: int = 0
    loss_sum: float = 0.0
    images: int = 0


@dataclass
class _Clock:
    """Measures speed since the epoch, or this part of it, began.

    Attributes:
        start: when that was.
        waited: seconds in which no batch was ready.
        images: images that were learned from.
        batches: batches.
    """

    start: float = field(default_factory=time.perf_counter)
    waited: float = 0.0
    images: int = 0
    batches: int = 0

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


class Loop:
    """Trains the epochs of a recipe.

    Args:
        recipe: what is done.
        data: the images.
        ranks: the processes that train together.
        on_event: told of each `tell_every`-th batch.
        pausing: asked after each update; the epoch is then left, to be gone on with.

    Attributes:
        updates: how many updates of the weights an epoch has.
        leads: this process writes and tells.
        anywhere: returns whether one of the processes says so; each must ask.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        ranks: Ranks,
        on_event: OnEvent,
        pausing: Callable[[], bool],
    ) -> None:
        self._recipe, self._data, self._ranks = recipe, data, ranks
        self._on_event, self._pausing = on_event, pausing
        self.updates = -(-len(data) // recipe.update_every)
        self.leads, self.anywhere = ranks.leads, ranks.any

    def epoch(self, state: State) -> bool:
        """Train what is left of an epoch.

        Returns:
            Whether it came to its end.

        Raises:
            TrainingError: the loss is not a number any more.
        """
        every, total = self._recipe.update_every, len(self._data)
        clock = _Clock()
        state.network.train()
        waiting = time.perf_counter()
        for batch in self._data.epoch(state.epoch, skip=state.batch):
            clock.waited += time.perf_counter() - waiting
            index = batch.number
            group = min(every, total - index // every * every)
            last = index % every == group - 1
            loss = self._learn(state, batch, group, last)
            state.loss_sum += loss * len(batch)
            state.images += len(batch)
            state.batch = index + 1
            clock.images, clock.batches = clock.images + len(batch), clock.batches + 1
            if last:
                self._update(state)
            if index % self._recipe.tell_every == 0:
                self._tell(state, index, loss, clock)
            if last and state.batch < total and self._ranks.any(self._pausing()):
                return False
            waiting = time.perf_counter()
        self._end(state, clock)
        return True

    def rate(self, update: int) -> float:
        """Return the learning rate of an update."""
        return self._recipe.schedule.rate(update, self._recipe.epochs, self.updates)

    def _learn(self, state: State, batch: Batch, group: int, last: bool) -> float:
        """Add a batch's gradients to those of its group, and return its loss.

        What is random in the network follows from the batch's place alone, so that a training that
        goes on from a checkpoint draws the same numbers.
        """
        if not len(batch) and self._ranks.count == 1:
            return 0.0
        weight = 1.0 if len(batch) else 0.0
        batch = batch if len(batch) else self._stand_in()
        paddle = import_library("paddle", "cpu")
        place = (state.epoch * len(self._data) + batch.number) * self._ranks.count
        paddle.seed((state.seed * 1_000_003 + place + self._ranks.rank) % _LARGE)
        apart = self._ranks.count > 1 and not last
        with state.forward.no_sync() if apart else contextlib.nullcontext():
            loss = self._loss(state, batch)
            value = float(loss)
            if not math.isfinite(value):
                raise TrainingError(self._lost(state, batch, value))
            part = loss * (weight / group)
            (part if state.scaler is None else state.scaler.scale(part)).backward()
        return value

    def _stand_in(self) -> Batch:
        """Return a batch for none, so that the other processes do not wait for this one's part."""
        data = self._data
        shape, soft = (1, *data.shape), (1, data.classes)
        labels: Any = np.zeros(soft, np.float32) if data.soft else np.zeros(1, np.int64)
        return Batch(0, np.zeros(shape, np.float32), labels, (), np.zeros(0, np.int64))

    def _loss(self, state: State, batch: Batch) -> Any:
        paddle = import_library("paddle", "cpu")
        images, labels = paddle.to_tensor(batch.images), paddle.to_tensor(batch.labels)
        with self._half():
            teacher = None
            if state.teacher is not None:
                with paddle.no_grad():
                    teacher = state.teacher(images).astype("float32")
            logits = state.forward(images)
        terms, shares = self._recipe.losses, self._data.label_ratio
        return total_loss(terms, logits.astype("float32"), labels, teacher, shares)

    def _half(self) -> contextlib.AbstractContextManager[Any]:
        half = self._recipe.half
        if half is None:
            return contextlib.nullcontext()
        cast = import_library("paddle", "cpu").amp.auto_cast
        context: contextlib.AbstractContextManager[Any] = cast(level=half.level, dtype=half.dtype)
        return context

    def _update(self, state: State) -> None:
        state.optimizer.set_lr(self.rate(state.update))
        if state.scaler is None:
            state.optimizer.step()
        else:
            state.scaler.step(state.optimizer)
            state.scaler.update()
        state.optimizer.clear_grad()
        state.update += 1
        if state.average is not None:
            state.average.update(state.network)

    def _lost(self, state: State, batch: Batch, value: float) -> str:
        shown = ", ".join(cut(path) for path in batch.paths[:_SHOWN_FILES])
        more = len(batch.paths) - _SHOWN_FILES
        return (
            f"the loss is {value} in epoch {state.epoch + 1}, batch {batch.number + 1} of "
            f"{len(self._data)} (after {state.update} updates), of {shown}"
            f"{f' and {more} more' if more > 0 else ''}"
        )

    def _tell(self, state: State, index: int, loss: float, clock: _Clock) -> None:
        seconds = clock.seconds
        each = seconds / clock.batches
        left = (self._recipe.epochs - state.epoch) * len(self._data) - index - 1
        self._on_event(
            {
                "event": "step",
                "epoch": state.epoch + 1,
                "batch": index,
                "batches": len(self._data),
                "update": state.update,
                "loss": loss,
                "learning_rate": self.rate(max(state.update - 1, 0)),
                "images_per_second": clock.images * self._ranks.count / seconds,
                "seconds_per_batch": each,
                "waiting_per_batch": clock.waited / clock.batches,
                "seconds_left": left * each,
            }
        )

    def _end(self, state: State, clock: _Clock) -> None:
        """Tell of a complete epoch, and begin the next."""
        self._ranks.check_equal(state.network)
        images = self._ranks.mean(state.images)
        if not images:
            raise InputError(f"none of the {self._data.samples} images for training can be read")
        loss = self._ranks.mean(state.loss_sum) / images
        state.epoch, state.batch = state.epoch + 1, 0
        self._on_event(
            {
                "event": "epoch",
                "epoch": state.epoch,
                "update": state.update,
                "loss": loss,
                "learning_rate": self.rate(state.update - 1),
                "images": state.images,
                "skipped": len(self._data.skipped),
                "seconds": clock.seconds,
                "images_per_second": clock.images * self._ranks.count / clock.seconds,
            }
        )
        state.loss_sum, state.images = 0.0, 0
