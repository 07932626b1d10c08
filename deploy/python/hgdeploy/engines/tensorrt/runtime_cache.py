# SPDX-License-Identifier: Apache-2.0
"""What TensorRT-RTX compiles on this machine, kept on disk for the next process.

The library itself looks whether a file is for this GPU, driver and version, and refuses another.
"""

from __future__ import annotations

import contextlib
import glob
from pathlib import Path
from typing import Any

from hgdeploy.errors import OutputError
from hgdeploy.gpu.device import Device
from hgdeploy.system.digests import combined_digest
from hgdeploy.system.files import replacing, writing


class RuntimeCache:
    """The compiled kernels of one engine file, shared by all its contexts.

    Args:
        path: where they are kept; None for in memory only, so that the second context has them.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._cache: Any = None
        self._on_disk = b""

    def use(self, config: Any) -> None:
        """Have the contexts of a configuration take their kernels from here."""
        if self._cache is None:
            self._cache = config.create_runtime_cache()
            if self._path is not None:
                with contextlib.suppress(OSError):
                    self._on_disk = self._path.read_bytes()
            if self._on_disk and not self._cache.deserialize(self._on_disk):
                self._on_disk = b""  # of another GPU, driver or version: all is compiled again
        config.set_runtime_cache(self._cache)

    def save(self) -> None:
        """Keep what has been compiled since; where that cannot be written, nothing is kept."""
        if self._path is None or self._cache is None:
            return
        compiled = bytes(self._cache.serialize() or b"")
        if compiled in (b"", self._on_disk):
            return
        with contextlib.suppress(OutputError):
            with writing(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(self._path) as file:
                file.write(compiled)
            self._on_disk = compiled
            _remove_former(self._path)

    def close(self) -> None:
        """Let go of the library's object."""
        self._cache = None


def cache_path(root: Path | None, source: Path, device: Device, version: str) -> Path | None:
    """Return where the kernels of an engine file are kept for a GPU; None without a folder."""
    if root is None:
        return None
    facts = source.stat()
    file = combined_digest([str(facts.st_size), str(facts.st_mtime_ns), version])[:16]
    gpu = combined_digest([device.name, device.compute_capability])[:16]
    return root / "tensorrt-rtx" / f"{source.name}-{gpu}-{file}"


def _remove_former(path: Path) -> None:
    """Remove what was compiled for this GPU from the file as it was before."""
    name = path.name.rpartition("-")[0]
    for other in path.parent.glob(f"{glob.escape(name)}-????????????????"):
        if other != path:
            other.unlink(missing_ok=True)
