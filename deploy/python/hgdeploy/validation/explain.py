# SPDX-License-Identifier: Apache-2.0
"""Why two runs score one image differently: swap one stage at a time and see what moves.

A run is a preprocessing, a model and an engine with a precision. The stages of a run are the
channel order of the decoded image, resize, crop, normalisation, the model's file, and the engine
with its precision. Replacing one stage of run A by run B's shows the effect of that stage alone;
replacing all of them in turn leads from A's score to B's without a remainder.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines import Engine, infer_rows
from hgdeploy.engines.fit import check_image
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import Run, open_run
from hgdeploy.errors import BundleError, ConfigError, ImageError, TensorError
from hgdeploy.images.decode import read_image
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.operators import (
    CropImage,
    DecodeImage,
    NormalizeImage,
    Op,
    ResizeImage,
    ToCHWImage,
)
from hgdeploy.transforms.prediction import printable
from hgdeploy.transforms.preprocess import Preprocessor

STAGES = ("decode", "resize", "crop", "normalize", "model", "precision")
_KINDS: dict[str, tuple[type, ...]] = {
    "decode": (DecodeImage,),
    "resize": (ResizeImage,),
    "crop": (CropImage,),
    "normalize": (NormalizeImage, ToCHWImage),
}


@dataclass(frozen=True)
class Side:
    """One of the two runs, with what each of its stages uses.

    Attributes:
        name: what the user called it.
        ops: the transform ops.
        bundle: the model's bundle.
        run: engine, precision and device.
        options: further options of the engine.
    """

    name: str
    ops: tuple[Op, ...]
    bundle: ModelBundle
    run: Run
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True)
class StageEffect:
    """The effect of one stage on the score.

    Attributes:
        stage: one of `STAGES`.
        same: the stage is the same in both runs, so nothing was swapped.
        alone: change of A's score when only this stage is B's; None if that cannot run.
        in_turn: change when this stage becomes B's after all stages before it.
        reason: why `alone` is None.
    """

    stage: str
    same: bool
    alone: float | None
    in_turn: float
    reason: str = ""


@dataclass(frozen=True)
class Explanation:
    """The answers of both runs and what each stage contributes to their gap.

    Attributes:
        image: the image's path.
        class_id: A's best class; all scores are those of this class.
        score_a: its score in A.
        score_b: its score in B.
        best_b: B's own best class.
        effects: one per stage; their `in_turn` add up to `score_b - score_a`.
    """

    image: str
    class_id: int
    score_a: float
    score_b: float
    best_b: int
    effects: tuple[StageEffect, ...]

    @property
    def cause(self) -> str | None:
        """The stage with the largest effect in turn; None if the score did not change."""
        largest = max(self.effects, key=lambda effect: abs(effect.in_turn))
        return largest.stage if largest.in_turn else None

    def text(self) -> str:
        """Return a short table."""
        lines = [
            f"{printable(self.image)}: class {self.class_id} scores {self.score_a:.5f} (A) and "
            f"{self.score_b:.5f} (B)"
            + ("" if self.best_b == self.class_id else f"; B's best class is {self.best_b}"),
            f"{'stage':<10} {'alone':>9} {'in turn':>9}",
        ]
        for effect in self.effects:
            alone = "n/a" if effect.alone is None else f"{effect.alone:+.5f}"
            note = "same" if effect.same else effect.reason
            lines.append(f"{effect.stage:<10} {alone:>9} {effect.in_turn:>+9.5f}  {note}".rstrip())
        lines.append(f"cause: {self.cause or 'none, the scores are equal'}")
        return "\n".join(lines) + "\n"


def explain(image: Path, a: Side, b: Side, on_warning: OnLine = nothing) -> Explanation:
    """Find out which stage makes two runs score one image differently.

    Args:
        image: an image file.
        a: the first run.
        b: the second run.
        on_warning: called with each thing the user should know of how a run runs.

    Raises:
        ImageError: the image cannot be read, or one of the two runs cannot preprocess it.
        BundleError: a model is missing, cannot be loaded, or does not take what its run's
            preprocessing makes.
        EngineError: an engine or precision is not available here.
    """
    try:
        with contextlib.ExitStack() as stack:
            return _explain(image, _Scorer(read_image(image), stack, on_warning), a, b)
    except ImageError as error:
        raise ImageError(f"{printable(str(image))}: {error}") from None


# What a mixture of two runs may raise although each of them is fine by itself.
_MISFITS = (BundleError, ImageError, ConfigError, TensorError)


def _explain(image: Path, scorer: _Scorer, a: Side, b: Side) -> Explanation:
    scores_a, scores_b = scorer.scores(a), scorer.scores(b)
    if len(scores_a) != len(scores_b):
        raise ConfigError(
            f"{a.name} has {len(scores_a)} classes and {b.name} {len(scores_b)}: "
            "their scores cannot be compared"
        )
    best = int(np.argmax(scores_a))
    first, last = float(scores_a[best]), float(scores_b[best])
    effects: list[StageEffect] = []
    here, score = a, first
    for stage in STAGES:
        here, before = _swapped(here, b, stage), score
        with contextlib.suppress(*_MISFITS):  # then its effect shows in a later stage
            score = last if stage == STAGES[-1] else scorer.score(here, best)
        alone, reason = _alone(scorer, a, b, stage, best)
        same = _stage(a, stage) == _stage(b, stage)
        effects.append(
            StageEffect(
                stage, same, None if alone is None else alone - first, score - before, reason
            )
        )
    return Explanation(str(image), best, first, last, int(np.argmax(scores_b)), tuple(effects))


def _alone(
    scorer: _Scorer, a: Side, b: Side, stage: str, class_id: int
) -> tuple[float | None, str]:
    """Return A's score with one stage of B, or None and the reason why there is none."""
    try:
        return scorer.score(_swapped(a, b, stage), class_id), ""
    except _MISFITS as error:
        return None, f"cannot run alone: {error}"


