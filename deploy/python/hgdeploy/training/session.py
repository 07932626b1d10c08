# SPDX-License-Identifier: Apache-2.0
"""A whole training: its epochs, evaluations and checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy import zoo
from hgdeploy.errors import ConfigError, InputError, TrainingError, WeightsError
from hgdeploy.system.files import remove_leftovers, write_text, writing
from hgdeploy.system.libraries import import_library
from hgdeploy.system.locks import claim
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.training.checkpoint import (
    BEST,
    LATEST,
    SUFFIX,
    WEIGHTS_SUFFIX,
    Checkpoint,
    Progress,
    checkpoint_file,
    read_checkpoint,
    write_checkpoint,
    write_weights,
)
from hgdeploy.training.data import TrainingData
from hgdeploy.training.evaluate import evaluate
from hgdeploy.training.journal import OnEvent, journal
from hgdeploy.training.loop import Loop, State
from hgdeploy.training.optimize.optimizer import optimizer_state
from hgdeploy.training.prepare import check_goes_on, chosen_seed, make_state, open_data, scale_of
from hgdeploy.training.ranks import Ranks, use_device
from hgdeploy.training.recipe import Recipe
from hgdeploy.training.stopping import Stop, stop_signals

LABELS = "labels.txt"


def train(recipe: Recipe, on_event: OnEvent, on_warning: OnLine = nothing) -> Progress:
    """Train a network, from its beginning or from a checkpoint, to its last epoch.

    Ctrl-C and SIGTERM end it after the update in hand, with a checkpoint to go on from.

    Args:
        recipe: what is done.
        on_event: told what happens; see `hgdeploy.training.journal`.
        on_warning: called with a line for what the user should know.

    Returns:
        How far it came, with the best value of the metric.

    Raises:
        ConfigError: the recipe does not fit its data, or is not the checkpoint's.
        WeightsError: weights cannot be read, or do not fit.
        TrainingError: the loss is not a number any more.
        OutputError: the output cannot be written.
        KeyboardInterrupt: it was interrupted, and its checkpoint is written.
    """
    ranks = use_device(recipe.device)
    start = None
    if recipe.checkpoint is not None:
        start = read_checkpoint(checkpoint_file(recipe.checkpoint))
        check_goes_on(start, recipe, ranks, on_warning)
    seed = chosen_seed(recipe, start, ranks)
    data, held_out = open_data(recipe, seed, ranks, on_warning)
    state = make_state(recipe, seed, start, ranks, on_warning)
    progress = start.progress if start is not None else Progress(seed=seed)
    progress = dataclasses.replace(progress, settings=recipe.settings(ranks.count))
    with contextlib.ExitStack() as held:
        for each in (data, held_out):
            if each is not None:
                held.callback(each.close)
        tell: OnEvent = _nobody
        if ranks.leads:
            tell = held.enter_context(_writing(recipe, progress, on_event, on_warning))
            _write_labels(recipe.output / LABELS, data)
        stop = held.enter_context(stop_signals())
        tell(_start_event(recipe, data, state, ranks))
        run = _Run(recipe, state, progress, tell, stop, on_warning)
        loop = Loop(recipe, data, ranks, tell, run.pausing)
        run.epochs(loop, held_out)
        return run.progress


class _Run:
    """The epochs of a training, and what is kept of them.

    Attributes:
        progress: that of the last checkpoint.
    """

    def __init__(
        self,
        recipe: Recipe,
        state: State,
        progress: Progress,
        tell: OnEvent,
        stop: Stop,
        on_warning: OnLine,
    ) -> None:
        self.progress, self._on_warning = progress, on_warning
        self._recipe, self._state, self._tell, self._stop = recipe, state, tell, stop
        self._saved = time.monotonic()

    def pausing(self) -> bool:
        """Return whether the epoch should be left for a checkpoint."""
        late = time.monotonic() - self._saved > self._recipe.save_seconds
        return late or self._stop.asked

    def epochs(self, loop: Loop, held_out: TrainingData | None) -> None:
        """Train all epochs that are left.

        Args:
            loop: trains one.
            held_out: what is measured after it; None for nothing.

        Raises:
            KeyboardInterrupt: a signal asked to stop.
        """
        state, recipe = self._state, self._recipe
        while state.epoch < recipe.epochs:
            try:
                complete = loop.epoch(state)
            except TrainingError as error:
                raise TrainingError(f"{error}; {self._last_good()}") from None
            except InputError as error:
                raise InputError(f"{error}; go on with --resume once they are there") from None
            if loop.leads:
                if complete and held_out is not None and self._is_due():
                    self._evaluate(held_out)
                self._save(complete)
            if loop.anywhere(self._stop.asked) and state.epoch < recipe.epochs:
                self._stop.again()

    def _is_due(self) -> bool:
        epoch, recipe = self._state.epoch, self._recipe
        due = epoch % recipe.evaluate_every == 0 or epoch == recipe.epochs
        return due and epoch >= recipe.evaluate_from

    def _evaluate(self, held_out: TrainingData) -> None:
        state, recipe = self._state, self._recipe
        weights = self._weights() if state.average is None else state.average.arrays()
        network = state.network
        if state.average is not None:
            network = zoo.build(recipe.arch, recipe.classes)
            network.set_state_dict(weights)
        figures = evaluate(network, held_out, recipe)
        metric = next(iter(figures.values()))
        if self.progress.best is None or recipe.is_better(metric, self.progress.best):
            self.progress = dataclasses.replace(self.progress, best=metric, best_epoch=state.epoch)
            write_weights(recipe.output / BEST, weights)
        best = {"best": self.progress.best, "best_epoch": self.progress.best_epoch}
        place = {"event": "eval", "epoch": state.epoch, "update": state.update}
        self._tell({**place, **figures, **best})

    def _weights(self) -> dict[str, Any]:
        state = self._state.network.state_dict()
        return {name: np.array(value) for name, value in state.items()}

    def _save(self, complete: bool) -> None:
        state, recipe = self._state, self._recipe
        weights = self._weights()
        for name, array in weights.items():
            if not np.isfinite(array).all():
                raise TrainingError(
                    f"{name} is not a number any more after {state.update} updates, in epoch "
                    f"{state.epoch + (not complete)}; {self._last_good()}"
                )
        self.progress = dataclasses.replace(
            self.progress,
            epoch=state.epoch,
            batch=state.batch,
            update=state.update,
            loss_sum=state.loss_sum,
            images=state.images,
            scale=scale_of(state.scaler),
        )
        average = {} if state.average is None else state.average.arrays()
        optimizer = optimizer_state(state.optimizer, state.network)
        checkpoint = Checkpoint(self.progress, weights, optimizer, average)
        kept = [recipe.output / LATEST]
        if complete and state.epoch % recipe.save_every == 0:
            kept.append(recipe.output / f"epoch_{state.epoch}")
        for prefix in kept:
            write_checkpoint(prefix, checkpoint)
        self._check_room(kept[0])
        self._saved = time.monotonic()
        place = {"event": "saved", "epoch": state.epoch, "batch": state.batch}
        self._tell({**place, "paths": [str(one) for one in kept]})

    def _check_room(self, latest: Path) -> None:
        """Tell, after the first checkpoint, where the disk has no room for all that are to come."""
        on_warning, self._on_warning = self._on_warning, nothing
        files = (latest.with_name(f"{latest.name}{each}") for each in (SUFFIX, WEIGHTS_SUFFIX))
        size = sum(path.stat().st_size for path in files)
        recipe = self._recipe
        count = recipe.epochs // recipe.save_every - self._state.epoch // recipe.save_every + 2
        free = shutil.disk_usage(recipe.output).free
        if count * size > free:
            on_warning(
                f"{count} more checkpoints of {size / 1e9:.1f} GB take more than the "
                f"{free / 1e9:.1f} GB that are free on the disk of {recipe.output}; give a larger "
                "Global.save_interval (the latest is kept in any case)"
            )

    def _last_good(self) -> str:
        """Return the end of an error: what is left, and what to do."""
        path = self._recipe.output / LATEST
        advice = "lower Optimizer.lr.learning_rate, or look at these images"
        if self.progress.update == 0:
            return f"no checkpoint was written yet; {advice}"
        return (
            f"the last good checkpoint is {path} (epoch {self.progress.epoch}): {advice}, and go "
            f"on with -o Global.checkpoints={path}"
        )


def _nobody(_: Any) -> None:
    """Tell nobody: another process does."""


@contextlib.contextmanager
def _writing(
    recipe: Recipe, progress: Progress, on_event: OnEvent, on_warning: OnLine
) -> Iterator[OnEvent]:
    """Yield what tells of events, while this training alone writes into its folder."""
    folder = recipe.output
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    busy = ConfigError(f"{folder} is written by another training; give another Global.output_dir")
    with claim(folder, busy, on_warning):
        for name in (LATEST, BEST):
            remove_leftovers(*(folder / f"{name}{each}" for each in (SUFFIX, WEIGHTS_SUFFIX)))
        if recipe.checkpoint is None:
            _warn_of_another(folder / LATEST, on_warning)
        with journal(folder, progress.epoch, progress.batch, scalars=recipe.scalars) as write:

            def tell(event: Any) -> None:
                write(event)
                on_event(event)

            yield tell


def _warn_of_another(latest: Path, on_warning: OnLine) -> None:
    """Tell of a checkpoint that the first one of this training will replace."""
    with contextlib.suppress(WeightsError):
        was = read_checkpoint(checkpoint_file(latest)).progress
        on_warning(
            f"{latest}{SUFFIX} is of another training, after {was.epoch} epochs, and this one will "
            "replace it; to go on with that one, stop now and give --resume"
        )


def _write_labels(path: Path, data: TrainingData) -> None:
    """Write the classes' names, where the data have them, as `class_id_map_file` wants them."""
    if data.names:
        lines = (f"{index} {name}\n" for index, name in sorted(data.names.items()))
        write_text(path, "".join(lines))


def _start_event(recipe: Recipe, data: TrainingData, state: State, ranks: Ranks) -> dict[str, Any]:
    return {
        "event": "start",
        "epoch": state.epoch,
        "batch": state.batch,
        "update": state.update,
        "epochs": recipe.epochs,
        "arch": recipe.arch,
        "classes": recipe.classes,
        "images": data.samples,
        "batch_size": data.batch_size,
        "ranks": ranks.count,
        "device": recipe.device,
        "seed": state.seed,
        "paddle": import_library("paddle", "cpu").__version__,
        "schedule": recipe.schedule.kind,
    }
