# SPDX-License-Identifier: Apache-2.0
"""Postprocessing from the `PostProcess` section of a config."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from hgdeploy.errors import ConfigError, nearest
from hgdeploy.transforms.postprocess import (
    Labels,
    MultiLabelThreshOutput,
    Output,
    Postprocess,
    ScoreOutput,
    ThreshOutput,
    Topk,
)

# PaddleClas's other postprocessing names, so that a user's config is refused by name.
_UNSERVED = (
    "MultiLabelTopk",
    "PersonAttribute",
    "VehicleAttribute",
    "TableAttribute",
    "FaceAttribute",
    "Binarize",
    "MultiTaskTopk",
)


def read_labels(path: Path, delimiter: str = " ") -> dict[int, str]:
    """Read a label file in PaddleClas's format: one `ID NAME` a line.

    Args:
        path: a UTF-8 text file.
        delimiter: what separates id and name.

    Raises:
        ConfigError: the file is missing, or a line is not of that form.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(
            f"label file {path} cannot be read: {error.strerror}; give another "
            "class_id_map_file, or null for no names"
        ) from None
    except UnicodeDecodeError:
        raise ConfigError(f"label file {path} is not UTF-8 text") from None
    labels: dict[int, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        key, _, name = line.partition(delimiter)
        if not key.strip().isdecimal():
            raise ConfigError(
                f"label file {path}, line {number}: {line[:60]!r} is not 'ID{delimiter}NAME'"
            )
        if int(key) in labels:
            raise ConfigError(f"label file {path}, line {number}: class {int(key)} stands twice")
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
    if not isinstance(section, dict) or not section:
        raise ConfigError(f"{where} is not a mapping of keys to values")
    functions = dict(section)
    if "name" in functions:
        name = functions.pop("name")
        functions = {name: functions}
    main = _none(functions.pop("main_indicator", None))
    save_dir = None
    if "SavePreLabel" in functions:
        values = _parameters(functions.pop("SavePreLabel"), f"{where}.SavePreLabel", ("save_dir",))
        if not isinstance(values.get("save_dir"), str):
            raise ConfigError(f"{where}.SavePreLabel.save_dir is not set; name a folder")
        save_dir = Path(values["save_dir"])
    for name in functions:
        if name in _UNSERVED:
            raise ConfigError(
                f"{where}.{name} cannot be served; HGDeploy has {', '.join(_OUTPUTS)}, SavePreLabel"
            )
        if name not in _OUTPUTS:
            raise ConfigError(
                f"unknown {where}.{name}, {nearest(str(name), [*_OUTPUTS, 'SavePreLabel'])}"
            )
    if main is None and len(functions) == 1:
        main = next(iter(functions))
    if main not in functions:
        raise ConfigError(
            f"{where}.main_indicator is {main!r}, expected one of: {', '.join(functions)}"
        )
    output, given = _parse_output(main, functions[main], f"{where}.{main}", resolve)
    return Postprocess(output, save_dir, given)


# Each output's own parameters: name -> (kind, least value).
_OUTPUTS: Mapping[str, tuple[type[Any], Mapping[str, tuple[type, float]]]] = {
    "Topk": (Topk, {"topk": (int, 1)}),
    "ThreshOutput": (
        ThreshOutput,
        {
            "threshold": (float, 0),
            "default_label_index": (int, 0),
            "label_0": (str, 0),
            "label_1": (str, 0),
        },
    ),
    "MultiLabelThreshOutput": (MultiLabelThreshOutput, {"threshold": (float, 0)}),
    "ScoreOutput": (ScoreOutput, {"decimal_places": (int, 0)}),
}


_LABEL_KEYS = ("class_id_map_file", "label_list", "delimiter")


def _parse_output(
    name: str, section: object, where: str, resolve: Callable[[str, str], str]
) -> tuple[Output, bool]:
    """Build one output function; also tell whether its labels were spoken of."""
    kind, own = _OUTPUTS[name]
    label_keys = () if kind is ScoreOutput else _LABEL_KEYS
    values = _parameters(section, where, (*own, *label_keys))
    arguments: dict[str, Any] = {}
    for key, (wanted, least) in own.items():
        if key in values:
            arguments[key] = _checked(values[key], wanted, least, f"{where}.{key}")
    if kind is ScoreOutput and "decimal_places" not in arguments:
        raise ConfigError(f"{where}.decimal_places is not set; give the decimals to round to")
    given = "class_id_map_file" in values or "label_list" in values
    if given:
        arguments["labels"] = _labels(values, where, resolve)
    output: Output = kind(**arguments)
    return output, given


def _labels(
    values: Mapping[str, Any], where: str, resolve: Callable[[str, str], str]
) -> Labels | None:
    listed = _none(values.get("label_list"))
    if listed is not None:
        if not isinstance(listed, list) or not listed:
            raise ConfigError(f"{where}.label_list is not a list of names")
        return {i: str(label) for i, label in enumerate(listed)}
    file = _none(values.get("class_id_map_file"))
    if file is None:
        return None
    key = f"{where}.class_id_map_file"
    delimiter = _none(values.get("delimiter"))
    path = Path(resolve(key, _checked(file, str, 0, key)))
    return read_labels(path, delimiter if delimiter is not None else " ")


def _parameters(section: object, where: str, allowed: tuple[str, ...]) -> dict[str, Any]:
    if section is None:
        return {}
    if not isinstance(section, dict):
        raise ConfigError(f"{where} is not a mapping of keys to values")
    for key in section:
        if key not in allowed:
            raise ConfigError(f"unknown key {where}.{key}, {nearest(str(key), allowed)}")
    return section


def _checked(value: object, wanted: type, least: float, where: str) -> Any:
    """Return `value` if it is of the wanted type and not below `least`."""
    if isinstance(value, str) and wanted is not str:
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            value = None
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    fits = isinstance(value, wanted) and not isinstance(value, bool)
    if not fits or (isinstance(value, int | float) and not value >= least):
        names = {int: "a whole number", float: "a number", str: "a text"}
        bound = f" from {least:g}" if wanted is not str else ""
        raise ConfigError(f"{where} is {value!r}, expected {names[wanted]}{bound}")
    return value


def _none(value: Any) -> Any:
    """Return None for YAML's null and for the text `None`, which PaddleClas takes for it."""
    return None if value == "None" else value
