# SPDX-License-Identifier: Apache-2.0
"""Small edits of an ONNX classifier's graph: names, shapes, folding, checks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.errors import BundleError, one_line
from hgdeploy.system.libraries import import_library, installed_version

INPUT_NAME = "x"
BATCH = "batch"
# What a classifier's output is called, by the operator that makes it.
_OUTPUT_NAMES = {"Softmax": "probabilities", "Sigmoid": "scores"}
_OTHER_OUTPUT = "logits"
# Operators that hand values through; they may stand between a softmax and the output.
_PASSING = ("Identity", "Reshape", "Flatten", "Squeeze", "Cast")
Dims = list[int | str]


def read_classifier(source: Path, *, external_data: bool = False) -> Any:
    """Read an ONNX file of one input and one output.

    Args:
        source: the file.
        external_data: read the weights too that lie in another file.

    Raises:
        BundleError: it is missing, unreadable, or no classifier.
    """
    onnx = import_library("onnx", "convert")
    if not source.is_file():
        raise BundleError(f"{source} does not exist; convert the bundle to ONNX first")
    try:
        model = onnx.load(str(source), load_external_data=external_data)
    # protobuf's DecodeError is no public class of onnx, and onnx adds others.
    except Exception as error:
        raise BundleError(f"{source} is no readable ONNX model: {one_line(error)}") from None
    require_classifier(model, source)
    return model


def require_classifier(model: Any, source: object) -> None:
    """Refuse a model that has not one input and one output.

    Raises:
        BundleError: what it has instead; `source` names the model.
    """
    inputs, outputs = (
        [v.name for v in values] for values in (model.graph.input, model.graph.output)
    )
    if len(inputs) != 1 or len(outputs) != 1:
        raise BundleError(
            f"{source} is no image classifier: expected one input and one output, got inputs "
            f"{inputs} and outputs {outputs}"
        )


def output_kind(model: Any) -> str:
    """Tell what the output is, by the operator that makes it.

    Returns:
        `probabilities` after a softmax over the classes, `scores` after a sigmoid, else `logits`.
    """
    chain = output_chain(model)
    if not chain:
        return _OTHER_OUTPUT
    maker = chain[-1]
    if maker.op_type == "Softmax":
        rank = len(model.graph.output[0].type.tensor_type.shape.dim)
        default = -1 if opset(model) >= 13 else 1
        axis = next((a.i for a in maker.attribute if a.name == "axis"), default)
        if axis not in (-1, rank - 1):
            return _OTHER_OUTPUT
    return _OUTPUT_NAMES.get(maker.op_type, _OTHER_OUTPUT)


def output_chain(model: Any) -> list[Any]:
    """Return the operators from the output back to the one that computes it, that one last."""
    makers = {name: node for node in model.graph.node for name in node.output}
    chain, node = [], makers.get(model.graph.output[0].name)
    while node is not None:
        chain.append(node)
        if node.op_type not in _PASSING and not _is_neutral(node, makers):
            break
        node = makers.get(node.input[0])
    return chain


def _is_neutral(node: Any, makers: Mapping[str, Any]) -> bool:
    """Tell whether a node multiplies by a constant 1 or adds a constant 0.

    Paddle 2 puts such a scale behind the last operator of every exported model.
    """
    neutral = {"Mul": 1.0, "Add": 0.0}.get(node.op_type)
    if neutral is None:
        return False
    other = makers.get(node.input[1])
    while other is not None and other.op_type == "Identity":
        other = makers.get(other.input[0])
    if other is None or other.op_type != "Constant":
        return False
    onnx = import_library("onnx", "convert")
    value = onnx.numpy_helper.to_array(other.attribute[0].t)
    return bool(value.size and (value == neutral).all())


def opset(model: Any) -> int:
    """Return the version of ONNX's own operators that a model uses."""
    return next(int(item.version) for item in model.opset_import if item.domain in ("", "ai.onnx"))


def rename_tensor(graph: Any, old: str, new: str) -> None:
    """Rename a tensor wherever it stands, in subgraphs too; another of the new name moves away."""
    if old == new:
        return
    if new in _tensor_names(graph):
        rename_in(graph, new, f"{new}.inner")
    rename_in(graph, old, new)


def subgraphs_of(node: Any) -> list[Any]:
    """Return the graphs inside an operator, such as the two branches of an If."""
    # In ONNX's AttributeProto, type 5 is one graph and type 10 several.
    found = [attribute.g for attribute in node.attribute if attribute.type == 5]
    return found + [
        g for attribute in node.attribute if attribute.type == 10 for g in attribute.graphs
    ]


