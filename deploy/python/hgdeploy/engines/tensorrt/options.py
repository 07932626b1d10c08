# SPDX-License-Identifier: Apache-2.0
"""The options that only the tensorrt engine has."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TensorRtOptions:
    """Options of the tensorrt engine's own; see `EngineOptions.own`.

    Attributes:
        host_code: load an engine file that has code for the CPU in it, as those have that are built
            to be compatible with other versions. It runs with this process's rights: only for files
            that you trust.
    """

    host_code: bool = False
