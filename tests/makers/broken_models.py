# SPDX-License-Identifier: Apache-2.0
"""Deliberately broken conversions of an ONNX classifier, like those that happen in practice."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import TensorProto, helper


def _softmax(model: onnx.ModelProto) -> onnx.NodeProto:
    return next(node for node in model.graph.node if node.op_type == "Softmax")


def _insert_before(model: onnx.ModelProto, node: onnx.NodeProto, *new: onnx.NodeProto) -> None:
    at = list(model.graph.node).index(node)
    for i, added in enumerate(new):
        model.graph.node.insert(at + i, added)


def dropout_kept_at_full_strength(model: onnx.ModelProto) -> None:
    """Logits 1.25 times too large, as when a `downscale_in_infer` of 0.2 is dropped."""
    softmax = _softmax(model)
    scale = helper.make_tensor("factor", TensorProto.FLOAT, [], [1.25])
    model.graph.initializer.append(scale)
    _insert_before(
        model, softmax, helper.make_node("Mul", [softmax.input[0], "factor"], ["scaled"])
    )
    softmax.input[0] = "scaled"


def softmax_twice(model: onnx.ModelProto) -> None:
    """A second softmax after the last one; the best class stays, its score does not."""
    softmax = _softmax(model)
    _insert_before(
        model, softmax, helper.make_node("Softmax", [softmax.input[0]], ["once"], axis=-1)
    )
    softmax.input[0] = "once"


def channels_the_other_way_round(model: onnx.ModelProto) -> None:
    """BGR where the model expects RGB."""
    order = helper.make_tensor("order", TensorProto.INT64, [3], [2, 1, 0])
    model.graph.initializer.append(order)
    for node in model.graph.node:
        node.input[:] = ["turned" if name == "x" else name for name in node.input]
    model.graph.node.insert(0, helper.make_node("Gather", ["x", "order"], ["turned"], axis=1))


BREAKS: tuple[Callable[[onnx.ModelProto], None], ...] = (
    dropout_kept_at_full_strength,
    softmax_twice,
    channels_the_other_way_round,
)
