# SPDX-License-Identifier: Apache-2.0
"""Read a Paddle program's inputs and outputs from its file, in both formats.

Paddle's predictor has the names of tensors but not their declared shapes, so they are read from the
program: `.json` is PIR (Paddle 3), anything else a ProgramDesc protobuf (Paddle 2).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import BundleError
from hgdeploy.system.documents import read_json
from hgdeploy.system.libraries import import_library

Read = TypeVar("Read")

# PIR's names of element types, after the dialect prefix "0.t_".
_PIR_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "f64": "float64",
    "i64": "int64",
    "i32": "int32",
    "ui8": "uint8",
    "i8": "int8",
    "bool": "bool",
}
# What Python says where a part of a program is missing or something else than it should be.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError)
# framework.proto's VarType.Type; the numbers are part of the file format.
_PROTO_DTYPES = {
    0: "bool",
    2: "int32",
    3: "int64",
    4: "float16",
    5: "float32",
    6: "float64",
    20: "uint8",
    21: "int8",
    22: "bfloat16",
}
# VarType's field that holds a dense tensor's description; its name differs between Paddle 2
# (lod_tensor) and Paddle 3 (dense_tensor), its number does not.
_DENSE_TENSOR_FIELD = 3


@dataclass(frozen=True)
class ProgramSpecs:
    """A Paddle program's inputs and outputs, in the predictor's order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def read_program_specs(model: Path) -> ProgramSpecs:
    """Read the inputs and outputs of `model` (`.json` or `.pdmodel`).

    Raises:
        BundleError: the file is empty, damaged, or not a Paddle program.
    """
    specs = read_program(model, _pir_specs, _protobuf_specs)
    if not specs.inputs or not specs.outputs:
        raise BundleError(f"{model} declares no inputs or no outputs; export it again")
    return specs


def read_program(model: Path, pir: Callable[[Any], Read], protobuf: Callable[[Any], Read]) -> Read:
    """Read something from a program in either format.

    Args:
        model: `.json` or `.pdmodel`.
        pir: reads it from PIR's list of operators.
        protobuf: reads it from the ProgramDesc's first block.

    Raises:
        BundleError: the file is empty, damaged, or not a Paddle program.
    """
    try:
        if model.suffix == ".json":
            return pir(read_json(model)["program"]["regions"][0]["blocks"][0]["ops"])
        return protobuf(_protobuf_block(model.read_bytes()))
    except _DAMAGE as error:
        raise BundleError(
            f"{model} is not a readable Paddle program ({type(error).__name__}); "
            "export or copy it again"
        ) from error


def _pir_specs(ops: list[dict[str, Any]]) -> ProgramSpecs:
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for op in ops:
        if op["#"] not in ("1.data", "1.fetch"):
            continue
        (name,) = (a["AT"]["D"] for a in op["A"] if a["N"] == "name")
        dtype, shape = op["O"][0]["TT"]["D"][:2]
        spec = TensorSpec(name, _PIR_DTYPES[dtype["#"].rpartition("_")[2]], tuple(shape))
        if not isinstance(name, str) or not all(type(size) is int for size in spec.shape):
            raise TypeError("a name that is no text, or a size that is no number")
        (inputs if op["#"] == "1.data" else outputs).append(spec)
    return ProgramSpecs(tuple(inputs), tuple(outputs))


def _protobuf_block(data: bytes) -> Any:
    import_library("paddle", "cpu")
    from google.protobuf.message import DecodeError
    from paddle.base.proto import framework_pb2

    program = framework_pb2.ProgramDesc()
    try:
        program.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    return program.blocks[0]


def dense_tensor(variable: Any) -> Any:
    """Return the type and dims of a variable of a ProgramDesc."""
    kind = variable.type
    name = kind.DESCRIPTOR.fields_by_number[_DENSE_TENSOR_FIELD].name
    return getattr(kind, name).tensor


def _protobuf_specs(block: Any) -> ProgramSpecs:
    variables = {variable.name: variable for variable in block.vars}

    def spec(name: str) -> TensorSpec:
        tensor = dense_tensor(variables[name])
        return TensorSpec(name, _PROTO_DTYPES[tensor.data_type], tuple(tensor.dims))

    def position(op: Any) -> int:
        return int(next(a.i for a in op.attrs if a.name == "col"))

    feeds = sorted((op for op in block.ops if op.type == "feed"), key=position)
    fetches = sorted((op for op in block.ops if op.type == "fetch"), key=position)
    return ProgramSpecs(
        tuple(spec(op.outputs[0].arguments[0]) for op in feeds),
        tuple(spec(op.inputs[0].arguments[0]) for op in fetches),
    )
