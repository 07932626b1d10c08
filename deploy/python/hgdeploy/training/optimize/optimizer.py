# SPDX-License-Identifier: Apache-2.0
"""What turns gradients into new weights: Paddle's optimizers, with PaddleClas's decay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.errors import WeightsError
from hgdeploy.system.libraries import import_library

KINDS = ("Momentum", "SGD", "Adam", "AdamW")
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class OptimizerOptions:
    """An optimizer.

    Attributes:
        kind: one of `KINDS`.
        momentum: of `Momentum`.
        beta1: of `Adam` and `AdamW`.
        beta2: likewise.
        epsilon: likewise.
        decay: how much of each weight is taken off. `AdamW` does that apart from the gradients;
            the others add it to the gradient (L2) or its sign (L1), except of batch norms, as
            PaddleClas's PP-HGNet does.
        decay_l1: the decay is L1.
        no_decay: `AdamW` spares the parameters whose name contains one of these.
        no_decay_1d: it also spares those of one dimension: biases and norms.
        clip_norm: the largest norm of a parameter's gradient; None for no limit.
        clip_global_norm: the largest norm of all gradients together; None for no limit.
    """

    kind: str
    momentum: float = 0.9
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    decay: float = 0.0
    decay_l1: bool = False
    no_decay: tuple[str, ...] = ()
    no_decay_1d: bool = False
    clip_norm: float | None = None
    clip_global_norm: float | None = None


def make_optimizer(options: OptimizerOptions, network: Any) -> Any:
    """Return Paddle's optimizer of a network; the learning rate is set before each update.

    Args:
        options: which one.
        network: a `paddle.nn.Layer`.
    """
    paddle = import_library("paddle", "cpu")
    known = {
        "parameters": [one for one in network.parameters() if not one.stop_gradient],
        "learning_rate": 0.0,
        "grad_clip": _clip(options),
    }
    if options.kind == "AdamW":
        spared = _spared(options, network)
        known |= {"apply_decay_param_fun": lambda name: name not in spared}
        known |= {"weight_decay": options.decay}
    elif options.decay:
        _spare_norms(network)
        decay = paddle.regularizer.L1Decay if options.decay_l1 else paddle.regularizer.L2Decay
        known |= {"weight_decay": decay(options.decay)}
    if options.kind == "Momentum":
        known |= {"momentum": options.momentum, "multi_precision": True}
    elif options.kind in ("Adam", "AdamW"):
        known |= {"beta1": options.beta1, "beta2": options.beta2, "epsilon": options.epsilon}
        known |= {"multi_precision": True}
    return getattr(paddle.optimizer, options.kind)(**known)


def _clip(options: OptimizerOptions) -> Any:
    nn = import_library("paddle", "cpu").nn
    if options.clip_global_norm is not None:
        return nn.ClipGradByGlobalNorm(options.clip_global_norm)
    return None if options.clip_norm is None else nn.ClipGradByNorm(options.clip_norm)


def _spared(options: OptimizerOptions, network: Any) -> set[str]:
    """Return Paddle's own names of the parameters that `AdamW` does not decay."""
    return {
        parameter.name
        for name, parameter in network.named_parameters()
        if any(part in name for part in options.no_decay)
        or (options.no_decay_1d and len(parameter.shape) == 1)
    }


def _spare_norms(network: Any) -> None:
    paddle = import_library("paddle", "cpu")
    for layer in network.sublayers():
        if isinstance(layer, paddle.nn.BatchNorm2D):
            for parameter in layer.parameters(include_sublayers=False):
                parameter.regularizer = paddle.regularizer.L2Decay(0.0)


def optimizer_state(optimizer: Any, network: Any) -> Arrays:
    """Return all that an optimizer remembers, by the parameters' names in the network.

    Paddle names it by counters of the process, which differ in the process that continues.

    Returns:
        `PARAMETER/SLOT` to array, such as `fc.weight/velocity_0`.
    """
    names = {parameter.name: name for name, parameter in network.named_parameters()}
    found = dict(optimizer.state_dict())
    masters = found.pop("master_weights", {})
    state = {f"{names[own]}/master": np.array(tensor) for own, tensor in masters.items()}
    longest = sorted(names, key=len, reverse=True)  # conv2d_10.w_0 begins with conv2d_1
    for written, tensor in found.items():
        own = next(own for own in longest if written.startswith(f"{own}_"))
        state[f"{names[own]}/{written[len(own) + 1 :]}"] = np.array(tensor)
    return state


def load_optimizer_state(optimizer: Any, network: Any, state: Arrays) -> None:
    """Have an optimizer that has not run yet remember what another one did.

    Raises:
        WeightsError: it is the state of another network.
    """
    paddle = import_library("paddle", "cpu")
    own = {name: parameter.name for name, parameter in network.named_parameters()}
    values: dict[str, Any] = {}
    masters: dict[str, Any] = {}
    for written, array in state.items():
        name, _, slot = written.rpartition("/")
        if name not in own:
            raise WeightsError(
                f"the optimizer's state is of a parameter {name!r}, which is not here"
            )
        tensor = paddle.to_tensor(array)
        if slot == "master":
            masters[own[name]] = tensor
        else:
            values[f"{own[name]}_{slot}"] = tensor
    optimizer.set_state_dict({**values, **({"master_weights": masters} if masters else {})})
