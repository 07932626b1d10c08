# SPDX-License-Identifier: Apache-2.0
"""The sections of PaddleClas's training config for one task: `Infer`, and `DataLoader.Eval`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.paddleclas.training.config import TrainingConfig, none_or
from hgdeploy.paddleclas.training.metrics import (
    ONE_LABEL_SET,
    SEVERAL_LABELS_SET,
    check_dataset,
    read_metrics,
    read_smoothing,
)
from hgdeploy.system.checks import Given, Kind, check, mapping
from hgdeploy.system.kinds import (
    BATCH_SIZE,
    anything,
    as_text,
    keys,
    list_of,
    literal,
    rounded,
    switch,
    text,
)
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.attributes import Attributes
from hgdeploy.transforms.operators import Op, ToCHWImage
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.postprocess import (
    MultiLabelThreshOutput,
    Output,
    Postprocess,
    ScoreOutput,
)
from hgdeploy.transforms.postprocess_config import parse_postprocess
from hgdeploy.validation.evaluation import Metric, label_metrics

IMAGENET_LABELS = "imagenet1k_label_list.txt"
_IMAGENET = 1000
_LABELS = "class_id_map_file"
_MULTI_TOPK = "MultiLabelTopk"


@dataclass(frozen=True)
class InferTask:
    """What `tools/infer.py` does.

    Attributes:
        images: files, folders, globs or text lists.
        batch_size: images an inference takes, and a printed line has.
        preprocess: what is done to the images.
        postprocess: what is made of the scores.
        save: the JSON file for the results; None to print them.
    """

    images: tuple[str, ...]
    batch_size: int
    preprocess: tuple[Op, ...]
    postprocess: Postprocess
    save: Path | None


@dataclass(frozen=True)
class EvalTask:
    """What `tools/eval.py` does.

    Attributes:
        images: the folder that the list's paths count from.
        labels: the list of `PATH LABEL` lines; or `images`, with a folder for each class.
        delimiter: what separates the two; None for spaces or a tab.
        preprocess: what is done to the images.
        batch_size: images an inference takes.
        metrics: what is measured, in order.
        smoothing: of the labels, for the cross entropy; None where no loss is asked for.
    """

    images: Path
    labels: Path
    delimiter: str | None
    preprocess: tuple[Op, ...]
    batch_size: int
    metrics: tuple[Metric, ...]
    smoothing: float | None

    @property
    def ending(self) -> str:
        """What must follow the network's logits."""
        return "sigmoid" if label_metrics(self.metrics) else "softmax"


def read_infer(config: TrainingConfig, imagenet_labels: Path, on_warning: OnLine) -> InferTask:
    """Return what the section `Infer` asks for.

    Args:
        config: the config.
        imagenet_labels: the file for ImageNet's own list of labels, which PaddleClas's configs name
            by its place in PaddleClas's repository.
        on_warning: called with a line where that list is not the model's.

    Raises:
        ConfigError: a key is missing, unknown or not served.
        BundleError: the labels are not one for each class.
    """
    given = Given("Infer", config.raw.get("Infer")).or_empty()
    found = keys(_INFER)(given)
    for key in ("infer_imgs", "transforms", "PostProcess"):
        if found.get(key) is None:
            raise given.at(key).refused(f"a value; give it with -o Infer.{key}=VALUE")
    save = found.get("save_dir")
    return InferTask(
        found["infer_imgs"],
        found.get("batch_size") or 1,
        parse_ops(found["transforms"], "Infer.transforms"),
        read_output(config, imagenet_labels, on_warning),
        None if save is None else _json_file(save),
    )


def read_output(config: TrainingConfig, imagenet_labels: Path, on_warning: OnLine) -> Postprocess:
    """Return what `Infer.PostProcess` makes of the scores; see `read_infer`."""
    section = dict(Given("Infer", config.raw.get("Infer")).or_empty().read("PostProcess", mapping))
    named = section.get(_LABELS)
    if isinstance(named, str) and Path(named).name == IMAGENET_LABELS:
        if config.num_classes != _IMAGENET:
            on_warning(
                f"Infer.PostProcess.{_LABELS} names ImageNet's {_IMAGENET} classes, and the model "
                f"has {config.num_classes}: results have no names"
            )
            section[_LABELS] = None
        elif not Path(named).exists():
            section[_LABELS] = str(imagenet_labels)
    found = parse_postprocess(_as_served(section, on_warning), "Infer.PostProcess")
    found.check_classes(config.num_classes, Path(config.arch))
    return found


