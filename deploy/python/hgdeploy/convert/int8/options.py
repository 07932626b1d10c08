# SPDX-License-Identifier: Apache-2.0
"""How to quantize, and the report about it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import MANY, exactly, number, one_of, whole
from hgdeploy.system.machine import int8_saturates
from hgdeploy.validation.accuracy import rows_that_decide, share_interval
from hgdeploy.validation.compare import AGREEMENT, Comparison

MIN_IMAGES = 10
_MOST_SEED = 2**32 - 1  # of numpy and others
METHODS = ("auto", "minmax", "percentile", "entropy")
ACTIVATIONS = {
    "int8": "ONNX Runtime, OpenVINO and TensorRT read it; ONNX Runtime on a CPU runs it slower "
    "than fp32",
    "uint8": "fast in ONNX Runtime and OpenVINO on a CPU; TensorRT cannot read it",
}


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        images: how many images to use at most, those for calibration and the held-out ones.
        method: how ranges are taken: `minmax`, `percentile`, `entropy`, or `auto` for each in turn.
        min_agreement: share of held-out images that must agree with fp32, 0 to 1: by the best
            class, or as `Comparison.top1_agreement` says for other scores; see `Try.agrees`.
        held_out: share of the images that is kept from calibration, to measure on.
        seed: decides which images are used, and which of them are held out.
        activations: `int8` (symmetric, zero point 0) or `uint8`; see `ACTIVATIONS`.
        weight_bits: 8, or 7 for a model that every CPU computes correctly; by default 8 where this
            CPU computes 8 correctly.
    """

    images: int = 256
    method: str = "auto"
    min_agreement: float = 0.99
    held_out: float = 0.25
    seed: int = 0
    activations: str = "int8"
    weight_bits: int = field(default_factory=lambda: 7 if int8_saturates() else 8)

    def __post_init__(self) -> None:
        check_fields(
            self,
            images=whole(MIN_IMAGES, MANY),
            method=one_of(METHODS),
            min_agreement=number(0, 1),
            held_out=number(above=0, below=1),
            seed=whole(0, _MOST_SEED),
            activations=one_of(tuple(ACTIVATIONS)),
            weight_bits=exactly(7, 8),
        )
        if self.weight_bits == 8 and int8_saturates():
            raise ConfigError(
                "weight_bits is 8, but int8 sums of such weights overflow on this CPU, which lacks "
                "VNNI, so the model cannot be measured here; use 7"
            )


@dataclass(frozen=True)
class Try:
    """One recipe and what it gave on the held-out images.

    Attributes:
        recipe: how the ranges were taken.
        fp32_layers: names of the layers left in fp32, the most sensitive first.
        result: int8 against fp32.
        flip_margin: by how much probability fp32 preferred its own best class, in the clearest of
            the images on which int8 chose another one; of labels, how far from 0.5 fp32 was where
            int8 is on the other side; 0 where there is none.
    """

    recipe: str
    fp32_layers: tuple[str, ...]
    result: Comparison
    flip_margin: float

    @property
    def agreement_interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval of the agreement."""
        return share_interval(self.result.top1_agreement, self.result.rows)

    def agrees(self, least: float) -> bool:
        """Tell whether the agreement may be `least`: its interval is not below that.

        Few images decide little: two that differ of three are evidence against 0.99, one is not.
        """
        return self.agreement_interval[1] >= least

    def undecided(self, options: QuantizeOptions) -> str | None:
        """Return what the held-out images leave open, and how many would decide; None if nothing.

        Args:
            options: with the agreement that is wanted, and the share of images that is held out.
        """
        low, high = self.agreement_interval
        least, share = options.min_agreement, self.result.top1_agreement
        if low >= least or high < least:
            return None
        needed = rows_that_decide(share, least)
        advice = "which no number of images shows"
        if needed is not None:
            total = math.ceil(needed / options.held_out)
            advice = (
                f"{needed} held-out images of the same share would decide: {total} images in all, "
                f"with --images {total}"
            )
        return (
            f"{self.result.rows} held-out images show {AGREEMENT[self.result.agreement_by]} from "
            f"{low:.3f} to {high:.3f} with 95 % confidence, which does not tell whether it reaches "
            f"{least:g}; {advice}"
        )

    def __str__(self) -> str:
        kept = f" + {len(self.fp32_layers)} layers in fp32" if self.fp32_layers else ""
        flips = f", clearest flip {self.flip_margin:.3f}" if self.flip_margin else ""
        result = self.result
        best = ""
        if result.agreement_by == "top-1":
            best = f", top-{result.topk} {result.topk_agreement:.4f}"
        return (
            f"{self.recipe}{kept}: {result.agreement}{best}, largest difference "
            f"{result.max_abs:.3f}{flips}"
        )


@dataclass(frozen=True)
class QuantizeReport:
    """What was written, and what it gives on images that calibration did not see.

    Attributes:
        path: the int8 model.
        chosen: the recipe that was written.
        tries: every recipe that was measured, in order; the last is `chosen`.
        calibration_images: how many images the ranges come from.
        held_out_images: how many images the agreement was measured on.
        skipped: `NAME: reason` of each image that could not be used.
    """

    path: Path
    chosen: Try
    tries: tuple[Try, ...]
    calibration_images: int
    held_out_images: int
    skipped: tuple[str, ...]
