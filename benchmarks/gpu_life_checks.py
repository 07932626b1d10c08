# SPDX-License-Identifier: Apache-2.0
"""The checks of `make gpu-check` about long lives: builds, loads and ends in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.names import runtime_named
from hgdeploy.engines import infer_rows
from hgdeploy.errors import EngineError, ValidationError
from hgdeploy.gpu.bindings import BindingsStream
from hgdeploy.gpu.device import chosen_library, open_device
from hgdeploy.gpu.driver import nvidia_gpus

if TYPE_CHECKING:
    from gpu_checks import Task

    from hgdeploy.convert.tensorrt.options import EngineBuild

_UNCLOSED: list[Any] = []


def build(task: Task, on_line: Callable[[str], None], force: bool = False) -> EngineBuild:
    """Build a task's engine on its GPU."""
    from hgdeploy.convert.tensorrt.options import BuildOptions, Shapes
    from hgdeploy.convert.variants import build_engine

    bundle = open_bundle(task.bundle)
    runtime = runtime_named(task.target)
    cache = bundle.root.parents[1]
    how = BuildOptions(runtime, task.precision, gpu=0, cache_dir=cache, force=force)
    return build_engine(bundle, Shapes(batch=task.profile), how, on_line, on_line)


def check_same(wanted: Any, found: Any, message: str) -> None:
    """Refuse another bit."""
    if not np.array_equal(wanted, found):
        raise ValidationError(f"{message}, by {np.abs(wanted - found).max():.2g}")


def check_captures(task: Task) -> str:
    """Let every capture of a CUDA graph fail half-way, and run all the same."""
    if task.target == "tensorrt-rtx":
        return "TensorRT-RTX captures by itself"
    if chosen_library() == "pycuda":
        raise EngineError("pycuda cannot capture CUDA graphs; unset HGDEPLOY_CUDA")
    capture = BindingsStream.capture

    def spoiled(stream: BindingsStream, work: Callable[[], None]) -> None:
        def ends_in_what_no_graph_holds() -> None:
            work()
            stream.synchronize()

        capture(stream, ends_in_what_no_graph_holds)

    with task.load() as engine:
        rows = task.rows(engine)
        wanted = infer_rows(engine, rows)
    with mock.patch.object(BindingsStream, "capture", spoiled), task.load() as engine:
        for _ in range(2 * engine.concurrency):
            check_same(wanted, infer_rows(engine, rows), "after a failed capture outputs differ")
        note = str(engine.runtime.providers[1])
    if not note.startswith("no CUDA graph"):
        raise ValidationError(f"a capture was spoiled, and it says {note!r}")
    return f"{note}; equal bits"


def check_lives(task: Task) -> str:
    """Build, load two engines, and close them in either order, on two GPUs where they are alike."""
    build(task, lambda _: None, force=True)
    gpus = [open_device(index) for index in range(min(nvidia_gpus()[0], 2))]
    alike = len(gpus) == 2 and gpus[0].name == gpus[1].name
    other = "gpu:1" if alike else "gpu:0"
    wanted = None
    for first in (0, 1):
        both = [task.load(), task.load(other)]
        rows = task.rows(both[0])
        wanted = infer_rows(both[first], rows) if wanted is None else wanted
        both[first].close()
        check_same(wanted, infer_rows(both[1 - first], rows), "the other engine's outputs differ")
        both[1 - first].close()
    return f"built and loaded in one process; engines on gpu:0 and {other} closed in either order"


def check_end(task: Task) -> str:
    """Leave an engine open; whether the process then ends well shows in its exit code."""
    engine = task.load()
    _UNCLOSED.append(engine)
    infer_rows(engine, task.rows(engine))
    return "the process ended with an open engine"
