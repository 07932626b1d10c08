# SPDX-License-Identifier: Apache-2.0
"""A process forked from one with an open engine: refused at once, and never left hanging."""

from __future__ import annotations

import os

import pytest

from conftest import IMAGES, MINI, require_engine, run_command

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")

# Each line of a forked process begins with its number; -1 is the first process, at the end.
SCRIPT = """
import multiprocessing, os, signal, sys
from pathlib import Path
from hgdeploy import Classifier, ClassifierSettings, EngineOptions

def say(number, text):
    os.write(1, f"{number} {text}\\n".encode())

def use(number):
    signal.alarm(30)
    try:
        say(number, next(iter(classifier.predict(image))).scores)
    except Exception as error:
        say(number, f"{type(error).__name__}: {error}")
    classifier.close()

bundle, engine, image = sys.argv[1:]
options = EngineOptions(threads=1, streams=2)
settings = ClassifierSettings(engine, options=options, image_timeout=60)
classifier = Classifier(bundle, settings=settings)
right = next(iter(classifier.predict(image))).scores
pid = os.fork()
if pid == 0:
    use(0)
    del classifier
    say(0, "ends")
    os._exit(0)
say(-1, f"status {os.waitpid(pid, 0)[1]}")
child = multiprocessing.get_context("fork").Process(target=use, args=[1])
child.start()
child.join()
say(-1, f"exit code {child.exitcode}")
say(-1, f"same: {next(iter(classifier.predict(image))).scores == right}")
classifier.close()
"""


@pytest.mark.parametrize("engine", ["paddle", "onnxruntime", "openvino"])
def test_an_engine_is_refused_in_a_process_forked_since_and_serves_on_in_the_first(mini, engine):
    require_engine(engine)
    done = run_command("-W", "ignore", "-c", SCRIPT, mini, engine, IMAGES / "coffee.jpg")
    lines = done.stdout.splitlines()
    assert [line for line in lines if line[0] == "-"] == ["-1 status 0", "-1 exit code 0",
                                                           "-1 same: True"], done  # fmt: skip
    assert "0 ends" in lines
    for number in "01":
        (said,) = [line for line in lines if line.startswith(f"{number} EngineError: ")]
        assert "was opened by another process (" in said
        assert said.endswith("open it after the fork, in each process that uses it")


def test_an_engine_that_is_freed_by_a_forked_process_does_not_wait_for_the_others_threads():
    """Python frees it when the process ends; OpenVINO would wait for ever."""
    require_engine("openvino")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from hgdeploy.engines import load_engine\n"
        "from hgdeploy.engines.options import EngineOptions\n"
        "engine = load_engine('openvino', Path(sys.argv[1]), EngineOptions(threads=2))\n"
        "pid = os.fork()\n"
        "if pid == 0:\n    signal.alarm(30)\n    sys.exit(0)\n"
        "sys.exit(os.waitpid(pid, 0)[1])\n"
    )
    assert run_command("-W", "ignore", "-c", script, MINI / "inference.onnx").returncode == 0
