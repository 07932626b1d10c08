# SPDX-License-Identifier: Apache-2.0
"""The sections of PaddleClas's training config that say which model it is: `Global` and `Arch`.

What only training needs is passed over. A key that changes what is computed is served or refused by
name. An unknown key after `-o` is refused with the nearest name: PaddleClas makes a new key of it,
and computes with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy.engines import ENGINES
from hgdeploy.engines.auto.choose import AUTO
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.errors import ConfigError
from hgdeploy.paddleclas.overrides import override
from hgdeploy.paddleclas.training.distillation import DISTILLATION, student_section
from hgdeploy.system.checks import Given, Kind, check, joined, mapping
from hgdeploy.system.documents import read_yaml
from hgdeploy.system.kinds import (
    MANY,
    anything,
    as_text,
    exactly,
    keys,
    list_of,
    literal,
    number,
    one_of,
    optional,
    rounded,
    switch,
    text,
    whole,
)
from hgdeploy.transforms.postprocess_config import LABEL_KEYS

SEVERAL_LABELS = ("ATTRMetric", "HammingDistance", "AccuracyScore")  # metrics for these
_NULL = ("None", "none", "null", "~", "")
_SECTIONS = ("Global", "Arch", "DataLoader", "Infer", "Loss", "Metric")
# What only training reads.
_TRAINING_SECTIONS = ("AMP", "EMA", "Optimizer", "Slim", "profiler_options")
_TRAINING_KEYS = (
    *("checkpoints", "output_dir", "save_interval", "eval_during_train", "eval_interval"),
    *("start_eval_epoch", "epochs", "print_batch_step", "use_visualdl", "use_dali", "to_static"),
    *("seed", "update_freq", "train_mode", "iter_per_epoch", "distributed", "print_model"),
    *("uniform_output_enabled", "pdx_model_name", "hpi_config_path", "flags", "log_ranks"),
    *("dataset_name", "export_type", "print_config", "save_last_n", "num_workers", "print_step"),
    *("new_head", "save_minutes"),  # our own
)


@dataclass(frozen=True)
class TrainingConfig:
    """A training config, whose sections for one task are read when it is done.

    Attributes:
        arch: the network's name in PaddleClas.
        num_classes: classes of its last layer.
        weights: the `.pdparams` file, whose suffix may be left out; None where none is set.
        device: `cpu` or `gpu:0`.
        engine: the engine that was asked for, perhaps `auto`; None for Paddle.
        precision: the precision; None for fp32.
        size: height and width of the images that an export is for; None for the network's own.
        save_inference_dir: where an export goes.
        described: an export must say how to use it (PaddleClas's `export_for_fd`).
        softmax: an exported network ends in a softmax, unless it is for several labels.
        multilabel: each class is judged by itself.
        raw: all sections, as YAML gives them.
        warnings: one line for each thing that has not the effect that was asked for.
    """

    arch: str
    num_classes: int
    weights: Path | None
    device: str
    engine: str | None
    precision: str | None
    size: tuple[int, int] | None
    save_inference_dir: Path
    described: bool
    softmax: bool
    multilabel: bool
    raw: Mapping[str, Any]
    warnings: tuple[str, ...] = field(default=())

    @property
    def ending(self) -> str | None:
        """What follows the logits of an exported network, as PaddleClas exports it."""
        return "sigmoid" if self.multilabel else "softmax" if self.softmax else None


def load_training_config(path: Path, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a training config and apply overrides to it; paths count from the current folder.

    Args:
        path: the YAML file.
        overrides: `Section.key=value` texts, as after `-o`.

    Raises:
        ConfigError: the file, a key or a value is wrong, or cannot be served.
    """
    raw = read_yaml(path, "config file", texts=LABEL_KEYS)
    known = (*_SECTIONS, *_TRAINING_SECTIONS)
    warnings = [f"{path}: {one} has no effect here" for one in raw if one not in known]
    for written in overrides:
        check("section", written.partition("=")[0].strip().split(".")[0], one_of(known))
        override(raw, written)
    warnings += _without_effect(raw)
    given = {written.partition("=")[0].strip() for written in overrides}
    settings = _global(raw.get("Global"), given, warnings)
    arch = _arch(raw.get("Arch"), settings, warnings)
    sizes = settings.get("image_shape")
    device = settings.get("device") or "gpu"
    weights = settings.get("pretrained_model")
    return TrainingConfig(
        arch=arch["name"],
        num_classes=arch.get("class_num") or 1000,
        weights=None if weights is None else Path(weights),
        device="cpu" if device == "cpu" else "gpu:0",
        engine=settings.get("engine"),
        precision=settings.get("precision"),
        size=None if sizes is None else (sizes[1], sizes[2]),
        save_inference_dir=Path(settings.get("save_inference_dir") or "./inference"),
        described=bool(settings.get("export_for_fd")),
        softmax=arch.get("infer_add_softmax") is not False,
        multilabel=bool(settings.get("use_multilabel")) or _is_multilabel(raw),
        raw=raw,
        warnings=tuple(warnings),
    )


def none_or(kind: Kind[Any]) -> Kind[Any]:
    """Return the kind that also takes YAML's null, and PaddleClas's words for it."""
    return lambda given: None if given.value in _NULL else optional(kind)(given)


def _weights(given: Given) -> str:
    """Is the kind of paths to weights."""
    path = as_text(given)
    if path.startswith(("http://", "https://")):
        raise given.refused("a file; download the weights first, and name the file")
    return path


def _image_shape(given: Given) -> tuple[int, ...]:
    """Is the kind of an image's channels, height and width."""
    sizes = list_of(rounded(whole(1)), 3, 3, words="[3, HEIGHT, WIDTH]")(given)
    if sizes[0] != 3:
        raise given.refused("[3, HEIGHT, WIDTH]: images are read in colour")
    return sizes


_COUNT = literal(rounded(whole(1, MANY)))
_GLOBAL: Mapping[str, Kind[Any]] = {
    "pretrained_model": _weights,
    "device": exactly("cpu", "gpu"),
    "class_num": _COUNT,
    "image_shape": literal(_image_shape),
    "save_inference_dir": as_text,
    "export_for_fd": switch,
    "use_multilabel": switch,
    "eval_mode": exactly("classification"),
    "engine": one_of((*ENGINES, AUTO)),
    "precision": one_of(PRECISIONS),
}


def _global(section: object, overridden: set[str], warnings: list[str]) -> dict[str, Any]:
    given = Given("Global", section).or_empty()
    values = {}
    for key, value in mapping(given).items():
        if key in _GLOBAL:
            values[key] = value
        elif f"Global.{key}" in overridden:
            keys(dict.fromkeys((*_GLOBAL, *_TRAINING_KEYS), anything))(Given("Global", {key: 0}))
        elif key not in _TRAINING_KEYS:
            warnings.append(f"Global.{key} has no effect here")
    return check("Global", values, keys({key: none_or(kind) for key, kind in _GLOBAL.items()}))


# Parameters of networks that act only while they are trained.
_ARCH_TRAINING = (
    *("pretrained", "use_ssld", "use_sync_bn", "drop_path_rate", "dropout_prob", "lr_mult_list"),
)
_ARCH: Mapping[str, Kind[Any]] = {
    "name": text,
    "class_num": none_or(_COUNT),
    "infer_add_softmax": none_or(switch),
    **dict.fromkeys(_ARCH_TRAINING, anything),
}
# Networks whose config may name the family, and its width apart.
_SCALED = ("PPLCNet",)
_HARD = {
    "models": "only Arch.name DistillationModel has several networks, a teacher and a student",
    "Backbone": "it is a network for retrieval, and HGDeploy has classifiers",
    "Head": "it is a network for retrieval, and HGDeploy has classifiers",
    "infer_model_name": "it chooses between several networks; name the student's own config",
    "infer_output_key": "HGDeploy's networks have one output: the logits",
}


def _arch(section: object, settings: Mapping[str, Any], warnings: list[str]) -> dict[str, Any]:
    given = Given("Arch", section).or_empty()
    if mapping(given).get("name") == DISTILLATION:
        given = student_section(given)
    for key, reason in _HARD.items():
        if mapping(given).get(key) is not None:
            raise ConfigError(f"{joined(given.where, key)} cannot be served: {reason}")
    if given.read("name", text) in _SCALED:
        found = keys({**_ARCH, "scale": none_or(number(above=0))})(given)
        width = str(float(found.pop("scale", None) or 1.0))
        found["name"] += "_x" + width.replace(".", "_")
    else:
        found = keys(_ARCH)(given)
    classes = settings.get("class_num")
    if classes is not None:
        used = found.setdefault("class_num", classes) == classes
        warnings.append(
            "Global.class_num is Arch.class_num's old name, and "
            + ("is used" if used else "has no effect beside it")
        )
    return found


def _without_effect(raw: Mapping[str, Any]) -> list[str]:
    """Return a line for each switch that changes PaddleClas's own figures, and nothing here."""
    switches = {
        ("AMP", "use_fp16_test"): "ask for a precision with -o Global.precision=fp16",
        ("Global", "use_dali"): "images are decoded as OpenCV does",
    }
    return [
        f"{section}.{key} has no effect here: {instead}"
        for (section, key), instead in switches.items()
        if isinstance(raw.get(section), dict) and raw[section].get(key) in (True, "True")
    ]


def _is_multilabel(raw: Mapping[str, Any]) -> bool:
    """Return whether the metric is for several labels, so that an export ends in a sigmoid.

    PaddleClas knows that of `ATTRMetric` alone, and else needs `Global.use_multilabel`.
    """
    metrics = (raw.get("Metric") or {}).get("Eval") if isinstance(raw.get("Metric"), dict) else None
    first = metrics[0] if isinstance(metrics, list) and metrics else None
    return isinstance(first, dict) and not first.keys().isdisjoint(SEVERAL_LABELS)
