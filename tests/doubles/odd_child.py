# SPDX-License-Identifier: Apache-2.0
"""A child process that misbehaves in any way that a test asks for."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time

from hgdeploy.errors import TensorError
from hgdeploy.system.messages import Message, serve, tell_parent
from hgdeploy.system.processes import ChildProcess

started = []


def echo(request: Message) -> Message:
    return Message({"values": request.values["values"]}, request.arrays)


def fail(request: Message) -> Message:
    if request.values["ours"]:
        raise TensorError("it does not fit")
    raise KeyError("a key")


def say(request: Message) -> Message:
    print("from Python")
    os.write(1, b"from native code\n")
    return Message({"stdin": os.read(0, 100).decode()})


def report(request: Message) -> Message:
    for number in range(request.values["lines"]):
        thread = threading.Thread(target=tell_parent, args=[f"{number} is done"])
        thread.start()
        thread.join()
    return Message({"done": True})


def flood(request: Message) -> Message:
    for _ in range(1000):
        sys.stderr.write("x" * 9_999 + "\n")
    sys.stderr.write("the end\n")
    return Message({})


def die(request: Message) -> Message:
    print("these are my last words\n\n")
    os.kill(os.getpid(), request.values["signal"])
    return Message({})


def leave(request: Message) -> Message:
    raise SystemExit("I have had enough")


def hang(request: Message) -> Message:
    """Hang in native code while holding Python's lock, so that no other Python thread runs."""
    ctypes.PyDLL(None).sleep(60)
    return Message({})


def rest(request: Message) -> Message:
    time.sleep(request.values["seconds"])
    return Message({"rested": True})


def start(request: Message) -> Message:
    """Start a process in this one's group, one in a session of its own, and a `ChildProcess`."""
    code = [sys.executable, "-c", "import time; time.sleep(60)"]
    started.extend([subprocess.Popen(code), subprocess.Popen(code, start_new_session=True)])
    started.append(ChildProcess("odd_child"))
    started[-1].send(Message({"do": request.values["busy_with"], "seconds": 60}))
    return Message({"pids": [os.getpid(), *(process.pid for process in started)]})


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    handlers = (echo, fail, say, report, flood, die, leave, hang, rest, start)
    serve({handler.__name__: handler for handler in handlers})
