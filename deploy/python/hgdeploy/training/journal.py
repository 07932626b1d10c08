# SPDX-License-Identifier: Apache-2.0
"""What a training tells: events for who watches it, and the same as lines of JSON in a file."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from hgdeploy.errors import ConfigError
from hgdeploy.system.documents import parse_json, read_lines
from hgdeploy.system.files import write_text, writing
from hgdeploy.system.libraries import import_library

Event = Mapping[str, Any]
"""`event` says what it is: `start`, `step`, `epoch`, `eval`, `saved`; the rest are its values."""
OnEvent = Callable[[Event], None]

LOG, PREVIOUS = "train.jsonl", "train.previous.jsonl"
SCALARS = "vdl"


@contextlib.contextmanager
def journal(folder: Path, epoch: int, batch: int, *, scalars: bool) -> Iterator[OnEvent]:
    """Yield what writes events to the file `train.jsonl` in a folder, one line each.

    A training that begins anew leaves that of the one before it as `train.previous.jsonl`.

    Args:
        folder: the training's.
        epoch: how many complete epochs the training begins with; what was written of later ones,
            before a kill, is told again and goes.
        batch: how many batches of the next epoch are done.
        scalars: write them for VisualDL too.

    Raises:
        OutputError: the file cannot be written.
        EngineError: VisualDL is asked for and not installed.
    """
    path = folder / LOG
    found = _lines(path)
    kept = [line for line in found if (epoch or batch) and _is_before(line, epoch, batch)]
    if found and not kept:
        _write(folder / PREVIOUS, found)
    _write(path, kept)
    with contextlib.ExitStack() as closing, writing(path):
        file = closing.enter_context(path.open("a", encoding="utf-8"))
        also = closing.enter_context(_scalars(folder / SCALARS)) if scalars else None

        def write(event: Event) -> None:
            _append(path, file, event)
            if also is not None:
                also(event)

        yield write


def read_journal(path: Path) -> list[dict[str, Any]]:
    """Return the events of a training.

    Args:
        path: the file, or the folder that it lies in.

    Raises:
        ConfigError: there is none, or it is something else.
    """
    file = path / LOG if path.is_dir() else path
    if not file.is_file():
        raise ConfigError(f"{file}: does not exist; give the folder of a training, or its {LOG}")
    events = _lines(file)
    if not events:
        raise ConfigError(f"{file}: has no line of a training")
    return events


def _write(path: Path, events: Sequence[Event]) -> None:
    write_text(path, "".join(f"{json.dumps(event)}\n" for event in events))


def _append(path: Path, file: IO[str], event: Event) -> None:
    with writing(path):
        file.write(f"{json.dumps(event)}\n")
        file.flush()


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a file that may not exist; a kill may have left half of the last one."""
    if not path.is_file():
        return []
    events = []
    for line in read_lines(path):
        with contextlib.suppress(ValueError):
            event = parse_json(line)
            if isinstance(event, dict) and "event" in event:
                events.append(event)
    return events


def _is_before(event: Event, epoch: int, batch: int) -> bool:
    """Tell whether an event was before a place in a training."""
    at = event.get("epoch", 0)
    return bool(at <= epoch or (at == epoch + 1 and event.get("batch", batch) < batch))


@contextlib.contextmanager
def _scalars(folder: Path) -> Iterator[OnEvent]:
    """Yield what writes the figures in events for VisualDL."""
    writer = import_library("visualdl", "visualdl").LogWriter(logdir=str(folder))

    def write(event: Event) -> None:
        if event["event"] not in ("step", "epoch", "eval"):
            return
        step = event["update"]
        for name, value in event.items():
            if isinstance(value, float):
                writer.add_scalar(tag=f"{event['event']}/{name}", step=step, value=value)

    try:
        yield write
    finally:
        writer.close()
