# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy train` and `deploy/python/train.py`: PaddleClas's `tools/train.py`."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.terminal import Verbs, say, warn
from hgdeploy.cli.tools.common import add_config_arguments, loaded_config
from hgdeploy.errors import EXIT_OK, ConfigError

if TYPE_CHECKING:
    from hgdeploy.system.progress import OnLine
    from hgdeploy.training.journal import Event, OnEvent
    from hgdeploy.training.recipe import Recipe

# Names of events' values that are no figures of an evaluation.
_PLACE = ("event", "epoch", "update", "images", "best", "best_epoch")


def add_train(verbs: Verbs) -> None:
    """Add `hgdeploy train`."""
    declare_train(verbs.add_parser("train", help="train a network as a training config says"))


def declare_train(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of PaddleClas's `tools/train.py` and our own, and `run`."""
    add_config_arguments(parser)
    parser.add_argument(
        "--resume", action="store_true", help="go on from the latest checkpoint, if there is one"
    )
    parser.set_defaults(run=_train)


def _train(arguments: argparse.Namespace, out: TextIO) -> int:
    from hgdeploy.paddleclas.training.recipe import read_recipe
    from hgdeploy.training.ranks import is_first_process
    from hgdeploy.training.session import train

    recipe = read_recipe(loaded_config(arguments), warn)
    if arguments.resume:
        recipe = _resumed(recipe)
    try:
        with _shown(recipe, out) as on_event:
            progress = train(recipe, on_event, warn)
    except KeyboardInterrupt:
        if is_first_process():
            say(f"to go on, run the same with --resume, from what is in {recipe.output}")
        raise
    if not is_first_process():
        return EXIT_OK
    best = "" if progress.best is None else f"; the best metric is {progress.best:.5f}"
    if best:
        best += f", of epoch {progress.best_epoch}: {recipe.output / 'best_model'}"
    say(f"trained {progress.epoch} epochs, {recipe.output / 'latest'}{best}")
    return EXIT_OK


def _resumed(recipe: Recipe) -> Recipe:
    """Return a recipe that goes on from the latest checkpoint in its own folder."""
    import dataclasses

    from hgdeploy.training.checkpoint import LATEST, SUFFIX

    if recipe.checkpoint is not None:
        raise ConfigError("--resume has no effect beside Global.checkpoints; give one of them")
    latest = recipe.output / LATEST
    if not Path(f"{latest}{SUFFIX}").is_file():
        say(f"there is no {latest}{SUFFIX} yet: the training begins anew")
        return recipe
    return dataclasses.replace(recipe, checkpoint=latest)


@contextlib.contextmanager
def _shown(recipe: Recipe, out: TextIO) -> Iterator[OnEvent]:
    """Yield what shows events: PaddleClas's lines of each epoch on stdout, and progress on stderr.

    On a terminal the progress is a bar; else a line for each event.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda event: _print(event, recipe, out, say)
        return
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("hgdeploy:"),
        rich_progress.BarColumn(16),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[told]}"),
    )
    with rich_progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None, told="")

        def show(event: Event) -> None:
            if event["event"] == "step":
                total, done = event["batches"], event["batch"] + 1
                bar.update(task, total=total, completed=done, told=_short_step(event, recipe))
                return
            bar.stop()  # which clears its line, where stdout may be the same terminal
            _print(event, recipe, out, say)
            bar.start()

        yield show


def _print(event: Event, recipe: Recipe, out: TextIO, tell: OnLine) -> None:
    from hgdeploy.paddleclas.answers import write_logged

    kind, epochs = event["event"], recipe.epochs
    if kind == "start":
        tell(_start(event))
    elif kind == "step":
        tell(_step(event, recipe))
    elif kind == "epoch":
        figures = f"lr: {event['learning_rate']:.8f}, loss: {event['loss']:.5f}"
        speed = f"{event['images_per_second']:.1f} images/s"
        skipped = f", {event['skipped']} images left out" if event["skipped"] else ""
        line = f"[Train][Epoch {event['epoch']}/{epochs}][Avg]{figures}, {speed}{skipped}"
        write_logged(out, line)
    elif kind == "eval":
        measured = (item for item in event.items() if item[0] not in _PLACE)
        told = ", ".join(f"{name}: {value:.5f}" for name, value in measured)
        write_logged(out, f"[Eval][Epoch {event['epoch']}][Avg]{told}")
        write_logged(out, f"[Eval][Epoch {event['epoch']}][best metric: {event['best']:.5f}]")
    out.flush()


def _start(event: Event) -> str:
    batches = f"{event['batch_size']} images a batch"
    several = f", {event['ranks']} processes" if event["ranks"] > 1 else ""
    done = event["epoch"] or event["batch"]
    place = f", from epoch {event['epoch'] + 1}, batch {event['batch'] + 1} on" if done else ""
    return (
        f"training {event['arch']} with {event['classes']} classes on {event['images']} images, "
        f"{batches}{several}, on the {event['device']}, seed {event['seed']}{place}"
    )


def _step(event: Event, recipe: Recipe) -> str:
    place = f"epoch {event['epoch']}/{recipe.epochs}, batch {event['batch'] + 1}/{event['batches']}"
    return (
        f"{place}: loss {event['loss']:.5f}, learning rate {event['learning_rate']:.6f}, "
        f"{event['images_per_second']:.1f} images/s ({event['waiting_per_batch']:.3f} of "
        f"{event['seconds_per_batch']:.3f} s a batch waiting for data), "
        f"{_duration(event['seconds_left'])} left"
    )


def _short_step(event: Event, recipe: Recipe) -> str:
    """Return what a terminal of 80 columns has room for beside a bar."""
    return (
        f"epoch {event['epoch']}/{recipe.epochs}, loss {event['loss']:.3f}, "
        f"{event['images_per_second']:.0f}/s, {_duration(event['seconds_left'])}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
