# SPDX-License-Identifier: Apache-2.0
"""Read a Paddle program's inputs and outputs from its file, in both formats.

Paddle's predictor has the names of tensors but not their declared shapes, so they are read from the
program: `.json` is PIR (Paddle 3), anything else a ProgramDesc protobuf (Paddle 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.bundle.paddle_program import read_program_json
from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import BundleError
from hgdeploy.system.libraries import import_library

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
    try:
        if model.suffix == ".json":
            specs = _pir_specs(read_program_json(model))
        else:
            specs = _protobuf_specs(model.read_bytes())
    except _DAMAGE as error:
        raise BundleError(
            f"{model} is not a readable Paddle program ({type(error).__name__}); "
            "export or copy it again"
        ) from error
    if not specs.inputs or not specs.outputs:
        raise BundleError(f"{model} declares no inputs or no outputs; export it again")
    return specs


def _pir_specs(program: Any) -> ProgramSpecs:
    inputs: list[TensorSpec] = []
    outputs: list[TensorSpec] = []
    for op in program["program"]["regions"][0]["blocks"][0]["ops"]:
        if op["#"] not in ("1.data", "1.fetch"):
            continue
        (name,) = (a["AT"]["D"] for a in op["A"] if a["N"] == "name")
        dtype, shape = op["O"][0]["TT"]["D"][:2]
        spec = TensorSpec(name, _PIR_DTYPES[dtype["#"].rpartition("_")[2]], tuple(shape))
        if not isinstance(name, str) or not all(type(size) is int for size in spec.shape):
            raise TypeError("a name that is no text, or a size that is no number")
        (inputs if op["#"] == "1.data" else outputs).append(spec)
    return ProgramSpecs(tuple(inputs), tuple(outputs))


def _protobuf_specs(data: bytes) -> ProgramSpecs:
    import_library("paddle", "cpu")
    from google.protobuf.message import DecodeError
    from paddle.base.proto import framework_pb2

    program = framework_pb2.ProgramDesc()
    try:
        program.ParseFromString(data)
    except DecodeError as error:
        raise ValueError(str(error)) from error
    block = program.blocks[0]
    variables = {variable.name: variable.type for variable in block.vars}
    dense = framework_pb2.VarType.DESCRIPTOR.fields_by_number[_DENSE_TENSOR_FIELD].name

    def spec(name: str) -> TensorSpec:
        tensor = getattr(variables[name], dense).tensor
        return TensorSpec(name, _PROTO_DTYPES[tensor.data_type], tuple(tensor.dims))

    def position(op: Any) -> int:
        return int(next(a.i for a in op.attrs if a.name == "col"))

    feeds = sorted((op for op in block.ops if op.type == "feed"), key=position)
    fetches = sorted((op for op in block.ops if op.type == "fetch"), key=position)
    return ProgramSpecs(
        tuple(spec(op.outputs[0].arguments[0]) for op in feeds),
        tuple(spec(op.inputs[0].arguments[0]) for op in fetches),
    )
