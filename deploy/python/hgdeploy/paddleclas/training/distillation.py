# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's `DistillationModel`: a student, and the frozen teacher whose answers it learns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import Given, Kind, mapping
from hgdeploy.system.kinds import anything, keys, list_of, text
from hgdeploy.training.network import Teacher
from hgdeploy.training.optimize.losses import STUDENT, TEACHER

if TYPE_CHECKING:
    from hgdeploy.paddleclas.training.config import TrainingConfig

DISTILLATION = "DistillationModel"
_KEYS: Mapping[str, Kind[Any]] = {
    **dict.fromkeys(("name", "class_num", "infer_model_name", "infer_output_key"), anything),
    **dict.fromkeys(("pretrained_list", "freeze_params_list", "models", "use_sync_bn"), anything),
    "infer_add_softmax": anything,
}


def student_section(arch: Given) -> Given:
    """Return the section of the student, which all verbs but the training are about.

    Raises:
        ConfigError: the networks are not one teacher, which is frozen, and one student.
    """
    return _networks(arch)[STUDENT]


def is_distilled(config: TrainingConfig) -> bool:
    """Return whether a config's network learns from a teacher."""
    return _arch(config).read("name", text) == DISTILLATION


def teacher_of(config: TrainingConfig) -> Teacher | None:
    """Return the teacher that a config names, with its weights; None without one.

    Raises:
        ConfigError: it has no weights, or not the student's classes.
    """
    if not is_distilled(config):
        return None
    given = _networks(_arch(config))[TEACHER]
    found = mapping(given)
    name, weights = given.read("name", text), found.get("pretrained")
    classes = found.get("class_num")
    if classes not in (None, config.num_classes, str(config.num_classes)):
        raise given.at("class_num").refused(f"{config.num_classes}, as the student has")
    if not isinstance(weights, str) or weights in ("True", "False", "None"):
        raise ConfigError(
            f"{given.where}.pretrained is {weights}, expected the teacher's weights: hgdeploy "
            f"models show {name} has the address of the official ones; give the file with "
            f"-o {given.where}.pretrained=PATH"
        )
    return Teacher(name, Path(weights))


def _arch(config: TrainingConfig) -> Given:
    return Given("Arch", config.raw.get("Arch")).or_empty()


def _networks(arch: Given) -> dict[str, Given]:
    """Return teacher and student by their names."""
    keys(_KEYS)(arch)
    found: dict[str, Given] = {}
    listed = arch.at("models")
    for index, one in enumerate(list_of(mapping, 2, 2, words="[Teacher, Student]")(listed)):
        item = Given(f"{listed.where}.{index}", one)
        found |= {str(name): item.at(name) for name in one}
    if set(found) != {STUDENT, TEACHER}:
        raise ConfigError(
            f"{listed.where} has {', '.join(found)}, expected {TEACHER} and {STUDENT}"
        )
    frozen = mapping(arch).get("freeze_params_list")
    wanted = [name == TEACHER for name in found]
    if frozen != wanted:
        raise Given(f"{arch.where}.freeze_params_list", frozen).refused(
            f"{wanted}: the teacher is frozen, and the student is not"
        )
    if mapping(arch).get("infer_model_name") not in (None, STUDENT):
        raise arch.at("infer_model_name").refused(STUDENT)
    if mapping(arch).get("pretrained_list") is not None:
        raise arch.at("pretrained_list").refused(
            f"nothing; name the weights in {listed.where}.N.{TEACHER}.pretrained"
        )
    return found
