# SPDX-License-Identifier: Apache-2.0
"""From what a user asked for, perhaps `auto` or nothing, to what runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import NamedTuple

from hgdeploy.bundle.model_bundle import check_reachable
from hgdeploy.bundle.names import RECOMMENDED
from hgdeploy.engines import ENGINES
from hgdeploy.engines.auto.saved import Saved, library_note, usable_choice
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import Run, choose_run
from hgdeploy.errors import BundleError, ConfigError, EngineError, nearest
from hgdeploy.system.progress import OnLine

AUTO = "auto"
"""The name that stands for the engine that was measured and saved."""
_ENGINES = (*ENGINES, AUTO)


class Asked(NamedTuple):
    """What a user asked for; None leaves it open.

    Attributes:
        engine: an engine's name, or `auto`.
        precision: the precision's name.
        device: `cpu` or `gpu:N`.
    """

    engine: str | None = None
    precision: str | None = None
    device: str | None = None


class Chosen(NamedTuple):
    """What runs.

    Attributes:
        run: engine, precision and device.
        saved: the saved choice that this is; None where it is not.
    """

    run: Run
    saved: Saved | None = None


def choose(folder: Path, asked: Asked, on_choice: OnLine) -> Chosen:
    """Return what runs for a bundle.

    `auto` is the choice that was saved in it. Where there is none, or it does not hold for these
    models and this machine, what serves without a name runs, and the line says why.

    Args:
        folder: the bundle's folder, or a model file that stands for one.
        asked: what the user asked for.
        on_choice: called with one line where the choice is not Paddle in fp32, or `auto` chose.

    Raises:
        BundleError: the folder may not be searched.
        ConfigError: `auto` was asked for with a precision, or with another device than the choice.
        EngineError: there is no engine of that name.
    """
    if asked.engine is not None and asked.engine not in _ENGINES:
        raise EngineError(f"unknown engine {asked.engine!r}, {nearest(asked.engine, _ENGINES)}")
    if asked.engine != AUTO:
        engine, precision = choose_run(folder, asked.engine, asked.precision, on_choice)
        return Chosen(Run(engine, precision, asked.device or "cpu"))
    if asked.precision is not None:
        raise ConfigError(
            f"engine auto decides the precision too, and {asked.precision} was asked for; leave "
            "the precision out, or name the engine"
        )
    check_reachable(folder)
    try:
        saved = usable_choice(folder)
    except BundleError as error:
        run = Run(*choose_run(folder, None, None, on_choice), asked.device or "cpu")
        on_choice(
            f"engine auto: {error}; {run.name} runs, as without --engine; hgdeploy tune {folder} "
            "measures and saves what is fastest here"
        )
        return Chosen(run)
    path, device = folder / RECOMMENDED, saved.run.device
    if asked.device not in (None, device):
        raise ConfigError(
            f"engine auto is {saved.run.name} ({path}), and {asked.device} was asked for; ask for "
            f"{device} (in a PaddleClas config use_gpu={device != 'cpu'}), or name the engine"
        )
    on_choice(saved.text(path))
    if (note := library_note(saved)) is not None:
        on_choice(note)
    return Chosen(saved.run, saved)


def leaves_threads_open(options: EngineOptions) -> bool:
    """Tell whether options say nothing of how many threads and inferences run at once."""
    return options.threads is None and options.streams == 1


def with_saved(options: EngineOptions, saved: Saved | None) -> EngineOptions:
    """Return options with the threads and streams of a choice, where they leave them open."""
    if saved is None or not leaves_threads_open(options):
        return options
    return dataclasses.replace(options, threads=saved.threads, streams=saved.streams)


def name_auto(folder: Path, text: str, on_choice: OnLine) -> str:
    """Return `ENGINE[:PRECISION][@DEVICE]` with the saved run in place of `auto`.

    Raises:
        ConfigError: as `choose`.
        BundleError: likewise.
    """
    what, _, device = text.strip().partition("@")
    engine, _, precision = what.partition(":")
    if engine != AUTO:
        return text
    run = choose(folder, Asked(AUTO, precision or None, device or None), on_choice).run
    return f"{run.engine}:{run.precision}@{run.device}"
