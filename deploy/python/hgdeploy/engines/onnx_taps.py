# SPDX-License-Identifier: Apache-2.0
"""Make an ONNX model return the tensors inside it, to find the layer where two engines differ."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.engines.base import Engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.system.libraries import import_library


def tapped_outputs(
    source: Path,
    options: EngineOptions,
    row: NDArray[Any],
    load: Callable[[Path, EngineOptions], Engine],
) -> dict[str, NDArray[Any]]:
    """Run a copy of a model in which every floating-point tensor is an output.

    The engine fuses fewer layers than usual, so the last digits may differ from a normal run.

    Args:
        source: an `.onnx` file.
        options: as for a normal load.
        row: the first input, (1, 3, H, W).
        load: the engine's own loader.

    Returns:
        The tensors by name, in the graph's order.

    Raises:
        EngineError: onnx is not installed, or the engine failed.
        BundleError: the engine cannot load the model.
    """
    onnx = import_library("onnx", "convert")
    model = onnx.shape_inference.infer_shapes(onnx.load(str(source)))
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    known = {value.name: value for value in model.graph.value_info}
    outputs = {value.name for value in model.graph.output}
    names = []
    for node in model.graph.node:
        for name in node.output:
            value = known.get(name)
            if name in outputs:
                names.append(name)
            elif value is not None and value.type.tensor_type.elem_type in floats:
                model.graph.output.append(value)
                names.append(name)
    with tempfile.TemporaryDirectory() as folder:
        tapped = Path(folder) / source.name
        onnx.save(model, str(tapped))
        # Without optimisation a runtime keeps the tensors that it would fuse away.
        engine = load(tapped, dataclasses.replace(options, graph_optimization=False))
        try:
            found = engine.infer({engine.inputs[0].name: row})
        finally:
            engine.close()
    # An engine may return equal tensors, such as constants, under the name of only one of them.
    return {name: found[name] for name in names if name in found}
