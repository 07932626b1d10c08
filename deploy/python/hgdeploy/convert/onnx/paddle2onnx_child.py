# SPDX-License-Identifier: Apache-2.0
"""Run paddle2onnx, in a process of its own; see `paddle2onnx_process`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hgdeploy.errors import EngineError
from hgdeploy.system.libraries import import_library

EXIT_NOT_INSTALLED = 3


def main(argv: Sequence[str]) -> int:
    """Convert one model: MODEL PARAMS OPSET exact|raise TARGET.

    Returns:
        0 when `TARGET` is written, `EXIT_NOT_INSTALLED` where paddle2onnx does not import.
    """
    model, params, opset, how, target = argv
    try:
        paddle2onnx = import_library("paddle2onnx", "convert")
    except EngineError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_NOT_INSTALLED
    # Any other optimize_tool changes or fails the result, and the default one installs packages.
    data = paddle2onnx.export(
        model,
        params,
        opset_version=int(opset),
        auto_upgrade_opset=how == "raise",
        optimize_tool="None",
    )
    Path(target).write_bytes(data or b"")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
