# SPDX-License-Identifier: Apache-2.0
"""What a training's journal tells, epoch by epoch; and its curve as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.system.libraries import import_library
from hgdeploy.training.journal import Event

_EXTRA = "plot"
_TRAINED, _MEASURED, _FAINT = "#34608c", "#c0392b", "#b9c9da"
# Values of an evaluation's event that are none of its figures.
_PLACE = ("event", "epoch", "update", "images", "best", "best_epoch")


@dataclass
class EpochFigures:
    """One epoch.

    Attributes:
        epoch: its number, from 1.
        loss: the mean loss of its images.
        learning_rate: that of its last update.
        images_per_second: how fast it was.
        skipped: images that could not be read so far.
        measured: the figures of the evaluation after it, by name; the first decides which is best.
        best: no epoch before or after has a better one.
    """

    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float
    skipped: int
    measured: dict[str, float] = field(default_factory=dict)
    best: bool = False


def epochs_of(events: Sequence[Event]) -> list[EpochFigures]:
    """Return the complete epochs of a training.

    Raises:
        ConfigError: none is complete.
    """
    found: dict[int, EpochFigures] = {}
    best = 0
    for event in events:
        number = event.get("epoch", 0)
        if event["event"] == "epoch":
            keys = ("loss", "learning_rate", "images_per_second", "skipped")
            found[number] = EpochFigures(number, *(event[key] for key in keys))
        elif event["event"] == "eval" and number in found:
            figures = {key: value for key, value in event.items() if key not in _PLACE}
            found[number].measured = figures
            best = event["best_epoch"]
    if not found:
        raise ConfigError("the training has no complete epoch yet")
    if best in found:
        found[best].best = True
    return [found[number] for number in sorted(found)]


def rows_of(epochs: Sequence[EpochFigures]) -> list[tuple[str, ...]]:
    """Return a table, with its head: a row for each epoch, and a star at the best."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.measured))
    head = ("epoch", "loss", "learning rate", "images/s", *(_column(name) for name in names), "")
    rows = [head]
    for each in epochs:
        measured = (f"{each.measured[n]:.5f}" if n in each.measured else "-" for n in names)
        told = (str(each.epoch), f"{each.loss:.5f}", f"{each.learning_rate:.6f}")
        speed = f"{each.images_per_second:.1f}"
        rows.append((*told, speed, *measured, "*" if each.best else ""))
    return rows


def _column(name: str) -> str:
    return "eval loss" if name == "loss" else name


def curve_png(events: Sequence[Event], title: str) -> bytes:
    """Draw losses, the metric and the learning rate over the epochs.

    Args:
        events: the journal's.
        title: what stands above.

    Returns:
        A PNG file's bytes.

    Raises:
        ConfigError: no epoch is complete.
        EngineError: matplotlib is not installed.
    """
    epochs = epochs_of(events)
    figure = import_library("matplotlib.figure", _EXTRA).Figure((8, 7), layout="constrained")
    upper, middle, lower = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1))
    upper.set_title(title, loc="left")
    steps = [
        (event["epoch"] - 1 + (event["batch"] + 1) / event["batches"], event["loss"])
        for event in events
        if event["event"] == "step"
    ]
    if steps:
        upper.plot(*zip(*steps, strict=True), color=_FAINT, linewidth=0.8, label="a batch")
    numbers = [each.epoch for each in epochs]
    upper.plot(numbers, [e.loss for e in epochs], ".-", color=_TRAINED, label="mean of an epoch")
    measured = [each for each in epochs if each.measured]
    with_loss = [each for each in measured if "loss" in each.measured]
    if with_loss:
        points = [(each.epoch, each.measured["loss"]) for each in with_loss]
        upper.plot(*zip(*points, strict=True), ".-", color=_MEASURED, label="evaluation")
    upper.set_ylabel("loss")
    upper.legend()
    _draw_metric(middle, measured)
    lower.plot(numbers, [each.learning_rate for each in epochs], color=_TRAINED)
    lower.set_ylabel("learning rate")
    lower.set_xlabel("epoch")
    lower.xaxis.get_major_locator().set_params(integer=True)
    for axes in (upper, middle, lower):
        axes.grid(color="#e4e4e4")
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130, metadata={"Software": None})
    return stream.getvalue()


def _draw_metric(axes: Any, measured: Sequence[EpochFigures]) -> None:
    """Draw what decides which epoch is best, and mark that one."""
    if not measured:
        axes.text(0.5, 0.5, "no evaluation", ha="center", transform=axes.transAxes)
        return
    name = next(iter(measured[0].measured))
    points = [(each.epoch, each.measured[name]) for each in measured if name in each.measured]
    axes.plot(*zip(*points, strict=True), ".-", color=_MEASURED)
    for each in measured:
        if each.best:
            value = each.measured[name]
            axes.plot(each.epoch, value, "o", color=_MEASURED, label=f"best: {value:.5f}")
            axes.legend()
    axes.set_ylabel(name)
