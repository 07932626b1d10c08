# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: one file with all that a training needs to go on, written whole.

Beside it lies `NAME.pdparams`, the weights alone, which all verbs read as PaddleClas's tools do. A
training goes on from the one file only, so a process that is killed between the two loses nothing.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import WeightsError, one_line
from hgdeploy.system.documents import parse_json
from hgdeploy.system.files import replacing
from hgdeploy.system.libraries import import_library

Arrays = Mapping[str, NDArray[Any]]
SUFFIX = ".checkpoint"
WEIGHTS_SUFFIX = ".pdparams"
LATEST, BEST = "latest", "best_model"
_PARTS = ("weights", "optimizer", "average")
_PROGRESS = "progress"
_FORMAT = 1
# What numpy and zipfile let through of a file that is none of ours, or only a part of one.
_DAMAGED = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)


@dataclass(frozen=True)
class Progress:
    """How far a training is.

    Attributes:
        epoch: epochs that are complete.
        batch: batches of the next epoch that are done.
        update: updates of the weights that are done.
        seed: where all random numbers begin; those of a batch follow from it and the batch's place.
        best: the best value of the metric; None before the first evaluation.
        best_epoch: the epoch after which it was measured.
        loss_sum: the sum over the batches that are done of the epoch's losses and images.
        images: how many images that are.
        scale: what a half-precision training multiplies its loss by, and steps since that changed.
        settings: what the training was asked for, to tell what has changed since.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    seed: int = 0
    best: float | None = None
    best_epoch: int = 0
    loss_sum: float = 0.0
    images: int = 0
    scale: Mapping[str, float] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Checkpoint:
    """A training at one moment.

    Attributes:
        progress: how far it is.
        weights: the network's, by name.
        optimizer: what the optimizer remembers; see `optimizer_state`.
        average: the moving average of the weights; empty without one.
    """

    progress: Progress
    weights: Arrays
    optimizer: Arrays
    average: Arrays


def write_checkpoint(prefix: Path, checkpoint: Checkpoint) -> None:
    """Write `PREFIX.checkpoint` and `PREFIX.pdparams`.

    Raises:
        OutputError: one cannot be written; what was there is as it was.
    """
    told = json.dumps({"format": _FORMAT, **vars(checkpoint.progress)})
    arrays = {
        f"{part}/{name}": array
        for part in _PARTS
        for name, array in getattr(checkpoint, part).items()
    }
    with replacing(prefix.with_name(prefix.name + SUFFIX)) as stream:
        np.savez(stream, **{_PROGRESS: np.array(told)}, **arrays)  # type: ignore[arg-type]
    write_weights(prefix, checkpoint.average or checkpoint.weights)


def write_weights(prefix: Path, weights: Arrays) -> None:
    """Write `PREFIX.pdparams`, as `paddle.save` writes a network's weights.

    Raises:
        OutputError: it cannot be written; what was there is as it was.
    """
    paddle = import_library("paddle", "cpu")
    whole = io.BytesIO()
    paddle.save({name: paddle.to_tensor(array) for name, array in weights.items()}, whole)
    with replacing(prefix.with_name(prefix.name + WEIGHTS_SUFFIX)) as stream:
        stream.write(whole.getbuffer())


def checkpoint_file(prefix: Path) -> Path:
    """Return the file of a checkpoint that is named as PaddleClas does, without a suffix.

    The suffix of the weights beside it, which a shell completes, is one for the checkpoint.

    Raises:
        WeightsError: there is none.
    """
    named = prefix.suffix in (SUFFIX, WEIGHTS_SUFFIX)
    path = prefix.with_suffix(SUFFIX) if named else prefix.with_name(prefix.name + SUFFIX)
    if path.is_file():
        return path
    if path.with_suffix(WEIGHTS_SUFFIX).is_file():
        raise WeightsError(
            f"{path}: does not exist; {path.with_suffix(WEIGHTS_SUFFIX).name} beside it is weights "
            "alone: begin with them by -o Global.pretrained_model="
            f"{path.with_suffix(WEIGHTS_SUFFIX)}"
        )
    raise WeightsError(f"{path}: does not exist; give a checkpoint's path, such as OUTPUT/latest")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint's file.

    Raises:
        WeightsError: it is missing, damaged, or no checkpoint.
    """
    parts: dict[str, dict[str, NDArray[Any]]] = {part: {} for part in _PARTS}
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            told = parse_json(str(stored[_PROGRESS]))
            for written in stored.files:
                part, _, name = written.partition("/")
                if name:
                    parts[part][name] = stored[written]
        if told.pop("format") != _FORMAT:
            raise ValueError("it is of another version of HGDeploy")
        return Checkpoint(Progress(**told), **parts)
    except _DAMAGED as error:
        raise WeightsError(f"{path}: is no whole checkpoint: {one_line(error)}") from None
