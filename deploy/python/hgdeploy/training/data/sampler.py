# SPDX-License-Identifier: Apache-2.0
"""Which images each batch of an epoch has: the rules of Paddle's `DistributedBatchSampler`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hgdeploy.training.data.chance import Drawn, stream


@dataclass(frozen=True)
class Sampler:
    """Deals the images of each epoch out to the ranks.

    All ranks have equally many images: where the number does not divide, the first images are there
    twice. Of each stretch of `batch_size * ranks` images every rank takes its batch; of the rest at
    the end, its share.

    Attributes:
        samples: images there are.
        batch_size: images a batch of one rank.
        rank: which rank this is.
        ranks: how many there are.
        shuffle: in another order each epoch.
        drop_last: leave out the last batch where it is not full.
        seed: of the order.
    """

    samples: int
    batch_size: int
    rank: int = 0
    ranks: int = 1
    shuffle: bool = False
    drop_last: bool = False
    seed: int = 0

    def __len__(self) -> int:
        own = -(-self.samples // self.ranks)
        return own // self.batch_size if self.drop_last else -(-own // self.batch_size)

    def batches(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the indices of each batch of this rank."""
        total = -(-self.samples // self.ranks) * self.ranks
        order = np.resize(np.arange(self.samples, dtype=np.int64), total)
        if self.shuffle:
            stream(self.seed, Drawn.ORDER, epoch).shuffle(order)
        whole = total // (self.batch_size * self.ranks) * self.ranks
        full = order[: whole * self.batch_size].reshape(whole, self.batch_size)
        batches = list(full[self.rank :: self.ranks])
        rest = np.split(order[whole * self.batch_size :], self.ranks)[self.rank]
        if len(rest) and not self.drop_last:
            batches.append(rest)
        return batches
