# SPDX-License-Identifier: Apache-2.0
"""The sections `Metric.Eval` and `Loss.Eval` of PaddleClas's training config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.paddleclas.training.config import SEVERAL_LABELS, TrainingConfig, none_or
from hgdeploy.system.checks import Given, Kind, mapping
from hgdeploy.system.kinds import (
    anything,
    exactly,
    keys,
    list_of,
    literal,
    number,
    rounded,
    whole,
)
from hgdeploy.validation.evaluation import (
    AccuracyScore,
    ATTRMetric,
    HammingDistance,
    Metric,
    TopkAcc,
    TprAtFpr,
    label_metrics,
)


def _counts(given: Given) -> tuple[int, ...]:
    """Is the kind of one k of a top-k accuracy, or of a list of them."""
    one = literal(rounded(whole(1)))
    return list_of(one, 1)(given) if isinstance(given.value, list) else (one(given),)


_METRICS: Mapping[str, tuple[type[Metric], Mapping[str, Kind[Any]]]] = {
    "TopkAcc": (TopkAcc, {"topk": _counts}),
    "DistillationTopkAcc": (TopkAcc, {"topk": _counts, "model_key": exactly("Student")}),
    "TprAtFpr": (TprAtFpr, {"max_fpr": literal(number(0, 1))}),
    "ATTRMetric": (ATTRMetric, {"threshold": literal(number())}),
    "HammingDistance": (HammingDistance, {}),
    "AccuracyScore": (AccuracyScore, {"base": exactly("label", "sample")}),
}


def read_metrics(config: TrainingConfig) -> tuple[Metric, ...]:
    """Return what `Metric.Eval` asks for; the top 1 and 5 where it asks for nothing."""
    section = Given("Metric", config.raw.get("Metric")).or_empty()
    found = []
    for name, given in entries(section.at("Eval"), tuple(_METRICS)):
        kind, kinds = _METRICS[name]
        values = keys(kinds)(given.or_empty())
        values.pop("model_key", None)
        found.append(kind(**values))
    _check_together(found)
    return tuple(found) or (TopkAcc(),)


def _check_together(metrics: Sequence[Metric]) -> None:
    several = label_metrics(metrics)
    names = [type(metric).__name__ for metric in metrics]
    if not several:
        return
    alone = any(isinstance(metric, ATTRMetric) for metric in several)
    if len(several) < len(metrics) or (alone and len(metrics) > 1):
        raise ConfigError(
            f"Metric.Eval has {', '.join(names)}; ATTRMetric stands alone, HammingDistance and "
            "AccuracyScore together or alone (all three are for images with several labels), and "
            "TopkAcc and TprAtFpr are for images with one"
        )
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        raise ConfigError(f"Metric.Eval has {twice[0]} twice, expected once")


ONE_LABEL_SET, SEVERAL_LABELS_SET = "ImageNetDataset", "MultiLabelDataset"


def check_dataset(place: Given, metrics: Sequence[Metric]) -> None:
    """Check that the metrics are for the kind of labels that a data set has.

    Args:
        place: the section `DataLoader.Eval.dataset`.
        metrics: what is measured.

    Raises:
        ConfigError: they are for the other kind.
    """
    if not isinstance(place.value, Mapping):
        return  # whoever reads it says so
    name = none_or(anything)(place.at("name")) or ONE_LABEL_SET
    fitting = SEVERAL_LABELS_SET if label_metrics(metrics) else ONE_LABEL_SET
    if name != fitting and name in (ONE_LABEL_SET, SEVERAL_LABELS_SET):
        raise ConfigError(
            f"{place.where}.name is {name}, but Metric.Eval has "
            f"{', '.join(type(metric).__name__ for metric in metrics)}; HGDeploy measures "
            f"{SEVERAL_LABELS_SET} by {', '.join(SEVERAL_LABELS)}, and {ONE_LABEL_SET} by the "
            "others"
        )


_RATIO = none_or(literal(number()))
_LOSSES: Mapping[str, Mapping[str, Kind[Any]]] = {
    "CELoss": {"weight": anything, "epsilon": _RATIO},
    "MultiLabelLoss": {
        "weight": none_or(literal(number(1, 1))),
        "epsilon": _RATIO,
        **dict.fromkeys(("size_sum", "weight_ratio"), none_or(exactly(False))),
    },
}


def read_smoothing(config: TrainingConfig, metrics: Sequence[Metric]) -> float | None:
    """Return the smoothing of `Loss.Eval`'s labels; None where it has no loss.

    Args:
        config: the config.
        metrics: what is measured beside; PaddleClas prints no loss beside `ATTRMetric`.
    """
    if any(isinstance(metric, ATTRMetric) for metric in metrics):
        return None
    loss = "MultiLabelLoss" if label_metrics(metrics) else "CELoss"
    section = Given("Loss", config.raw.get("Loss")).or_empty()
    listed = entries(section.at("Eval"), (loss,))
    if not listed:
        return None
    if len(listed) > 1:
        raise ConfigError(f"Loss.Eval has {len(listed)} losses, expected one {loss}, or none")
    epsilon = keys(_LOSSES[loss])(listed[0][1].or_empty()).get("epsilon")
    return epsilon if epsilon is not None and 0 < epsilon < 1 else 0.0


def entries(given: Given, names: Sequence[str]) -> list[tuple[str, Given]]:
    """Return name and parameters of each entry of a list of one-key mappings."""
    if none_or(anything)(given) is None:
        return []
    kind = keys(dict.fromkeys(names, anything))
    listed = list_of(kind, words=f"a list of {' or '.join(names)}")(given)
    items = (given.item(index, entry) for index, entry in enumerate(listed))
    return [(name, item.at(name)) for item in items for name in mapping(item)]
