# SPDX-License-Identifier: Apache-2.0
"""Write `pphgnet_mini/inference.onnx` from the Paddle model beside it.

`inference.pdmodel` and `inference.pdiparams` are a 10-class, 64-pixel HGNet that Paddle 2.6.2
exported; `golden.npz` holds its input `x` and its `probabilities`. Run this with paddlepaddle 3.3.1
and paddle2onnx 2.1.0 installed; the tests themselves need neither paddle2onnx nor this script.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import paddle2onnx

FOLDER = Path(__file__).parent / "pphgnet_mini"


def main() -> None:
    """Convert, name the tensors and the batch dimension, check, write."""
    data = paddle2onnx.export(
        str(FOLDER / "inference.pdmodel"),
        str(FOLDER / "inference.pdiparams"),
        opset_version=17,
        optimize_tool="None",
    )
    model = onnx.load_from_string(data)
    old = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["probabilities" if name == old else name for name in node.output]
    model.graph.output[0].name = "probabilities"
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, FOLDER / "inference.onnx")


if __name__ == "__main__":
    main()