def _stage(side: Side, stage: str) -> object:
    """Return what a run uses in a stage, for comparison."""
    if stage == "model":
        return side.bundle.root.resolve()
    if stage == "precision":
        return side.run.engine, side.run.options(side.options)
    return [op for op in side.ops if isinstance(op, _KINDS[stage])]


def _swapped(side: Side, other: Side, stage: str) -> Side:
    """Return `side` with one stage of `other`."""
    if stage == "model":
        return dataclasses.replace(side, bundle=other.bundle)
    if stage == "precision":
        return dataclasses.replace(side, run=other.run, options=other.options)
    return dataclasses.replace(side, ops=_merged(side.ops, other.ops, _KINDS[stage]))


def _merged(mine: Sequence[Op], other: Sequence[Op], kinds: tuple[type, ...]) -> tuple[Op, ...]:
    """Replace my ops of `kinds` by the other's; all lists of ops have the same order."""
    order = [kind for stage in _KINDS.values() for kind in stage]
    kept = [op for op in mine if not isinstance(op, kinds)]
    taken = [op for op in other if isinstance(op, kinds)]
    return tuple(sorted([*kept, *taken], key=lambda op: order.index(type(op))))


class _Scorer:
    """The scores of one decoded image in any run; each engine is loaded once."""

    def __init__(
        self, rgb: NDArray[np.uint8], stack: contextlib.ExitStack, on_warning: OnLine
    ) -> None:
        self._rgb = rgb
        self._on_warning = on_warning
        self._warned: set[str] = set()
        self._stack = stack
        self._engines: dict[object, Engine] = {}

    def scores(self, side: Side) -> NDArray[np.float32]:
        """Return all classes' scores."""
        preprocessor = Preprocessor(side.ops)
        tensor = preprocessor(self._rgb)
        key = side.bundle.root, side.run, side.options, tensor.shape, tensor.dtype
        if key not in self._engines:
            engine = open_run(side.bundle, side.run, side.options, preprocessor).engine
            self._stack.callback(engine.close)
            check_image(engine.inputs[0], tensor)
            self._engines[key] = engine
            for warning in set(engine.warnings) - self._warned:
                self._on_warning(warning)
            self._warned.update(engine.warnings)
        scores: NDArray[np.float32] = infer_rows(self._engines[key], tensor[None])[0]
        return scores

    def score(self, side: Side, class_id: int) -> float:
        """Return one class's score."""
        scores = self.scores(side)
        if class_id >= len(scores):
            raise ConfigError(f"the model has no class {class_id}")
        return float(scores[class_id])
