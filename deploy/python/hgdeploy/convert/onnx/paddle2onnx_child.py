# SPDX-License-Identifier: Apache-2.0
"""Run paddle2onnx in a process of its own; see `paddle2onnx_process`."""

from __future__ import annotations

import os
import traceback
import warnings
from pathlib import Path

from hgdeploy.system.libraries import import_library
from hgdeploy.system.messages import Message, serve


def convert(request: Message) -> Message:
    """Convert one model; where paddle2onnx fails, print why.

    Args:
        request: `model`, `params` (empty for none), `opset`, whether that is `exact`, and `target`.

    Returns:
        `converted`: True if `target` was written, which may still be empty.

    Raises:
        EngineError: paddle2onnx does not import.
    """
    warnings.simplefilter("ignore")
    os.environ["TMPDIR"] = str(Path.cwd())  # it leaves temporary files when it dies
    paddle2onnx = import_library("paddle2onnx", "convert")
    wanted = request.values
    try:
        # Another optimize_tool changes or fails the result, and the default one installs packages.
        data = paddle2onnx.export(
            wanted["model"],
            wanted["params"],
            opset_version=wanted["opset"],
            auto_upgrade_opset=not wanted["exact"],
            optimize_tool="None",
        )
        Path(wanted["target"]).write_bytes(data or b"")
    except Exception:
        traceback.print_exc()  # with what its C++ has printed; the parent finds the reason there
        return Message({"converted": False})
    return Message({"converted": True})


if __name__ == "__main__":
    serve({"convert": convert})
