# SPDX-License-Identifier: Apache-2.0
"""Whether OpenVINO computes int8 rightly on this CPU, found out with a network of known results.

On some CPUs it does not. Without VNNI, sums of products overflow. And where OpenVINO 2026.4 shifts
symmetric activations to 0 to 255 for a CPU, it computes wrongly what follows a concatenation, even
if nothing can overflow; PP-HGNet has a concatenation in each block.
"""

from __future__ import annotations

import functools

import numpy as np

from hgdeploy.system.libraries import import_library

_CHANNELS, _OUT, _SIDE = 32, 16, 4
# Any values but 1: OpenVINO drops a multiplication by 1.
_SCALE, _WEIGHT_SCALE = np.float32(0.02), np.float32(0.01)


@functools.cache
def int8_error(signed: bool) -> float:
    """Run one concatenation and one convolution in int8, over the whole range of values.

    Args:
        signed: activations are -128 to 127 with a zero point of 0, else 0 to 255.

    Returns:
        The largest error as a share of the largest right result; rounding alone is below 1e-3.

    Raises:
        EngineError: OpenVINO is not installed.
    """
    random = np.random.default_rng(0)
    low, high = (-128, 127) if signed else (0, 255)
    values = random.integers(low, high + 1, (1, _CHANNELS, _SIDE, _SIDE))
    weights = random.integers(-127, 128, (_OUT, 2 * _CHANNELS))
    exact = np.einsum("oc,nchw->nohw", weights, np.concatenate([values, values], axis=1))
    found = _run(values.astype(np.float32) * _SCALE, weights.astype(np.int8), low, high)
    error = np.abs(found / (_SCALE * _WEIGHT_SCALE) - exact).max()
    return float(error / np.abs(exact).max())


def _run(x: np.ndarray, weights: np.ndarray, low: int, high: int) -> np.ndarray:
    """Quantize `x`, concatenate it with itself, and convolve that, as an ONNX file in QDQ form."""
    openvino = import_library("openvino", "openvino")
    ops = import_library("openvino.opset13", "openvino")
    given = ops.parameter(x.shape, np.float32)
    steps = [np.float32(low), np.float32(high)]
    limits = [ops.constant(limit) for limit in (*(step * _SCALE for step in steps), *steps)]
    kind = "i8" if low < 0 else "u8"
    quantized = ops.convert(ops.fake_quantize(given, *limits, 256), kind)
    dequantized = ops.multiply(ops.convert(quantized, "f32"), ops.constant(_SCALE))
    kernel = ops.multiply(
        ops.convert(ops.constant(weights[:, :, None, None]), "f32"),
        ops.constant(np.full((_OUT, 1, 1, 1), _WEIGHT_SCALE)),
    )
    both = ops.concat([dequantized, dequantized], 1)
    result = ops.convolution(both, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = openvino.Core().compile_model(openvino.Model([result], [given]), "CPU", settings)
    output: np.ndarray = compiled({0: x})[0].copy()
    return output
