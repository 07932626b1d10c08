# SPDX-License-Identifier: Apache-2.0
"""The moving average of a network's weights, which is evaluated and kept instead of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.system.libraries import import_library


class MovingAverage:
    """Holds `decay * average + (1 - decay) * weights`, from the first weights on.

    As PaddleClas's `EMA`, it averages the statistics of batch norms too.

    Args:
        network: a `paddle.nn.Layer`.
        decay: how much of the average stays in each update, such as 0.9999.
    """

    def __init__(self, network: Any, decay: float) -> None:
        self._decay = decay
        self._average = {name: value.clone() for name, value in network.state_dict().items()}

    def update(self, network: Any) -> None:
        """Take the weights in that an update has made."""
        paddle = import_library("paddle", "cpu")
        with paddle.no_grad():
            for name, value in network.state_dict().items():
                mean = self._average[name]
                if value.is_floating_point():
                    value = self._decay * mean + (1 - self._decay) * value
                self._average[name] = value.clone().detach()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the averages, by the names of the network's weights."""
        return {name: np.array(value) for name, value in self._average.items()}

    def load(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from the averages that `arrays` once returned."""
        paddle = import_library("paddle", "cpu")
        self._average = {name: paddle.to_tensor(array) for name, array in arrays.items()}
