# SPDX-License-Identifier: Apache-2.0
"""The sections `Loss.Train` and `Optimizer` of PaddleClas's training config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.paddleclas.training.config import TrainingConfig, none_or
from hgdeploy.paddleclas.training.distillation import is_distilled
from hgdeploy.paddleclas.training.metrics import entries
from hgdeploy.system.checks import Given, Kind, mapping
from hgdeploy.system.kinds import (
    MANY,
    anything,
    as_text,
    keys,
    list_of,
    literal,
    number,
    one_of,
    switch,
)
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.training.optimize.losses import STUDENT, TEACHER, TEACHER_LOSSES, LossTerm
from hgdeploy.training.optimize.optimizer import KINDS as OPTIMIZERS
from hgdeploy.training.optimize.optimizer import OptimizerOptions
from hgdeploy.training.optimize.schedule import KINDS as SCHEDULES
from hgdeploy.training.optimize.schedule import Schedule

_NUMBER = literal(number())
_POSITIVE = literal(number(above=0))
_SHARE = literal(number(0, below=1))
_NOT_NEGATIVE = literal(number(0))
_GROUND_TRUTH = "DistillationGTCELoss"
_PAIRS: Mapping[str, Kind[Any]] = {"model_name_pairs": anything, "key": none_or(as_text)}
_LOSSES: Mapping[str, Mapping[str, Kind[Any]]] = {
    "CELoss": {"epsilon": _NUMBER},
    "MultiLabelLoss": {"epsilon": _NUMBER, "size_sum": switch, "weight_ratio": switch},
    _GROUND_TRUTH: {"epsilon": _NUMBER, "model_names": anything, "key": none_or(as_text)},
    "DistillationCELoss": _PAIRS,
    "DistillationDMLLoss": {**_PAIRS, "act": as_text},
    "DistillationKLDivLoss": {**_PAIRS, "temperature": _POSITIVE},
}


def read_losses(config: TrainingConfig) -> tuple[LossTerm, ...]:
    """Return what `Loss.Train` asks for.

    Raises:
        ConfigError: a loss or one of its keys is unknown or cannot be served.
    """
    section = Given("Loss", config.raw.get("Loss")).or_empty()
    listed = entries(section.at("Train"), tuple(_LOSSES))
    if not listed:
        raise ConfigError(f"Loss.Train has no loss, expected one of: {', '.join(_LOSSES)}")
    return tuple(_loss(name, given.or_empty(), is_distilled(config)) for name, given in listed)


def _loss(name: str, given: Given, distilled: bool) -> LossTerm:
    kinds = {"weight": _NUMBER, **_LOSSES[name]}
    found = keys({key: none_or(kind) for key, kind in kinds.items()})(given)
    if name in TEACHER_LOSSES and not distilled:
        raise ConfigError(f"{given.where} needs a teacher: Arch.name DistillationModel has one")
    _check_pair(given, found, name in TEACHER_LOSSES)
    if found.get("act") not in (None, "softmax"):
        raise given.at("act").refused("softmax")
    epsilon = found.get("epsilon")
    return LossTerm(
        "CELoss" if name == _GROUND_TRUTH else name,
        1.0 if found.get("weight") is None else found["weight"],
        epsilon if epsilon is not None and 0 < epsilon < 1 else 0.0,  # as PaddleClas reads it
        bool(found.get("size_sum")),
        bool(found.get("weight_ratio")),
        found.get("temperature") or 4.0,
    )


def _check_pair(given: Given, found: Mapping[str, Any], paired: bool) -> None:
    """Check that a loss is of the student alone, or of the student and the teacher."""
    if paired and found.get("model_name_pairs") != [[STUDENT, TEACHER]]:
        raise given.at("model_name_pairs").refused(f"[[{STUDENT!r}, {TEACHER!r}]]")
    if found.get("model_names") not in (None, [STUDENT]):
        raise given.at("model_names").refused(f"[{STUDENT!r}]")
    if found.get("key") not in (None, "logits"):
        raise given.at("key").refused("logits, or nothing")


_REGULARIZER: Mapping[str, Kind[Any]] = {"name": one_of(("L1", "L2")), "coeff": _NOT_NEGATIVE}
_CLIP: Mapping[str, Kind[Any]] = {
    "name": one_of(("ClipGradByNorm", "ClipGradByGlobalNorm")),
    "clip_norm": _POSITIVE,
}
_OPTIMIZER: Mapping[str, Kind[Any]] = {
    "name": one_of(OPTIMIZERS),
    "momentum": _SHARE,
    "beta1": _SHARE,
    "beta2": _SHARE,
    "epsilon": _POSITIVE,
    "weight_decay": _NOT_NEGATIVE,
    "regularizer": anything,
    "no_weight_decay_name": as_text,
    "one_dim_param_no_weight_decay": switch,
    "clip_norm": _POSITIVE,
    "grad_clip": anything,
    "multi_precision": switch,  # always, in half precision
    "lr": mapping,
}
_OF = {
    "momentum": ("Momentum",),
    **dict.fromkeys(("beta1", "beta2", "epsilon"), ("Adam", "AdamW")),
    **dict.fromkeys(("no_weight_decay_name", "one_dim_param_no_weight_decay"), ("AdamW",)),
}


def read_optimizer(given: Given) -> OptimizerOptions:
    """Return what the section `Optimizer` asks for, but for its learning rate.

    Raises:
        ConfigError: a key is missing, unknown or cannot be served.
    """
    found = keys({key: none_or(kind) for key, kind in _OPTIMIZER.items()})(given)
    name = given.read("name", one_of(OPTIMIZERS))
    for key, owners in _OF.items():
        if found.get(key) is not None and name not in owners:
            raise ConfigError(f"Optimizer.{key} is a key of {' and '.join(owners)}, not of {name}")
    decay, l1 = found.get("weight_decay"), False
    if found.get("regularizer") is not None:
        if decay is not None:
            raise ConfigError("Optimizer has weight_decay and regularizer, expected one of them")
        regularizer = given.read("regularizer", keys(_REGULARIZER))
        decay, l1 = regularizer.get("coeff", 0.0), regularizer.get("name") == "L1"
        if name == "AdamW":
            raise ConfigError("Optimizer.regularizer is not of AdamW; give weight_decay instead")
    clip = given.read("grad_clip", none_or(keys(_CLIP))) or {}
    whole = clip.get("name") == "ClipGradByGlobalNorm"
    values: dict[str, Any] = {
        "momentum": found.get("momentum"),
        "beta1": found.get("beta1"),
        "beta2": found.get("beta2"),
        "epsilon": found.get("epsilon"),
        "decay": decay,
        "decay_l1": l1,
        "no_decay": tuple((found.get("no_weight_decay_name") or "").split()),
        "no_decay_1d": bool(found.get("one_dim_param_no_weight_decay")),
        "clip_norm": None if whole else clip.get("clip_norm", found.get("clip_norm")),
        "clip_global_norm": clip.get("clip_norm") if whole else None,
    }
    return OptimizerOptions(name, **{k: value for k, value in values.items() if value is not None})


_RATE = literal(number(0))
_COMMON: Mapping[str, Kind[Any]] = {
    "warmup_epoch": _RATE,
    "warmup_start_lr": _RATE,
    "by_epoch": switch,
}
_EPOCHS = literal(number(above=0, most=MANY))
_RATES: Mapping[str, Mapping[str, Kind[Any]]] = {
    "Constant": {"learning_rate": _RATE},
    "Cosine": {"learning_rate": _RATE, "eta_min": _RATE},
    "Linear": {"learning_rate": _RATE, "end_lr": _RATE, "power": _POSITIVE},
    "Step": {"learning_rate": _RATE, "step_size": _EPOCHS, "gamma": _RATE},
    "Piecewise": {
        "learning_rate": _RATE,  # PaddleClas's configs have it, and PaddleClas does not use it
        "decay_epochs": list_of(_EPOCHS),
        "values": list_of(_RATE, 1),
    },
}
_NAMES = {
    "warmup_epoch": "warmup_epochs",
    "warmup_start_lr": "warmup_start",
    "eta_min": "least",
    "end_lr": "least",
    "step_size": "step_epochs",
    "decay_epochs": "boundaries",
}


def read_schedule(given: Given, on_warning: OnLine = nothing) -> Schedule:
    """Return what `Optimizer.lr` asks for.

    Args:
        given: the section.
        on_warning: called with a line for a key that is not used.

    Raises:
        ConfigError: a key is missing, unknown or cannot be served.
    """
    kind = given.read("name", none_or(one_of(SCHEDULES))) or "Constant"
    kinds = {"name": anything, **_COMMON, **_RATES[kind]}
    found = keys({key: none_or(each) for key, each in kinds.items()})(given)
    values = {k: value for k, value in found.items() if k != "name" and value is not None}
    if kind == "Piecewise":
        first = given.read("values", list_of(_RATE, 1))[0]
        _tell_unused_rate(given, values.get("learning_rate"), first, on_warning)
        values["learning_rate"] = first
        given.read("decay_epochs", list_of(_EPOCHS))
    else:
        given.read("learning_rate", _RATE)
    if kind == "Step":
        given.read("step_size", _EPOCHS)
    return Schedule(kind, **{_NAMES.get(key, key): value for key, value in values.items()})


def _tell_unused_rate(given: Given, rate: float | None, first: float, on_warning: OnLine) -> None:
    if rate is None:
        return
    apart = "" if rate == first else f", which begin with {first:g} and not with {rate:g}"
    on_warning(
        f"{given.where}.learning_rate is not used: Piecewise takes its rates from "
        f"{given.where}.values{apart}"
    )
