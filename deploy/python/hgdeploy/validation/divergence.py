# SPDX-License-Identifier: Apache-2.0
"""Find the first layer where two runs of one model differ."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines.run import Run, intermediates_of
from hgdeploy.images.reader import ImageReader
from hgdeploy.validation.validate import Report, ValidateOptions, open_runs, random_inputs

# A layer's largest difference over its largest value. In coarser precisions every layer differs
# more, and errors grow with depth, so the limits are well above what single layers show.
_LIMITS = {"fp32": 1e-3, "tf32": 3e-2, "fp16": 3e-2, "bf16": 2e-1, "int8": 5e-1}


@dataclass(frozen=True)
class Divergence:
    """Where two runs first differ.

    Attributes:
        layer: the first layer beyond the limit; None if all agree.
        difference: its largest difference over its largest value.
        before: how many layers before it were compared.
        before_difference: the largest such figure among them.
    """

    layer: str | None
    difference: float
    before: int
    before_difference: float

    def text(self) -> str:
        """Return the finding on one line."""
        agree = f"{self.before} layers agree to {self.before_difference:.1e}"
        if self.layer is None:
            return f"no layer differs: all {agree} of their largest value"
        first = f"first differs at layer {self.layer} by {self.difference:.1e} of its largest value"
        return f"{first}; {agree} before it"


def bisect_failures(bundle: ModelBundle, options: ValidateOptions, report: Report) -> list[str]:
    """Return for each failed pair a line with the first layer that differs, on its worst input.

    Raises:
        EngineError: onnx is missing, or an engine cannot show its layers.
    """
    runs = {run.name: run for run in options.runs}
    files = {file.name: file for file in options.images}
    lines = []
    for pair in report.pairs:
        if not pair.misses:
            continue
        worst = pair.worst[0].name
        if pair.inputs == "images":
            reader = ImageReader(bundle.own_preprocess())
            row = reader.read_file(files[worst].path).tensor[None]
        else:
            row = _random_row(bundle, options, int(worst.split()[1]))
        found = first_divergence(bundle, runs[pair.reference], runs[pair.candidate], row)
        lines.append(f"{pair.reference} / {pair.candidate} on {worst}: {found.text()}")
    return lines or ["no pair failed, so there is nothing to bisect"]


def _random_row(bundle: ModelBundle, options: ValidateOptions, index: int) -> NDArray[Any]:
    with contextlib.ExitStack() as stack:
        opened = open_runs(bundle, options, stack)
        engines = {name: each.engine for name, each in opened.items()}
        return random_inputs(bundle, engines, options)[index : index + 1]


def first_divergence(
    bundle: ModelBundle, reference: Run, candidate: Run, row: NDArray[Any]
) -> Divergence:
    """Run one input through both runs and compare every layer that both have.

    Layers are matched by name; a folded or fused layer that only one run has is skipped.

    Args:
        bundle: the bundle.
        reference: the first run.
        candidate: the second run.
        row: one input of shape (1, 3, H, W).

    Raises:
        EngineError: onnx is missing, or an engine cannot show its layers.
        BundleError: an artifact is missing or cannot be loaded.
    """
    a, b = (_layers(bundle, run, row) for run in (reference, candidate))
    limit = max(_LIMITS[reference.precision], _LIMITS[candidate.precision])
    found = [
        (name, _relative(value, b[name]))
        for name, value in a.items()
        if name in b and b[name].shape == value.shape and value.size
    ]
    # Written so that NaN is beyond the limit. A single layer between layers that agree does not
    # count: Paddle may keep a tensor in another memory layout for one operator.
    beyond = [not difference <= limit for _, difference in found]
    for i, (name, difference) in enumerate(found):
        if beyond[i] and all(beyond[i : i + 2]):
            return Divergence(name, difference, i, _largest(found[:i], limit))
    return Divergence(None, _largest(found, limit), len(found), _largest(found, limit))


def _largest(found: list[tuple[str, float]], limit: float) -> float:
    return max((difference for _, difference in found if difference <= limit), default=0.0)


def _relative(a: NDArray[Any], b: NDArray[Any]) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(np.abs(x - y).max() / max(float(np.abs(x).max()), 1e-12))


def _layers(bundle: ModelBundle, run: Run, row: NDArray[Any]) -> Mapping[str, NDArray[Any]]:
    found = intermediates_of(bundle, run, row)
    return {_common_name(name): value for name, value in found.items()}


def _common_name(name: str) -> str:
    """Return a layer's name in every form: both `p2o.pd_op.relu_.7.0` and `relu.7` are `relu.7`."""
    match = re.fullmatch(r"p2o\.pd_op\.(\w+?)_?\.(\d+)\.0", name)
    if match is not None:
        return f"{match[1]}.{match[2]}"
    return "output" if name in ("probabilities", "logits") else name
