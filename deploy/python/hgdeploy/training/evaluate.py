# SPDX-License-Identifier: Apache-2.0
"""The figures of a network in training on the images for evaluation."""

from __future__ import annotations

from typing import Any

from hgdeploy.errors import InputError
from hgdeploy.system.libraries import import_library
from hgdeploy.training.data import TrainingData
from hgdeploy.training.recipe import Recipe
from hgdeploy.validation.evaluation import (
    AttributeEvaluation,
    Evaluation,
    TopkAcc,
    label_metrics,
)


def evaluate(network: Any, data: TrainingData, recipe: Recipe) -> dict[str, float]:
    """Return the figures of all images that can be read.

    Args:
        network: the network; it is in training mode again afterwards.
        data: the images.
        recipe: says what is measured.

    Returns:
        Name to value; the first one is what decides which weights are best. `images` is how many
        were measured.

    Raises:
        InputError: no image can be read.
    """
    paddle = import_library("paddle", "cpu")
    several = recipe.several_labels
    found = _evaluation(recipe)
    network.eval()
    try:
        with paddle.no_grad():
            for batch in data.epoch(0):
                if not len(batch):
                    continue
                logits = network(paddle.to_tensor(batch.images)).astype("float32")
                ending = paddle.nn.functional.sigmoid if several else paddle.nn.functional.softmax
                for scores, label in zip(ending(logits).numpy(), batch.labels, strict=True):
                    found.add(scores, label)
    finally:
        network.train()
    if not found.images:
        raise InputError(f"none of the {data.samples} images for evaluation can be read")
    return {**_figures(found, recipe), "images": found.images}


def _evaluation(recipe: Recipe) -> Evaluation | AttributeEvaluation:
    if recipe.several_labels:
        several = label_metrics(recipe.metrics)
        return AttributeEvaluation(recipe.classes, several, recipe.smoothing)
    metrics = recipe.metrics
    accuracies = [metric for metric in metrics if isinstance(metric, TopkAcc)]
    if not any(k <= recipe.classes for metric in accuracies for k in metric.topk):
        # Beside what is asked for, or where that says nothing of so few classes.
        metrics = (*metrics, TopkAcc((1,)))
    return Evaluation(recipe.classes, metrics, recipe.smoothing)


def _figures(found: Evaluation | AttributeEvaluation, recipe: Recipe) -> dict[str, float]:
    figures = found.figures()
    return figures if recipe.smoothing is None else {**figures, "loss": found.loss}
