# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's postprocessing: from a row of scores to classes, labels, and the printed line."""

from __future__ import annotations

import ast
import dataclasses
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import BundleError, ConfigError, OutputError, nearest

Labels = Mapping[int, str]

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
# PaddleClas rounds Top-k and multi-label scores to this many decimals before it prints them.
_SCORE_DECIMALS = 5


@dataclass(frozen=True)
class Prediction:
    """What was found in one image, or why nothing was.

    Attributes:
        path: the image's path relative to the folder that was searched.
        class_ids: the classes, best first; None for a model that outputs a bare score.
        scores: one score a class, or the bare score.
        labels: one name a class; empty without a label file.
        error: None, or the reason why the image failed; then the other fields are empty.
    """

    path: str
    class_ids: tuple[int, ...] | None
    scores: tuple[float, ...]
    labels: tuple[str, ...]
    error: str | None = None

    @classmethod
    def failed(cls, path: str, reason: str) -> Prediction:
        """Return the prediction of an image that could not be classified."""
        return cls(path, (), (), (), reason)


@dataclass(frozen=True)
class Topk:
    """The `topk` best classes.

    Attributes:
        topk: how many; a model with fewer classes gives them all.
        labels: names by class id; None for no names.
    """

    topk: int = 1
    labels: Labels | None = None
    probabilities: ClassVar[bool] = True

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction; equal scores rank the higher class first."""
        order = np.argsort(scores, kind="stable")[-self.topk :][::-1]
        return _listed(path, order, scores, self.labels)


@dataclass(frozen=True)
class ThreshOutput:
    """The best class if its score passes a threshold, else a default one.

    A model of two classes answers `label_1` when the second score reaches `threshold`, else
    `label_0` with the complement of that score.
    """

    threshold: float = 0.0
    default_label_index: int = 0
    label_0: str = "0"
    label_1: str = "1"
    labels: Labels | None = None
    probabilities: ClassVar[bool] = True

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction."""
        if len(scores) == 2:
            if scores[1] < self.threshold:
                return Prediction(path, (0,), (float(1 - scores[1]),), (self.label_0,))
            return Prediction(path, (1,), (float(scores[1]),), (self.label_1,))
        best = int(np.argsort(scores, kind="stable")[-1])
        chosen = best if scores[best] > self.threshold else self.default_label_index
        label = self.labels[chosen] if self.labels is not None else ""
        return Prediction(path, (chosen,), (float(scores[chosen]),), (label,))


@dataclass(frozen=True)
class MultiLabelThreshOutput:
    """Every class whose score reaches a threshold, in order of class id."""

    threshold: float = 0.5
    labels: Labels | None = None
    probabilities: ClassVar[bool] = False

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction."""
        return _listed(path, np.flatnonzero(scores >= self.threshold), scores, self.labels)


@dataclass(frozen=True)
class ScoreOutput:
    """The model's output itself, rounded; for models that grade rather than classify."""

    decimal_places: int
    labels: ClassVar[Labels | None] = None
    probabilities: ClassVar[bool] = False

    def __call__(self, path: str, scores: NDArray[np.float32]) -> Prediction:
        """Turn one row of scores into a prediction."""
        rounded = np.around(scores, self.decimal_places)
        return Prediction(path, None, tuple(float(score) for score in rounded), ())


Output = Topk | ThreshOutput | MultiLabelThreshOutput | ScoreOutput


@dataclass(frozen=True)
class Postprocess:
    """What is made of a row of scores.

    Attributes:
        output: the function that makes the prediction.
        save_dir: where `SavePreLabel` sorts copies of the images by class; None for nowhere.
        labels_given: the config spoke of labels itself, so that the bundle's are not used.
    """

    output: Output
    save_dir: Path | None = None
    labels_given: bool = True

    def with_topk(self, topk: int) -> Postprocess:
        """Return the same with another Top-k.

        Raises:
            ConfigError: the output is no Top-k, or `topk` is below 1.
        """
        if not isinstance(self.output, Topk):
            raise ConfigError(
                f"topk does not apply: this model's output is {type(self.output).__name__}"
            )
        if topk < 1:
            raise ConfigError(f"topk is {topk}, expected a whole number from 1")
        return dataclasses.replace(self, output=dataclasses.replace(self.output, topk=topk))

    def with_labels(self, labels: Labels) -> Postprocess:
        """Return the same with names for the classes; an output without classes stays as it is."""
        if isinstance(self.output, ScoreOutput):
            return self
        return dataclasses.replace(self, output=dataclasses.replace(self.output, labels=labels))

    def check_classes(self, classes: int, model: Path) -> None:
        """Refuse labels that are not one for each of the model's classes.

        Args:
            classes: how many classes the model has; -1 where it does not tell.
            model: the model's file, for the error.

        Raises:
            BundleError: how many labels there are, and how many classes.
        """
        labels, output = self.output.labels, self.output
        if classes == -1:
            return
        if labels is not None and set(labels) != set(range(classes)):
            raise BundleError(
                f"{model} has {classes} classes, but the label list has {len(labels)} (ids "
                f"{min(labels)} to {max(labels)}); give the model's own class_id_map_file, or null "
                "for no names"
            )
        if isinstance(output, ThreshOutput) and output.default_label_index >= classes:
            raise BundleError(
                f"{model} has {classes} classes, but ThreshOutput.default_label_index is "
                f"{output.default_label_index}"
            )


def _listed(
    path: str, ids: NDArray[np.intp], scores: NDArray[np.float32], labels: Labels | None
) -> Prediction:
    rounded = np.around([float(scores[i]) for i in ids], _SCORE_DECIMALS)
    return Prediction(
        path,
        tuple(int(i) for i in ids),
        tuple(float(score) for score in rounded),
        tuple(labels[int(i)] for i in ids) if labels is not None else (),
    )


def text_line(prediction: Prediction) -> str:
    r"""Return PaddleClas's line for a classified image, without the line's end.

    PaddleClas prints a file's base name. Control characters in it are escaped, since a line break
    in a name would tear the output in two.

    >>> text_line(Prediction("a/b.jpg", (8,), (0.71479,), ("hen",)))
    "b.jpg:\tclass id(s): [8], score(s): [0.71], label_name(s): ['hen']"
    """
    name = printable(prediction.path.rpartition("/")[2])
    scores = ", ".join(f"{score:.2f}" for score in prediction.scores)
    if prediction.class_ids is None:
        return f"{name}:\tscore(s): [{scores}]"
    ids, labels = list(prediction.class_ids), list(prediction.labels)
    return f"{name}:\tclass id(s): {ids}, score(s): [{scores}], label_name(s): {labels}"


def printable(text: str) -> str:
    """Return `text` with control characters and undecodable bytes escaped."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return shown.encode("utf-8", "backslashreplace").decode("utf-8")


def save_image(prediction: Prediction, image: Path, save_dir: Path) -> Path:
    """Copy `image` into the folder of its best class below `save_dir`, as `SavePreLabel` promises.

    The path relative to the searched folder is kept, so that equal names do not collide.

    Returns:
        The copy's path.

    Raises:
        OutputError: the folder cannot be written.
    """
    best = prediction.class_ids[0] if prediction.class_ids else "none"
    # A name may be a whole path; none may lead out of the class's folder.
    parts = [part for part in PurePosixPath(prediction.path).parts if part not in ("/", "..")]
    target = save_dir.joinpath(str(best), *parts)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(image, target)
    except OSError as error:
        raise OutputError(f"SavePreLabel cannot write {target}: {error.strerror}") from None
    return target


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
