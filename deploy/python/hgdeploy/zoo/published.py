# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's table of PP-HGNet and its rivals: accuracy, and two sets of latencies on a V100.

Sources:
    `top1`, `top5` (ImageNet-1k validation, per cent) and `v100_ms`: the tables of PaddleClas's
        PP-HGNet page: NVIDIA Tesla V100, TensorRT engine, FP32, batch 1 (TensorRT 8.0.3.4, 2100
        runs of which the first 100 are dropped, says its benchmark page).
    `v100_ms_revised`: the newer figures that PaddleClas's Chinese model documentation carries for
        the same setup. The two sets disagree, by up to 27 %, so both are always shown.

These figures come from other people's hardware and are never shown as measured. What does carry
over is a model's latency as a multiple of ResNet50's in the same set.
"""

from __future__ import annotations

from dataclasses import dataclass

REFERENCE = "ResNet50"


@dataclass(frozen=True)
class Published:
    """The published figures of one model; a figure that is not published is None.

    Attributes:
        model: its name in the published table.
        top1: top-1 accuracy in per cent.
        top5: top-5 accuracy in per cent.
        v100_ms: latency in ms on a V100, the first set.
        v100_ms_revised: the same in the newer set.
        alias: the model's name in the zoo if that is a longer one, else empty.
    """

    model: str
    top1: float
    top5: float | None
    v100_ms: float
    v100_ms_revised: float | None = None
    alias: str = ""


PUBLISHED = (
    Published("PPHGNet_tiny", 79.83, 95.04, 1.77, 1.72),
    Published("PPHGNet_tiny_ssld", 81.95, 96.12, 1.77, 1.72),
    Published("PPHGNet_small", 81.51, 95.82, 2.52, 2.46),
    Published("PPHGNet_small_ssld", 83.82, 96.81, 2.52, 2.46),
    Published("PPHGNet_base_ssld", 85.00, 97.35, 5.97),
    Published("ResNet34", 74.57, 92.14, 1.97, 1.83),
    Published("ResNet34_vd", 75.98, 92.98, 2.00, 1.87),
    Published("ResNet50", 76.50, 93.00, 2.54, 2.19),
    Published("ResNet50_vd", 79.12, 94.44, 2.60, 2.23),
    Published("ResNet50_rsb", 80.40, None, 2.54),
    Published("EfficientNetB0", 77.38, 93.31, 1.96, 1.58),
    Published("EfficientNetB1", 79.15, 94.41, 2.88, 2.29),
    Published(
        "SwinTransformer_tiny", 81.2, 95.5, 6.59, alias="SwinTransformer_tiny_patch4_window7_224"
    ),
    Published(
        "SwinTransformer_base",
        85.2,
        97.5,
        13.53,
        alias="SwinTransformer_base_patch4_window7_224_22kto1k",
    ),
    Published("Res2Net200_vd_26w_4s_ssld", 85.13, 97.42, 11.45, 10.80),
    Published("ResNeXt101_32x48d_wsl", 85.37, 97.69, 55.07, 69.81),
)
_BY_NAME = {name: entry for entry in PUBLISHED for name in (entry.model, entry.alias) if name}


def published(model: str) -> Published | None:
    """Return the published figures of a model, by either of its names; None if there are none."""
    return _BY_NAME.get(model)


def table_name(model: str) -> str:
    """Return the model's name in the published table; `model` itself if it is not in there."""
    entry = published(model)
    return model if entry is None else entry.model


def zoo_name(model: str) -> str:
    """Return the model's name in the zoo; `model` itself if it is not in the published table."""
    entry = published(model)
    return model if entry is None else entry.alias or entry.model


def over_reference(entry: Published) -> tuple[float, float | None]:
    """Return the published latency over ResNet50's, in the first and in the newer set."""
    base = _BY_NAME[REFERENCE]
    revised = None
    if entry.v100_ms_revised is not None and base.v100_ms_revised is not None:
        revised = entry.v100_ms_revised / base.v100_ms_revised
    return entry.v100_ms / base.v100_ms, revised
