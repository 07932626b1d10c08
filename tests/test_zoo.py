# SPDX-License-Identifier: Apache-2.0
"""The zoo: what is listed, and that every network computes what its architecture says."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from golden_fill import golden_fill
from hgdeploy import zoo
from hgdeploy.errors import ConfigError
from hgdeploy.preprocess import CropImage, NormalizeImage, Preprocessor, ResizeImage
from hgdeploy.zoo.weights import load_into, read_weights

paddle = pytest.importorskip("paddle")
functional = paddle.nn.functional

DATA = Path(__file__).parent / "data" / "zoo"
IMAGES = Path(__file__).parent.parent / "deploy" / "images"
PPHGNETS = ("PPHGNet_tiny", "PPHGNet_small", "PPHGNet_base")
LITES = ("EfficientNetLite0", "EfficientNetLite1", "EfficientNetLite2")
ARCHITECTURES = (*PPHGNETS, *LITES)

# Stem channels; (in, mid, out, blocks, downsample) of each stage; convolutions a block; dropout.
PPHGNET_FACTS = {
    "PPHGNet_tiny": (
        ((96, 96, 224, 1, 0), (224, 128, 448, 1, 1), (448, 160, 512, 2, 1), (512, 192, 768, 1, 1)),
        5,
        0.0,
    ),
    "PPHGNet_small": (
        (
            (128, 128, 256, 1, 0),
            (256, 160, 512, 1, 1),
            (512, 192, 768, 2, 1),
            (768, 224, 1024, 1, 1),
        ),
        6,
        0.0,
    ),
    "PPHGNet_base": (
        (
            (160, 192, 320, 1, 0),
            (320, 224, 640, 2, 1),
            (640, 256, 960, 3, 1),
            (960, 288, 1280, 2, 1),
        ),
        7,
        0.2,
    ),
}
# Repeats of each stage as the published weights have them; strides are EfficientNet's.
LITE_REPEATS = {
    "EfficientNetLite0": (1, 2, 2, 3, 3, 4, 1),
    "EfficientNetLite1": (1, 3, 3, 4, 4, 5, 1),
    "EfficientNetLite2": (1, 3, 3, 4, 4, 5, 1),
}
STAGE_STRIDES = (1, 2, 2, 2, 1, 2, 1)


def filled(name: str) -> Any:
    layer = zoo.build(name)
    state = {key: tuple(tensor.shape) for key, tensor in layer.state_dict().items()}
    load_into(layer, {key: golden_fill(key, shape) for key, shape in state.items()}, "recipe")
    return layer


def run(layer: Any, x: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return np.array(layer(paddle.to_tensor(x)).numpy())


def images(size: int, count: int = 2) -> np.ndarray:
    return np.random.RandomState(0).standard_normal((count, 3, size, size)).astype(np.float32)


def assert_logits_agree(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


class Reference:
    """Layers as plain functions of a state dict, written from the papers and not from the zoo."""

    def __init__(self, layer: Any, epsilon: float) -> None:
        self.state = layer.state_dict()
        self.epsilon = epsilon

    def conv(self, x: Any, name: str, stride: int = 1, padding: Any = 0) -> Any:
        weight = self.state[f"{name}.weight"]
        return functional.conv2d(
            x,
            weight,
            bias=self.state.get(f"{name}.bias"),
            stride=stride,
            padding=padding,
            groups=x.shape[1] // weight.shape[1],
        )

    def norm(self, x: Any, name: str) -> Any:
        gain, bias, mean, variance = (
            self.state[f"{name}.{part}"].reshape([1, -1, 1, 1])
            for part in ("weight", "bias", "_mean", "_variance")
        )
        return (x - mean) / paddle.sqrt(variance + self.epsilon) * gain + bias


class PPHGNetReference(Reference):
    """PP-HGNet from its table of facts."""

    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, 1e-5)
        self.stages, self.depth, self.dropout = PPHGNET_FACTS[name]

    def conv_bn(self, x: Any, name: str, stride: int = 1) -> Any:
        kernel = self.state[f"{name}.conv.weight"].shape[-1]
        return self.norm(self.conv(x, f"{name}.conv", stride, kernel // 2), f"{name}.bn")

    def block(self, x: Any, name: str) -> Any:
        outputs = [x]
        for index in range(self.depth):
            outputs.append(self.conv_bn(outputs[-1], f"{name}.layers.{index}").clip(min=0))
        y = self.conv_bn(paddle.concat(outputs, 1), f"{name}.aggregation_conv").clip(min=0)
        squeezed = self.conv(y.mean([2, 3], keepdim=True), f"{name}.att.conv")
        return y / (1 + paddle.exp(-squeezed))

    def __call__(self, x: Any) -> Any:
        for index, stride in enumerate((2, 1, 1)):
            x = self.conv_bn(x, f"stem.{index}", stride).clip(min=0)
        x = functional.max_pool2d(x, 3, stride=2, padding=1)
        for number, (_, mid, out, blocks, downsample) in enumerate(self.stages):
            if downsample:
                x = self.conv_bn(x, f"stages.{number}.downsample", 2)
            for index in range(blocks):
                y = self.block(x, f"stages.{number}.blocks.{index}")
                x = y + x if index else y
            last = self.state[f"stages.{number}.blocks.0.layers.1.conv.weight"]
            assert (last.shape[0], x.shape[1]) == (mid, out)
        x = self.conv(x.mean([2, 3], keepdim=True), "last_conv").clip(min=0) * (1 - self.dropout)
        return x.flatten(1) @ self.state["fc.weight"] + self.state["fc.bias"]


class LiteReference(Reference):
    """EfficientNet-Lite with Paddle's own SAME padding, which is computed at run time."""

    def __init__(self, layer: Any, name: str) -> None:
        super().__init__(layer, 1e-3)
        self.strides = [
            stride if index == 0 else 1
            for repeats, stride in zip(LITE_REPEATS[name], STAGE_STRIDES, strict=True)
            for index in range(repeats)
        ]

    def conv_bn(self, x: Any, conv: str, norm: str, stride: int = 1) -> Any:
        return self.norm(self.conv(x, conv, stride, "SAME"), norm)

    def __call__(self, x: Any) -> Any:
        x = self.conv_bn(x, "_conv_stem", "_bn0", 2).clip(0, 6)
        for index, stride in enumerate(self.strides):
            name = f"_blocks.{index}"
            y = x
            if index:
                y = self.conv_bn(y, f"{name}._expand_conv", f"{name}._bn0").clip(0, 6)
            y = self.conv_bn(y, f"{name}._depthwise_conv", f"{name}._bn1", stride).clip(0, 6)
            y = self.conv_bn(y, f"{name}._project_conv", f"{name}._bn2")
            x = y + x if y.shape == x.shape else y
        x = self.conv_bn(x, "_conv_head", "_bn1").clip(0, 6).mean([2, 3])
        return x @ self.state["_fc.weight"] + self.state["_fc.bias"]


