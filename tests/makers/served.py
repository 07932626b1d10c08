# SPDX-License-Identifier: Apache-2.0
"""The small model as `hgdeploy serve` has it, and pictures to ask it about."""

from __future__ import annotations

from pathlib import Path

from image_files import jpeg

from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.engines.options import EngineOptions
from hgdeploy.serving.server.model import ServedModel, ServedOptions

SETTINGS = ClassifierSettings("onnxruntime", 1, EngineOptions(threads=1, streams=2))


def served(bundle: Path, batch: int = 1, **options: object) -> ServedModel:
    """The bundle, loaded into ONNX Runtime and warmed up."""
    engine = EngineOptions(threads=1, streams=2, max_batch=batch)
    settings = ClassifierSettings("onnxruntime", batch, engine)
    return ServedModel(bundle, settings, ServedOptions(**options))


def pictures(count: int) -> list[bytes]:
    """JPEG files of different sizes and contents."""
    return [jpeg(80 + 7 * i, 90 + 3 * i, seed=i) for i in range(count)]
