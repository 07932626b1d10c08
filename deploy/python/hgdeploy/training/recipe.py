# SPDX-License-Identifier: Apache-2.0
"""What a training does, as its config says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.training.network import Teacher
from hgdeploy.training.optimize.losses import LossTerm
from hgdeploy.training.optimize.optimizer import OptimizerOptions
from hgdeploy.training.optimize.schedule import Schedule
from hgdeploy.validation.evaluation import HammingDistance, Metric, label_metrics


@dataclass(frozen=True)
class HalfPrecision:
    """Training in half precision, on a GPU.

    Attributes:
        level: `O1` for the operators that gain by it, `O2` for nearly all, with float32 masters.
        dtype: `float16` or `bfloat16`.
        scale: what the loss is multiplied by, so that small gradients do not vanish.
        dynamic: the scale adapts itself.
    """

    level: str = "O1"
    dtype: str = "float16"
    scale: float = 1.0
    dynamic: bool = False


@dataclass(frozen=True)
class Recipe:
    """A training.

    Attributes:
        arch: the network's name in the zoo.
        classes: classes of its last layer.
        train: the section `DataLoader.Train`.
        evaluate: the section `DataLoader.Eval`; None not to evaluate.
        losses: what is made small.
        optimizer: how.
        schedule: how fast.
        output: the folder of checkpoints and logs.
        metrics: what an evaluation measures; the first figure decides which weights are best.
        smoothing: of the labels in the evaluation's loss; None for no loss.
        epochs: how many times all images are seen.
        device: `cpu` or `gpu`.
        seed: where random numbers begin; None to draw one.
        pretrained: the weights to begin with; None for random ones.
        new_head: leave out the last layer of these.
        checkpoint: what to go on from; None to begin anew.
        teacher: the network whose answers are learned, if any.
        half: half precision, if any.
        average: the decay of the weights' moving average; None for no average.
        update_every: batches whose gradients make one update.
        save_every: epochs after which a checkpoint is kept.
        save_seconds: within an epoch, the latest checkpoint is written again after so long.
        evaluate_every: epochs between evaluations.
        evaluate_from: the first epoch that is evaluated.
        tell_every: batches between two lines.
        to_static: have Paddle compile the network.
        scalars: write the figures for VisualDL too.
    """

    arch: str
    classes: int
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any] | None
    losses: tuple[LossTerm, ...]
    optimizer: OptimizerOptions
    schedule: Schedule
    output: Path
    metrics: tuple[Metric, ...]
    smoothing: float | None = None
    epochs: int = 1
    device: str = "cpu"
    seed: int | None = None
    pretrained: Path | None = None
    new_head: bool = False
    checkpoint: Path | None = None
    teacher: Teacher | None = None
    half: HalfPrecision | None = None
    average: float | None = None
    update_every: int = 1
    save_every: int = 1
    save_seconds: float = 600.0
    evaluate_every: int = 1
    evaluate_from: int = 1
    tell_every: int = 10
    to_static: bool = False
    scalars: bool = False

    @property
    def several_labels(self) -> bool:
        """Whether an image may have several of the classes."""
        return bool(label_metrics(self.metrics))

    def is_better(self, value: float, best: float) -> bool:
        """Say whether a value of the first metric is better than the best so far."""
        return value < best if isinstance(self.metrics[0], HammingDistance) else value > best

    def settings(self, ranks: int) -> dict[str, Any]:
        """Return what must stay as it is for a training to go on as if it had never stopped.

        Args:
            ranks: how many processes train together.
        """
        kept = ("arch", "classes", "epochs", "average", "update_every", "to_static")
        parts = {name: getattr(self, name) for name in kept}
        parts["losses"] = [dataclasses.asdict(term) for term in self.losses]
        parts["optimizer"] = _plain(self.optimizer)
        parts["schedule"] = _plain(self.schedule)
        parts["images"] = {k: self.train[k] for k in ("dataset", "sampler") if k in self.train}
        return parts | {"processes": ranks}


def _plain(record: Any) -> dict[str, Any]:
    """Return a record as JSON gives it back."""
    values = dataclasses.asdict(record)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