def _as_served(section: dict[str, Any], on_warning: OnLine) -> dict[str, Any]:
    """Write PaddleClas's `MultiLabelTopk` as what it is: a threshold of 0.5."""
    if section.get("name") == _MULTI_TOPK:
        parameters = {key: value for key, value in section.items() if key != "name"}
    elif list(section) == [_MULTI_TOPK]:
        parameters = dict(mapping(Given("Infer.PostProcess", section).at(_MULTI_TOPK).or_empty()))
    else:
        return section
    if parameters.pop("topk", None) is not None:
        on_warning(
            f"Infer.PostProcess {_MULTI_TOPK} gives every class with a score of 0.5 or more, as in "
            "PaddleClas, which does not use its topk either"
        )
    return {"name": MultiLabelThreshOutput.__name__, **parameters}


def ending_for(output: Output) -> str | None:
    """Return what must follow a network's logits for an output: `softmax`, `sigmoid` or nothing.

    PaddleClas's outputs for training compute it themselves.
    """
    if isinstance(output, MultiLabelThreshOutput | Attributes):
        return "sigmoid"
    return None if isinstance(output, ScoreOutput) else "softmax"


def read_transforms(config: TrainingConfig) -> tuple[Op, ...] | None:
    """Return what an exported model does to images: what `Infer` does, else the evaluation.

    Returns:
        The operators; None where the config has neither section.

    Raises:
        ConfigError: they cannot be served.
    """
    section = mapping(Given("Infer", config.raw.get("Infer")).or_empty()).get("transforms")
    if section is not None:
        return parse_ops(section, "Infer.transforms")
    given = Given("DataLoader", config.raw.get("DataLoader"))
    for key in ("Eval", "dataset"):
        given = given.or_empty().at(key)
        if none_or(anything)(given) is None:
            return None
    listed = mapping(given).get("transform_ops")
    return None if listed is None else _of_dataset(given)


def _of_dataset(given: Given) -> tuple[Op, ...]:
    """Return the operators of a data set, which puts the channels first itself."""
    ops = parse_ops(mapping(given)["transform_ops"], f"{given.where}.transform_ops")
    return ops if any(isinstance(op, ToCHWImage) for op in ops) else (*ops, ToCHWImage())


def read_eval(config: TrainingConfig) -> EvalTask:
    """Return what the sections `DataLoader.Eval`, `Loss.Eval` and `Metric.Eval` ask for.

    Raises:
        ConfigError: a key is missing, unknown or not served.
    """
    loader = Given("DataLoader", config.raw.get("DataLoader")).or_empty()
    given = loader.at("Eval")
    sections = keys({"dataset": mapping, "sampler": mapping, "loader": mapping})(given)
    if "dataset" not in sections:
        raise given.at("dataset").refused("the images' folder and list")
    place = given.at("dataset")
    name, metrics = place.read("name", none_or(text)) or ONE_LABEL_SET, read_metrics(config)
    several = bool(label_metrics(metrics))
    if name not in (ONE_LABEL_SET, SEVERAL_LABELS_SET):
        served = f"{ONE_LABEL_SET} and {SEVERAL_LABELS_SET}"
        raise ConfigError(f"{place.where}.name {name} cannot be served; HGDeploy has {served}")
    check_dataset(place, metrics)
    found = keys(_DATASET_KEYS)(place)
    needed = ("image_root", "transform_ops", *(("cls_label_path",) if several else ()))
    for key in needed:
        if found.get(key) is None:
            raise place.at(key).refused("a value")
    if found.get("relabel"):
        raise ConfigError(f"{place.where}.relabel cannot be served: write the new classes")
    size = given.read("sampler", none_or(mapping)) or {}
    batch = check(f"{given.where}.sampler.batch_size", size.get("batch_size", 1), _BATCH)
    return EvalTask(
        Path(found["image_root"]),
        Path(found.get("cls_label_path") or found["image_root"]),
        found.get("delimiter"),
        _of_dataset(place),
        batch,
        metrics,
        read_smoothing(config, metrics),
    )


def _texts(given: Given) -> tuple[str, ...]:
    """Is the kind of one path, or of a list of them."""
    value = given.value
    return list_of(as_text, 1)(given) if isinstance(value, list) else (as_text(given),)


_BATCH = literal(rounded(BATCH_SIZE))
_INFER: Mapping[str, Kind[Any]] = {
    "infer_imgs": none_or(_texts),
    "batch_size": none_or(_BATCH),
    "transforms": anything,
    "PostProcess": anything,
    "save_dir": none_or(as_text),
}
_DATASET_KEYS: Mapping[str, Kind[Any]] = {
    "name": none_or(text),
    "image_root": none_or(as_text),
    "cls_label_path": none_or(as_text),
    "transform_ops": anything,
    "delimiter": none_or(text),
    "relabel": none_or(switch),
    "label_ratio": anything,
}


def _json_file(save: str) -> Path:
    """Return the file that PaddleClas makes of `Infer.save_dir`."""
    path = Path(save)
    if path.suffix not in ("", ".json"):
        raise ConfigError(f"Infer.save_dir is {save!r}, expected a name that ends with .json")
    return path if path.suffix else path.with_name(f"{path.name}.json")
