# SPDX-License-Identifier: Apache-2.0
"""One of the sections `DataLoader.Train` and `DataLoader.Eval` of PaddleClas's config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import MISSING, Given, Kind, mapping
from hgdeploy.system.kinds import (
    BATCH_SIZE,
    anything,
    as_text,
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
from hgdeploy.training.data.operators.image import (
    RandCropImage,
    RandFlipImage,
    RandomErasing,
    RandomOp,
    TimmAutoAugment,
)
from hgdeploy.training.data.operators.mixing import (
    BatchOp,
    CutmixOperator,
    Mixer,
    MixupOperator,
    OpSampler,
)
from hgdeploy.training.data.pipeline import AnyOp
from hgdeploy.transforms.operators_config import (
    arithmetic,
    as_lower,
    as_numbers,
    as_pair,
    parse_ops,
    read_op,
)

T = TypeVar("T")

ONE_LABEL, SEVERAL_LABELS = "ImageNetDataset", "MultiLabelDataset"


@dataclass(frozen=True)
class Section:
    """What a section says.

    Attributes:
        dataset: which kind of labels there are: `ONE_LABEL` or `SEVERAL_LABELS`.
        root: the images' folder.
        listed: the list of images and labels; None for a folder for each class.
        delimiter: what separates path and label in the list; None for a tab, else spaces.
        ratio: the share of each label is asked for, for the loss.
        ops: what is done to an image.
        batch_ops: what is done to a batch.
        batch_size: images a batch of one rank.
        shuffle: in another order each epoch.
        drop_last: leave out the last batch where it is not full.
        workers: processes that read images.
    """

    dataset: str
    root: Path
    listed: Path | None
    delimiter: str | None
    ratio: bool
    ops: tuple[AnyOp, ...]
    batch_ops: tuple[BatchOp, ...]
    batch_size: int
    shuffle: bool
    drop_last: bool
    workers: int


def read_section(section: Mapping[str, Any], *, training: bool) -> Section:
    """Read a section.

    Args:
        section: `dataset`, `sampler` and `loader`, as YAML gives them.
        training: it is `DataLoader.Train`, else `DataLoader.Eval`, which has nothing random.

    Raises:
        ConfigError: a key is missing, unknown or not served, or a value is wrong.
    """
    given = Given(f"DataLoader.{'Train' if training else 'Eval'}", section)
    keys({"dataset": mapping, "sampler": anything, "loader": anything})(given)
    place = given.at("dataset")
    dataset = keys(_DATASET)(place)
    for key in ("image_root", "transform_ops"):
        if dataset.get(key) is None:
            raise place.at(key).refused("a value")
    sampler, loader = keys(_SAMPLER)(_part(given, "sampler")), keys(_LOADER)(_part(given, "loader"))
    name, listed = dataset.get("name") or ONE_LABEL, dataset.get("cls_label_path")
    batch_ops = _batch_ops(place.at("batch_transform_ops"))
    _check_dataset(place, name, dataset, batch_ops)
    ops = place.at("transform_ops")
    return Section(
        name,
        Path(dataset["image_root"]),
        None if listed is None else Path(listed),
        dataset.get("delimiter"),
        bool(dataset.get("label_ratio")),
        _random_ops(ops) if training else parse_ops(ops.value, ops.where),
        batch_ops,
        sampler.get("batch_size") or 1,
        bool(sampler.get("shuffle")),
        bool(sampler.get("drop_last")),
        loader.get("num_workers") or 0,
    )


def _part(given: Given, key: str) -> Given:
    """Return what stands at a key; an empty mapping where nothing does."""
    part = given.at(key)
    return dataclasses.replace(part, value={}) if part.value in (None, MISSING) else part


def _check_dataset(
    place: Given, name: str, dataset: Mapping[str, Any], batch_ops: tuple[BatchOp, ...]
) -> None:
    """Refuse what the kind of data set cannot have."""
    if dataset.get("relabel"):
        raise ConfigError(f"{place.where}.relabel cannot be served: write the new classes")
    if name == SEVERAL_LABELS:
        if dataset.get("cls_label_path") is None:
            raise place.at("cls_label_path").refused("the list of 'PATH<tab>0,1,...' lines")
        if batch_ops:
            mixed = type(batch_ops[0]).__name__
            raise ConfigError(
                f"{place.where}.batch_transform_ops: {mixed} mixes images of one label each, as "
                f"in PaddleClas, and cannot be served with {SEVERAL_LABELS}; remove it"
            )
    elif dataset.get("label_ratio"):
        raise ConfigError(f"{place.where}.label_ratio is for {SEVERAL_LABELS}; remove it")


def _random_ops(given: Given) -> tuple[AnyOp, ...]:
    """Is the kind of lists of operators that may be random."""
    entries = list_of(anything, 1, words="a list of operators")(given)
    places = (Given(f"{given.where}.{index}", entry) for index, entry in enumerate(entries))
    return tuple(read_op(place, _RANDOM) for place in places)


def _built(made: Callable[..., T], kinds: Mapping[str, Kind[Any]], *needed: str) -> Kind[T]:
    """Return the kind of an operator's parameters, of which null means the default."""

    def read(given: Given) -> T:
        values = keys({key: optional(kind) for key, kind in kinds.items()})(given.or_empty())
        for key in needed:
            if values.get(key) is None:
                raise given.or_empty().at(key).refused("a value")
        params = {key: value for key, value in values.items() if value is not None}
        return _named(given, lambda: made(**params))

    return read