@pytest.mark.parametrize("name", PPHGNETS)
def test_parameter_names_shapes_and_order_are_paddleclas_s(name: str) -> None:
    table = json.loads((DATA / f"{name}.json").read_text())["parameters"]
    state = zoo.build(name).state_dict()
    found = [[key, list(t.shape), str(t.dtype).rpartition(".")[2]] for key, t in state.items()]
    assert found == table


def test_logits_of_the_tiny_model_are_paddleclas_s() -> None:
    with np.load(DATA / "PPHGNet_tiny.npz") as file:
        expected = file["logits"]
    assert_logits_agree(run(filled("PPHGNet_tiny"), images(224)), expected)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_an_independent_forward(name: str) -> None:
    layer = filled(name)
    reference = (PPHGNetReference if name in PPHGNETS else LiteReference)(layer, name)
    x = images(zoo.info(name).input_size)
    assert_logits_agree(run(layer, x), run(reference, x))


@pytest.mark.parametrize("name", zoo.names())
def test_published_size_is_what_the_network_has(name: str) -> None:
    if name != zoo.info(name).architecture:
        assert zoo.info(name).params_m == zoo.info(zoo.info(name).architecture).params_m
        assert zoo.info(name).macs_g == zoo.info(zoo.info(name).architecture).macs_g
        return
    layer = zoo.build(name)
    count = sum(math.prod(tensor.shape) for tensor in layer.state_dict().values())
    assert round(count / 1e6, 2) == zoo.info(name).params_m

    macs = 0

    def add(part: Any, _: Any, output: Any) -> None:
        nonlocal macs
        each = part.weight.shape[1:] if len(part.weight.shape) == 4 else part.weight.shape[:1]
        macs += math.prod(output.shape[1:]) * math.prod(each)

    for part in layer.sublayers():
        if isinstance(part, paddle.nn.Conv2D | paddle.nn.Linear):
            part.register_forward_post_hook(add)
    run(layer, images(zoo.info(name).input_size, 1))
    assert macs / 1e9 == pytest.approx(zoo.info(name).macs_g, rel=0.01)


@pytest.mark.parametrize("name", ["PPHGNet_tiny", "EfficientNetLite0"])
def test_another_number_of_classes_changes_only_the_last_layer(name: str) -> None:
    thousand = {key: t.shape for key, t in zoo.build(name).state_dict().items()}
    ten = {key: t.shape for key, t in zoo.build(name, 10).state_dict().items()}
    assert thousand.keys() == ten.keys()
    changed = [key for key in ten if ten[key] != thousand[key]]
    assert changed == list(ten)[-2:]
    assert run(zoo.build(name, 10), images(224)).shape == (2, 10)


def test_a_distilled_model_is_built_with_its_own_name() -> None:
    assert zoo.info("PPHGNet_tiny_ssld").architecture == "PPHGNet_tiny"
    state = zoo.build("PPHGNet_tiny_ssld").state_dict()
    assert list(state) == list(zoo.build("PPHGNet_tiny").state_dict())


