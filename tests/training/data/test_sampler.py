# SPDX-License-Identifier: Apache-2.0
"""How an epoch's images are dealt out, against Paddle's own sampler."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from hgdeploy.training.data.sampler import Sampler


@pytest.mark.parametrize(
    ("samples", "batch", "ranks"),
    [*itertools.product((1, 2, 7, 8, 24, 25), (1, 3, 8), (1, 2, 3))],
)
def test_ranks_get_what_paddle_gives_them(samples, batch, ranks):
    io = pytest.importorskip("paddle.io")
    for drop_last, rank in itertools.product((False, True), range(ranks)):
        paddle = io.DistributedBatchSampler(
            range(samples), batch, num_replicas=ranks, rank=rank, drop_last=drop_last
        )
        own = Sampler(samples, batch, rank, ranks, drop_last=drop_last)
        assert [one.tolist() for one in own.batches(0)] == list(paddle)
        assert len(own) == len(paddle) == len(own.batches(0))


def test_the_order_changes_with_the_epoch_and_the_seed_and_is_one_for_all_ranks():
    def order(epoch: int, seed: int, ranks: int = 1) -> list[int]:
        dealt = [
            np.concatenate(Sampler(40, 4, rank, ranks, True, seed=seed).batches(epoch))
            for rank in range(ranks)
        ]
        return np.concatenate(dealt).tolist()

    assert order(0, 1) == order(0, 1) != order(1, 1)
    assert order(0, 1) != order(0, 2)
    assert sorted(order(3, 1)) == sorted(order(3, 1, ranks=2)) == list(range(40))
    both = [Sampler(40, 4, rank, 2, True, seed=1).batches(3) for rank in range(2)]
    dealt = np.concatenate([np.concatenate(pair) for pair in zip(*both, strict=True)])
    assert dealt.tolist() == order(3, 1)
