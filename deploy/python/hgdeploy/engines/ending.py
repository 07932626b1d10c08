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
        *("gemm", "matmul", "add", "conv", "batchnormalization", "reducemean", "averagepool"),
        *("globalaveragepool", "mul", "fc", "linear", "addmm"),
        *("conv2d", "batch_norm", "mean", "pool2d"),
    )
)
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
        source: the tensor that it reads first.
        over_classes: of a softmax, whether it normalises over the classes.
    """

    op: str
    source: Hashable
    over_classes: bool = True


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
            return Ending(tuple(found)) if found or step.op in _LINEAR else None
        step = step_to(step.source)
    return Ending(tuple(found)) if found else None


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
    makers = {name: node for node in model.graph.node for name in node.output}
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
        op = "identity" if is_neutral(node, makers) else node.op_type.lower()
        return Step(op, node.input[0], normalises_classes(axis, shape))

    return ending_of(output, step_to)


def onnx_chain(model: Any, output: str) -> Iterator[Any]:
    """Yield the operators from an output back to the one that computes it, which is last."""
    makers = {name: node for node in model.graph.node for name in node.output}
    node = makers.get(output)
    while node is not None:
        yield node
        if node.op_type.lower() not in _PASSING and not is_neutral(node, makers):
            return
        node = makers.get(node.input[0])


def is_neutral(node: Any, makers: dict[str, Any]) -> bool:
    """Return whether an ONNX node multiplies by a constant 1 or adds a constant 0.

    Paddle 2 adds such a scale after the last operator of every exported model.

    Args:
        node: the node.
        makers: the node that computes each tensor, by the tensor's name.
    """
    neutral = {"Mul": 1.0, "Add": 0.0}.get(node.op_type)
    if neutral is None:
        return False
    other = makers.get(node.input[1])
    while other is not None and other.op_type in ("Identity", "Cast"):
        other = makers.get(other.input[0])
    if other is None or other.op_type != "Constant":
        return False
    onnx = import_library("onnx", "convert")
    value = onnx.numpy_helper.to_array(other.attribute[0].t)
    return bool(value.size and (value == neutral).all())


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
