# SPDX-License-Identifier: Apache-2.0
"""Small classifiers that are not of our zoo, each with a trait that users' own models have.

All are of 64 x 64 pixels and 5 classes unless their name says otherwise, have random but lively
weights, and lie in a bundle with an `inference.yml` of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import paddle
from paddle import nn
from paddle.nn import functional

SIZE = 64
LABELS = "label_list: [a, b, c, d, e]"
_TOPK = f"Topk: {{topk: 5, {LABELS}}}"
_MULTI = f"MultiLabelThreshOutput: {{threshold: 0.5, {LABELS}}}"
_SCORE = "ScoreOutput: {decimal_places: 4}"

Heads = Callable[["Net", Any, Any], Any]
"""From the network, the logits and the pooled features to the outputs."""


def softmax(logits: Any) -> Any:
    return functional.softmax(logits, axis=-1)


HEADS: dict[str, Heads] = {
    "softmax": lambda _net, logits, _h: softmax(logits),
    "sigmoid": lambda _net, logits, _h: functional.sigmoid(logits),
    "logits": lambda _net, logits, _h: logits,
    "two_softmaxes": lambda _net, logits, _h: softmax(softmax(logits)),
    "softmax_features": lambda net, logits, h: (softmax(logits), net.features(h)),
    "features_softmax": lambda net, logits, h: (net.features(h), softmax(logits)),
    "three_softmaxes": lambda _net, logits, _h: tuple(softmax(logits * k) for k in (1, 2, 3)),
    "n_c_1_1": lambda _net, logits, _h: softmax(logits).unsqueeze(-1).unsqueeze(-1),
    "squeezed": lambda _net, logits, _h: softmax(logits).squeeze(),
    "argmax": lambda _net, logits, _h: logits.argmax(axis=-1),
    "topk": lambda _net, logits, _h: paddle.topk(softmax(logits), 2),
    "summed": lambda _net, logits, _h: softmax(logits).sum(axis=0, keepdim=True),
}


class Net(nn.Layer):
    """Two convolutions, a pooling and a dense layer, with the head that is named."""

    def __init__(
        self, head: str = "softmax", *, classes: int = 5, channels: int = 3, pool: int = 2,
        seed: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        paddle.seed(seed)
        self.head = HEADS[head]
        self.conv1 = nn.Conv2D(channels, 16, 7, stride=4, padding=3)
        self.norm = nn.BatchNorm2D(16)
        self.conv2 = nn.Conv2D(16, 32, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2D(pool)
        self.dense = nn.Linear(32 * pool * pool, classes)
        self.dense.weight.set_value(self.dense.weight * 8)
        self.features = nn.Linear(32 * pool * pool, 12)

    def forward(self, x: Any) -> Any:
        h = functional.relu(self.conv2(functional.relu(self.norm(self.conv1(x)))))
        h = self.pool(h).flatten(1)
        return self.head(self, self.dense(h), h)


class Before(nn.Layer):
    """A network behind a function of its input."""

    def __init__(self, change: Callable[[Any], Any]) -> None:
        super().__init__()
        self.net, self.change = Net(), change

    def forward(self, x: Any) -> Any:
        return self.net(self.change(x))


class ChannelNorm(nn.Layer):
    """Layer normalisation over the channels in plain operators, as ConvNeXt has it.

    Paddle 3.3.1 with oneDNN computes it wrongly.
    """

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(0)
        self.stem, self.down = nn.Conv2D(3, 32, 4, 4), nn.Conv2D(32, 32, 2, 2)
        self.dense = nn.Linear(32, 5)
        self.dense.weight.set_value(self.dense.weight * 6)
        uniform = nn.initializer.Uniform
        self.scales = nn.ParameterList(
            [self.create_parameter([32], default_initializer=uniform(0.2, 2.0)) for _ in "12"]
        )
        self.shifts = nn.ParameterList(
            [self.create_parameter([32], default_initializer=uniform(-1.0, 1.0)) for _ in "12"]
        )

    def _normalised(self, x: Any, scale: Any, shift: Any) -> Any:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / paddle.sqrt(variance + 1e-6)
        return scale[:, None, None] * x + shift[:, None, None]

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        for i in range(2):
            x = self._normalised(x, self.scales[i], self.shifts[i])
        return softmax(self.dense(self.down(x).mean([-2, -1])))


class Upsampled(nn.Layer):
    """A branch that is enlarged twice, as in HRNet; Paddle's oneDNN path cannot run it."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(0)
        self.a, self.b = nn.Conv2D(3, 16, 3, 2, 1), nn.Conv2D(16, 16, 3, 2, 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.dense = nn.Linear(16, 5)
        self.dense.weight.set_value(self.dense.weight * 20)

    def forward(self, x: Any) -> Any:
        x = self.a(x)
        return softmax(self.dense(functional.relu(x + self.up(self.b(x))).mean([2, 3])))


class ClassToken(nn.Layer):
    """Attention with a class token expanded to the batch, as in vision transformers."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(0)
        self.patch = nn.Conv2D(3, 32, 16, stride=16)
        normal = nn.initializer.Normal(0, 1)
        self.token = self.create_parameter([1, 1, 32], default_initializer=normal)
        self.qkv, self.norm, self.dense = nn.Linear(32, 96), nn.LayerNorm(32), nn.Linear(32, 5)
        self.dense.weight.set_value(self.dense.weight * 20)

    def forward(self, x: Any) -> Any:
        batch = paddle.shape(x)[0]
        h = self.patch(x).flatten(2).transpose([0, 2, 1])
        h = paddle.concat([self.token.expand([batch, 1, 32]), h], axis=1)
        q, k, v = self.qkv(h).reshape([batch, -1, 3, 32]).transpose([2, 0, 1, 3]).unbind(0)
        h = h + softmax(q.matmul(k, transpose_y=True) / 5.6).matmul(v)
        return softmax(self.dense(self.norm(h)[:, 0]))


class DenseNorm(nn.Layer):
    """Batch normalisation behind a dense layer, as in LeViT."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(0)
        self.patch, self.hidden = nn.Conv2D(3, 32, 16, stride=16), nn.Linear(32, 32)
        self.norm, self.dense = nn.BatchNorm1D(32), nn.Linear(32, 5)
        self.dense.weight.set_value(self.dense.weight * 20)

    def forward(self, x: Any) -> Any:
        h = self.patch(x).flatten(2).transpose([0, 2, 1])
        patches = h.shape[1]
        h = self.norm(self.hidden(h).reshape([-1, 32])).reshape([-1, patches, 32])
        return softmax(self.dense(functional.hardswish(h).mean(1)))


class Branching(nn.Layer):
    """Control flow that depends on the image."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net("logits")

    def forward(self, x: Any) -> Any:
        logits = self.net(x)
        return softmax(
            paddle.static.nn.cond(logits.mean() > 0, lambda: logits * 2, lambda: logits - 1)
        )


class OneSize(nn.Layer):
    """A network that takes one size of images, which its program does not state."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(0)
        self.conv, self.dense = nn.Conv2D(3, 8, 4, 4), nn.Linear(8 * (SIZE // 4) ** 2, 5)

    def forward(self, x: Any) -> Any:
        return softmax(self.dense(functional.relu(self.conv(x)).flatten(1)))


class TwoInputs(nn.Layer):
    """A model that is no image classifier: it takes two pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Net()

    def forward(self, x: Any, y: Any) -> Any:
        return self.net(x + y)


class Foreign(NamedTuple):
    """How to make one model: the network, its input's shape and type, what its yml says."""

    network: Callable[[], nn.Layer]
    shape: tuple[int | None, ...] = (None, 3, SIZE, SIZE)
    dtype: str = "float32"
    post: str = _TOPK
    normalise: bool = True
    to_chw: bool = True


MODELS: dict[str, Foreign] = {
    "plain": Foreign(Net),
    "other_weights": Foreign(lambda: Net(seed=1)),
    "four_classes": Foreign(lambda: Net(classes=4), post="Topk: {topk: 4}"),
    "sigmoid": Foreign(lambda: Net("sigmoid"), post=_MULTI),
    "logits": Foreign(lambda: Net("logits")),
    "one_score": Foreign(lambda: Net("sigmoid", classes=1), post=_SCORE),
    "one_softmax": Foreign(lambda: Net(classes=1), post="Topk: {topk: 1}"),
    "two_softmaxes": Foreign(lambda: Net("two_softmaxes")),
    "softmax_features": Foreign(lambda: Net("softmax_features")),
    "features_softmax": Foreign(lambda: Net("features_softmax")),
    "three_softmaxes": Foreign(lambda: Net("three_softmaxes")),
    "n_c_1_1": Foreign(lambda: Net("n_c_1_1")),
    "squeezed": Foreign(lambda: Net("squeezed")),
    "argmax": Foreign(lambda: Net("argmax"), post="Topk: {topk: 1}"),
    "topk": Foreign(lambda: Net("topk"), post="Topk: {topk: 1}"),
    "summed": Foreign(lambda: Net("summed")),
    "gray": Foreign(lambda: Net(channels=1), (None, 1, SIZE, SIZE)),
    "four_channels": Foreign(lambda: Net(channels=4), (None, 4, SIZE, SIZE)),
    "uint8": Foreign(
        lambda: Before(lambda x: x.astype("float32") / 58 - 2), dtype="uint8", normalise=False
    ),
    "nhwc": Foreign(
        lambda: Before(lambda x: x.transpose([0, 3, 1, 2])), (None, SIZE, SIZE, 3), to_chw=False
    ),
    "fixed_batch_3": Foreign(Net, (3, 3, SIZE, SIZE)),
    "any_size": Foreign(lambda: Net(pool=1), (None, 3, None, None)),
    "any_size_pooled": Foreign(Net, (None, 3, None, None)),
    "batch_of_one": Foreign(lambda: Before(lambda x: x.reshape([1, 3, SIZE, SIZE]))),
    "one_size_unstated": Foreign(OneSize, (None, 3, None, None)),
    "channel_norm": Foreign(ChannelNorm),
    "upsampled": Foreign(Upsampled),
    "class_token": Foreign(ClassToken),
    "dense_norm": Foreign(DenseNorm),
    "branching": Foreign(Branching),
    "two_inputs": Foreign(TwoInputs),
}


def description(model: Foreign) -> str:
    """Return the `inference.yml` of a model."""
    ops = [f"ResizeImage: {{resize_short: {SIZE + 8}}}", f"CropImage: {{size: {SIZE}}}"]
    if model.normalise:
        mean, std = "[0.485, 0.456, 0.406]", "[0.229, 0.224, 0.225]"
        ops.append(f"NormalizeImage: {{scale: 1.0/255.0, mean: {mean}, std: {std}, order: ''}}")
    if model.to_chw:
        ops.append("ToCHWImage:")
    listed = "\n".join(f"  - {op}" for op in ops)
    return f"PreProcess:\n  transform_ops:\n{listed}\nPostProcess:\n  {model.post}\n"


def save_network(network: nn.Layer, folder: Path, *specs: paddle.static.InputSpec) -> None:
    """Write `inference.json` (or `.pdmodel`) and `inference.pdiparams` of a network."""
    network.eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        paddle.jit.save(network, str(folder / "inference"), input_spec=list(specs))


def make_foreign(name: str, folder: Path) -> Path:
    """Write the bundle of one of `MODELS` into a new folder, and return that folder."""
    folder.mkdir(parents=True)
    model = MODELS[name]
    network = model.network()
    names = ("x", "y") if isinstance(network, TwoInputs) else ("x",)
    specs = [paddle.static.InputSpec(list(model.shape), model.dtype, name=n) for n in names]
    save_network(network, folder, *specs)
    (folder / "inference.yml").write_text(description(model), encoding="utf-8")
    return folder


def make_old_foreign(name: str, folder: Path) -> Path:
    """The same with `inference.pdmodel`, the format up to Paddle 2.6, by a process of its own."""
    environment = {**os.environ, "FLAGS_enable_pir_api": "0", "GLOG_minloglevel": "3"}
    subprocess.run(
        [sys.executable, __file__, name, folder], env=environment, check=True, capture_output=True
    )
    return folder


if __name__ == "__main__":
    make_foreign(sys.argv[1], Path(sys.argv[2]))
