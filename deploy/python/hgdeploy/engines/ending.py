# SPDX-License-Identifier: Apache-2.0
"""What a model does last, read from its graph: it says what the scores are.

A softmax makes probabilities that sum to one, a sigmoid makes independent ones, and without either
the scores are logits, or values of the model's own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.errors import EngineError
from hgdeploy.system.libraries import import_library

ACTIVATIONS = ("softmax", "sigmoid")
# Operators whose results are logits, by ONNX's and Paddle's names in lower case.
_LINEAR = frozenset(
    (
        *("gemm", "matmul", "conv", "batchnormalization", "fc", "linear", "addmm"),
        *("conv2d", "batch_norm", "logsoftmax", "log_softmax"),
    )
)
# Operators whose results are logits, unless they scale or average what an activation gives.
_BLENDING = frozenset(
    (
        *("add", "mul", "multiply", "reducemean", "averagepool", "globalaveragepool"),
        *("mean", "pool2d"),
    )
)
# Operators that put several tensors beside each other.
_JOINING = frozenset(("concat", "stack"))
# Operators that pass values on unchanged, by ONNX's and Paddle's names in lower case.
_PASSING = frozenset(
    (
        *("identity", "reshape", "flatten", "squeeze", "unsqueeze", "transpose", "cast", "dropout"),
        *("quantizelinear", "dequantizelinear", "assign", "share_data"),
        "flatten2",
    )
)


@dataclass(frozen=True)
class Ending:
    """The activations at the end of a model, the last one first; none where it gives logits."""

    activations: tuple[str, ...]

    @property
    def activation(self) -> str | None:
        """`softmax` over the classes, `sigmoid`, or None."""
        return self.activations[0] if self.activations else None


class Step(NamedTuple):
    """One operator on the way back from a model's output.

    Attributes:
        op: its name in lower case; `identity` for one that changes nothing.
        source: the tensor that it reads, or changes by others.
        over_classes: of a softmax, whether it normalises over the classes.
        others: the further tensors that it reads.
    """

    op: str
    source: Hashable
    over_classes: bool = True
    others: tuple[Hashable, ...] = ()


def ending_of(output: Hashable, step_to: Callable[[Hashable], Step | None]) -> Ending | None:
    """Return the ending of a graph, walking back from its output; None for one of no known kind.

    Args:
        output: the output tensor.
        step_to: gives the operator that makes a tensor; None where no operator does.
    """
    found: list[str] = []
    step = step_to(output)
    while step is not None:
        if step.op in ACTIVATIONS and step.over_classes:
            found.append(step.op)
        elif step.op not in _PASSING:
            if not found and step.op == "concat" and _joins_independent(step, step_to):
                return Ending(("sigmoid",))
            linear = step.op in _LINEAR or (step.op in _BLENDING and not _blends(step, step_to))
            return Ending(tuple(found)) if found or linear else None
        step = step_to(step.source)
    return Ending(tuple(found)) if found else None


def _blends(step: Step, step_to: Callable[[Hashable], Step | None]) -> bool:
    """Return whether what an activation gives is scaled, added or averaged, as in an ensemble."""
    waiting, seen = [step.source, *step.others], set()
    while waiting:
        tensor = waiting.pop()
        before = step_to(tensor) if tensor not in seen else None
        seen.add(tensor)
        if before is not None and before.op in ACTIVATIONS:
            return True
        if before is not None and before.op in _PASSING | _BLENDING | _JOINING:
            waiting += before.source, *before.others
    return False


def _joins_independent(step: Step, step_to: Callable[[Hashable], Step | None]) -> bool:
    """Return whether all that is joined ends in a sigmoid, as of a model of several heads."""
    parts = [ending_of(tensor, step_to) for tensor in (step.source, *step.others)]
    return all(part is not None and part.activations == ("sigmoid",) for part in parts)


def normalises_classes(axis: int, shape: Sequence[int] | None) -> bool:
    """Tell whether a softmax over `axis` of a tensor of this shape is one over the classes.

    Args:
        axis: as the operator has it; negative from the end.
        shape: (images, classes) with any further axes of size 1; -1 for an axis of any size; None
            where it is not known.
    """
    if shape is None or len(shape) < 2:
        return axis != 0
    axis %= len(shape)
    classes = [i for i, size in enumerate(shape) if i and size > 1]
    return axis > 0 if not classes else classes == [axis]


def onnx_ending(model: Any, output: str) -> Ending | None:
    """Return the ending of an `onnx.ModelProto` at one of its outputs, as `ending_of`."""
    makers, weights = _makers_and_weights(model)
    opset = next(int(i.version) for i in model.opset_import if i.domain in ("", "ai.onnx"))
    shapes = {
        value.name: [dim.dim_value or -1 for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.output)
    }

    def step_to(name: Hashable) -> Step | None:
        node = makers.get(str(name))
        if node is None or not node.input:
            return None
        axis = next((a.i for a in node.attribute if a.name == "axis"), -1 if opset >= 13 else 1)
        shape = shapes.get(node.output[0])
        if opset < 13 and shape is not None and axis == 1:
            # Up to opset 12, a softmax is over all axes from `axis` on.
            shape = [shape[0], max(shape[1:])]
        kept = changed_by_nothing(node, makers, weights)
        op = node.op_type.lower() if kept is None else "identity"
        others = () if kept is not None else tuple(node.input[1:])
        return Step(op, kept or node.input[0], normalises_classes(axis, shape), others)

    return ending_of(output, step_to)


def onnx_chain(model: Any, output: str) -> Iterator[Any]:
    """Yield the operators from an output back to the one that computes it, which is last."""
    makers, weights = _makers_and_weights(model)
    node = makers.get(output)
    while node is not None:
        yield node
        kept = changed_by_nothing(node, makers, weights)
        if kept is None and node.op_type.lower() not in _PASSING:
            return
        node = makers.get(kept or node.input[0])


def _makers_and_weights(model: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the node that computes each tensor, and the tensors that are constant, by name."""
    makers = {name: node for node in model.graph.node for name in node.output}
    return makers, {tensor.name: tensor for tensor in model.graph.initializer}


