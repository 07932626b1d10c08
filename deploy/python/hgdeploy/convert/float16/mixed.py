# SPDX-License-Identifier: Apache-2.0
"""Rewrite an fp32 ONNX graph so that its operators compute in 16 bits where they can.

The types are in the file itself, so a strongly typed TensorRT network runs exactly these. Weights
are rounded to nearest, never clamped, and casts are added only where the two types meet.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.convert.graph import LOGITS, VALUES, OnnxGraph
from hgdeploy.convert.graph_parts import rename_in, replace_items, subgraphs_of, tensors_used
from hgdeploy.system.libraries import import_library

_TYPES = {"fp16": "FLOAT16", "bf16": "BFLOAT16"}
# Small probabilities underflow in 16 bits, and the sum of a softmax loses digits.
_FP32_OPS = ("Softmax", "LogSoftmax")
# These set their output type themselves, or have inputs that ONNX requires in fp32.
_TYPED_OPS = ("Cast", "Constant", "ConstantOfShape", "Range", "Resize", "Upsample", "EyeLike")
# The first opset whose Conv and pooling allow bfloat16.
_BF16_OPSET = 22


def to_16_bits(graph: OnnxGraph, precision: str, fp32_tensors: Collection[str]) -> OnnxGraph:
    """Return a copy of an fp32 graph whose operators compute in 16 bits.

    The input, the output, every softmax, and the operators that turn logits into probabilities or
    scores stay in fp32. A bf16 model has opset 22, the first that allows it.

    Args:
        graph: the fp32 graph, with the types of its inner tensors.
        precision: `fp16` or `bf16`.
        fp32_tensors: tensors that the type cannot hold; operators that write or read one stay
            in fp32.
    """
    onnx = import_library("onnx", "convert")
    if precision == "bf16" and graph.opset < _BF16_OPSET:
        from onnx import version_converter

        raised = version_converter.convert_version(graph.model, _BF16_OPSET)
        content, graph = graph.metadata(), OnnxGraph(raised, graph.source)
        graph.set_metadata(content)
    rewriter = _Rewriter(graph, getattr(onnx.TensorProto, _TYPES[precision]))
    fp32 = fp32_nodes(graph, fp32_tensors)
    for i, node in enumerate(graph.nodes):
        rewriter.add(node, fp32=i in fp32)
    # If shapes contradict each other now, the rewriting is at fault, not the source.
    rewritten = OnnxGraph(rewriter.result(), f"the {precision} model").with_inferred_shapes()
    return OnnxGraph(rewritten.model, graph.source)


def fp32_nodes(graph: OnnxGraph, fp32_tensors: Collection[str]) -> set[int]:
    """Return the indices of the operators that are left in fp32; see `to_16_bits`."""
    last = graph.output_chain() if graph.output_kind() not in (LOGITS, VALUES) else []
    kept = {name for node in last for name in node.output}
    unfit = set(fp32_tensors)
    return {
        i
        for i, node in enumerate(graph.nodes)
        if node.op_type in _FP32_OPS + _TYPED_OPS
        or subgraphs_of(node)
        or not kept.isdisjoint(node.output)
        or not unfit.isdisjoint((*node.input, *node.output))
    }


def fp32_twin(graph: OnnxGraph, precision: str) -> OnnxGraph:
    """Return a graph that computes what a 16-bit one does, in fp32 with every tensor rounded.

    Each operator gets its 16-bit inputs and weights as fp32, and its result is rounded to 16 bits,
    as hardware with fp32 accumulators does. The twin shows overflow, and runs where there are no
    kernels for the type.
    """
    onnx = import_library("onnx", "convert")
    low, fp32 = getattr(onnx.TensorProto, _TYPES[precision]), onnx.TensorProto.FLOAT
    narrow = tensors_of_type(graph, low)
    result = graph.copy()
    nodes: list[Any] = []
    for node in result.nodes:
        if node.op_type == "Cast":
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if name in narrow:
                node.input[i] = f"{node.output[0]}.wide{i}"
                nodes.append(onnx.helper.make_node("Cast", [name], [node.input[i]], to=fp32))
        nodes.append(node)
        for i, name in enumerate(node.output):
            if name in narrow:
                node.output[i] = f"{name}.wide"
                nodes.append(onnx.helper.make_node("Cast", [node.output[i]], [name], to=low))
    replace_items(result.nodes, nodes)
    del result.model.graph.value_info[:]
    return result


def tensors_of_type(graph: OnnxGraph, kind: int) -> set[str]:
    """Return the names of all tensors of one element type outside subgraphs."""
    proto = graph.model.graph
    values = (*proto.input, *proto.output, *proto.value_info)
    names = {value.name for value in values if value.type.tensor_type.elem_type == kind}
    return names | {tensor.name for tensor in proto.initializer if tensor.data_type == kind}


def bits_of(array: NDArray[np.float32], precision: str) -> bytes:
    """Return the bytes of an array rounded to nearest even in 16 bits, as ONNX stores them."""
    if precision == "fp16":
        with np.errstate(over="ignore"):
            return array.astype("<f2").tobytes()
    bits = np.ascontiguousarray(array, "<f4").view("<u4")
    nearest: NDArray[np.uint16] = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")
    return nearest.tobytes()


class _Rewriter:
    """Copies a graph's operators one by one, and adds casts where the two types meet."""

    def __init__(self, graph: OnnxGraph, low: int) -> None:
        self._onnx = import_library("onnx", "convert")
        self._graph = graph
        self._low = low
        self._floats = tensors_of_type(graph, self._onnx.TensorProto.FLOAT)
        self._weights = {tensor.name: tensor for tensor in graph.model.graph.initializer}
        self._new_weights: list[Any] = []
        self._narrow: set[str] = set()
        self._nodes: list[Any] = []
        self._casts: dict[str, str] = {}

    def add(self, node: Any, *, fp32: bool) -> None:
        """Add a copy of `node`, in fp32 or in 16 bits."""
        copy = type(node).FromString(node.SerializeToString())
        copy.input[:] = [self._typed(name, fp32) for name in node.input]
        for inner in subgraphs_of(copy):
            for name in sorted(self._narrow & tensors_used(inner.node)):
                rename_in(inner, name, self._typed(name, fp32))
        if not fp32:
            self._narrow |= self._floats.intersection(node.output)
        self._nodes.append(copy)

    def result(self) -> Any:
        """Return the rewritten model, with its outputs in fp32 again."""
        model = self._graph.copy().model
        for value in self._graph.model.graph.output:
            if value.name in self._narrow:
                self._widen_output(value.name)
        used = tensors_used(self._nodes)
        weights = [tensor for tensor in model.graph.initializer if tensor.name in used]
        replace_items(model.graph.initializer, [*weights, *self._new_weights])
        replace_items(model.graph.node, self._nodes)
        return model

    def _typed(self, name: str, fp32: bool) -> str:
        """Return the name of a tensor in the wanted type; cast or round it if nobody has yet."""
        if name not in self._floats or fp32 == (name not in self._narrow):
            return name
        if name not in self._casts:
            self._casts[name] = other = f"{name}.{'fp32' if fp32 else '16'}"
            if name in self._weights:
                self._new_weights.append(self._rounded(self._weights[name], other))
            else:
                self._nodes.append(self._cast(name, other, fp32))
        return self._casts[name]

    def _cast(self, name: str, other: str, fp32: bool) -> Any:
        to = self._onnx.TensorProto.FLOAT if fp32 else self._low
        return self._onnx.helper.make_node("Cast", [name], [other], to=to)

    def _rounded(self, tensor: Any, name: str) -> Any:
        precision = "fp16" if self._low == self._onnx.TensorProto.FLOAT16 else "bf16"
        bits = bits_of(self._onnx.numpy_helper.to_array(tensor), precision)
        return self._onnx.helper.make_tensor(name, self._low, tensor.dims, bits, raw=True)

    def _widen_output(self, name: str) -> None:
        inner = f"{name}.16"
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [inner if item == name else item for item in names]
        self._nodes.append(self._cast(inner, name, fp32=True))
