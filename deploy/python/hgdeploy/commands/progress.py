# SPDX-License-Identifier: Apache-2.0
"""How far a run over many images is: a bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from hgdeploy.commands.common import progress
from hgdeploy.results.rows import FileFacts
from hgdeploy.results.writers import Writer
from hgdeploy.transforms.prediction import Prediction


class _Progress:
    """A writer that only counts, and shows how many and how many a second."""

    def __init__(self, show: Callable[[int, float], None]) -> None:
        self._show = show
        self._done = 0
        self._start = time.monotonic()

    def write(self, prediction: Prediction, facts: FileFacts) -> None:  # noqa: ARG002
        """Count one image."""
        self._done += 1
        seconds = time.monotonic() - self._start
        self._show(self._done, self._done / seconds if seconds > 0 else 0.0)

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


@contextlib.contextmanager
def image_progress(images: int) -> Iterator[Writer]:
    """Yield a writer that shows on stderr how many of `images` it has been given."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Progress(_lines(images))
        return
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("hgdeploy:"),
        rich_progress.BarColumn(),
        rich_progress.MofNCompleteColumn(),
        rich_progress.TextColumn("{task.fields[rate]:.1f} images/s, left:"),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=images, rate=0.0)

        yield _Progress(lambda done, rate: bar.update(task, completed=done, rate=rate))


def _lines(images: int) -> Callable[[int, float], None]:
    tell = progress()

    def show(done: int, rate: float) -> None:
        left = (images - done) / rate if rate > 0 else 0.0
        tell(f"{done} of {images} images, {rate:.1f} images/s, {left:.0f} s left")

    return show