def test_a_built_model_is_in_eval_mode() -> None:
    assert not any(part.training for part in zoo.build("PPHGNet_tiny").sublayers(True))


def test_importing_and_listing_the_zoo_loads_no_heavy_library() -> None:
    code = (
        "import sys; from hgdeploy import zoo; [zoo.info(name) for name in zoo.names()]; "
        "zoo.imagenet_labels(); "
        "print(sorted({'paddle', 'cv2', 'PIL', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_model_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match=r"'PPHGNet_tinny', did you mean 'PPHGNet_tiny'\?"):
        zoo.build("PPHGNet_tinny")


@pytest.mark.parametrize("count", [0, -3])
def test_a_model_without_classes_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match=f"num_classes is {count}, expected at least 1"):
        zoo.build("PPHGNet_tiny", count)


@pytest.mark.parametrize(
    ("name", "top1", "top5", "v100_ms"),
    [
        ("PPHGNet_tiny", 79.83, 95.04, 1.77),
        ("PPHGNet_tiny_ssld", 81.95, 96.12, 1.77),
        ("PPHGNet_small", 81.51, 95.82, 2.52),
        ("PPHGNet_small_ssld", 83.82, 96.81, 2.52),
        ("PPHGNet_base", None, None, None),
        ("PPHGNet_base_ssld", 85.00, 97.35, 5.97),
        ("EfficientNetLite0", 75.1, None, None),
        ("EfficientNetLite1", 76.7, None, None),
        ("EfficientNetLite2", 77.6, None, None),
    ],
)
def test_published_figures_are_listed(
    name: str, top1: float | None, top5: float | None, v100_ms: float | None
) -> None:
    info = zoo.info(name)
    assert (info.top1, info.top5, info.v100_ms) == (top1, top5, v100_ms)


def test_each_published_model_can_be_fetched_from_one_place() -> None:
    for name in zoo.names():
        info = zoo.info(name)
        official = (info.weights_url, info.inference_url)
        if name == "PPHGNet_base":
            assert (*official, info.package) == (None, None, None)
        elif name in PPHGNETS or name.endswith("_ssld"):
            assert info.weights_url is not None
            assert info.inference_url is not None
            assert info.weights_url.endswith(f"/legendary_models/{name}_pretrained.pdparams")
            assert info.inference_url.endswith(f"/inference/{name}_infer.tar")
        else:
            assert official == (None, None)
            assert info.package is not None
            assert info.package.sha256[:8] in info.package.member


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PPHGNet_tiny", "232 -> 224 pil bicubic"),
        ("PPHGNet_small_ssld", "236 -> 224 pil bicubic"),
        ("EfficientNetLite1", "274 -> 240 pil bicubic"),
        ("EfficientNetLite2", "297 -> 260 pil bicubic"),
    ],
)
def test_preprocessing_is_described_in_a_few_words(name: str, words: str) -> None:
    assert zoo.info(name).describe_preprocess() == words


@pytest.mark.parametrize("name", zoo.names())
def test_preprocessing_ends_in_the_network_s_input(name: str) -> None:
    info = zoo.info(name)
    resize, crop, normalize, _ = info.preprocess
    assert isinstance(resize, ResizeImage)
    assert isinstance(crop, CropImage)
    assert isinstance(normalize, NormalizeImage)
    assert crop.size == (info.input_size, info.input_size)
    if name in LITES:
        assert resize.resize_short == round(info.input_size / 0.875)
        assert (normalize.scale, normalize.mean[0], normalize.std[0]) == (1.0, 127.0, 128.0)


def test_labels_are_imagenet_s_in_order() -> None:
    labels = zoo.imagenet_labels()
    assert len(labels) == 1000
    assert labels[0] == "tench, Tinca tinca"
    assert labels[967] == "espresso"
    assert labels[999] == "toilet tissue, toilet paper, bathroom tissue"
    lines = (Path(zoo.__file__).parent / "imagenet1k_label_list.txt").read_text().splitlines()
    assert lines == [f"{index} {label}" for index, label in enumerate(labels)]


@pytest.mark.parametrize("name", LITES)
def test_real_weights_recognise_real_photographs(
    name: str, registry_weights: Callable[[str], Path]
) -> None:
    cv2 = pytest.importorskip("cv2")
    layer = zoo.build(name)
    source = registry_weights(name)
    load_into(layer, read_weights(source), source)
    preprocess = Preprocessor(zoo.info(name).preprocess)
    expected = {"coffee": {967}, "chelsea": {281, 282, 285}, "camera": {872}}
    for image, classes in expected.items():
        rgb = cv2.cvtColor(cv2.imread(str(IMAGES / f"{image}.jpg")), cv2.COLOR_BGR2RGB)
        assert int(run(layer, preprocess(rgb)[None]).argmax()) in classes, image
