# SPDX-License-Identifier: Apache-2.0
"""ncnn on a CPU: fp32 by Winograd's algorithm, and fp16 and bf16 as forms in which it keeps values.

ncnn knows no batch: images are run one after the other. One network serves any number of threads,
each with an extractor of its own, and Python's lock is free meanwhile.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.names import ncnn_name
from hgdeploy.engines.base import (
    Capability,
    CheckedEngine,
    Engine,
    RuntimeInfo,
    Tensors,
)
from hgdeploy.engines.mobile import (
    Specs,
    check_options,
    described_specs,
    maker,
    no_intermediates,
)
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, EngineError
from hgdeploy.system.libraries import import_library, installed_version, installing

# The options of ncnn that keep values in 16 bits; all others stay off, whatever the default.
_STORAGE = {
    "fp32": (),
    "fp16": ("use_fp16_packed", "use_fp16_storage"),
    "bf16": ("use_bf16_packed", "use_bf16_storage"),
}
_ALL_STORAGE = (
    *("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic", "use_fp16_uniform"),
    *("use_bf16_packed", "use_bf16_storage"),
)
# What pnnx calls a network's first input and output.
_INPUT, _OUTPUT = "in0", "out0"


class NcnnEngine(CheckedEngine):
    """One network; each call has an extractor of its own."""

    def __init__(
        self,
        network: Any,
        mat: Any,
        specs: Specs,
        runtime: RuntimeInfo,
        concurrency: int,
    ) -> None:
        super().__init__(*specs, runtime, concurrency)
        self._network = network
        self._mat = mat

    def _run(self, feeds: Tensors) -> dict[str, NDArray[Any]]:
        (rows,) = feeds.values()
        return {self.outputs[0].name: np.stack([self._run_one(row) for row in rows])}

    def _run_one(self, row: NDArray[Any]) -> NDArray[Any]:
        values, shape = self._extract(row), self.outputs[0].shape[1:]
        if isinstance(values, int):
            raise EngineError(f"ncnn failed to run the model (code {values})")
        try:
            return values.reshape(shape)
        except ValueError:
            raise EngineError(
                f"ncnn gave {self.outputs[0].name} of {values.size} values for an image, expected "
                f"{list(shape)}: pnnx converts this model wrongly; run it in another engine"
            ) from None

    def _extract(self, row: NDArray[Any]) -> NDArray[Any] | int:
        """Return what the network gives for an image, or ncnn's code of what failed.

        No error is raised here: its traceback would keep ncnn's objects, and these end the process
        where they outlive the network.
        """
        extractor = self._network.create_extractor()
        failed = extractor.input(_INPUT, self._mat(row))
        if not failed:
            failed, result = extractor.extract(_OUTPUT)
        # Copied: the extractor owns the memory.
        return int(failed) if failed else np.array(result, dtype=np.float32)

    def _free(self) -> None:
        self._network.clear()
        self._network = None


def artifact_names(precision: str) -> tuple[str, ...]:
    """Return the names of the bundle files this engine can read for `precision`, best first.

    For fp16 and bf16, ncnn itself converts the fp32 weights.
    """
    return (ncnn_name("int8" if precision == "int8" else "fp32"),)


def load(source: Path, options: EngineOptions) -> Engine:
    """Load a network of ncnn.

    Args:
        source: `.ncnn.param`, with its `.ncnn.bin` and its sidecar beside it.
        options: `device` is `cpu`.

    Raises:
        EngineError: ncnn, the device or the precision is not available.
        BundleError: a file is missing, or ncnn cannot read it.
    """
    check_options("ncnn", "ncnn", options, tuple(_STORAGE))
    specs = described_specs("ncnn", source)
    ncnn = import_library("ncnn", "ncnn")
    network = ncnn.Net()
    settings = network.opt
    settings.num_threads = options.cpu_threads
    settings.use_vulkan_compute = False
    settings.use_winograd_convolution = options.graph_optimization
    for name in _ALL_STORAGE:
        if hasattr(settings, name):
            setattr(settings, name, name in _STORAGE[options.precision])
    for path, read in (
        (source, network.load_param),
        (source.with_suffix(".bin"), network.load_model),
    ):
        if not path.is_file():
            raise BundleError(f"{path} does not exist; make it with {maker('ncnn')}")
        if read(str(path)):
            raise BundleError(f"ncnn cannot read {path}; make it again with {maker('ncnn')}")
    runtime = RuntimeInfo(
        engine="ncnn",
        library="ncnn",
        version=installed_version("ncnn") or "source",
        device="cpu",
        providers=("CPU", *_STORAGE[options.precision]),
        precision=options.precision,
        threads=options.cpu_threads,
    )
    return NcnnEngine(network, ncnn.Mat, specs, runtime, max(2, options.streams))


intermediates = no_intermediates("ncnn")


def capability() -> Capability:
    """Return what ncnn can do on this machine."""
    version = installed_version("ncnn")
    if version is None:
        return Capability(None, notes=(installing("ncnn"),))
    notes = (
        "needs the bundle's inference.ncnn.param, made by hgdeploy convert --to ncnn",
        "fp16 and bf16 are forms in which values are kept; sums are in fp32 where the CPU lacks "
        "arithmetic in them",
    )
    return Capability(version, ("cpu",), tuple(_STORAGE), notes)
