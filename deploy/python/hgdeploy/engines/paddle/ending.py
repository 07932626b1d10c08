# SPDX-License-Identifier: Apache-2.0
"""Read from a Paddle program how it ends; see `engines.ending`."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

from hgdeploy.engines.ending import Ending, Step, ending_of, normalises_classes
from hgdeploy.engines.paddle.program import dense_tensor, read_program


def read_program_ending(model: Path, output: str) -> Ending | None:
    """Return the activations at the end of a program, at one of its outputs; see `ending_of`.

    Raises:
        BundleError: the file is empty, damaged, or not a Paddle program.
    """
    return read_program(
        model,
        lambda ops: _pir_ending(ops, output),
        lambda block: _protobuf_ending(block, output),
    )


def _pir_ending(ops: list[dict[str, Any]], output: str) -> Ending | None:
    # Parameters have a form of their own, and nothing stands before them.
    makers = {result["%"]: op for op in ops if op["#"] != "p" for result in op["O"]}

    def attribute(op: dict[str, Any], name: str, default: Any = None) -> Any:
        return next((a["AT"]["D"] for a in op["A"] if a["N"] == name), default)

    def step_to(tensor: Hashable) -> Step | None:
        op = makers.get(tensor)
        if op is None or not op["I"]:
            return None
        name = op["#"].rpartition(".")[2].rstrip("_")
        over = name != "softmax" or normalises_classes(
            attribute(op, "axis", -1), op["O"][0]["TT"]["D"][1]
        )
        return Step(name, op["I"][0]["%"], over)

    fetches = [op for op in ops if op["#"] == "1.fetch" and attribute(op, "name") == output]
    return ending_of(fetches[0]["I"][0]["%"], step_to)


def _protobuf_ending(block: Any, output: str) -> Ending | None:
    makers = {name: op for op in block.ops for out in op.outputs for name in out.arguments}
    variables = {variable.name: variable for variable in block.vars}

    def step_to(tensor: Hashable) -> Step | None:
        op = makers.get(str(tensor))
        inputs = {i.parameter: i.arguments for i in op.inputs} if op is not None else {}
        if op is None or not inputs.get("X"):
            return None
        attributes = {a.name: a for a in op.attrs}
        name, over = op.type, True
        if name == "scale" and attributes["scale"].f == 1 and attributes["bias"].f == 0:
            name = "identity"
        elif name == "softmax":
            axis = attributes["axis"].i if "axis" in attributes else -1
            shape = tuple(dense_tensor(variables[op.outputs[0].arguments[0]]).dims)
            over = normalises_classes(axis, shape)
        return Step(name, inputs["X"][0], over)

    return ending_of(output, step_to)
