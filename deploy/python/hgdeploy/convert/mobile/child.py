# SPDX-License-Identifier: Apache-2.0
"""Run MNN's converter, pnnx or Paddle-Lite's in a process of its own; see `from_onnx`."""

from __future__ import annotations

import os
import subprocess

from hgdeploy.system.libraries import import_library
from hgdeploy.system.messages import Message, serve


def mnn(request: Message) -> Message:
    """Convert with MNN's own function; it answers True even where it has written nothing.

    Its command line would send usage data, and install a package for that. `bizCode`, which names
    whose model it is, is required. Its approximation of GELU, which it would use, moves a
    log-probability of SwinTransformer_tiny by 1e-3.
    """
    wanted = request.values
    files = ["--modelFile", wanted["source"], "--MNNModel", wanted["target"]]
    exact = ["--useGeluApproximation", "0"]
    named = ["--bizCode", "hgdeploy"]
    arguments = ["mnnconvert", "-f", "ONNX", *files, *exact, *named, *wanted["options"]]
    import_library("MNN", "mnn")  # the library that the converter links to
    import_library("_tools", "mnn").mnnconvert(arguments)
    return Message({})


def program(request: Message) -> Message:
    """Run a converter's program in the current folder, into which pnnx writes ten files."""
    wanted = request.values
    command = [wanted["program"], wanted["source"], *wanted["options"]]
    # Paddle-Lite's is a script of another Python, which this one's paths would confuse.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    subprocess.run(command, stdin=subprocess.DEVNULL, env=environment, check=False)
    return Message({})


if __name__ == "__main__":
    serve({"mnn": mnn, "program": program})
