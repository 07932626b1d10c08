# SPDX-License-Identifier: Apache-2.0
"""The small model as `hgdeploy serve` has it, and pictures to ask it about."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from image_files import jpeg

from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.engines.options import EngineOptions
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.model import ServedModel, ServedOptions
from hgdeploy.serving.server.models import Models

SETTINGS = ClassifierSettings("onnxruntime", 1, EngineOptions(threads=1, streams=2))


def served(bundle: Path, batch: int = 1, **options: object) -> ServedModel:
    """The bundle, loaded into ONNX Runtime and warmed up."""
    engine = EngineOptions(threads=1, streams=2, max_batch=batch)
    settings = ClassifierSettings("onnxruntime", batch, engine)
    return ServedModel(bundle, settings, ServedOptions(**options))


def pictures(count: int) -> list[bytes]:
    """JPEG files of different sizes and contents."""
    return [jpeg(80 + 7 * i, 90 + 3 * i, seed=i) for i in range(count)]


@contextlib.contextmanager
def over_http(
    *models: ServedModel, doors: DoorOptions | None = None, **limits: float
) -> Iterator[str]:
    """A real server on a free port of this machine, in a thread; gives HOST:PORT."""
    found = Models()
    found.load([lambda model=model: model for model in models])
    with http_of(found, doors, **limits) as address:
        yield address
    found.close(30)


@contextlib.contextmanager
def http_of(models: Models, doors: DoorOptions | None = None, **limits: float) -> Iterator[str]:
    """A real server of models on a free port of this machine, in a thread; gives HOST:PORT."""
    from hgdeploy.serving.server.http.app import Api
    from hgdeploy.serving.server.http.body import BodyLimits
    from hgdeploy.serving.server.http.listen import HttpServer

    options = doors or DoorOptions()
    app = Api(models, BodyLimits(**limits), options).app()
    server = HttpServer(app, ("127.0.0.1", 0), options.tls)
    server.start()
    try:
        yield server.address.rpartition("/")[2]
    finally:
        server.stop(5)()
        server.close()
