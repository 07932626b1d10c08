# SPDX-License-Identifier: Apache-2.0
"""The options of an engine: device, precision, threads and so on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hgdeploy.system.checks import check, check_fields
from hgdeploy.system.kinds import BATCH_SIZE, THREADS, list_of, one_of, optional, whole
from hgdeploy.system.machine import available_cpus

Own = TypeVar("Own")

# What a CPU may compute in; an NVIDIA GPU also has tf32, which reads the fp32 file.
CPU_PRECISIONS = ("fp32", "fp16", "bf16", "int8")
PRECISIONS = ("fp32", "tf32", *CPU_PRECISIONS[1:])


@dataclass(frozen=True)
class EngineOptions:
    """The options of an engine; one that it cannot satisfy is an error and is never replaced.

    Attributes:
        device: `cpu` or `gpu:N`.
        precision: `fp32`, `tf32`, `fp16`, `bf16` or `int8`; fp32 means IEEE fp32 (no TF32, no
            bf16), and tf32 is what tensor cores make of fp32 from compute capability 8.0 on.
        threads: CPU threads of one inference; None for all this process may use.
        streams: inferences that are meant to run at once, each with `threads`. A GPU decides that
            itself.
        max_batch: the largest batch that will be fed, for engines that plan by shape.
        image_size: (height, width) of the images that will be fed, -1 where they differ, for
            engines that can run a model at another size than that of its export; None for its own.
        graph_optimization: let the engine rewrite the graph (`Global.ir_optim`).
        profile: let the engine print or write its own operator profile.
        output_name: the output that has the scores, of a model that has several.
        cache_dir: where engines keep what is slow to make and can be made again; None to keep
            only what takes minutes, beside the model.
        own: options that only one engine has, such as `PaddleOptions`; the others ignore them.
    """

    device: str = "cpu"
    precision: str = "fp32"
    threads: int | None = None
    streams: int = 1
    max_batch: int = 1
    image_size: tuple[int, int] | None = None
    graph_optimization: bool = True
    profile: bool = False
    output_name: str | None = None
    cache_dir: Path | None = None
    own: tuple[object, ...] = ()

    def __post_init__(self) -> None:
        check_fields(
            self,
            precision=one_of(PRECISIONS),
            threads=optional(THREADS),
            streams=THREADS,
            image_size=optional(list_of(whole(-1), 2, 2)),
        )
        check("the batch size", self.max_batch, BATCH_SIZE)

    @property
    def cpu_threads(self) -> int:
        """The CPU threads to use: `threads`, or as many as this process may use."""
        return self.threads or available_cpus()

    def own_of(self, kind: type[Own]) -> Own:
        """Return the options of `kind` in `own`, or their defaults."""
        return next((options for options in self.own if isinstance(options, kind)), kind())
