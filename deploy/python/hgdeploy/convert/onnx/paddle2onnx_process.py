# SPDX-License-Identifier: Apache-2.0
"""Run paddle2onnx where it can do no harm.

paddle2onnx 2.1.0 ends the process on some models (an opset it does not know, truncated
parameters), swallows other errors and hands back nothing or an invalid model, prints to the
terminal from C++, leaves Paddle in another mode, and keeps temporary files when it dies. So it runs
in a child process, and what it leaves is judged here.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from hgdeploy.convert.onnx.paddle2onnx_child import EXIT_NOT_INSTALLED
from hgdeploy.errors import BundleError, EngineError
from hgdeploy.system.libraries import installed_version

# Far above the seconds that hundreds of megabytes take; a bound for what hangs.
_TIME_LIMIT_S = 900
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run_paddle2onnx(
    model: Path, params: Path | None, opset: int, folder: Path, *, exact_opset: bool = False
) -> Path:
    """Convert a Paddle model with paddle2onnx, unoptimised.

    Args:
        model: the program, `.json` or `.pdmodel`.
        params: its parameters, under the same stem in the same folder; None leaves them out, and
            their names stand for them in the graph.
        opset: the ONNX opset, 7 to 21.
        folder: an empty folder for the result and all temporary files.
        exact_opset: fail where the model needs a higher opset, instead of raising it.

    Returns:
        Path of the ONNX file in `folder`; it is not empty, and not checked.

    Raises:
        EngineError: paddle2onnx is not installed.
        BundleError: paddle2onnx cannot convert the model.
    """
    if installed_version("paddle2onnx") is None:
        raise EngineError(_not_installed("it is not installed"))
    target = folder / "paddle2onnx.onnx"
    scratch = folder / "scratch"
    scratch.mkdir()
    how = "exact" if exact_opset else "raise"
    weights = str(params.absolute()) if params is not None else ""
    command = [sys.executable, "-W", "ignore", "-m", "hgdeploy.convert.onnx.paddle2onnx_child"]
    command += [str(model.absolute()), weights, str(opset), how]
    package = str(Path(__file__).parents[3])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [*command, str(target.absolute())],
            # An empty folder: a module of the user's there must not hide a library.
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": path, "TMPDIR": str(scratch.absolute())},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIME_LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise BundleError(f"paddle2onnx did not convert {model} in {_TIME_LIMIT_S} s") from None
    told = _told(done.stdout.decode("utf-8", errors="replace"))
    if done.returncode == EXIT_NOT_INSTALLED:
        raise EngineError(_not_installed(told))
    if done.returncode == 0 and target.is_file() and target.stat().st_size:
        return target
    hint = "check that it and its .pdiparams come from one export and are complete"
    if "opset" in told:
        hint = f"ask for a higher opset than {opset}, or let it be raised"
    raise BundleError(f"paddle2onnx cannot convert {model}: {told}; {hint}")


def _not_installed(reason: str) -> str:
    return (
        f"conversion needs paddle2onnx, which does not import here ({reason}); "
        "pip install 'hgdeploy[convert]', with Python 3.10 or 3.11"
    )


def _told(log: str) -> str:
    """The part of paddle2onnx's output that says what is wrong, on one line."""
    lines = [line.strip() for line in _COLOURS.sub("", log).splitlines() if line.strip()]
    marked = [line for line in lines if re.search(r"\[ERROR\]|Error: |\[Hint", line)]
    marked = [line for line in marked if not line.startswith("FatalError")] or marked
    told = " ".join(marked or lines[-1:]) or "it ended without a word"
    return re.sub(r"^\S+ \S+ \[ERROR\]\s*|\[Paddle2ONNX\] |\[ERROR\] ?", "", told)[:400]
