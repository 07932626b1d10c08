# SPDX-License-Identifier: Apache-2.0
"""Losses, learning rates, updates and averages, against the formulas in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from conftest import require_engine
from hgdeploy.errors import ConfigError
from hgdeploy.training.optimize.average import MovingAverage
from hgdeploy.training.optimize.losses import LossTerm, total_loss
from hgdeploy.training.optimize.optimizer import OptimizerOptions, make_optimizer
from hgdeploy.training.optimize.schedule import Schedule

RNG = np.random.default_rng(0)
LOGITS, TEACHER = (RNG.standard_normal((4, 5)).astype(np.float32) * 3 for _ in range(2))
IDS = np.array([0, 4, 2, 2])
HARD = np.eye(5, dtype=np.float32)[IDS]
SOFT = 0.7 * HARD + 0.3 * HARD[::-1]
SEVERAL = (RNG.random((4, 5)) > 0.5).astype(np.float32)
SHARES = SEVERAL.mean(axis=0)


@pytest.fixture(scope="module")
def paddle():
    require_engine("paddle")
    import paddle as library

    return library


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64))
    return powers / powers.sum(axis=1, keepdims=True)


def cross_entropy(wanted: np.ndarray, logits: np.ndarray = LOGITS) -> float:
    return float(-(wanted * np.log(softmax(logits))).sum(axis=1).mean())


def smoothed(labels: np.ndarray, share: float) -> np.ndarray:
    return (1 - share) * labels + share / 5


def binary(labels: np.ndarray) -> np.ndarray:
    found = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    return -(labels * np.log(found) + (1 - labels) * np.log(1 - found))


def divergence(wanted: np.ndarray, found: np.ndarray) -> float:
    return float((wanted * np.log(wanted / found)).sum(axis=1).mean())


OWN, OTHER = softmax(LOGITS), softmax(TEACHER)
RARE = np.where(SEVERAL > 0, np.exp(1 - SHARES), np.exp(SHARES))


@pytest.mark.parametrize(
    ("term", "labels", "expected"),
    [
        (LossTerm("CELoss"), IDS, cross_entropy(HARD)),
        (LossTerm("CELoss", smoothing=0.1), IDS, cross_entropy(smoothed(HARD, 0.1))),
        (LossTerm("CELoss"), SOFT, cross_entropy(SOFT)),
        (LossTerm("CELoss", 2.0, 0.1), SOFT, 2 * cross_entropy(smoothed(SOFT, 0.1))),
        (LossTerm("MultiLabelLoss"), SEVERAL, binary(SEVERAL).mean()),
        (LossTerm("MultiLabelLoss"), IDS, binary(HARD).mean()),
        (
            LossTerm("MultiLabelLoss", smoothing=0.2, size_sum=True),
            SEVERAL,
            binary(smoothed(SEVERAL, 0.2)).sum(axis=1).mean(),
        ),
        (LossTerm("MultiLabelLoss", weighted=True), SEVERAL, (binary(SEVERAL) * RARE).mean()),
        (LossTerm("DistillationCELoss"), IDS, cross_entropy(OTHER)),
        (
            LossTerm("DistillationDMLLoss"),
            IDS,
            (divergence(OWN, OTHER) + divergence(OTHER, OWN)) / 2,
        ),
        (
            LossTerm("DistillationKLDivLoss", temperature=2.0),
            IDS,
            4 * divergence(softmax(TEACHER / 2), softmax(LOGITS / 2)),
        ),
    ],
    ids=lambda value: value.kind if isinstance(value, LossTerm) else "",
)
def test_losses_are_their_formulas(paddle, term, labels, expected):
    tensors = [paddle.to_tensor(array) for array in (LOGITS, labels, TEACHER)]
    found = total_loss([term], *tensors, SHARES)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_losses_are_added_up(paddle):
    logits, labels, teacher = (paddle.to_tensor(array) for array in (LOGITS, IDS, TEACHER))
    terms = [LossTerm("CELoss", 0.25), LossTerm("DistillationCELoss", 0.75)]
    expected = 0.25 * cross_entropy(HARD) + 0.75 * cross_entropy(OTHER)
    assert float(total_loss(terms, logits, labels, teacher)) == pytest.approx(expected, rel=1e-5)


def rates(schedule: Schedule, epochs: int = 6, updates: int = 4) -> list[float]:
    return [schedule.rate(update, epochs, updates) for update in range(epochs * updates)]


def test_cosine_rises_in_a_line_and_falls_in_a_half_wave():
    found = rates(Schedule("Cosine", 0.5, warmup_epochs=2, warmup_start=0.1, least=0.02))
    rise = [0.1 + 0.4 * step / 8 for step in range(8)]
    fall = [0.02 + 0.48 * (1 + math.cos(math.pi * step / 16)) / 2 for step in range(16)]
    assert found == pytest.approx(rise + fall)


def test_each_schedule_is_paddle_s_own_with_paddleclas_warmup(paddle):
    """Paddle steps its schedulers one by one; ours compute each rate from its number."""
    lr = paddle.optimizer.lr
    pairs = [
        (Schedule("Constant", 0.3), lr.LambdaDecay(0.3, lambda _: 1.0)),
        (Schedule("Cosine", 0.3, least=0.01), lr.CosineAnnealingDecay(0.3, 20, 0.01)),
        (Schedule("Linear", 0.3, least=0.1, power=2), lr.PolynomialDecay(0.3, 20, 0.1, 2.0)),
        (Schedule("Step", 0.3, step_epochs=2, gamma=0.5), lr.StepDecay(0.3, 8, 0.5)),
        (
            Schedule("Piecewise", 0.3, boundaries=(1, 3), values=(0.3, 0.2, 0.1)),
            lr.PiecewiseDecay([4, 12], [0.3, 0.2, 0.1]),
        ),
    ]
    for schedule, after in pairs:
        whole = Schedule(**{**vars(schedule), "warmup_epochs": 1.0})
        paddle_s = lr.LinearWarmup(after, 4, 0.0, 0.3)
        expected = []
        for _ in range(24):
            expected.append(paddle_s.last_lr)
            paddle_s.step()
        assert rates(whole) == pytest.approx(expected, abs=1e-7), schedule.kind


def test_a_schedule_by_epoch_stays_the_same_within_one():
    found = rates(Schedule("Step", 0.4, step_epochs=1, gamma=0.5, by_epoch=True), 3, 2)
    assert found == pytest.approx([0.4, 0.4, 0.2, 0.2, 0.1, 0.1])


def test_piecewise_needs_a_value_for_each_stretch():
    with pytest.raises(ConfigError, match="2 values for 2 decay_epochs"):
        Schedule("Piecewise", 1.0, boundaries=(1, 2), values=(1.0, 0.1))


def network(paddle):
    paddle.seed(3)
    return paddle.nn.Sequential(paddle.nn.Conv2D(2, 3, 1), paddle.nn.BatchNorm2D(3))


def stepped(paddle, options: OptimizerOptions, rate: float = 0.1, steps: int = 2):
    """Return weights before and after each step, and their gradients, by the parameter's name."""
    net = network(paddle)
    optimizer = make_optimizer(options, net)
    # Paddle counts the statistics of batch norms as parameters too.
    learned = {name: p for name, p in net.named_parameters() if not p.stop_gradient}
    trail = [{name: p.numpy().copy() for name, p in learned.items()}]
    gradients = []
    for step in range(steps):
        grads = {}
        loss = 0.0
        for name, parameter in learned.items():
            values = np.random.default_rng(step).standard_normal(parameter.shape)
            grads[name] = values.astype(np.float32)
            loss = loss + (parameter * paddle.to_tensor(grads[name])).sum()
        loss.backward()
        optimizer.set_lr(rate)
        optimizer.step()
        optimizer.clear_grad()
        gradients.append(grads)
        trail.append({name: p.numpy().copy() for name, p in learned.items()})
    return trail, gradients


