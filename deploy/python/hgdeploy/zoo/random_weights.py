# SPDX-License-Identifier: Apache-2.0
"""Networks with random weights that answer differently to different images."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hgdeploy.system.libraries import import_library
from hgdeploy.zoo.registry import build, info

SEED = 0
_LOGIT_SPREAD = 2.0  # standard deviation of the logits


def random_layer(name: str, num_classes: int) -> Any:
    """Return the network with seeded random weights that keep the size of signals between layers.

    With Paddle's own initial values, the signals fade until every image gets the same answer, and
    then a comparison of two engines would pass whatever they compute. Over many shortcuts, they
    would grow beyond float32, so batch norms scale them down.

    Args:
        name: a model of the zoo.
        num_classes: classes of the last layer.

    Raises:
        EngineError: Paddle is not installed.
    """
    paddle = import_library("paddle", "cpu")
    layer = build(name, num_classes)
    rng = np.random.default_rng(SEED)
    parameters = [parameter for parameter in layer.parameters() if len(parameter.shape) > 1]
    for parameter in parameters:
        shape = tuple(parameter.shape)
        fan_in = shape[0] if len(shape) == 2 else math.prod(shape[1:])
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(2 / fan_in))
        parameter.set_value(values)
    size = info(name).input_size
    x = rng.standard_normal((2, 3, size, size), dtype=np.float32)
    norms = [one for one in layer.sublayers() if isinstance(one, paddle.nn.BatchNorm2D)]
    hooks = [norm.register_forward_pre_hook(_bound_size) for norm in norms]
    with paddle.no_grad():
        layer(paddle.to_tensor(x))
        for hook in hooks:
            hook.remove()
        # Where activations bend, coarse patterns, of which photographs are made, grow far more than
        # noise, until one class takes all.
        coarse = rng.standard_normal((2, 3, -(-size // 32), -(-size // 32)), dtype=np.float32)
        coarse = coarse.repeat(32, 2).repeat(32, 3)[..., :size, :size]
        spread = max(float(layer(paddle.to_tensor(image)).std()) for image in (x, coarse))
        last = parameters[-1]
        last.set_value(last * (_LOGIT_SPREAD / spread))
    return layer


def _bound_size(norm: Any, inputs: tuple[Any, ...]) -> None:
    """Make a batch norm scale down signals larger than 1, by one value for all channels.

    With each channel's own statistics, little but the differences between images would be left,
    and rounding errors would grow from layer to layer.
    """
    (x,) = inputs
    mean_square = (x * x).mean().clip(min=1)
    norm._variance.set_value(mean_square.expand(norm._variance.shape))
