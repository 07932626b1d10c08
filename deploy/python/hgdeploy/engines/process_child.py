# SPDX-License-Identifier: Apache-2.0
"""The process that runs one inference at a time for `hgdeploy.engines.processes`."""

from __future__ import annotations

import dataclasses
import importlib
from pathlib import Path

from hgdeploy.engines.base import Engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError
from hgdeploy.system.messages import Message, serve


class _Predicting:
    """Answers the requests: `load` names the model, and each `infer` brings its feeds."""

    engine: Engine | None = None

    def load(self, request: Message) -> Message:
        if self.engine is not None:
            self.engine.close()
        wanted = request.values
        own = tuple(
            getattr(importlib.import_module(module), kind)(**fields)
            for module, kind, fields in wanted["own"]
        )
        options = EngineOptions(**{**wanted["options"], "own": own})
        library = importlib.import_module(f"hgdeploy.engines.{wanted['engine']}")
        self.engine = engine = library.load_here(Path(wanted["source"]), options)
        return Message(
            {
                "inputs": [dataclasses.astuple(spec) for spec in engine.inputs],
                "outputs": [dataclasses.astuple(spec) for spec in engine.outputs],
                "runtime": dataclasses.asdict(engine.runtime),
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