def test_momentum_is_its_formula_and_spares_batch_norms_the_decay(paddle):
    trail, gradients = stepped(paddle, OptimizerOptions("Momentum", momentum=0.9, decay=0.01))
    for name, weights in trail[0].items():
        decay = 0.0 if name.startswith("1.") else 0.01
        velocity = np.zeros_like(weights)
        for step, grads in enumerate(gradients):
            velocity = 0.9 * velocity + grads[name] + decay * weights
            weights = weights - 0.1 * velocity
            np.testing.assert_allclose(trail[step + 1][name], weights, rtol=1e-5, atol=1e-6)


def test_adamw_is_its_formula_and_spares_what_it_is_told(paddle):
    options = OptimizerOptions("AdamW", decay=0.1, no_decay=("0.weight",), no_decay_1d=False)
    trail, gradients = stepped(paddle, options, 0.01)
    for name, weights in trail[0].items():
        decay = 0.0 if name == "0.weight" else 0.1
        first, second = np.zeros_like(weights), np.zeros_like(weights)
        for step, grads in enumerate(gradients):
            first = 0.9 * first + 0.1 * grads[name]
            second = 0.999 * second + 0.001 * grads[name] ** 2
            mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            weights = weights * (1 - 0.01 * decay) - 0.01 * mean / (np.sqrt(square) + 1e-8)
            np.testing.assert_allclose(trail[step + 1][name], weights, rtol=1e-4, atol=1e-6)


def test_gradients_are_clipped(paddle):
    trail, gradients = stepped(paddle, OptimizerOptions("SGD", clip_global_norm=0.5), 1.0, 1)
    norm = math.sqrt(sum(float((g**2).sum()) for g in gradients[0].values()))
    for name, grad in gradients[0].items():
        moved = trail[0][name] - trail[1][name]
        np.testing.assert_allclose(moved, grad * 0.5 / norm, rtol=1e-4, atol=1e-6)


def test_the_average_follows_the_weights_and_the_statistics(paddle):
    net = network(paddle)
    average = MovingAverage(net, 0.75)
    expected = average.arrays()
    for step in range(3):
        for value in net.state_dict().values():
            value.set_value(value + step)
        average.update(net)
        now = {name: value.numpy() for name, value in net.state_dict().items()}
        expected = {name: 0.75 * mean + 0.25 * now[name] for name, mean in expected.items()}
    found = average.arrays()
    for name, mean in expected.items():
        np.testing.assert_allclose(found[name], mean, rtol=1e-5)
