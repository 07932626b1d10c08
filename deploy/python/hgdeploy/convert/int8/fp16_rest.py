# SPDX-License-Identifier: Apache-2.0
"""An int8 graph whose other operators compute in fp16, which is what TensorRT's users mean by int8.

TensorRT's network is strongly typed: what has no QDQ pair computes in the type that the file says,
and a pair hands on the type of its scale. ONNX allows fp16 scales from opset 19 on.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from hgdeploy.convert.float16.from_onnx import FP16_LIMIT
from hgdeploy.convert.float16.mixed import fp32_nodes, to_16_bits
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8.edges import WEIGHTED
from hgdeploy.system.libraries import import_library

_OPSET = 19
_LEVELS = 127
_PAIR = ("QuantizeLinear", "DequantizeLinear")
_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)


def with_fp16_rest(graph: OnnxGraph, overflowing: Collection[str]) -> OnnxGraph:
    """Return a copy of an int8 graph that computes in fp16 wherever it does not in int8.

    Its input, its output and its softmax stay in fp32.

    Args:
        graph: an int8 graph with symmetric pairs, such as `int8_from_onnx` writes.
        overflowing: names of tensors whose values fp16 cannot hold.
    """
    raised = graph.copy()
    if graph.opset < _OPSET:
        from onnx import version_converter

        raised = OnnxGraph(version_converter.convert_version(graph.model, _OPSET), graph.source)
        raised.set_metadata(graph.metadata())
    raised = raised.with_inferred_shapes()
    scales = _Scales(raised)
    scales.fit()
    return to_16_bits(raised, "fp16", _in_fp32(raised, {*overflowing, *scales.unfit}))


def _in_fp32(graph: OnnxGraph, unfit: set[str]) -> set[str]:
    """Return the tensors to keep in fp32: a layer that reads one reads all its pairs in fp32.

    A cast between a pair and its layer would take the layer out of int8.
    """
    made = {n.output[0]: n for n in graph.nodes if n.op_type == "DequantizeLinear"}
    sources = {n.output[0]: n.input[0] for n in graph.nodes if n.op_type == "QuantizeLinear"}
    kept = unfit | {name for name, n in made.items() if sources.get(n.input[0]) in unfit}
    while True:
        more = {
            name
            for index in fp32_nodes(graph, kept)
            if graph.nodes[index].op_type in WEIGHTED
            for name in graph.nodes[index].input
            if name in made
        }
        if more <= kept:
            return kept
        kept |= more


class _Scales:
    """The scales of a graph's pairs, which must become fp16.

    Attributes:
        unfit: the tensors that a pair reads whose scale fp16 cannot hold.
    """

    def __init__(self, graph: OnnxGraph) -> None:
        self._numpy = import_library("onnx", "convert").numpy_helper
        self._graph = graph
        self._weights = {tensor.name: tensor for tensor in graph.model.graph.initializer}
        self.unfit: set[str] = set()

    def fit(self) -> None:
        """Make scales below fp16's normal numbers ones that it holds exactly, rounded up.

        Weights are rounded again to such a scale: they move by less than half a step of theirs.
        """
        for node in self._graph.nodes:
            tensor = self._weights.get(node.input[1]) if node.op_type in _PAIR else None
            if tensor is None:
                continue
            scale = self._numpy.to_array(tensor)
            if (scale * _LEVELS > FP16_LIMIT).any():
                self.unfit.add(node.input[0])
            elif (scale < _SMALLEST_NORMAL).any():
                self._raise(node, scale)

    def _raise(self, node: Any, scale: Any) -> None:
        rounded = scale.astype(np.float16)
        up = np.where(rounded < scale, np.nextafter(rounded, np.float16(np.inf)), rounded)
        raised = np.where(scale < _SMALLEST_NORMAL, up.astype(np.float32), scale)
        weights = self._weights.get(node.input[0])
        if weights is not None:
            values = self._numpy.to_array(weights)
            axis = next((a.i for a in node.attribute if a.name == "axis"), 1)
            shape = [-1 if i == axis % values.ndim else 1 for i in range(values.ndim)]
            ratio = (scale / raised).reshape(shape if scale.ndim else ())
            moved = np.rint(values * ratio).astype(values.dtype)
            weights.CopyFrom(self._numpy.from_array(moved, weights.name))
        own = self._weights[node.input[1]]
        own.CopyFrom(self._numpy.from_array(raised.astype(np.float32), own.name))
