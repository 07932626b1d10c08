# SPDX-License-Identifier: Apache-2.0
"""What a model's scores are, and what its user should know about them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines.ending import Ending
from hgdeploy.errors import ConfigError
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.attributes import Attributes
from hgdeploy.transforms.postprocess import (
    MultiLabelThreshOutput,
    Output,
    ScoreOutput,
    ThreshOutput,
)

# How far the sum of a row of probabilities may be from 1; bf16 and int8 softmax are well within it.
_SUM_TOLERANCE = 0.02


class Scores:
    """Turns what a model gives into the scores that the postprocessing gets.

    Args:
        source: the model's file, for warnings.
        ending: how its graph ends; None where it cannot be read.
        output: what is made of the scores.
        softmax: make probabilities of logits.
        on_warning: called with each thing that the user should know.

    Raises:
        ConfigError: `softmax` was asked for, and the model ends in an activation already.
    """

    def __init__(
        self,
        source: Path,
        ending: Ending | None,
        output: Output,
        *,
        softmax: bool,
        on_warning: OnLine,
    ) -> None:
        if softmax and ending is not None and ending.activation is not None:
            raise ConfigError(
                f"{source} ends in a {ending.activation} already, so --softmax would make wrong "
                "scores; leave it out"
            )
        self._source, self._ending, self._output = source, ending, output
        self._softmax, self._on_warning = softmax, on_warning
        for warning in self._at_first():
            on_warning(warning)
        sums_to_one = ending is None or ending.activation == "softmax"
        self._unchecked = output.probabilities and sums_to_one and not softmax

    def __call__(self, row: NDArray[Any]) -> NDArray[Any]:
        """Return the scores of one image, from what the model gave for it: (classes,)."""
        if self._softmax:
            values = np.exp(row.astype(np.float64) - row.max())
            return np.asarray(values / values.sum(), np.float32)
        if self._unchecked:
            self._unchecked = False
            total = float(row.sum(dtype=np.float64))
            if row.min() < 0 or not math.isclose(total, 1.0, abs_tol=_SUM_TOLERANCE):
                self._on_warning(self._wrong_sum(total))
        return row

    def _at_first(self) -> Iterator[str]:
        """Yield what the end of the graph says against this postprocessing."""
        if self._ending is None or isinstance(self._output, ScoreOutput):
            return
        if len(self._ending.activations) > 1:
            last, before = self._ending.activations[:2]
            yield (
                f"{self._source} ends in a {last} of a {before}, so its scores are nearly equal "
                "and mean little; export it with one of them"
            )
        if self._ending.activation is not None or self._softmax:
            return
        if isinstance(self._output, ThreshOutput | MultiLabelThreshOutput):
            yield (
                f"{self._source} has no softmax or sigmoid at its end, so the threshold "
                f"{self._output.threshold} is compared with logits, not with probabilities"
            )
        elif isinstance(self._output, Attributes):
            yield (
                f"{self._source} has no sigmoid at its end, so the thresholds of "
                f"{type(self._output).__name__} are compared with logits, not with probabilities"
            )
        else:
            yield (
                f"{self._source} has no softmax at its end, so its scores are logits, not "
                "probabilities; hgdeploy predict --softmax makes probabilities of them"
            )

    def _wrong_sum(self, total: float) -> str:
        if self._ending is None:
            return (
                f"the model's scores sum to {total:.3g}, not to 1, so they are not "
                "probabilities; export the model with a softmax over its classes at its end"
            )
        return (
            f"{self._source} ends in a softmax, but its scores sum to {total:.3g}, not to 1: the "
            "engine computes it wrongly; compare engines with hgdeploy validate"
        )
