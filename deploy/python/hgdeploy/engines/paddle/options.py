# SPDX-License-Identifier: Apache-2.0
"""The options that only the paddle engine has."""

from __future__ import annotations

from dataclasses import dataclass

from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import MANY, whole


@dataclass(frozen=True)
class PaddleOptions:
    """Options of the paddle engine's own; see `EngineOptions.own`.

    Attributes:
        onednn: use oneDNN on a CPU (`Global.enable_mkldnn`); None for where it computes a model as
            Paddle does without it, see `engines.paddle.onednn`. With True, a model that it gets
            wrong is an error.
        tensorrt: hand subgraphs to TensorRT (`Global.use_tensorrt`).
        gpu_memory_mb: the memory to reserve on a GPU at the start, in MiB (`Global.gpu_mem`).
    """

    onednn: bool | None = None
    tensorrt: bool = False
    gpu_memory_mb: int = 8000

    def __post_init__(self) -> None:
        check_fields(self, gpu_memory_mb=whole(1, MANY))
