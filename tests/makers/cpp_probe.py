# SPDX-License-Identifier: Apache-2.0
"""The C++ library's doors, which `hgdeploy-probe` opens (deploy/cpp/tests/probe.cpp)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from hgdeploy.errors import HGDeployError


class CppError(Exception):
    """An error of the library: its message, and its exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def told(call: Callable[..., Any], *arguments: object) -> Any:
    """Return what a call gives, or the message with which it refuses, in Python or in C++."""
    try:
        return call(*arguments)
    except (CppError, HGDeployError) as error:
        return str(error)


class Probe:
    """Asks the library, in one process; each method raises a CppError where it refuses."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self._child = subprocess.Popen(
            [program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._child.stdin.close()
        self._child.wait(60)
        self._child.stdout.close()

    def use_ops(self, ops: object) -> None:
        """Preprocess with these `transform_ops` from now on; decode to RGB with None."""
        self._ask("D" if ops is None else "O" + yaml.safe_dump(ops))

    def shrink_to(self, pixels: int | None) -> None:
        """Decode JPEG files at a reduced size from now on, as `decode_image` does."""
        self._ask(f"S{pixels or 0}")

    def read_bytes(self, data: bytes) -> NDArray[Any]:
        return self._array(self._ask(f"B{len(data)}", data))

    def read_file(self, path: Path) -> NDArray[Any]:
        return self._array(self._ask(f"F{path}"))

    def use_postprocess(self, section: str) -> None:
        self._ask("P" + section)

    def predict(self, scores: NDArray[np.float32]) -> dict[str, Any]:
        return json.loads(self._ask(f"V{scores.nbytes}", scores.tobytes()))

    def find(self, *inputs: object) -> tuple[list[tuple[str, str]], str]:
        """Return (place, name) of each file, and the warnings."""
        count, _, warnings = self._ask("I" + "\n".join(map(str, inputs))).partition(" ")
        texts = [self._text() for _ in range(2 * int(count))]
        return list(zip(texts[::2], texts[1::2], strict=True)), warnings

    def shown(self, text: str) -> tuple[str, str]:
        """Return `repr` and `printable` of a text."""
        told, _, printable = self._ask("T" + text).partition("\0")
        return told, printable

    def _ask(self, command: str, data: bytes = b"") -> str:
        self._child.stdin.write(os.fsencode(command) + b"\0" + data)
        self._child.stdin.flush()
        line = os.fsdecode(self._child.stdout.readline())
        if not line:
            raise RuntimeError(f"the probe has ended: {self._child.wait(60)}")
        kind, _, rest = line.rstrip("\n").partition(" ")
        if kind == "error":
            code, _, message = rest.partition(" ")
            raise CppError(message, int(code))
        return rest

    def _array(self, told: str) -> NDArray[Any]:
        kind, *sides = told.split()
        shape = tuple(map(int, sides))
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        return np.frombuffer(self._child.stdout.read(size), kind).reshape(shape)

    def _text(self) -> str:
        text = bytearray()
        while (byte := self._child.stdout.read(1)) != b"\0":
            text += byte
        return os.fsdecode(bytes(text))
