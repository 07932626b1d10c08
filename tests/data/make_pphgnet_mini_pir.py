# SPDX-License-Identifier: Apache-2.0
"""Write `pphgnet_mini_pir/`, the Paddle 3 form of `pphgnet_mini/` with the same parameters.

Paddle 3 cannot rewrite a Paddle 2 program, so the network is built anew from the zoo's PP-HGNet,
and its parameters are read from the old `.pdiparams`; `test_engines.py` holds both forms to the
same golden answers. Run it with paddlepaddle 3.3.1 and HGDeploy installed.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import paddle
from paddle import nn
from paddle.base.proto import framework_pb2

from hgdeploy.zoo.networks.pphgnet import PPHGNet, _Stage

OLD = Path(__file__).parent / "pphgnet_mini"
NEW = Path(__file__).parent / "pphgnet_mini_pir"


def parameters() -> dict[str, np.ndarray]:
    """Read `.pdiparams`: float32 tensors in order of name, each behind a small header."""
    program = framework_pb2.ProgramDesc()
    program.ParseFromString((OLD / "inference.pdmodel").read_bytes())
    held = (v for v in program.blocks[0].vars if v.persistable)
    names = sorted(v.name for v in held if v.name not in ("feed", "fetch"))
    data, at, found = (OLD / "inference.pdiparams").read_bytes(), 0, {}
    for name in names:
        # version (4 bytes), level of detail (8), version (4), then the length of the description
        (length,) = struct.unpack_from("<i", data, at + 16)
        at += 20
        description = framework_pb2.VarType.TensorDesc()
        description.ParseFromString(data[at : at + length])
        shape = tuple(description.dims)
        at += length
        size = int(np.prod(shape))
        found[name] = np.frombuffer(data, "<f4", size, at).reshape(shape)
        at += 4 * size
    return found


def build() -> nn.Layer:
    """The network of the old program, with fresh parameters."""
    stages = (
        _Stage(16, 8, 32, 1, downsample=False),
        _Stage(32, 12, 64, 1, downsample=True),
        _Stage(64, 16, 96, 2, downsample=True),
        _Stage(96, 24, 128, 1, downsample=True),
    )
    net = PPHGNet((8, 8, 16), stages, 3, 10, dropout=0.2)
    net.last_conv = nn.Conv2D(128, 128, 1, bias_attr=False)
    net.fc = nn.Linear(128, 10)
    return net


def main() -> None:
    """Number the layers of each kind in order of creation, as the old names do, and save."""
    net = build()
    kinds = (
        (nn.Conv2D, "conv2d", {"weight": "w_0", "bias": "b_0"}),
        (
            nn.BatchNorm2D,
            "batch_norm2d",
            {"weight": "w_0", "bias": "b_0", "_mean": "w_1", "_variance": "w_2"},
        ),
        (nn.Linear, "linear", {"weight": "w_0", "bias": "b_0"}),
    )
    found, state = parameters(), {}
    for kind, old_kind, endings in kinds:
        layers = [(n, m) for n, m in net.named_sublayers() if isinstance(m, kind)]
        for number, (name, module) in enumerate(layers):
            for ending in module.state_dict():
                state[f"{name}.{ending}"] = found.pop(f"{old_kind}_{number}.{endings[ending]}")
    if found:
        raise SystemExit(f"parameters without a place: {sorted(found)}")
    net.set_state_dict(state)
    model = nn.Sequential(net, nn.Softmax(axis=-1))
    model.eval()
    spec = [paddle.static.InputSpec([None, 3, 64, 64], "float32", "x")]
    static = paddle.jit.to_static(model, input_spec=spec, full_graph=True)
    paddle.jit.save(static, str(NEW / "inference"))


if __name__ == "__main__":
    main()
