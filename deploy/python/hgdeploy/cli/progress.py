# SPDX-License-Identifier: Apache-2.0
"""Show how far long work is: with a bar on a terminal, otherwise with a line now and then."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hgdeploy.cli.streams import tell
from hgdeploy.cli.terminal import say
from hgdeploy.system.progress import OnLine

if TYPE_CHECKING:
    from hgdeploy.results.rows import FileFacts
    from hgdeploy.results.writers import Writer
    from hgdeploy.transforms.prediction import Prediction
    from hgdeploy.zoo.fetch.http import OnBytes

_PROGRESS_SECONDS = 5.0
_MOMENT_SECONDS = 1.5


def occasional_lines() -> OnLine:
    """Return a function that prints a line of progress at most every few seconds, on stderr."""
    last = time.monotonic()

    def on_progress(line: str) -> None:
        nonlocal last
        if time.monotonic() - last >= _PROGRESS_SECONDS:
            last = time.monotonic()
            say(line)

    return on_progress


@contextlib.contextmanager
def told_if_slow(line: str) -> Iterator[None]:
    """Print a line on stderr where what is done here takes more than a moment."""
    timer = threading.Timer(_MOMENT_SECONDS, say, [line])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _Counter:
    """A writer that only counts images, and shows how many there are, and how many a second."""

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
    """Yield a writer that shows on stderr how many of `images` images are done."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Counter(_show_lines(images))
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

        yield _Counter(lambda done, rate: bar.update(task, completed=done, rate=rate))


def _show_lines(images: int) -> Callable[[int, float], None]:
    on_progress = occasional_lines()

    def show(done: int, rate: float) -> None:
        left = (images - done) / rate if rate > 0 else 0.0
        on_progress(f"{done} of {images} images, {rate:.1f} images/s, {left:.0f} s left")

    return show


@contextlib.contextmanager
def download_progress() -> Iterator[OnBytes]:
    """Show downloads on stderr: one bar for each on a terminal, else a line at each tenth.

    Yields:
        The function for `download_file` to call.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Tenths()
        return
    from rich import progress as rich_progress

    columns = (
        rich_progress.TextColumn("{task.description}"),
        rich_progress.BarColumn(),
        rich_progress.DownloadColumn(),
        rich_progress.TransferSpeedColumn(),
        rich_progress.TimeRemainingColumn(),
    )
    with rich_progress.Progress(*columns, console=console) as bars:
        tasks: dict[str, rich_progress.TaskID] = {}

        def show(name: str, done: int, total: int | None) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=None)
            bars.update(tasks[name], completed=done, total=total)

        yield show


@dataclass
class _Tenths:
    """Print a line at each tenth of a download, or every 10 MB where its size is unknown."""

    step: tuple[str, int] = ("", -1)

    def __call__(self, name: str, done: int, total: int | None) -> None:
        step = name, done * 10 // total if total else done // 10_000_000
        if step != self.step:
            self.step = step
            size = f"{done / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else "")
            tell(f"{name}: {size}")
