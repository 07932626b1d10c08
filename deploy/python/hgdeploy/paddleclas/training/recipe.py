# SPDX-License-Identifier: Apache-2.0
"""The sections of PaddleClas's training config that say how a network is trained."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hgdeploy.errors import ConfigError, nearest
from hgdeploy.paddleclas.training.config import TrainingConfig, none_or
from hgdeploy.paddleclas.training.distillation import teacher_of
from hgdeploy.paddleclas.training.metrics import check_dataset, read_metrics, read_smoothing
from hgdeploy.paddleclas.training.optimization import read_losses, read_optimizer, read_schedule
from hgdeploy.system.checks import Given, Kind, mapping
from hgdeploy.system.kinds import (
    MANY,
    anything,
    as_text,
    keys,
    literal,
    number,
    rounded,
    switch,
    whole,
)
from hgdeploy.system.progress import OnLine
from hgdeploy.training.recipe import HalfPrecision, Recipe

_EPOCHS = literal(rounded(whole(1, MANY)))
_GLOBAL: Mapping[str, Kind[Any]] = {
    "output_dir": as_text,
    "checkpoints": as_text,
    "epochs": _EPOCHS,
    "seed": literal(rounded(whole(0, (1 << 31) - 1))),
    "new_head": switch,
    "update_freq": _EPOCHS,
    "save_interval": _EPOCHS,
    "save_minutes": literal(number(above=0)),
    "eval_during_train": switch,
    "eval_interval": _EPOCHS,
    "start_eval_epoch": literal(rounded(whole(0, MANY))),
    "print_batch_step": _EPOCHS,
    "to_static": switch,
    "use_visualdl": switch,
}
# What `TrainingConfig` has read, and what only other tasks read.
_ELSEWHERE = (
    *("pretrained_model", "device", "class_num", "image_shape", "save_inference_dir"),
    *("export_for_fd", "use_multilabel", "eval_mode", "engine", "precision", "use_dali"),
)


_STOCHASTIC = ("EfficientNetB", "SwinTransformer")


def read_recipe(config: TrainingConfig, on_warning: OnLine) -> Recipe:
    """Return the training that a config asks for.

    Args:
        config: the config.
        on_warning: called with a line for each key that has not the effect that was asked for.

    Raises:
        ConfigError: a key is missing, unknown or not served.
    """
    settings = _global(config, on_warning)
    _refuse_pretrained(config)
    if config.raw.get("Slim") is not None:
        raise ConfigError("Slim cannot be served: train in float32, and then hgdeploy quantize")
    if config.arch.startswith(_STOCHASTIC):
        on_warning(
            f"PaddleClas trains {config.arch} with stochastic depth, which the network here has "
            "not: that is fine for fine-tuning, and less so from random weights"
        )
    loader = Given("DataLoader", config.raw.get("DataLoader")).or_empty()
    optimizer = Given("Optimizer", config.raw.get("Optimizer")).or_empty()
    metrics = read_metrics(config)
    evaluated = settings.get("eval_during_train") is not False
    held_out = loader.at("Eval")
    if evaluated and isinstance(held_out.value, Mapping):
        check_dataset(held_out.at("dataset"), metrics)
    if isinstance(config.raw.get("Metric"), dict) and config.raw["Metric"].get("Train"):
        on_warning("Metric.Train is not measured: a training tells its loss, and Metric.Eval")
    checkpoint, name = settings.get("checkpoints"), Given("Arch", config.raw.get("Arch"))
    return Recipe(
        config.arch,
        config.num_classes,
        train=loader.read("Train", mapping),
        evaluate=loader.read("Eval", mapping) if evaluated else None,
        losses=read_losses(config),
        optimizer=read_optimizer(optimizer),
        schedule=read_schedule(optimizer.at("lr"), on_warning),
        output=Path(settings.get("output_dir") or "./output") / str(name.at("name").value),
        metrics=metrics,
        smoothing=read_smoothing(config, metrics),
        epochs=settings.get("epochs") or _missing("epochs"),
        device="cpu" if config.device == "cpu" else "gpu",
        seed=settings.get("seed"),
        pretrained=config.weights,
        new_head=bool(settings.get("new_head")),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        teacher=teacher_of(config),
        half=_half(config, on_warning),
        average=_average(config),
        update_every=settings.get("update_freq") or 1,
        save_every=settings.get("save_interval") or 1,
        save_seconds=60 * (settings.get("save_minutes") or 10.0),
        evaluate_every=settings.get("eval_interval") or 1,
        evaluate_from=settings.get("start_eval_epoch") or 1,
        tell_every=settings.get("print_batch_step") or 10,
        to_static=bool(settings.get("to_static")),
        scalars=bool(settings.get("use_visualdl")),
    )


def _missing(key: str) -> int:
    raise ConfigError(f"Global.{key} is missing, expected a value; give it with -o Global.{key}=N")


def _global(config: TrainingConfig, on_warning: OnLine) -> dict[str, Any]:
    given = Given("Global", config.raw.get("Global")).or_empty()
    served = {}
    for key, value in mapping(given).items():
        if key in _GLOBAL:
            served[key] = value
        elif key not in _ELSEWHERE and value not in (None, False, "False"):
            near = nearest(str(key), (*_GLOBAL, *_ELSEWHERE))
            hint = f"; {near}" if near.startswith("did you mean") else ""
            on_warning(f"Global.{key} has no effect on a training here{hint}")
    kinds = {key: none_or(kind) for key, kind in _GLOBAL.items()}
    return keys(kinds)(Given("Global", served))


def _refuse_pretrained(config: TrainingConfig) -> None:
    """Refuse what would download weights, or learn at different rates."""
    arch = Given("Arch", config.raw.get("Arch")).or_empty()
    values = mapping(arch)
    if values.get("pretrained") not in (None, False, "False", "None"):
        raise ConfigError(
            "Arch.pretrained has PaddleClas download weights, and nothing is downloaded here "
            f"without being asked for: hgdeploy models show {config.arch} has their address; give "
            "the file with -o Global.pretrained_model=PATH"
        )
    for key in ("lr_mult_list", "use_sync_bn", "drop_path_rate", "dropout_prob"):
        if values.get(key) not in (None, False, 0, 0.0, "False", "None"):
            raise ConfigError(f"Arch.{key} cannot be served in a training; leave it out")


_AMP: Mapping[str, Kind[Any]] = {
    "use_amp": switch,
    "level": as_text,
    "dtype": as_text,
    "scale_loss": literal(number(above=0)),
    "use_dynamic_loss_scaling": switch,
    "use_fp16_test": anything,
    "use_promote": anything,
}


def _half(config: TrainingConfig, on_warning: OnLine) -> HalfPrecision | None:
    """Return what the section `AMP` asks for; PaddleClas's configs have it switched on."""
    section = config.raw.get("AMP")
    if section is None:
        return None
    found = keys({key: none_or(kind) for key, kind in _AMP.items()})(Given("AMP", section))
    if found.get("use_amp") is False:
        return None
    level, dtype = found.get("level") or "O1", found.get("dtype") or "float16"
    for key, value, allowed in (
        ("level", level, ("O1", "O2")),
        ("dtype", dtype, ("float16", "bfloat16")),
    ):
        if value not in allowed:
            raise Given(f"AMP.{key}", value).refused(" or ".join(allowed))
    if config.device == "cpu":
        on_warning("AMP has no effect on a CPU, where Paddle trains in float32")
        return None
    return HalfPrecision(
        level, dtype, found.get("scale_loss") or 1.0, bool(found.get("use_dynamic_loss_scaling"))
    )


def _average(config: TrainingConfig) -> float | None:
    section = config.raw.get("EMA")
    if section is None:
        return None
    kinds = {"decay": none_or(literal(number(0, below=1)))}
    decay = keys(kinds)(Given("EMA", section)).get("decay")
    return 0.9999 if decay is None else decay
