# SPDX-License-Identifier: Apache-2.0
"""ONNX files of small classifiers, as other tools write them: one body, and a head of any kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

CLASSES = 5
DESCRIPTION = """\
PreProcess:
  transform_ops:
    - ResizeImage: {resize_short: 72}
    - CropImage: {size: 64}
    - NormalizeImage: {scale: 1.0/255.0, order: ''}
    - ToCHWImage:
PostProcess:
  Topk: {topk: 5, label_list: [a, b, c, d, e]}
"""
SOFTMAX = ("Softmax", ["logits"], ["p"], {"axis": 1})

Node = tuple[str, list[str], list[str], Mapping[str, Any]]


def make_headed(
    folder: Path,
    head: Iterable[Node],
    outputs: Sequence[str],
    weights: Mapping[str, Any] = {},
    *,
    shape: Sequence[int | str] = ("n", CLASSES),
    dtype: int = TensorProto.FLOAT,
    description: str = DESCRIPTION,
) -> Path:
    """Write a bundle of an ONNX file alone, whose head gets `logits` of 5 classes.

    Args:
        folder: the new bundle.
        head: its operators: kind, inputs, outputs and attributes of each.
        outputs: which tensors are given.
        weights: constant tensors for the head, by name.
        shape: of each output.
        dtype: of each output.
        description: the `inference.yml`.
    """
    random = np.random.default_rng(0)
    constants = {
        "kernel": random.normal(0, 0.05, (8, 3, 7, 7)).astype(np.float32),
        "dense": random.normal(0, 0.4, (32, CLASSES)).astype(np.float32),
        "bias": np.zeros(CLASSES, np.float32),
        **weights,
    }
    body: list[Node] = [
        ("Conv", ["x", "kernel"], ["conv"], {"strides": [4, 4], "pads": [3, 3, 3, 3]}),
        ("Relu", ["conv"], ["active"], {}),
        ("AveragePool", ["active"], ["pooled"], {"kernel_shape": [8, 8], "strides": [8, 8]}),
        ("Flatten", ["pooled"], ["flat"], {"axis": 1}),
        ("Gemm", ["flat", "dense", "bias"], ["logits"], {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(kind, a, b, **more) for kind, a, b, more in (*body, *head)],
        "headed",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 64, 64])],
        [helper.make_tensor_value_info(name, dtype, list(shape)) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    folder.mkdir(parents=True)
    onnx.save(model, str(folder / "inference.onnx"))
    (folder / "inference.yml").write_text(description, encoding="utf-8")
    return folder
