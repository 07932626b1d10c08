# SPDX-License-Identifier: Apache-2.0
"""A Paddle program's operators, in one form for both formats: PIR (`.json`) and ProgramDesc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from hgdeploy.bundle.paddle_program import read_program_json
from hgdeploy.system.libraries import import_library

# Paddle 2's names of operators and attributes where Paddle 3 has another.
_NEW_NAMES = {
    "batch_norm": "batch_norm_",
    "elementwise_add": "add",
    "elementwise_div": "divide",
    "elementwise_mul": "multiply",
    "elementwise_sub": "subtract",
    "flatten_contiguous_range": "flatten",
    "hard_sigmoid": "hardsigmoid",
    "hard_swish": "hardswish",
    "matmul_v2": "matmul",
    "reduce_mean": "mean",
    "reshape2": "reshape",
    "squeeze2": "squeeze",
    "transpose2": "transpose",
    "unsqueeze2": "unsqueeze",
}
_NEW_ATTRIBUTES = {
    "mean": {"dim": "axis", "keep_dim": "keepdim"},
    "pool2d": {"ksize": "kernel_size"},
    "squeeze": {"axes": "axis"},
    "transpose": {"axis": "perm"},
    "unsqueeze": {"axes": "axis"},
}
# What Paddle 3 gives as inputs, which are constants as a rule, and Paddle 2 as attributes.
_INPUTS = {
    "concat": {1: "axis"},
    "mean": {1: "axis"},
    "pool2d": {1: "kernel_size"},
    "reshape": {1: "shape"},
    "split": {1: "sections", 2: "axis"},
    "split_with_num": {1: "axis"},
    "squeeze": {1: "axis"},
    "unsqueeze": {1: "axis"},
}
# Paddle 2's inputs that hold what an operator works on; its others are weights or settings.
_DATA = ("X", "Input", "Y")
_NAMES = ("name", "type")
# Types of attributes that are a block of operators, or several.
_BLOCKS = (8, 10)


class Value(NamedTuple):
    """A tensor in a program, or a list of them.

    Attributes:
        name: what the program calls it.
        shape: its declared shape, -1 where a size is open; empty for a list.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """One operator.

    Attributes:
        kind: its name in Paddle 3, such as `conv2d`.
        inputs: what it works on, then its weights.
        outputs: what it makes; the first is its result.
        attributes: its settings.
        nested: it runs operators of its own, which are not listed.
    """

    kind: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    attributes: dict[str, Any]
    nested: bool = False


def read_operators(program: Path) -> list[Operator]:
    """Return the operators in the order in which they run; `data` is an input of the program.

    Raises:
        ValueError, LookupError, TypeError: the file is no Paddle program.
    """
    return list(_of_json(program) if program.suffix == ".json" else _of_protobuf(program))


def _of_json(program: Path) -> Iterator[Operator]:
    content: Any = read_program_json(program)
    values: dict[int, Value] = {}
    constants: dict[str, Any] = {}
    for op in content["program"]["regions"][0]["blocks"][0]["ops"]:
        kind = op["#"].rpartition(".")[2]
        listed = op["O"] if isinstance(op["O"], list) else [op["O"]]
        outputs = tuple(_value(output) for output in listed)
        values |= {output["%"]: value for output, value in zip(listed, outputs, strict=True)}
        if kind == "p":
            continue
        attributes = {item["N"]: _plain(item["AT"]) for item in op["A"]}
        if kind in ("full", "full_int_array"):
            constants[outputs[0].name] = attributes["value"]
        # Operand 0 stands for none.
        inputs = [values[operand["%"]] for operand in op["I"] if operand["%"]]
        for place, name in _INPUTS.get(kind, {}).items():
            if place < len(inputs) and inputs[place].name in constants:
                attributes[name] = constants[inputs[place].name]
        yield Operator(kind, tuple(inputs), outputs, attributes, "regions" in op)


def _value(output: dict[str, Any]) -> Value:
    tensor = output.get("TT") or {}
    shape = tensor["D"][1] if tensor.get("#", "").endswith("t_dtensor") else ()
    return Value(str(output["%"]), tuple(shape))


def _plain(attribute: Any) -> Any:
    if not isinstance(attribute, dict):
        return attribute
    held = attribute.get("D")
    return [_plain(item) for item in held] if isinstance(held, list) else held


def _of_protobuf(program: Path) -> Iterator[Operator]:
    import_library("paddle", "cpu")
    from paddle.base.proto import framework_pb2

    described = framework_pb2.ProgramDesc()
    described.ParseFromString(program.read_bytes())
    block = described.blocks[0]
    shapes = {}
    for variable in block.vars:
        # The field's name differs between Paddle 2 (lod_tensor) and 3 (dense_tensor).
        tensor = next((value for _, value in variable.type.ListFields()[1:]), None)
        dims = getattr(getattr(tensor, "tensor", None), "dims", ())
        shapes[variable.name] = Value(variable.name, tuple(dims))
    for op in block.ops:
        kind = "data" if op.type == "feed" else _NEW_NAMES.get(op.type, op.type)
        renamed = _NEW_ATTRIBUTES.get(kind, {})
        attributes = {renamed.get(item.name, item.name): _setting(item) for item in op.attrs}
        # A setting that is a tensor is not known before the program runs.
        settings = {item.parameter for item in op.inputs if item.arguments} - {*_DATA, "Filter"}
        if any(name.endswith(("Tensor", "TensorList")) or name == "Shape" for name in settings):
            attributes = {}
        ordered = sorted(op.inputs, key=lambda item: item.parameter not in _DATA)
        inputs = [name for item in ordered for name in item.arguments]
        results = sorted(op.outputs, key=lambda item: item.parameter not in ("Out", "Output", "Y"))
        outputs = [name for item in results for name in item.arguments]
        yield Operator(
            kind,
            tuple(shapes[name] for name in inputs),
            tuple(shapes[name] for name in outputs),
            attributes,
            any(item.type in _BLOCKS for item in op.attrs),
        )


def _setting(attribute: Any) -> Any:
    """Return an attribute's value: the field after its name and type; empty lists have none."""
    fields = (value for field, value in attribute.ListFields() if field.name not in _NAMES)
    value: Any = next(fields, 0)
    single = isinstance(value, bool | int | float | str | bytes)
    return value if single else list(value)
