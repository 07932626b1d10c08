# SPDX-License-Identifier: Apache-2.0
"""TensorRT's timing cache on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hgdeploy.convert.tensorrt.log import Tell
from hgdeploy.errors import EngineError
from hgdeploy.system.files import replacing, writing


def load_timing_cache(config: Any, path: Path, tell: Tell) -> None:
    """Give a build the kernel times of earlier ones; without any, or with unfit ones, none.

    Raises:
        EngineError: the library makes no timing cache.
        OSError: the file cannot be read.
    """
    old = path.read_bytes() if path.is_file() else b""
    for content in dict.fromkeys((old, b"")):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return
        if content:
            tell(f"{path} is of another GPU or version: starting an empty timing cache")
    raise EngineError("TensorRT makes no timing cache")


def save_timing_cache(config: Any, path: Path) -> None:
    """Keep the kernel times of a build for the next one.

    Raises:
        EngineError: the library does not give them.
        OutputError: the file cannot be written.
    """
    cache = config.get_timing_cache()
    content = cache.serialize() if cache is not None else None
    if content is None:
        raise EngineError("TensorRT does not give its timing cache")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
