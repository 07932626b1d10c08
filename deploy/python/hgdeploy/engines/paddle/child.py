# SPDX-License-Identifier: Apache-2.0
"""The process that holds one Paddle predictor for `hgdeploy.engines.paddle.processes`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hgdeploy.engines.base import Engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle import engine as paddle
from hgdeploy.errors import packed
from hgdeploy.system.processes import Message, Parent


def main() -> None:
    """Load the model that the first message names, then infer on each of the others."""
    parent = Parent()
    request = parent.receive()
    if request is None:
        return
    options = EngineOptions(**request.values["options"])
    try:
        engine = paddle.load(Path(request.values["source"]), options)
    except Exception as error:  # raised again in the parent
        parent.answer(Message({"error": packed(error)}))
        return
    parent.answer(
        Message(
            {
                "inputs": [dataclasses.astuple(spec) for spec in engine.inputs],
                "outputs": [dataclasses.astuple(spec) for spec in engine.outputs],
                "runtime": dataclasses.asdict(engine.runtime),
            }
        )
    )
    while (request := parent.receive()) is not None:
        parent.answer(_answer(engine, request))


def _answer(engine: Engine, request: Message) -> Message:
    try:
        return Message({}, engine.infer(request.arrays))
    except Exception as error:  # raised again in the parent
        return Message({"error": packed(error)})


if __name__ == "__main__":
    main()