# Operators by two inputs, what leaves the other unchanged, and which of them it may be.
_NEUTRAL = {"Mul": (1.0, (1, 0)), "Add": (0.0, (1, 0)), "Div": (1.0, (1,)), "Sub": (0.0, (1,))}


def changed_by_nothing(node: Any, makers: dict[str, Any], weights: dict[str, Any]) -> str | None:
    """Return the tensor that an ONNX node gives on unchanged, by a constant 1 or 0; else None.

    Paddle 2 adds such a scale after the last operator of every exported model.

    Args:
        node: the node.
        makers: the node that computes each tensor, by the tensor's name.
        weights: the constant tensors, by name.
    """
    neutral, places = _NEUTRAL.get(node.op_type, (0.0, ()))
    for place in places:
        name = node.input[place]
        while name in makers and makers[name].op_type in ("Identity", "Cast"):
            name = makers[name].input[0]
        constant = name in makers and makers[name].op_type == "Constant"
        tensor = makers[name].attribute[0].t if constant else weights.get(name)
        if tensor is None or not tensor.data_type or tensor.external_data:
            continue
        value = import_library("onnx", "convert").numpy_helper.to_array(tensor)
        if value.size and (value == neutral).all():
            return str(node.input[1 - place])
    return None


def read_ending(source: Path, output: str) -> Ending | None:
    """Return how a model file ends; None where neither its sidecar nor its graph says so.

    Args:
        source: an ONNX file, a Paddle program or an engine file.
        output: the name of the output that has the scores.
    """
    known = (read_sidecar(source) or {}).get("ending")
    if isinstance(known, list) and all(name in ACTIVATIONS for name in known):
        return Ending(tuple(known))
    if source.suffix in (".json", ".pdmodel"):
        from hgdeploy.engines.paddle.ending import read_program_ending

        return read_program_ending(source, output)
    if source.suffix != ".onnx":
        return None
    try:
        onnx = import_library("onnx", "convert")
    except EngineError:
        return None
    return onnx_ending(onnx.load(str(source), load_external_data=False), output)
