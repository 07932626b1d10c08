# SPDX-License-Identifier: Apache-2.0
"""What PaddleClas's class and command take, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hgdeploy.errors import ConfigError
from hgdeploy.paddleclas.names import SHITU
from hgdeploy.system.checks import Given, Kind, check
from hgdeploy.system.kinds import (
    as_whole,
    exactly,
    keys,
    list_of,
    literal,
    number,
    optional,
    path,
    rounded,
    text,
    whole,
)

_WORDS = {"true": True, "t": True, "1": True}
_WORDS |= dict.fromkeys(("false", "f", "0", "no", "n", "off", "none"), False)


def _switch(given: Given) -> bool:
    """Is the kind of PaddleClas's switches: true, t or 1 in any case, and their opposites.

    PaddleClas takes any other word for false, even `yes`.
    """
    word = str(as_whole(given.value)).strip().lower()
    if word not in _WORDS:
        raise given.refused("true, t or 1, or false, f or 0")
    return _WORDS[word]


def _path(given: Given) -> str:
    """Is the kind of paths, as texts."""
    return str(path(given))


_NUMBER: Kind[Any] = literal(rounded(whole(0)))
_THRESHOLD: Kind[Any] = literal(number())
# The arguments of the command, with what each may be; those of the class are the same, and
# `override`. The last three are HGDeploy's own.
ARGUMENTS: Mapping[str, Kind[Any]] = {
    "infer_imgs": _path,
    "model_name": text,
    "predict_type": text,
    "inference_model_dir": _path,
    **dict.fromkeys(("use_gpu", "enable_mkldnn", "use_tensorrt", "use_fp16"), _switch),
    **dict.fromkeys(("gpu_mem", "cpu_num_threads", "batch_size", "topk"), _NUMBER),
    "class_id_map_file": _path,
    **dict.fromkeys(("threshold", "color_threshold", "type_threshold"), _THRESHOLD),
    "save_dir": _path,
    **dict.fromkeys(("resize_short", "crop_size"), _NUMBER),
    **dict.fromkeys(("engine", "precision", "device"), text),
}
THRESHOLDS = (
    *("threshold", "color_threshold", "type_threshold", "glasses_threshold", "hold_threshold"),
    *("source_threshold", "number_threshold", "clarity_threshold"),
    *("obstruction_threshold", "angle_threshold"),
)
"""The thresholds of all outputs; the class takes each, by the name that the config has for it."""

RETRIEVAL = ("build_gallery", "gallery_image_root", "gallery_data_file", "index_dir", "data_file")
"""The arguments of PP-ShiTu, which are refused by name."""

_KINDS = {
    **dict.fromkeys(THRESHOLDS, _THRESHOLD),
    **ARGUMENTS,
    "override": list_of(text, words="a list of texts such as 'Global.batch_size=2'"),
}


def checked(arguments: Mapping[str, object]) -> dict[str, Any]:
    """Return the arguments that say something: neither None, nor an empty text, nor a number 0.

    Raises:
        ConfigError: an argument is unknown, of another kind, or belongs to PP-ShiTu.
    """
    given = {key: value for key, value in arguments.items() if not _says_nothing(value)}
    for key in RETRIEVAL:
        if given.pop(key, "false") not in (False, "False", "false", "f", "0", 0):
            raise ConfigError(
                f"{key} belongs to PP-ShiTu (retrieval), which HGDeploy does not do; leave it out"
            )
    values = check("", given, keys({name: optional(kind) for name, kind in _KINDS.items()}))
    check_predict_type(values.pop("predict_type", "cls"))
    numbers = {key for key, kind in _KINDS.items() if kind in (_NUMBER, _THRESHOLD)}
    return {key: value for key, value in values.items() if value or key not in numbers}


def _says_nothing(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value)


def check_predict_type(value: object) -> None:
    """Refuse another kind of prediction than classification.

    Raises:
        ConfigError: it is PP-ShiTu's, or no kind at all.
    """
    if value == "shitu":
        raise ConfigError(
            f"predict_type shitu belongs to {SHITU} (detection and retrieval), which HGDeploy "
            "does not do; leave it out to classify"
        )
    check("predict_type", value, exactly("cls"))
