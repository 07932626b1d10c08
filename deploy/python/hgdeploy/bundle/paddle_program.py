# SPDX-License-Identifier: Apache-2.0
"""The parameters that a Paddle program declares, read without Paddle and in both its formats.

`.json` is PIR (Paddle 3), anything else a ProgramDesc protobuf (Paddle 2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.bundle.protobuf import Message
from hgdeploy.errors import BundleError
from hgdeploy.system.documents import read_json

# The numbers of fields and types in Paddle 2's framework.proto.
_BLOCK, _VARIABLE = 1, 3  # of ProgramDesc, of BlockDesc
_NAME, _TYPE, _PERSISTABLE = 1, 2, 3  # of VarDesc
_KIND, _TENSOR, _DESCRIPTION = 1, 3, 1  # of VarType, of its dense tensor
_DTYPE, _DIMS = 1, 2  # of TensorDesc
_DENSE_TENSOR = 7  # what a parameter is, among the kinds of variables

# VarType's numbers of floating-point types, by PIR's names; parameters have no other type that
# matters here.
FLOATS = {"f16": 4, "f32": 5, "f64": 6, "bf16": 22}

_DAMAGED = (ValueError, LookupError, TypeError, AttributeError, StopIteration)


@dataclass(frozen=True)
class DeclaredParam:
    """A parameter as its program declares it.

    Attributes:
        name: its name.
        dtype: element type, a number of VarType.Type, -1 where a `.json` has another than a float.
        shape: its dimensions.
    """

    name: str
    dtype: int
    shape: tuple[int, ...]


_kept: ContextVar[dict[Path, Any] | None] = ContextVar("_kept", default=None)


@contextlib.contextmanager
def reading_once() -> Iterator[None]:
    """Have what is read of `.json` programs kept until this ends: loading reads several things.

    It is not kept for longer, since it takes ten times the memory of the file.
    """
    if _kept.get() is not None:
        yield
        return
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def read_program_json(program: Path) -> Any:
    """Return what a `.json` program holds, which must not be changed; raises as `read_json`."""
    kept = _kept.get()
    if kept is None:
        return read_json(program)
    if program not in kept:
        kept[program] = read_json(program)
    return kept[program]


def declared_params(program: Path) -> list[DeclaredParam]:
    """Return the parameters of a program in the order of their names, as Paddle stores them.

    Raises:
        BundleError: the file cannot be read, or is no Paddle program.
    """
    try:
        found = _of_json(program) if program.suffix == ".json" else _of_protobuf(program)
    except OSError as error:
        raise BundleError(f"cannot read {program}: {error.strerror or error}") from None
    except _DAMAGED as error:
        raise BundleError(
            f"{program} is not a readable Paddle program ({type(error).__name__}); "
            "export or copy it again"
        ) from None
    return sorted(found, key=lambda parameter: parameter.name.encode())


def _of_json(program: Path) -> list[DeclaredParam]:
    content: Any = read_program_json(program)
    found = []
    for operator in content["program"]["regions"][0]["blocks"][0]["ops"]:
        if operator["#"] == "p":
            kind, shape = operator["O"]["TT"]["D"][:2]
            dtype = FLOATS.get(kind["#"].rpartition("_")[2], -1)
            name = str(operator["A"][-1])
            found.append(DeclaredParam(name, dtype, tuple(int(size) for size in shape)))
    return found


def _of_protobuf(program: Path) -> list[DeclaredParam]:
    with program.open("rb") as file:
        block = next(Message.whole(file).parts(_BLOCK))
        found = []
        for part in block.parts(_VARIABLE):
            variable = dict(part.fields())
            name, kind = variable[_NAME], variable[_TYPE]
            if not (isinstance(name, Message) and isinstance(kind, Message)):
                raise ValueError("a variable has no name or type")
            if variable.get(_PERSISTABLE) and _DENSE_TENSOR in kind.numbers(_KIND):
                tensor = next(next(kind.parts(_TENSOR)).parts(_DESCRIPTION))
                dtype = next(tensor.numbers(_DTYPE))
                shape = tuple(_signed(size) for size in tensor.numbers(_DIMS))
                found.append(DeclaredParam(name.text(), dtype, shape))
        return found


def _signed(number: int) -> int:
    """Return an int64, which protobuf keeps in two's complement."""
    return number - (1 << 64) if number >> 63 else number
