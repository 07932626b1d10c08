# SPDX-License-Identifier: Apache-2.0
"""The small model as `hgdeploy serve` has it, and pictures to ask it about."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from image_files import jpeg

from conftest import DEADLINE, MINI
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


def unlabelled_bundle(folder: Path) -> Path:
    """The small model in ONNX alone, for images of any size and without names of classes."""
    folder.mkdir()
    (folder / "inference.onnx").write_bytes((MINI / "inference.onnx").read_bytes())
    (folder / "inference.yml").write_text(
        "PreProcess: {transform_ops: [{ResizeImage: {size: 64}}, "
        "{NormalizeImage: {scale: 1.0/255.0, order: ''}}, {ToCHWImage: null}]}"
    )
    return folder


@contextlib.contextmanager
def models_of(bundle: Path, **options: object) -> Iterator[Models]:
    """What a server serves, with this bundle loaded; all of its work has ended afterwards."""
    found = Models()
    found.load([lambda: served(bundle, **options)])
    yield found
    assert found.close(DEADLINE)


def pictures(count: int) -> list[bytes]:
    """JPEG files of different sizes and contents."""
    return [jpeg(80 + 7 * i, 90 + 3 * i, seed=i) for i in range(count)]


def asked(address: str, path: str, body: bytes | None = None, **headers: str) -> Any:
    """The status, headers and JSON (or else bytes) of an answer; `_` in a header stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(f"http://{address}{path}", body, named)
    try:
        with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
            status, head, data = answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        status, head, data = error.code, error.headers, error.read()
    kind = head.get("content-type", "")
    return status, head, json.loads(data) if kind == "application/json" else data


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
