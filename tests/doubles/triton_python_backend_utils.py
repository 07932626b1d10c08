# SPDX-License-Identifier: Apache-2.0
"""What Triton's Python back end gives to a model, as far as ours uses it.

The server's own module of this name works only inside the server; `test_against_triton.py` runs
our model there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np


class TritonModelException(Exception):  # noqa: N818
    """Why a model cannot be loaded."""


class TritonError:
    """Why a request has no answer."""

    INTERNAL, INVALID_ARG = 1, 3

    def __init__(self, message: str, code: int) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        return self._message

    def code(self) -> int:
        return self._code


class Logger:
    """The server's log."""

    warnings: ClassVar[list[str]] = []

    @classmethod
    def log_warn(cls, text: str) -> None:
        cls.warnings.append(text)


class Tensor:
    """A tensor with its name."""

    def __init__(self, name: str, values: np.ndarray) -> None:
        self._name, self._values = name, values

    def name(self) -> str:
        return self._name

    def as_numpy(self) -> np.ndarray:
        return self._values


@dataclass
class InferenceRequest:
    """What one client asks."""

    inputs: list[Tensor]
    names: list[str]

    def requested_output_names(self) -> list[str]:
        return self.names


@dataclass
class InferenceResponse:
    """What one client gets."""

    output_tensors: list[Tensor] = field(default_factory=list)
    error: TritonError | None = None


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """Return an input; None where there is none."""
    return next((one for one in request.inputs if one.name() == name), None)
