# SPDX-License-Identifier: Apache-2.0
"""What a training begins with: its data, and its state, fresh or of a checkpoint."""

from __future__ import annotations

import secrets
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.errors import ConfigError
from hgdeploy.system.libraries import import_library
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.training.checkpoint import Checkpoint, Progress
from hgdeploy.training.data import DataOptions, TrainingData
from hgdeploy.training.loop import State
from hgdeploy.training.network import fresh_network, load_pretrained, teacher_network
from hgdeploy.training.optimize.average import MovingAverage
from hgdeploy.training.optimize.optimizer import load_optimizer_state, make_optimizer
from hgdeploy.training.ranks import Ranks
from hgdeploy.training.recipe import Recipe
from hgdeploy.zoo.weights.load import load_into

_SEEDS = 1 << 31


def check_goes_on(start: Checkpoint, recipe: Recipe, ranks: Ranks, on_warning: OnLine) -> None:
    """Refuse a checkpoint of another network, and tell what else has changed.

    Raises:
        ConfigError: it is of another network, within an epoch of other batches, or at its end.
    """
    was, now = start.progress.settings, recipe.settings(ranks.count)
    for name in ("arch", "classes"):
        if was.get(name) != now[name]:
            raise ConfigError(
                f"{recipe.checkpoint} is of {was.get('arch')} with {was.get('classes')} classes, "
                f"but the config is of {now['arch']} with {now['classes']}"
            )
    kind = was.get("optimizer", {}).get("kind")
    if kind != recipe.optimizer.kind:
        raise ConfigError(
            f"{recipe.checkpoint} was trained with {kind}, and Optimizer.name is "
            f"{recipe.optimizer.kind}, which remembers other things; to change it, begin anew with "
            f"-o Global.pretrained_model={recipe.checkpoint}"
        )
    changed = [name for name in now if was.get(name) != now[name]]
    if start.progress.batch and not {"images", "processes", "update_every"}.isdisjoint(changed):
        raise ConfigError(
            f"{recipe.checkpoint} is within an epoch, after {start.progress.batch} batches, and "
            f"was trained with another {', '.join(changed)}; go on with the same, or from an "
            "epoch_N"
        )
    if changed and ranks.leads:
        on_warning(
            f"{recipe.checkpoint} was trained with another {', '.join(changed)}: the training goes "
            "on with the config's"
        )
    if recipe.seed is not None and recipe.seed != start.progress.seed:
        on_warning(f"Global.seed has no effect: the checkpoint's is {start.progress.seed}")
    if start.progress.epoch >= recipe.epochs:
        raise ConfigError(
            f"{recipe.checkpoint} has {start.progress.epoch} epochs, and Global.epochs is "
            f"{recipe.epochs}: there is nothing to train"
        )


def chosen_seed(recipe: Recipe, start: Checkpoint | None, ranks: Ranks) -> int:
    if start is not None:
        return start.progress.seed
    if recipe.seed is not None:
        return recipe.seed
    own = secrets.randbelow(_SEEDS)
    return round(ranks.mean(own if ranks.leads else 0.0) * ranks.count)  # the first one's


def open_data(
    recipe: Recipe, seed: int, ranks: Ranks, on_warning: OnLine
) -> tuple[TrainingData, TrainingData | None]:
    warn = on_warning if ranks.leads else nothing
    options = DataOptions(
        True, seed, ranks.rank, ranks.count, classes=recipe.classes, on_warning=warn
    )
    data = TrainingData.from_config(recipe.train, options)
    if data.label_ratio is None and any(term.weighted for term in recipe.losses):
        raise ConfigError(
            "Loss.Train MultiLabelLoss.weight_ratio needs how frequent each class is; give "
            "DataLoader.Train.dataset.label_ratio: True"
        )
    if recipe.evaluate is None or not ranks.leads:
        return data, None
    options = DataOptions(
        False, seed, classes=recipe.classes, names=data.names, on_warning=on_warning
    )
    evaluated = TrainingData.from_config(recipe.evaluate, options)
    if data.names is None and evaluated.names is not None:
        raise ConfigError(
            "DataLoader.Eval.dataset names its classes, and DataLoader.Train.dataset numbers them, "
            "so it is not known which is which; write numbers, or names, in both"
        )
    return data, evaluated


def make_state(
    recipe: Recipe, seed: int, start: Checkpoint | None, ranks: Ranks, on_progress: OnLine
) -> State:
    paddle = import_library("paddle", "cpu")
    network = fresh_network(recipe.arch, recipe.classes, seed)
    if start is not None:
        load_into(network, start.weights, recipe.checkpoint or Path())
    elif recipe.pretrained is not None:
        load_pretrained(network, recipe.pretrained, on_progress, new_head=recipe.new_head)
    elif recipe.new_head:
        raise ConfigError(
            "Global.new_head leaves the last layer of weights out, and there are none; give them "
            "with -o Global.pretrained_model=PATH, or train from random ones with -o "
            "Global.new_head=False"
        )
    network.train()
    teacher = None
    if recipe.teacher is not None:
        teacher = teacher_network(recipe.teacher, recipe.classes)
    optimizer = make_optimizer(recipe.optimizer, network)
    average = None if recipe.average is None else MovingAverage(network, recipe.average)
    if start is not None:
        load_optimizer_state(optimizer, network, dict(start.optimizer))
        if average is not None and start.average:
            average.load(start.average)
    scaler, forward = None, network
    if recipe.half is not None:
        half = recipe.half
        forward, optimizer = paddle.amp.decorate(
            network, optimizer, level=half.level, dtype=half.dtype, save_dtype="float32"
        )
        scaler = paddle.amp.GradScaler(
            init_loss_scaling=half.scale, use_dynamic_loss_scaling=half.dynamic
        )
    if recipe.to_static:
        warnings.filterwarnings("ignore", "Tensor do not have 'place'")  # what Paddle tells itself
        forward = paddle.jit.to_static(forward)
    progress = Progress() if start is None else start.progress
    if scaler is not None and progress.scale is not None:
        scaler.load_state_dict(_unscaled(scaler, progress.scale))
    return State(
        *(network, ranks.joined(forward), teacher, optimizer, average, scaler, seed),
        epoch=progress.epoch,
        batch=progress.batch,
        update=progress.update,
        loss_sum=progress.loss_sum,
        images=progress.images,
    )


def scale_of(scaler: Any) -> dict[str, float] | None:
    """Return what a scaler remembers, as JSON holds it."""
    if scaler is None:
        return None
    return {name: float(np.array(value)) for name, value in scaler.state_dict().items()}


def _unscaled(scaler: Any, scale: Any) -> dict[str, Any]:
    now = scaler.state_dict()
    return {
        name: np.array([scale[name]], np.float32)
        if isinstance(value, np.ndarray)
        else type(value)(scale[name])
        for name, value in now.items()
    }
