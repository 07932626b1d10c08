# SPDX-License-Identifier: Apache-2.0
"""Read from a Paddle program how it ends; see `engines.ending`."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path

from hgdeploy.engines.ending import Ending, Step, ending_of, normalises_classes
from hgdeploy.engines.paddle.operators import read_operators
from hgdeploy.errors import BundleError


def read_program_ending(model: Path, output: str) -> Ending | None:
    """Return the activations at the end of a program, at one of its outputs; see `ending_of`.

    Raises:
        BundleError: the file is damaged, or not a Paddle program with this output.
    """
    try:
        operators = read_operators(model)
        # PIR's fetch has a name of its own; Paddle 2's is that of the tensor it reads.
        (fetched,) = (
            op.inputs[0].name
            for op in operators
            if op.kind == "fetch" and output in (op.attributes.get("name"), op.inputs[0].name)
        )
    except (ValueError, LookupError, TypeError) as error:
        raise BundleError(
            f"{model} is not a readable Paddle program ({type(error).__name__}); "
            "export or copy it again"
        ) from error
    makers = {value.name: op for op in operators for value in op.outputs}

    def step_to(tensor: Hashable) -> Step | None:
        op = makers.get(str(tensor))
        if op is None or not op.inputs:
            return None
        kind = op.kind.rstrip("_")
        if kind == "scale" and (op.attributes.get("scale"), op.attributes.get("bias")) == (1, 0):
            kind = "identity"
        axis, shape = op.attributes.get("axis", -1), op.outputs[0].shape
        over = kind != "softmax" or normalises_classes(axis, shape)
        read = [value.name for value in op.inputs]
        joined = makers.get(read[0])
        if joined is not None and joined.kind == "combine":  # the tensors that PIR's concat joins
            read = [value.name for value in joined.inputs]
        return Step(kind, read[0], over, tuple(read[1:]))

    return ending_of(fetched, step_to)
