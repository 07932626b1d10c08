# SPDX-License-Identifier: Apache-2.0
"""The process that runs one Paddle predictor for `hgdeploy.engines.paddle.processes`."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from hgdeploy.engines.base import Engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle import engine as paddle
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import EngineError
from hgdeploy.system.messages import Message, serve


class _Predicting:
    """Answers the requests: `load` names the model, and each `infer` brings its feeds."""

    engine: Engine | None = None

    def load(self, request: Message) -> Message:
        if self.engine is not None:
            self.engine.close()
        own = PaddleOptions(**request.values["own"])
        options = EngineOptions(**{**request.values["options"], "own": (own,)})
        self.engine = paddle.load_here(Path(request.values["source"]), options)
        return Message(
            {
                "inputs": [dataclasses.astuple(spec) for spec in self.engine.inputs],
                "outputs": [dataclasses.astuple(spec) for spec in self.engine.outputs],
                "runtime": dataclasses.asdict(self.engine.runtime),
            }
        )

    def infer(self, request: Message) -> Message:
        if self.engine is None:
            raise EngineError("nothing is loaded")
        return Message({}, self.engine.infer(request.arrays))


def main() -> None:
    """Load the model that a request names, and run it on the feeds of those that follow."""
    predicting = _Predicting()
    serve({"load": predicting.load, "infer": predicting.infer})


if __name__ == "__main__":
    main()
