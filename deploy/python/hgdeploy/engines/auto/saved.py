# SPDX-License-Identifier: Apache-2.0
"""The saved choice: how a bundle ran fastest, on which machine, and the evidence.

It is `recommended.json` in the bundle. It holds as long as the models that were measured are the
same, on machines like the one that they were measured on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.model_files import model_digest
from hgdeploy.bundle.names import RECOMMENDED, runtime_of
from hgdeploy.engines import ENGINES
from hgdeploy.engines.auto.machine import Machine, differences, library_version, machine_here
from hgdeploy.engines.base import device_index
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.engines.run import Run, artifact_names, artifact_of
from hgdeploy.errors import BundleError, EngineError
from hgdeploy.system.checks import Given, mapping
from hgdeploy.system.documents import read_json
from hgdeploy.system.files import write_text
from hgdeploy.system.kinds import (
    BATCH_SIZE,
    THREADS,
    exactly,
    list_of,
    mapping_of,
    number,
    one_of,
    optional,
    text,
)
from hgdeploy.system.machine import available_cpus

_SCHEMA = 1


@dataclass(frozen=True)
class Saved:
    """A choice by measurement.

    Attributes:
        run: engine, precision and device.
        threads: CPU threads of one inference; None for all, and on a GPU.
        streams: inferences at once.
        batch: images per inference.
        images_per_second: what was measured so.
        latency_ms: the longest that 99 of 100 inferences took.
        models: the digest of each model that the choice rests on, by its file's name: the one that
            runs, and the fp32 model that it was compared with.
        machine: the machine, see `machine.machine_here`.
        library: the version of the engine's library.
        measured: the day, in ISO 8601.
        evidence: a row for each way that was tried, best first; plain data.
    """

    run: Run
    threads: int | None
    streams: int
    batch: int
    images_per_second: float
    latency_ms: float
    models: Mapping[str, str]
    machine: Machine
    library: str
    measured: str
    evidence: Sequence[Mapping[str, Any]] = field(default=())

    @property
    def way(self) -> str:
        """How it runs, such as `mnn, 1 thread x 2 streams`."""
        words = [self.run.name]
        if self.run.device == "cpu":
            threads = "all threads" if self.threads is None else f"{self.threads} thread"
            words.append(threads + ("s" if self.threads not in (None, 1) else ""))
        streams = f" x {self.streams} streams" if self.streams > 1 else ""
        return ", ".join(words) + streams

    def text(self, path: Path) -> str:
        """Return what to tell where it runs; `path` is its file."""
        return (
            f"engine auto: {self.way}, the fastest here on {self.measured} "
            f"({self.images_per_second:.1f} images/s in batches of {self.batch}; {path})"
        )


def save_choice(bundle: ModelBundle, saved: Saved) -> Path:
    """Write a choice into its bundle.

    Returns:
        Path of the file.

    Raises:
        OutputError: it cannot be written.
    """
    run = saved.run
    content = {
        "schema": _SCHEMA,
        "hgdeploy": __version__,
        "measured": saved.measured,
        "choice": {
            "engine": run.engine,
            "precision": run.precision,
            "device": run.device,
            "threads": saved.threads,
            "streams": saved.streams,
            "batch": saved.batch,
        },
        "images_per_second": saved.images_per_second,
        "latency_ms": saved.latency_ms,
        "library": saved.library,
        "machine": saved.machine,
        "models": saved.models,
        "evidence": list(saved.evidence),
    }
    document = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return write_text(bundle.root / RECOMMENDED, document)


def read_choice(folder: Path) -> Saved:
    """Read the choice that was saved in a bundle.

    Raises:
        BundleError: there is none, or it cannot be read.
    """
    path = folder / RECOMMENDED
    try:
        values = read_json(path)
    except (FileNotFoundError, NotADirectoryError):  # a model file may stand for a bundle
        raise BundleError(f"nothing is saved in {folder}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path} cannot be read: {reason}") from None
    given = Given(f"{path}:", values, error=BundleError)
    given.read("schema", exactly(_SCHEMA))
    choice = given.at("choice")
    run = Run(
        choice.read("engine", one_of(ENGINES)),
        choice.read("precision", one_of(PRECISIONS)),
        choice.read("device", _device),
    )
    return Saved(
        run=run,
        threads=choice.read("threads", optional(THREADS)),
        streams=choice.read("streams", THREADS),
        batch=choice.read("batch", BATCH_SIZE),
        images_per_second=given.read("images_per_second", number(0)),
        latency_ms=given.read("latency_ms", number(0)),
        models=given.read("models", mapping_of(text)),
        machine=given.read("machine", mapping_of(text)),
        library=given.read("library", text),
        measured=given.read("measured", text),
        evidence=given.read("evidence", list_of(mapping)),
    )


def _device(given: Given) -> str:
    """Is the kind of devices."""
    name = text(given)
    try:
        device_index(name)
    except EngineError as error:
        raise given.wrong(str(error)) from None
    return name


def usable_choice(folder: Path) -> Saved:
    """Return the choice that was saved in a bundle, if it holds here and now.

    Raises:
        BundleError: it does not, or there is none; the message says why.
    """
    saved = read_choice(folder)
    path = folder / RECOMMENDED
    _check_models(folder, saved)
    here = machine_here(saved.run.device)
    other = differences(saved.machine, here)
    if other:
        raise BundleError(f"{path} was measured on another machine ({'; '.join(other)})")
    if (saved.threads or 1) * saved.streams > available_cpus():
        raise BundleError(f"{path} asks for more threads than this machine has CPUs")
    if library_version(saved.run.engine) is None:
        raise BundleError(f"{path} names {saved.run.engine}, which is not installed here")
    return saved


def _check_models(folder: Path, saved: Saved) -> None:
    """Refuse a choice for other models than those that are there now."""
    path = folder / RECOMMENDED
    for name, digest in saved.models.items():
        file = folder / name
        if Path(name).name == name and file.is_file() and model_digest(file) != digest:
            raise BundleError(f"{path} was measured with another {name} than there is now")
    if not any(runtime_of(name) for name in artifact_names(saved.run)):  # those are built in time
        name = artifact_of(ModelBundle(folder, None, None, None), saved.run).name
        if name not in saved.models:
            raise BundleError(f"{path} was measured without {name}, which would run now")


def library_note(saved: Saved) -> str | None:
    """Return what to tell where the engine's library is another version than was measured."""
    here = library_version(saved.run.engine)
    if here == saved.library:
        return None
    return (
        f"engine auto: {saved.run.engine} was {saved.library} when it was measured, and is {here} "
        "now; hgdeploy tune measures again"
    )
