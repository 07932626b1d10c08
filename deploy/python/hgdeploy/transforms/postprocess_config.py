# SPDX-License-Identifier: Apache-2.0
"""Postprocessing from the `PostProcess` section of a config."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import Given, Kind, check, mapping
from hgdeploy.system.documents import AsPrinted, read_lines
from hgdeploy.system.kinds import (
    all_keys,
    anything,
    is_class_id,
    keys,
    list_of,
    literal,
    number,
    optional,
    path,
    rounded,
    switch,
    text,
    whole,
)
from hgdeploy.transforms.attributes import (
    Attributes,
    FaceAttribute,
    PersonAttribute,
    TableAttribute,
    VehicleAttribute,
)
from hgdeploy.transforms.postprocess import (
    Labels,
    MultiLabelThreshOutput,
    Output,
    Postprocess,
    ScoreOutput,
    ThreshOutput,
    Topk,
)

T = TypeVar("T")
# The keys that hold names of classes, which YAML leaves as they are written.
LABEL_KEYS = ("label_list", "label_0", "label_1")
SAVE = "SavePreLabel"
"""PaddleClas's request, beside an output, to sort copies of the images into folders by class."""
# PaddleClas's other postprocessing names, so that a user's config is refused by name.
_MOST_DECIMALS = 15  # of a float64; numpy makes NaN of scores rounded to hundreds
_UNSERVED = (
    "MultiLabelTopk",
    "Binarize",
    "MultiTaskTopk",
)


def read_labels(path: Path, delimiter: str = " ") -> dict[int, str]:
    """Read a label file in PaddleClas's format: one `ID NAME` a line.

    Args:
        path: a UTF-8 text file.
        delimiter: what separates id and name.

    Raises:
        ConfigError: the file is missing, a line is not of that form, or the delimiter is empty.
    """
    check("delimiter", delimiter, text)
    try:
        lines = read_lines(path)
    except OSError as error:
        raise ConfigError(
            f"label file {path} cannot be read: {error.strerror or error}; give another "
            "class_id_map_file, or null for no names"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"label file {path} is not UTF-8 text") from None
    except ValueError as error:
        raise ConfigError(f"label file {path} cannot be read: {error}") from None
    labels: dict[int, str] = {}
    for at, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        key, _, name = line.partition(delimiter)
        if not is_class_id(key.strip()):
            expected = f"ID{delimiter}NAME"
            raise ConfigError(f"label file {path}, line {at}: {line[:60]!r} is not {expected!r}")
        if int(key) in labels:
            raise ConfigError(f"label file {path}, line {at}: class {int(key)} stands twice")
        labels[int(key)] = name
    if not labels:
        raise ConfigError(f"label file {path} is empty")
    return labels


def parse_postprocess(
    section: object, where: str, resolve: Callable[[str, str], str] = lambda _, path: path
) -> Postprocess:
    """Turn PaddleClas's `PostProcess` section into a `Postprocess`.

    Both of PaddleClas's forms are read: `{main_indicator: Topk, Topk: {topk: 5}, SavePreLabel:
    {...}}` and the older flat `{name: Topk, topk: 5}`.

    Args:
        section: the section as YAML gives it.
        where: the section's name, for errors.
        resolve: turns a key's name and a path in it into the path to open.

    Raises:
        ConfigError: a name or value is wrong, or a label file cannot be read.
    """
    functions = dict(check(where, section, mapping))
    if not functions:
        raise Given(where, section).refused("an output, such as Topk: {topk: 5}")
    if "name" in functions:
        functions = {check(f"{where}.name", functions.pop("name"), text): functions}
    main = check(f"{where}.main_indicator", functions.pop("main_indicator", None), _or_none(_name))
    for name in functions:
        if name in _UNSERVED:
            raise ConfigError(
                f"{where}.{name} cannot be served; HGDeploy has {', '.join(_OUTPUTS)}, SavePreLabel"
            )
    functions = check(where, functions, keys(dict.fromkeys([*_OUTPUTS, SAVE], anything)))
    functions.pop(SAVE, None)
    if main is None and len(functions) == 1:
        main = next(iter(functions))
    if main is None or main not in functions:
        raise ConfigError(
            f"{where}.main_indicator is {main!r}, expected one of: {', '.join(functions)}"
        )
    output, labels_given = _read_output(main, Given(f"{where}.{main}", functions[main]), resolve)
    return Postprocess(output, labels_given)


def postprocess_to_config(output: Output) -> dict[str, Any]:
    """Return the `PostProcess` section that `parse_postprocess` reads this output from."""
    names = [each.name for each in dataclasses.fields(output)]  # type: ignore[arg-type]
    found = {name: getattr(output, name) for name in names if name != "labels"}
    # A name that was read from YAML may be a text of another class, which YAML cannot write.
    values = {key: str(v) if isinstance(v, str) else v for key, v in found.items()}
    if output.labels is not None:
        values["label_list"] = [str(output.labels[i]) for i in range(len(output.labels))]
    return {type(output).__name__: values}


