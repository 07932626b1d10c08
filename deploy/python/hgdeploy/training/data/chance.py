# SPDX-License-Identifier: Apache-2.0
"""Where random numbers come from: a stream of its own for each thing that is drawn."""

from __future__ import annotations

import enum

import numpy as np


class Drawn(enum.IntEnum):
    """What is drawn; the numbers are part of what a seed means, and never change."""

    ORDER = 0
    IMAGE = 1
    MIX = 2


def stream(seed: int, what: Drawn, *place: int) -> np.random.Generator:
    """Return the random numbers of one place.

    Args:
        seed: of the run.
        what: what is drawn.
        place: where, such as the epoch and the image's index.

    Returns:
        A generator whose numbers are the same for the same arguments, on every machine, and
        independent of those for others.
    """
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(what, *place)))
