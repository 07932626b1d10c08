# SPDX-License-Identifier: Apache-2.0
"""A web server of this machine, and archives in the layout of PaddleClas's servers."""

from __future__ import annotations

import contextlib
import functools
import http.server
import tarfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of a folder, and counts the requests."""

    requests: int = 0

    def log_message(self, *_: object) -> None:
        type(self).requests += 1


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[str]:
    """Serve a folder; yields its address."""
    QuietHandler.requests = 0
    handler = functools.partial(QuietHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def archive_model(archive: Path, files: Iterable[Path]) -> None:
    """Put a model's files into an archive, under its name, as PaddleClas does."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as tar:
        for path in files:
            tar.add(path, f"{archive.stem}/{path.name}")
