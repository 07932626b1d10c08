# SPDX-License-Identifier: Apache-2.0
"""What is asked of an engine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hgdeploy.errors import ConfigError, nearest
from hgdeploy.system.machine import available_cpus

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class EngineOptions:
    """What is asked of an engine; what it cannot do is an error, never something else instead.

    Attributes:
        device: `cpu` or `gpu:N`.
        precision: `fp32`, `fp16`, `bf16` or `int8`; fp32 means IEEE fp32 (no TF32, no bf16).
        threads: CPU threads of one inference; None for all this process may use.
        streams: inferences that are meant to run at once, each with `threads`. A GPU has its own
            idea of that.
        max_batch: the largest batch that will be fed, for engines that plan by shape.
        graph_optimization: let the engine rewrite the graph (`Global.ir_optim`).
        onednn: let Paddle use oneDNN on a CPU (`Global.enable_mkldnn`).
        paddle_tensorrt: let Paddle hand subgraphs to TensorRT (`Global.use_tensorrt`).
        gpu_memory_mb: what Paddle reserves on a GPU at start, in MiB (`Global.gpu_mem`).
        profile: let the engine print or write its own operator profile.
        cache_dir: where engines keep what is slow to make and can be made again; None to keep
            only what takes minutes, beside the model.
    """

    device: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None
    streams: int = 1
    max_batch: int = 1
    graph_optimization: bool = True
    onednn: bool = True
    paddle_tensorrt: bool = False
    gpu_memory_mb: int = 8000
    profile: bool = False
    cache_dir: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise ConfigError(
                f"unknown precision {self.precision!r}, {nearest(self.precision, PRECISIONS)}"
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"threads is {self.threads}, expected at least 1")
        if self.streams < 1:
            raise ConfigError(f"streams is {self.streams}, expected at least 1")
        if self.max_batch < 1:
            raise ConfigError(f"the batch size is {self.max_batch}, expected at least 1")

    @property
    def cpu_threads(self) -> int:
        """The CPU threads to use: `threads`, or as many as this process may use."""
        return self.threads or available_cpus()