def parse_save_dir(section: object, where: str) -> Path | None:
    """Return the folder that `SavePreLabel` names in a `PostProcess` section; None without it.

    Whoever reads this decides whether copies are written: `parse_postprocess` leaves it alone.

    Args:
        section: the section as YAML gives it.
        where: the section's name, for errors.

    Raises:
        ConfigError: `SavePreLabel` does not hold exactly one path.
    """
    if not isinstance(section, Mapping) or SAVE not in section:
        return None
    given = Given(f"{where}.{SAVE}", section[SAVE]).or_empty()
    found: Path = all_keys({"save_dir": path})(given)["save_dir"]
    return found


def _name(given: Given) -> str:
    """Is the kind of texts; PaddleClas also takes a list with the one text."""
    value = given.value
    alone = value[0] if isinstance(value, list) and len(value) == 1 else value
    return text(dataclasses.replace(given, value=alone))


def _label(given: Given) -> str:
    """Is the kind of texts, which may be empty, and of what a Python literal makes of a number."""
    if isinstance(given.value, bool | int | float):
        return AsPrinted(given.value)
    if not isinstance(given.value, str):
        raise given.refused("a text; put it in quotes")
    return given.value


def _or_none(kind: Kind[T], *also: str) -> Kind[T | None]:
    """Return the kind that also takes YAML's null and the text `None`, PaddleClas's word for it.

    Args:
        kind: the kind.
        *also: other texts that mean nothing.
    """
    words = ("None", *also)
    return lambda given: None if given.value in words else optional(kind)(given)


# How null is written: a value after `-o` is no YAML, and labels are texts as they are written.
_NULL = ("null", "Null", "NULL", "~", "")


def _thresholds(kind: type[Attributes], *others: str) -> dict[str, Kind[Any]]:
    """Return the kinds of an attribute output's thresholds: all its parameters but `others`."""
    names = (each.name for each in dataclasses.fields(kind))  # type: ignore[arg-type]
    return {name: literal(number(finite=False)) for name in names if name not in others}


# Each output's own parameters.
_OUTPUTS: Mapping[str, tuple[type[Any], Mapping[str, Kind[Any]]]] = {
    "Topk": (Topk, {"topk": literal(rounded(whole(1)))}),
    "ThreshOutput": (
        ThreshOutput,
        {
            "threshold": literal(number(finite=False)),
            "default_label_index": literal(rounded(whole(0))),
            "label_0": _label,
            "label_1": _label,
        },
    ),
    "MultiLabelThreshOutput": (
        MultiLabelThreshOutput,
        {"threshold": literal(number(finite=False))},
    ),
    "ScoreOutput": (ScoreOutput, {"decimal_places": literal(rounded(whole(0, _MOST_DECIMALS)))}),
    "PersonAttribute": (PersonAttribute, _thresholds(PersonAttribute)),
    "FaceAttribute": (
        FaceAttribute,
        {**_thresholds(FaceAttribute, "convert_cn"), "convert_cn": switch},
    ),
    "VehicleAttribute": (VehicleAttribute, _thresholds(VehicleAttribute)),
    "TableAttribute": (TableAttribute, _thresholds(TableAttribute)),
}
_LABEL_KEYS: Mapping[str, Kind[Any]] = {
    "class_id_map_file": _or_none(text, *_NULL),
    "label_list": _or_none(list_of(_label, 1, words="a list of names"), *_NULL),
    "delimiter": _or_none(text),
}


def _read_output(
    name: str, given: Given, resolve: Callable[[str, str], str]
) -> tuple[Output, bool]:
    """Return an output, and whether the config spoke of its labels."""
    kind, own = _OUTPUTS[name]
    given = given.or_empty()
    unlabelled = kind is ScoreOutput or issubclass(kind, Attributes)
    values = keys({**own, **({} if unlabelled else _LABEL_KEYS)})(given)
    arguments = {key: values[key] for key in own if key in values}
    if kind is ScoreOutput:  # it has no default
        given.read("decimal_places", own["decimal_places"])
    labels_given = "class_id_map_file" in values or "label_list" in values
    if labels_given:
        arguments["labels"] = _labels(values, given.where, resolve)
    output: Output = kind(**arguments)
    return output, labels_given


def _labels(
    values: Mapping[str, Any], where: str, resolve: Callable[[str, str], str]
) -> Labels | None:
    listed, file = values.get("label_list"), values.get("class_id_map_file")
    if listed is not None:
        return dict(enumerate(listed))
    if file is None:
        return None
    named = Path(resolve(f"{where}.class_id_map_file", file))
    return read_labels(named, values.get("delimiter") or " ")


def parameters_of(output: object) -> Collection[str]:
    """Return the names of an output's own parameters; none for what is no output."""
    return _OUTPUTS[output][1] if isinstance(output, str) and output in _OUTPUTS else ()
