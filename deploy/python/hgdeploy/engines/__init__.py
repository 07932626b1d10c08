# SPDX-License-Identifier: Apache-2.0
"""The engines by name, and the one way to load any of them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, Protocol, cast

from numpy.typing import NDArray

from hgdeploy.engines.base import (
    Capability,
    Engine,
    RuntimeInfo,
    TensorSpec,
)
from hgdeploy.engines.fit import check_path, image_input
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.scores import infer_rows, score_output
from hgdeploy.errors import BundleError, EngineError, nearest

__all__ = [
    "ENGINES",
    "Capability",
    "Engine",
    "RuntimeInfo",
    "TensorSpec",
    "engine_module",
    "image_input",
    "infer_rows",
    "load_engine",
]

ENGINES = ("paddle", "onnxruntime", "openvino", "tensorrt", "mnn", "ncnn")
"""The names of the engines; each is a module or folder of this package."""


class EngineModule(Protocol):
    """What an engine's module has; see `base`."""

    def load(self, source: Path, options: EngineOptions) -> Engine:
        """Load a model file."""

    def artifact_names(self, precision: str) -> tuple[str, ...]:
        """Return the names of the bundle files that can be run in `precision`, best first."""

    def intermediates(
        self, source: Path, options: EngineOptions, row: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        """Run a model and return every tensor inside it, in order."""

    def capability(self) -> Capability:
        """Return what the engine can do on this machine."""


def engine_module(name: str) -> EngineModule:
    """Import the module of the engine `name`; its library is not loaded yet.

    Raises:
        EngineError: there is no engine of that name.
    """
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}, {nearest(name, ENGINES)}")
    return cast(EngineModule, importlib.import_module(f"hgdeploy.engines.{name}"))


def load_engine(name: str, source: Path, options: EngineOptions) -> Engine:
    """Load the model file `source` into the engine `name`, with the output that has its scores.

    Args:
        name: one of `ENGINES`.
        source: the model file; a Paddle model's parameters are beside it under the same stem.
        options: device, precision, threads and other options.

    Raises:
        EngineError: the library, device or precision is not available here.
        BundleError: the file is missing, cannot be read, or is not an image classifier; its path
            is not UTF-8.
    """
    check_path(source)
    engine = engine_module(name).load(source, options)
    try:
        image_input(engine.inputs, source)
        engine.keep_output(score_output(engine.outputs, source, options.output_name))
    except BundleError:
        engine.close()
        raise
    return engine
