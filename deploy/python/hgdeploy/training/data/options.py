# SPDX-License-Identifier: Apache-2.0
"""What a run says about its data beside the config's section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hgdeploy.errors import ConfigError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import MANY, flag, optional, whole
from hgdeploy.system.progress import OnLine, nothing


@dataclass(frozen=True)
class DataOptions:
    """How a section of `DataLoader` is read.

    Attributes:
        training: it is `DataLoader.Train`, else `DataLoader.Eval`, which has nothing random.
        seed: of everything that is random.
        rank: which of the processes that train together this is, from 0.
        ranks: how many they are.
        classes: classes of the network; None for as many as the labels have.
        names: the classes' names by id, for folders and lists that name them; None to number the
            names in alphabetical order. An evaluation takes `TrainingData.names` of its training.
        workers: processes that read images; 0 for none but the caller's own. None for the config's
            `num_workers`, though not more than there are CPUs. It changes no result.
        on_warning: called with a line for each thing the user should know, such as the first time
            that an image cannot be read; from any thread.
    """

    training: bool = True
    seed: int = 0
    rank: int = 0
    ranks: int = 1
    classes: int | None = None
    names: Mapping[int, str] | None = None
    workers: int | None = None
    on_warning: OnLine = nothing

    def __post_init__(self) -> None:
        check_fields(
            self,
            "DataOptions",
            training=flag,
            seed=whole(0),
            rank=whole(0),
            ranks=whole(1),
            classes=optional(whole(1, MANY)),
            workers=optional(whole(0, 1024)),
        )
        if self.rank >= self.ranks:
            raise ConfigError(f"rank is {self.rank}, expected a number from 0 to {self.ranks - 1}")
