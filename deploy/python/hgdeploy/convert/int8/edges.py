# SPDX-License-Identifier: Apache-2.0
"""Which operators read a QDQ pair, so that TensorRT fuses as much as it does without int8.

TensorRT computes what follows a convolution element by element, such as an activation and the
addition of a shortcut, in the convolution's own kernel, unless a pair stands between. Its guide
("Q/DQ Layer-Placement Recommendations") therefore wants pairs on the inputs of layers with weights,
and in a residual addition on the shortcut, not on the branch that fuses. A gate, such as that of
squeeze-and-excite, has one pixel for each channel: a pair there costs more time than int8 saves.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from hgdeploy.convert.graph import OnnxGraph

WEIGHTED = ("Conv", "Gemm", "MatMul")
# Operators that compute each element by itself: engines join them to what made their input.
_POINTWISE = (
    *("Abs", "Add", "BatchNormalization", "Celu", "Clip", "Div", "Elu", "Erf", "Exp", "Gelu"),
    *("HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Max", "Min", "Mish", "Mul", "Neg"),
    *("PRelu", "Pow", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Sqrt", "Sub", "Tanh"),
)
_MEANS = ("GlobalAveragePool", "ReduceMean")
_RESHAPING = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


class FusingEdges:
    """Finds the edges of a graph, from a tensor to an operator that reads it, that get a pair.

    The root of a tensor is the tensor that it is computed from element by element, by itself: `x`
    is the root of `x * sigmoid(x)` and of all its parts. An Add or a Mul of several roots, such as
    a residual addition, is computed with one of them, and is a root itself.

    Args:
        graph: an fp32 graph, sorted, whose nodes have names.
        nodes: names of the nodes that are to run in int8.
    """

    def __init__(self, graph: OnnxGraph, nodes: Collection[str]) -> None:
        self._nodes = list(graph.nodes)
        constants = {tensor.name for tensor in graph.model.graph.initializer}
        constants.update(n.output[0] for n in self._nodes if n.op_type == "Constant")
        self._inputs: dict[str, list[str]] = {}
        self._makers: dict[str, Any] = {}
        self._readers: dict[str, list[str]] = {graph.output.name: ["the user"]}
        self._roots: dict[str, str] = {}
        self._depths: dict[str, int] = {}
        for node in self._nodes:
            self._add(node, [n for n in dict.fromkeys(node.input) if n and n not in constants])
        gates = (self._gate(name) for node in self._nodes for name in self._factors(node))
        in_gates = {name for gate in gates if gate is not None for name in gate}
        self.nodes = frozenset(
            node.name
            for node in self._nodes
            if node.name in nodes
            and node.name not in in_gates
            and (node.op_type not in _POINTWISE or len(self._roots_of(node)) > 1)
        )
        """Names of the nodes that are to run in int8: no layers of gates, no `x + constant`."""

    def _add(self, node: Any, inputs: list[str]) -> None:
        self._inputs[node.name] = inputs
        for name in inputs:
            self._readers.setdefault(name, []).append(node.name)
        roots = {self._roots.get(name, name) for name in inputs}
        joined = node.op_type in _POINTWISE and len(roots) == 1
        for name in node.output:
            self._makers[name] = node
            self._roots[name] = next(iter(roots)) if joined else name
            self._depths[name] = 1 + max((self._depths.get(one, 0) for one in inputs), default=0)

    def edges(self) -> set[tuple[str, str]]:
        """Return (name of the node, name of the tensor) of each edge that gets a pair."""
        fused = {(n.name, name) for n in self._nodes for name in self._fused_inputs(n)}
        needed = {
            name
            for node in self._nodes
            if node.name in self.nodes
            for name in self._inputs[node.name]
            if (node.name, name) not in fused and self._gains(node, name)
        }
        return {
            (node.name, name)
            for node in self._nodes
            if node.name in self.nodes or node.op_type not in WEIGHTED
            for name in self._inputs[node.name]
            if name in needed and (node.name, name) not in fused
        }

    def _gains(self, node: Any, name: str) -> bool:
        """Whether a node that runs in int8 reads a tensor faster as int8."""
        if node.op_type not in _POINTWISE:
            return True
        return len(self._roots_of(node)) > 1 and self._gate(name) is None

    def _roots_of(self, node: Any) -> set[str]:
        return {self._root(name) for name in self._inputs[node.name]}

    def _root(self, name: str) -> str:
        return self._roots.get(name, name)

    def _fused_inputs(self, node: Any) -> list[str]:
        """Return the inputs that are computed in the same kernel as the node."""
        if node.op_type not in _POINTWISE:
            return []
        names = self._inputs[node.name]
        if len(self._roots_of(node)) == 1:
            return [name for name in names if self._is_computed(name)]
        alone = [name for name in names if self._is_alone(name, node)]
        weighted = [name for name in alone if self._source(name).op_type in WEIGHTED]
        # Of two convolutions that are added, the deeper is the branch, the other the shortcut.
        return sorted(weighted or alone, key=lambda name: self._depths[name])[-1:]

    def _is_computed(self, name: str) -> bool:
        maker = self._makers.get(name)
        return maker is not None and maker.op_type in (*WEIGHTED, *_POINTWISE)

    def _source(self, name: str) -> Any:
        """Return the node that makes a tensor's root; None for the graph's input."""
        return self._makers.get(self._root(name))

    def _is_alone(self, name: str, reader: Any) -> bool:
        """Whether nobody but a reader needs a tensor, or anything from its root on."""
        root = self._root(name)
        between, waiting = {root}, [name]
        while waiting:
            one = waiting.pop()
            if one not in between:
                between.add(one)
                waiting += self._inputs[self._makers[one].name]
        within = {self._makers[one].name for one in between - {root}} | {reader.name}
        readers = {one for tensor in between for one in self._readers.get(tensor, ())}
        return self._is_computed(root) and readers <= within

    def _factors(self, node: Any) -> list[str]:
        """Return the inputs of a product of several roots."""
        product = node.op_type == "Mul" and len(self._roots_of(node)) > 1
        return self._inputs[node.name] if product else []

    def _gate(self, name: str) -> list[str] | None:
        """Return the layers with weights between a mean over pixels and a tensor.

        None is for a tensor that is not made from such a mean alone.
        """
        found: list[str] = []
        node = self._source(name)
        while node is not None and node.op_type not in _MEANS:
            if node.op_type in WEIGHTED:
                found.append(node.name)
            elif node.op_type not in _RESHAPING:
                return None
            inputs = self._inputs[node.name]
            node = self._source(inputs[0]) if len(inputs) == 1 else None
        return None if node is None else found