def _named(given: Given, make: Callable[[], T]) -> T:
    """Make an operator, whose errors begin with its own name; begin them with its place."""
    try:
        return make()
    except ConfigError as error:
        raise ConfigError(f"{given.where.rpartition('.')[0]}.{error}") from None


def _batch_ops(given: Given) -> tuple[BatchOp, ...]:
    """Is the kind of lists of operators on batches; nothing is none."""
    listed = optional(list_of(keys(_BATCH), words="a list of operators"))(given) or ()
    return tuple(op for entry in listed for op in entry.values())


def _mixers(given: Given) -> OpSampler:
    """Is the kind of operators on batches, each with its chance."""
    found = []
    for name, place in ((name, given.at(name)) for name in mapping(given.or_empty())):
        keys(_MIXERS)(Given(given.where, {name: {}}))
        chance = place.read("prob", literal(number(0, 1)))
        rest = {key: value for key, value in mapping(place).items() if key != "prob"}
        found.append((_MIXERS[name](dataclasses.replace(place, value=rest)), chance))
    if not found:
        raise given.refused(f"some of {', '.join(_MIXERS)}, each with a prob")
    return _named(given, lambda: OpSampler(tuple(found)))


def _list_path(given: Given) -> str | None:
    """Is the kind of lists' paths; null is none, also as it is written after `-o`."""
    return None if given.value in ("null", "~", "") else optional(as_text)(given)


_ratio = list_of(arithmetic, 2, 2, words="[least, most]")
_RANDOM: Mapping[str, Kind[RandomOp]] = {
    "RandCropImage": _built(
        RandCropImage,
        {
            "size": as_pair,
            "scale": _ratio,
            "ratio": _ratio,
            "interpolation": as_lower,
            "backend": as_lower,
        },
        "size",
    ),
    "RandFlipImage": _built(RandFlipImage, {"flip_code": literal(rounded(whole(-1, 1)))}),
    "TimmAutoAugment": _built(
        TimmAutoAugment,
        {
            "config_str": text,
            "interpolation": text,
            "img_size": as_pair,
            "mean": as_numbers,
            "prob": literal(number(0, 1)),
        },
    ),
    "RandomErasing": _built(
        RandomErasing,
        {
            **dict.fromkeys(("EPSILON", "sl", "sh", "r1"), arithmetic),
            "mean": as_numbers,
            "attempt": literal(rounded(whole(1))),
            "use_log_aspect": switch,
            "mode": text,
        },
    ),
}
_alpha: Mapping[str, Kind[Any]] = {"alpha": literal(number(above=0))}
_MIXERS: Mapping[str, Kind[Mixer]] = {
    "MixupOperator": _built(MixupOperator, _alpha),
    "CutmixOperator": _built(CutmixOperator, _alpha),
}
_BATCH: Mapping[str, Kind[BatchOp]] = {**_MIXERS, "OpSampler": _mixers}
_DATASET: Mapping[str, Kind[Any]] = {
    "name": optional(one_of((ONE_LABEL, SEVERAL_LABELS))),
    "image_root": optional(as_text),
    "cls_label_path": _list_path,
    "transform_ops": optional(anything),
    "batch_transform_ops": optional(anything),
    "delimiter": optional(text),
    "relabel": optional(switch),
    "label_ratio": optional(switch),
}
_SAMPLER: Mapping[str, Kind[Any]] = {
    "name": optional(one_of(("DistributedBatchSampler", "BatchSampler"))),
    "batch_size": optional(literal(rounded(BATCH_SIZE))),
    "shuffle": optional(switch),
    "drop_last": optional(switch),
}
_LOADER: Mapping[str, Kind[Any]] = {
    "num_workers": optional(literal(rounded(whole(0, 1024)))),
    "use_shared_memory": optional(switch),
}
