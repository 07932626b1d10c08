# SPDX-License-Identifier: Apache-2.0
"""Fold the batch normalisations that stand behind dense layers, as in LeViT, into their weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import replace_items, tensors_used
from hgdeploy.system.libraries import import_library

_PASSING = ("Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten")


def fold_dense_norms(graph: OnnxGraph) -> None:
    """Fold each batch normalisation behind a dense layer of constant weights into it, in place.

    Between the two there may be an Add of a constant and changes of the shape that keep the last
    axis. Every other one is left as it is, and computed in fp32.
    """
    norms = [node for node in graph.nodes if node.op_type == "BatchNormalization"]
    if not norms:
        return
    values = graph.with_inferred_shapes().model.graph.value_info
    dims = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim] for value in values}
    for norm in norms:
        _Fold(graph, norm, dims).apply()
    used, weights = tensors_used(graph.nodes), graph.model.graph.initializer
    replace_items(weights, [tensor for tensor in weights if tensor.name in used])


class _Fold:
    """One batch normalisation, and what leads to it."""

    def __init__(self, graph: OnnxGraph, norm: Any, dims: Mapping[str, Sequence[int]]) -> None:
        self._onnx = import_library("onnx", "convert")
        self._graph, self._norm, self._dims = graph, norm, dims
        self._weights = {tensor.name: tensor for tensor in graph.model.graph.initializer}
        self._makers = {name: node for node in graph.nodes for name in node.output}

    def apply(self) -> None:
        """Fold it, where its layer is dense and nothing else reads what is between them."""
        values = [self._value(name) for name in self._norm.input[1:]]
        chain = list(self._chain())
        if not chain or any(value is None for value in values):
            return
        scale, shift = _affine(values, self._epsilon())
        *between, dense = chain
        added = next((node for node in between if node.op_type == "Add"), None)
        if not self._can_take(dense, added, len(scale)):
            return
        self._set(dense, 1, self._dense_weight(dense, scale))
        if dense.op_type == "Gemm" and len(dense.input) > 2:
            bias = self._value(dense.input[2]) * scale
            self._set(dense, 2, bias if added is not None else bias + shift)
        if added is not None:
            index = self._constant_of(added)
            self._set(added, index, self._value(added.input[index]) * scale + shift)
        rest = added is not None or (dense.op_type == "Gemm" and len(dense.input) > 2)
        self._replace(None if rest else shift)

    def _chain(self) -> Iterator[Any]:
        """Yield the nodes from the one before the norm back to its dense layer.

        None is where there is no such layer, or something else reads between.
        """
        found: list[Any] = []
        name = self._norm.input[0]
        while True:
            node = self._makers.get(name)
            readers = sum(list(other.input).count(name) for other in self._graph.nodes)
            if node is None or readers != 1 or name == self._graph.output.name:
                return
            found.append(node)
            if node.op_type in ("MatMul", "Gemm"):
                yield from found
                return
            if node.op_type == "Add" and not any(one.op_type == "Add" for one in found[:-1]):
                index = self._constant_of(node)
                if index is None:
                    return
                name = node.input[1 - index]
            elif node.op_type in _PASSING and self._keeps_last(node):
                name = node.input[0]
            else:
                return

    def _keeps_last(self, node: Any) -> bool:
        before, after = (self._dims.get(n) for n in (node.input[0], node.output[0]))
        return bool(before and after and before[-1] and before[-1] == after[-1])

    def _can_take(self, dense: Any, added: Any, channels: int) -> bool:
        """Whether the channels are the dense layer's last axis, and all constants are plain."""
        dims = self._dims.get(self._norm.input[0])
        weight = self._value(dense.input[1])
        if not dims or len(dims) != 2 or weight is None or weight.ndim != 2:
            return False  # of more axes, the channels would not be the last
        plain = True
        if dense.op_type == "Gemm":
            alpha_beta = {a.name: a.f for a in dense.attribute if a.name in ("alpha", "beta")}
            plain = all(value == 1 for value in alpha_beta.values())
            plain &= len(dense.input) < 3 or self._value(dense.input[2]) is not None
        if added is not None:
            plain &= self._value(added.input[self._constant_of(added)]).shape[-1:] == (channels,)
        return bool(plain and weight.shape[0 if _transposed(dense) else 1] == channels)

    def _dense_weight(self, dense: Any, scale: NDArray[Any]) -> NDArray[Any]:
        weight = self._value(dense.input[1])
        scaled: NDArray[Any] = weight * (scale[:, None] if _transposed(dense) else scale)
        return scaled

    def _constant_of(self, node: Any) -> Any:
        found = [i for i, name in enumerate(node.input) if name in self._weights]
        return found[0] if len(found) == 1 else None

    def _value(self, name: str) -> Any:
        tensor = self._weights.get(name)
        return None if tensor is None else self._onnx.numpy_helper.to_array(tensor)

    def _epsilon(self) -> float:
        return next((a.f for a in self._norm.attribute if a.name == "epsilon"), 1e-5)

    def _set(self, node: Any, index: int, value: NDArray[Any]) -> None:
        """Give a node a constant of its own: the old one may be shared."""
        name = f"{node.input[index]}.{self._norm.output[0]}"
        tensor = self._onnx.numpy_helper.from_array(value.astype(np.float32), name)
        self._graph.model.graph.initializer.append(tensor)
        node.input[index] = name

    def _replace(self, shift: NDArray[Any] | None) -> None:
        """Put an addition of the shift where the norm was, or nothing."""
        before, after = self._norm.input[0], self._norm.output[0]
        if shift is None:
            self._norm.op_type, inputs = "Identity", [before]
        else:
            self._norm.op_type, inputs = "Add", [before, f"{after}.shift"]
            tensor = self._onnx.numpy_helper.from_array(shift.astype(np.float32), inputs[1])
            self._graph.model.graph.initializer.append(tensor)
        self._norm.input[:], self._norm.output[:] = inputs, [after]
        del self._norm.attribute[:]


def _affine(values: Sequence[Any], epsilon: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the scale and shift that a batch normalisation is, in float64."""
    gamma, beta, mean, variance = values
    scale = gamma.astype(np.float64) / np.sqrt(variance.astype(np.float64) + epsilon)
    return scale, beta - mean * scale


def _transposed(dense: Any) -> bool:
    return any(a.name == "transB" and a.i for a in dense.attribute)
