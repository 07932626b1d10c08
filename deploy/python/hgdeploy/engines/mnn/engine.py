# SPDX-License-Identifier: Apache-2.0
"""MNN on a CPU: fp32 by Winograd's algorithm.

MNN holds Python's lock while it runs, prints to stdout when it is imported, and ends the process on
some damaged files; so it always runs in processes of its own, see `engines.processes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.names import mnn_name
from hgdeploy.engines.base import (
    Capability,
    CheckedEngine,
    Engine,
    RuntimeInfo,
    Tensors,
)
from hgdeploy.engines.mnn.options import MnnOptions
from hgdeploy.engines.mobile import (
    Specs,
    check_options,
    described_specs,
    maker,
    no_intermediates,
)
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.processes import as_many_as_fit, load_processes
from hgdeploy.errors import BundleError, EngineError
from hgdeploy.system.libraries import import_library, installed_version, installing

_PRECISIONS = ("fp32",)
_WINOGRAD_HINT = 3  # the number of WINOGRAD_MEMORY_LEVEL among MNN's hints
_CPU_BACKEND = 0
# What one process takes at most, besides the weights, and how often it has these: while it loads,
# thrice, and then once. Measured at batch 1.
_PROCESS_MB, _COPIES_OF_WEIGHTS = 100, 3


class MnnEngine(CheckedEngine):
    """One module of MNN; calls take turns."""

    def __init__(
        self,
        module: Any,
        expressions: Any,
        specs: Specs,
        runtime: RuntimeInfo,
    ) -> None:
        super().__init__(*specs, runtime, concurrency=1)
        self._module = module
        self._expressions = expressions

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        expr = self._expressions
        (rows,) = feeds.values()
        variable = expr.placeholder(list(rows.shape), expr.NCHW, expr.float)
        variable.write(rows)
        results = self._module.forward([variable])
        if not results:
            raise EngineError("MNN failed to run the model")
        found = {}
        for spec, result in zip(self.outputs, results, strict=True):
            shape = (len(rows), *spec.shape[1:])
            # Copied: MNN owns the memory.
            values = np.array(expr.convert(result, expr.NCHW).read(), dtype=np.float32)
            try:
                found[spec.name] = values.reshape(shape)
            except ValueError:
                raise EngineError(
                    f"MNN gave {spec.name} of {values.size} values, expected {list(shape)}"
                ) from None
        return found

    def _free(self) -> None:
        self._module = None


def artifact_names(precision: str) -> tuple[str, ...]:
    """Return the names of the bundle files this engine can read for `precision`, best first."""
    return (mnn_name(precision),)


def load(source: Path, options: EngineOptions) -> Engine:
    """Load a model of MNN, in as many processes as inferences are to run at once.

    Args:
        source: the `.mnn` file, with its sidecar beside it.
        options: `device` is `cpu`.

    Raises:
        EngineError: MNN, the device or the precision is not available.
        BundleError: a file is missing, or MNN cannot read it.
    """
    check_options("mnn", "MNN", options, _PRECISIONS)
    described_specs("mnn", source)
    if installed_version("MNN") is None:
        raise EngineError(f"MNN is not installed; {installing('mnn')}")
    weights_mb = source.stat().st_size / 2**20
    return load_processes(
        "mnn", source, as_many_as_fit(options, _PROCESS_MB + _COPIES_OF_WEIGHTS * weights_mb)
    )


def load_here(source: Path, options: EngineOptions) -> MnnEngine:
    """Load a model of MNN in this process; raises what `load` raises."""
    specs = described_specs("mnn", source)
    nn = import_library("MNN.nn", "mnn")
    settings = {
        "backend": _CPU_BACKEND,
        "precision": "high",  # fp32, on every CPU
        "numThread": options.cpu_threads,
    }
    manager = nn.create_runtime_manager((settings,))
    level = options.own_of(MnnOptions).winograd_level
    manager.set_hint(_WINOGRAD_HINT, level)
    inputs, outputs = ([spec.name for spec in some] for some in specs)
    try:
        module = nn.load_module_from_file(
            str(source),
            inputs,
            outputs,
            runtime_manager=manager,
            rearrange=True,  # into the form that is computed with, instead of a copy in that form
        )
    except SystemError:  # what MNN's binding raises for every failure
        raise BundleError(f"MNN cannot read {source}; make it again with {maker('mnn')}") from None
    runtime = RuntimeInfo(
        engine="mnn",
        library="MNN",
        version=installed_version("MNN") or "source",
        device="cpu",
        providers=("CPU", f"Winograd level {level}"),
        precision=options.precision,
        threads=options.cpu_threads,
    )
    return MnnEngine(module, import_library("MNN.expr", "mnn"), specs, runtime)


intermediates = no_intermediates("mnn")


def capability() -> Capability:
    """Return what MNN can do on this machine."""
    version = installed_version("MNN")
    if version is None:
        return Capability(None, notes=(installing("mnn"),))
    note = "needs the bundle's inference.mnn, made by hgdeploy convert --to mnn"
    return Capability(version, ("cpu",), _PRECISIONS, (note,))
