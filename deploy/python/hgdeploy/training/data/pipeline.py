# SPDX-License-Identifier: Apache-2.0
"""From a file to a tensor, with what is random in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import ConfigError
from hgdeploy.images.decode import read_image
from hgdeploy.training.data.chance import Drawn, stream
from hgdeploy.training.data.operators.image import (
    RandCropImage,
    RandFlipImage,
    RandomErasing,
    RandomOp,
    TimmAutoAugment,
)
from hgdeploy.transforms.operators import DecodeImage, NormalizeImage, Op, ToCHWImage
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.transforms.sequence import check_sequence

AnyOp: TypeAlias = Op | RandomOp
_PixelOp: TypeAlias = RandCropImage | RandFlipImage | TimmAutoAugment
_Stage: TypeAlias = Preprocessor | _PixelOp


class Pipeline:
    """Makes a training sample of a file; safe to call from many threads at once.

    Args:
        ops: the operators, in the order in which they run.
        seed: of what is random.
        where: names the list in errors.

    Attributes:
        shape: of every result: 3, height, width.

    Raises:
        ConfigError: an order that cannot work, or results that are not float32 of one size.
    """

    def __init__(self, ops: Sequence[AnyOp], seed: int, where: str) -> None:
        fixed = [_as_fixed(op) for op in ops]
        kept = [op for op in fixed if op is not None]
        check_sequence(kept, where)
        normalize = next((op for op in kept if isinstance(op, NormalizeImage)), None)
        if normalize is None or normalize.channel_num != 3 or normalize.output_fp16:
            raise ConfigError(f"{where}: expected a NormalizeImage of 3 channels in float32")
        at = ops.index(normalize)
        _check_places(ops, at, where)
        size = Preprocessor([op for op in kept if op != ToCHWImage()]).output_size
        if size is None:
            raise ConfigError(
                f"{where}: images of different sizes make no batch; cut or resize all to one size "
                "(RandCropImage, CropImage, or ResizeImage with size)"
            )
        self.shape = (3, *size)
        self._seed = seed
        self._before = _stages(ops[:at])
        self._normalize = Preprocessor((normalize, ToCHWImage()))
        self._after = [op for op in ops[at + 1 :] if isinstance(op, RandomErasing)]

    def __call__(self, path: Path, epoch: int, index: int, out: NDArray[np.float32]) -> None:
        """Make one sample.

        Args:
            path: the image's file.
            epoch: the epoch; with the index, it decides all that is random.
            index: the image's place in the data set.
            out: where to put the sample: a contiguous array of the shape.

        Raises:
            ImageError: the file cannot be read or decoded; the message is the reason.
        """
        rng = stream(self._seed, Drawn.IMAGE, epoch, index)
        image = read_image(path)
        for stage in self._before:
            image = stage(image) if isinstance(stage, Preprocessor) else stage(image, rng)
        self._normalize(image, out)
        for erase in self._after:
            erase(out, rng)


def ops_to_json(ops: Sequence[AnyOp]) -> list[tuple[str, dict[str, Any]]]:
    """Return operators as JSON can hold them, for `ops_from_json` in another process."""
    return [(type(op).__name__, dataclasses.asdict(op)) for op in ops]


def ops_from_json(listed: Sequence[tuple[str, dict[str, Any]]]) -> list[AnyOp]:
    """Return the operators that `ops_to_json` was given."""
    kinds: dict[str, type[AnyOp]] = {kind.__name__: kind for kind in get_args(AnyOp)}
    return [kinds[name](**values) for name, values in listed]


def _as_fixed(op: AnyOp) -> Op | None:
    """Return the operator that does to sizes what this does; None where it leaves them."""
    if isinstance(op, RandCropImage):
        return op.resize
    return None if isinstance(op, RandomOp) else op


def _check_places(ops: Sequence[AnyOp], at: int, where: str) -> None:
    """Refuse what cannot stand before or after the NormalizeImage, which is at `at`."""
    for index, op in enumerate(ops):
        name = type(op).__name__
        if index < at and isinstance(op, RandomErasing | ToCHWImage):
            raise ConfigError(f"{where}.{index}.{name}: must come after NormalizeImage")
        if index > at and not isinstance(op, RandomErasing | ToCHWImage):
            raise ConfigError(f"{where}.{index}.{name}: must come before NormalizeImage")
        if index and isinstance(op, DecodeImage):
            raise ConfigError(f"{where}.{index}.{name}: must be the first operator")


def _stages(ops: Sequence[AnyOp]) -> list[_Stage]:
    """Return what is done in turn: neighbours that are not random are done as one."""
    stages: list[_Stage] = []
    together: list[Op] = []
    for op in ops:
        if isinstance(op, RandomErasing):
            continue  # it follows the NormalizeImage
        if not isinstance(op, _PixelOp):
            together.append(op)
            continue
        if together:
            stages.append(Preprocessor(together))
        stages.append(op)
        together = []
    if together:
        stages.append(Preprocessor(together))
    return [stage for stage in stages if not _does_nothing(stage)]


def _does_nothing(stage: _Stage) -> bool:
    return isinstance(stage, Preprocessor) and stage.ops == (DecodeImage(),)
