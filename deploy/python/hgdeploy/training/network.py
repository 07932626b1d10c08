# SPDX-License-Identifier: Apache-2.0
"""The network that is trained: built, with fresh or pretrained weights, and with its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy import zoo
from hgdeploy.errors import WeightsError
from hgdeploy.system.libraries import import_library
from hgdeploy.system.progress import OnLine
from hgdeploy.zoo.weights.load import load_into, read_weights, weights_file


@dataclass(frozen=True)
class Teacher:
    """The network whose answers a student learns.

    Attributes:
        arch: its name in the zoo.
        weights: its `.pdparams` file.
    """

    arch: str
    weights: Path


def fresh_network(arch: str, classes: int, seed: int) -> Any:
    """Return a network to train, with the same random weights for the same seed.

    Convolutions begin as PaddleClas's PP-HGNet does, by He's normal distribution; Paddle's own
    would take the channels of all groups for those that one output sees.

    Args:
        arch: its name in the zoo.
        classes: classes of its last layer.
        seed: where the random numbers begin.
    """
    paddle = import_library("paddle", "cpu")
    paddle.seed(seed)
    network = zoo.build(arch, classes)
    normal, zero = paddle.nn.initializer.KaimingNormal(), paddle.nn.initializer.Constant(0.0)
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.Conv2D):
            normal(layer.weight)
        elif isinstance(layer, paddle.nn.Linear) and layer.bias is not None:
            zero(layer.bias)
    return network


def load_pretrained(
    network: Any, weights: Path, on_progress: OnLine, *, new_head: bool = False
) -> None:
    """Load the weights that a training begins with.

    Args:
        network: the network.
        weights: a `.pdparams` file, whose suffix may be left out, or a PyTorch file.
        on_progress: told which parameters stay as they are.
        new_head: leave out the last layer, whose number of classes is another.

    Raises:
        WeightsError: they cannot be read or do not fit.
    """
    path = weights_file(weights)
    arrays = read_weights(path)
    head = _head(network)
    if new_head:
        own = network.state_dict()
        arrays = {**arrays, **{name: np.array(own[name]) for name in head}}
        on_progress(f"{path}: {' and '.join(head)} are left out, and start anew")
    elif _only_head_differs(network, arrays, head):
        classes = arrays[head[-1]].shape[0]
        own_classes = network.state_dict()[head[-1]].shape[0]
        raise WeightsError(
            f"{path}: has {classes} classes, but Arch.class_num is {own_classes}; to fine-tune, "
            f"give -o Global.new_head=True: {' and '.join(head)} are then left out, and start anew"
        )
    load_into(network, arrays, path)


def teacher_network(teacher: Teacher, classes: int) -> Any:
    """Return a teacher, which never changes: neither its weights nor its batch norms.

    Raises:
        WeightsError: its weights cannot be read or do not fit.
    """
    network = zoo.build(teacher.arch, classes)
    path = weights_file(teacher.weights)
    load_into(network, read_weights(path), path)
    network.eval()
    for parameter in network.parameters():
        parameter.stop_gradient = True
    return network


def _head(network: Any) -> tuple[str, ...]:
    """Return the names of the last layer's weight and bias."""
    return tuple(name for name, _ in network.named_parameters())[-2:]


def _only_head_differs(
    network: Any, arrays: Mapping[str, NDArray[Any]], head: tuple[str, ...]
) -> bool:
    shapes = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if shapes.keys() != arrays.keys():
        return False
    differing = {name for name, shape in shapes.items() if arrays[name].shape != shape}
    return bool(differing) and differing <= set(head)
