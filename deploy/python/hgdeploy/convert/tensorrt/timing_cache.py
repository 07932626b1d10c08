# SPDX-License-Identifier: Apache-2.0
"""TensorRT's timing cache on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hgdeploy.errors import EngineError
from hgdeploy.system.files import replacing, writing
from hgdeploy.system.progress import OnLine


def load_timing_cache(config: Any, path: Path, on_progress: OnLine) -> None:
    """Give a build the kernel times of earlier builds; if there are none that fit, an empty cache.

    Raises:
        EngineError: the library cannot create a timing cache.
        OSError: the file cannot be read.
    """
    old = path.read_bytes() if path.is_file() else b""
    for content in dict.fromkeys((old, b"")):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return
        if content:
            on_progress(
                f"{path} is for another GPU or version: starting with an empty timing cache"
            )
    raise EngineError("TensorRT cannot create a timing cache")


def save_timing_cache(config: Any, path: Path) -> None:
    """Keep the kernel times of a build for the next one.

    Raises:
        EngineError: the library does not return them.
        OutputError: the file cannot be written.
    """
    cache = config.get_timing_cache()
    content = cache.serialize() if cache is not None else None
    if content is None:
        raise EngineError("TensorRT does not return its timing cache")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(content)