def tensors_used(nodes: Iterable[Any]) -> set[str]:
    """Return the names of all tensors that operators read, those inside them included."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for inner in subgraphs_of(node):
            names |= tensors_used(inner.node) | {value.name for value in inner.output}
    return names


def rename_in(graph: Any, old: str, new: str) -> None:
    """Rename a tensor wherever it stands in a graph and inside its operators."""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            if old in names:
                names[:] = [new if name == old else name for name in names]
        for inner in subgraphs_of(node):
            rename_in(inner, old, new)


def _tensor_names(graph: Any) -> set[str]:
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.output)
        names = names.union(*(_tensor_names(inner) for inner in subgraphs_of(node)))
    return names


def dims_of(value: Any) -> Dims:
    """Return an input's or output's dimensions: sizes, or names where they are dynamic."""
    return [
        int(dim.dim_value) if dim.HasField("dim_value") else str(dim.dim_param)
        for dim in value.type.tensor_type.shape.dim
    ]


def set_dims(value: Any, dims: Dims) -> None:
    """Set an input's or output's dimensions: sizes, or names where they are dynamic."""
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in dims:
        dim = shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size


def repair(model: Any) -> Any:
    """Mend what paddle2onnx 2.1.0 is known to write against ONNX's rules.

    It joins scalars, such as the parts of `reshape(x, [x.shape[0], -1])`, with a Concat, which
    takes vectors; each becomes a vector of one. Weights outside the inputs need IR version 4.
    """
    onnx = import_library("onnx", "convert")
    model.ir_version = max(model.ir_version, 4)
    inferred = onnx.shape_inference.infer_shapes(model).graph
    scalars = {
        value.name
        for value in inferred.value_info
        if value.type.tensor_type.HasField("shape") and not value.type.tensor_type.shape.dim
    }
    nodes, one = [], "hgdeploy.one"
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if node.op_type == "Concat" and name in scalars:
                node.input[i] = f"{node.output[0]}.part{i}"
                nodes.append(onnx.helper.make_node("Reshape", [name, one], [node.input[i]]))
        nodes.append(node)
    if len(nodes) > len(model.graph.node):
        kept = [type(node).FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        shape = onnx.numpy_helper.from_array(np.array([1], np.int64), one)
        model.graph.initializer.append(shape)
    return model


def infer_shapes(model: Any, source: object) -> Any:
    """Return the model with the shapes of its inner tensors inferred anew.

    Raises:
        BundleError: they contradict each other or the declared output.
    """
    onnx = import_library("onnx", "convert")
    del model.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise BundleError(
            f"{source}: its shapes do not fit each other: {one_line(error)}"
        ) from None


def fold(model: Any) -> tuple[Any, bool, str]:
    """Fold batch normalisation into convolutions, and constants, with onnxslim.

    Returns:
        The folded model, True, and what was done; or the model as it was, False, and the reason.
    """
    onnxslim = import_library("onnxslim", "convert")
    before, copy = len(model.graph.node), type(model)()
    copy.CopyFrom(model)
    name = f"onnxslim {installed_version('onnxslim')}"
    try:
        folded = onnxslim.slim(copy)
    # onnxslim fails on some graphs (Swin's) with whatever its code meets; the model runs unfolded.
    except Exception as error:
        return model, False, f"{name} cannot fold this graph: {one_line(error)}"
    left = _foldable_batch_norms(folded.graph)
    told = f"{name}: {before} nodes became {len(folded.graph.node)}"
    if left:
        return folded, False, f"{told}; {left} BatchNormalization stayed after a Conv"
    return folded, True, told


def _foldable_batch_norms(graph: Any) -> int:
    """Count the batch normalisations that alone follow a convolution."""
    makers = {name: node.op_type for node in graph.node for name in node.output}
    uses = [name for node in graph.node for name in node.input]
    norms = [node.input[0] for node in graph.node if node.op_type == "BatchNormalization"]
    return sum(makers.get(name) == "Conv" and uses.count(name) == 1 for name in norms)


def check_model(model: Any, source: object, *, full: bool = True) -> None:
    """Check an ONNX model by the standard's rules.

    Args:
        model: the model, or the path of its file where its weights lie in another one.
        source: what it was made from, for the error.
        full: check the shapes of all tensors too.

    Raises:
        BundleError: it breaks a rule.
    """
    onnx = import_library("onnx", "convert")
    try:
        onnx.checker.check_model(model, full_check=full)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise BundleError(f"{source} became an invalid ONNX model: {one_line(error)}") from None


def check_weights(model: Any, source: object) -> None:
    """Refuse weights that are NaN or have 16 bits.

    Raises:
        BundleError: which tensor it is.
    """
    onnx = import_library("onnx", "convert")
    values = [attribute.t for node in model.graph.node for attribute in node.attribute]
    for tensor in (*model.graph.initializer, *values):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            continue  # checked by what wrote them
        if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
            raise BundleError(f"{source} holds 16-bit weights; export the model in fp32")
        if (
            tensor.data_type == onnx.TensorProto.FLOAT
            and np.isnan(onnx.numpy_helper.to_array(tensor)).any()
        ):
            raise BundleError(f"{source} has weights that are NaN ({tensor.name})")
