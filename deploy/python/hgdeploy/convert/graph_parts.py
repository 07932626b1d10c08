# SPDX-License-Identifier: Apache-2.0
"""Operators of an ONNX graph, the graphs inside them, inputs, outputs and weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import BundleError
from hgdeploy.system.libraries import import_library

Dims = list[int | str]
"""Dimensions of an input or output: sizes, or names where they are dynamic."""


def dims_of(value: Any) -> Dims:
    """Return an input's or output's dimensions."""
    return [
        int(dim.dim_value) if dim.HasField("dim_value") else str(dim.dim_param)
        for dim in value.type.tensor_type.shape.dim
    ]


def require_pixels(spec: TensorSpec, source: Path, what: str) -> None:
    """Refuse a model that takes neither normalised pixels nor bytes that it normalises itself.

    Args:
        spec: its input.
        source: its file, for the error.
        what: what is to be done with it, such as `quantized`.

    Raises:
        BundleError: the type, and what to do.
    """
    if spec.dtype not in ("float32", "uint8"):
        raise BundleError(
            f"{source} takes {spec.dtype}, and only a model that takes float32 or uint8 can be "
            f"{what}; export it with a float32 input"
        )


def set_dims(value: Any, dims: Dims) -> None:
    """Set an input's or output's dimensions."""
    shape = value.type.tensor_type.shape
    del shape.dim[:]
    for size in dims:
        dim = shape.dim.add()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size


def describe(value: Any) -> dict[str, Any]:
    """Return how a sidecar describes an input or output; -1 stands for dynamic."""
    onnx = import_library("onnx", "convert")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [size if isinstance(size, int) else -1 for size in dims_of(value)]
    return {"name": value.name, "dtype": str(dtype), "shape": shape}


def specs_of(values: Iterable[Any]) -> list[TensorSpec]:
    """Return inputs or outputs as an engine describes them."""
    described = map(describe, values)
    return [TensorSpec(d["name"], d["dtype"], tuple(d["shape"])) for d in described]


def subgraphs_of(node: Any) -> list[Any]:
    """Return the graphs inside an operator, such as the two branches of an If."""
    # In ONNX's AttributeProto, type 5 is one graph and type 10 several.
    found = [attribute.g for attribute in node.attribute if attribute.type == 5]
    return found + [
        g for attribute in node.attribute if attribute.type == 10 for g in attribute.graphs
    ]


def tensors_used(nodes: Iterable[Any]) -> set[str]:
    """Return the names of all tensors that operators read, also in the graphs inside them."""
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for inner in subgraphs_of(node):
            names |= tensors_used(inner.node) | {value.name for value in inner.output}
    return names


def tensor_names(graph: Any) -> set[str]:
    """Return the names of all tensors of a graph and of the graphs inside its operators."""
    names = {value.name for value in (*graph.input, *graph.output, *graph.initializer)}
    for node in graph.node:
        names.update(node.output)
        names = names.union(*(tensor_names(inner) for inner in subgraphs_of(node)))
    return names


def constants_in(graph: Any) -> Iterator[Any]:
    """Yield the weights and constants of a graph and of the graphs inside its operators."""
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute)
        for inner in subgraphs_of(node):
            yield from constants_in(inner)


def rename_in(graph: Any, old: str, new: str) -> None:
    """Rename a tensor everywhere in a graph and in the graphs inside its operators."""
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        if value.name == old:
            value.name = new
    for node in graph.node:
        for names in (node.input, node.output):
            if old in names:
                names[:] = [new if name == old else name for name in names]
        for inner in subgraphs_of(node):
            rename_in(inner, old, new)


def replace_items(field: Any, items: Iterable[Any]) -> None:
    """Replace the items of a repeated protobuf field; `items` may contain old ones."""
    copies = [type(item).FromString(item.SerializeToString()) for item in items]
    del field[:]
    field.extend(copies)
