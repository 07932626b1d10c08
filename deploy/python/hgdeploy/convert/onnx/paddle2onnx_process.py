# SPDX-License-Identifier: Apache-2.0
"""Run paddle2onnx where it can do no harm.

paddle2onnx 2.1.0 ends the process on some models (an opset it does not know, truncated
parameters), swallows other errors and returns nothing or an invalid model, prints to the terminal
from C++, leaves Paddle in another mode, and keeps temporary files when it dies. So it runs in a
child process, and its result is checked here.
"""

from __future__ import annotations

import re
from pathlib import Path

from hgdeploy.errors import BundleError, EngineError
from hgdeploy.system.libraries import installed_version, installing
from hgdeploy.system.messages import Message
from hgdeploy.system.processes import ChildError, ChildProcess, ChildTimeoutError

# Hundreds of megabytes take seconds; this limit is for a process that hangs.
_TIME_LIMIT_S = 900
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def run_paddle2onnx(
    model: Path, params: Path | None, opset: int, folder: Path, *, exact_opset: bool = False
) -> Path:
    """Convert a Paddle model with paddle2onnx, unoptimised.

    Args:
        model: the program, `.json` or `.pdmodel`.
        params: its parameters, under the same stem in the same folder; None leaves them out, and
            the graph only has their names.
        opset: the ONNX opset, 7 to 21.
        folder: an empty folder for the result and all temporary files.
        exact_opset: fail where the model needs a higher opset, instead of raising it.

    Returns:
        Path of the ONNX file in `folder`. It is not empty, but it is not checked.

    Raises:
        EngineError: paddle2onnx is not installed.
        BundleError: paddle2onnx cannot convert the model.
    """
    if installed_version("paddle2onnx") is None:
        raise EngineError(_not_installed("it is not installed"))
    target = folder / "paddle2onnx.onnx"
    scratch = folder / "scratch"
    scratch.mkdir()
    request = Message(
        {
            "do": "convert",
            "model": str(model.absolute()),
            "params": str(params.absolute()) if params is not None else "",
            "opset": opset,
            "exact": exact_opset,
            "target": str(target.absolute()),
        }
    )
    child = ChildProcess("hgdeploy.convert.onnx.paddle2onnx_child", folder=scratch, quiet=True)
    with child:
        try:
            converted = child.ask(request, _TIME_LIMIT_S).values["converted"]
        except ChildTimeoutError:
            raise BundleError(f"paddle2onnx did not convert {model} in {_TIME_LIMIT_S} s") from None
        except ChildError:
            converted = False
        except EngineError as error:
            raise EngineError(_not_installed(_reason(str(error)))) from None
    if converted and target.is_file() and target.stat().st_size:
        return target
    reason = _reason(child.printed)
    hint = _hint(model, child.printed, opset)
    raise BundleError(f"paddle2onnx cannot convert {model}: {reason}; {hint}")


def _hint(model: Path, log: str, opset: int) -> str:
    """Return what to do about a failure; the files are known to fit each other."""
    if "opset" in _reason(log):
        return f"ask for a higher opset than {opset}, or allow it to be raised"
    if "static input shape" in log:
        return (
            "export the model with a fixed height and width, such as [None, 3, 224, 224], or run "
            "it with --engine paddle"
        )
    operator = re.search(r"pd_op\.\w+", log)
    what = f"the operator {operator[0]}" if operator else "this"
    return (
        f"paddle2onnx does not convert {what}; export {model.name} without it, or run it with "
        "--engine paddle"
    )


def _not_installed(reason: str) -> str:
    return (
        f"conversion needs paddle2onnx, which cannot be imported here ({reason}); "
        f"{installing('convert')}, with Python 3.10 or 3.11"
    )


def _reason(log: str) -> str:
    """Return the part of paddle2onnx's output that says what is wrong, on one line."""
    lines = [line.strip() for line in _COLOURS.sub("", log).splitlines() if line.strip()]
    marked = [line for line in lines if re.search(r"\[ERROR\]|Error: |\[Hint", line)]
    marked = [line for line in marked if not line.startswith("FatalError")] or marked
    reason = " ".join(marked or lines[-1:]) or "it ended without a message"
    return re.sub(r"^\S+ \S+ \[ERROR\]\s*|\[Paddle2ONNX\] |\[ERROR\] ?", "", reason)[:400]
