# SPDX-License-Identifier: Apache-2.0
"""Every verb on every foreign architecture, and the table of that in docs/models.md.

python tests/makers/foreign_matrix.py     # write the table anew, with networks of real size
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import paddle
from foreign import MODELS, SIZE, description, make_foreign, save_network
from numpy.typing import NDArray
from paddle import inference, nn
from paddle.vision import models as vision

from hgdeploy import Classifier, ClassifierSettings
from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.int8.variants import quantize
from hgdeploy.convert.mobile.variants import convert_for_engine
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines.run import Run
from hgdeploy.errors import HGDeployError
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import find_images
from hgdeploy.system.progress import nothing
from hgdeploy.transforms.postprocess import Postprocess, Topk
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.explain import Side, explain
from hgdeploy.validation.validate import ValidateOptions, validate

REPO = Path(__file__).parents[2]
PAGE = REPO / "docs" / "models.md"
PHOTOS = REPO / "deploy" / "images"
ENGINES = ("paddle", "onnxruntime", "openvino")
MOBILE = ("mnn", "ncnn")
VERBS = (*ENGINES, *MOBILE, "convert", "validate", "quantize", "explain")
YES, NEEDS_ONNX = "yes", "needs the ONNX file"

# Networks of paddle.vision: the function that makes one, and the least size it takes.
VISION: dict[str, tuple[Callable[[], nn.Layer], int]] = {
    "MobileNetV1": (lambda: vision.mobilenet_v1(scale=0.25, num_classes=5), 64),
    "MobileNetV2": (lambda: vision.mobilenet_v2(scale=0.25, num_classes=5), 64),
    "MobileNetV3_small": (lambda: vision.mobilenet_v3_small(scale=0.5, num_classes=5), 64),
    "ShuffleNetV2": (lambda: vision.shufflenet_v2_x0_25(num_classes=5), 64),
    "SqueezeNet": (lambda: vision.squeezenet1_1(num_classes=5), 64),
    "ResNet18": (lambda: vision.resnet18(num_classes=5), 64),
    "GoogLeNet": (lambda: vision.googlenet(num_classes=5), 224),
    "DenseNet121": (lambda: vision.densenet121(num_classes=5), 64),
    "InceptionV3": (lambda: vision.inception_v3(num_classes=5), 299),
    "VGG11": (lambda: vision.vgg11(num_classes=5), 224),
    "AlexNet": (lambda: vision.alexnet(num_classes=5), 224),
    "ResNeXt50": (lambda: vision.resnext50_32x4d(num_classes=5), 64),
}


def make_vision(name: str, folder: Path, size: int | None = None) -> Path:
    """Write the bundle of a network of `VISION` with seeded random weights."""
    make, least = VISION[name]
    size = size or least
    folder.mkdir(parents=True)
    paddle.seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = make()
    head = [] if name == "GoogLeNet" else [nn.Softmax(axis=-1)]
    spec = paddle.static.InputSpec([None, 3, size, size], "float32", name="x")
    save_network(nn.Sequential(network, *head), folder, spec)
    text = description(MODELS["plain"])
    text = text.replace(f"size: {SIZE}", f"size: {size}")
    text = text.replace(f"resize_short: {SIZE + 8}", f"resize_short: {size + 8}")
    (folder / "inference.yml").write_text(text, encoding="utf-8")
    return folder


def crops(folder: Path, count: int = 12) -> Path:
    """Write parts of our photographs, for quantization."""
    folder.mkdir(parents=True, exist_ok=True)
    photos = [cv2.imread(str(path)) for path in sorted(PHOTOS.glob("*.jpg"))]
    for i in range(count):
        photo = photos[i % len(photos)]
        side = min(photo.shape[:2]) // 2
        start = i * 7 % side
        cv2.imwrite(str(folder / f"{i:02}.png"), photo[start : start + side, start : start + side])
    return folder


def bare_paddle(bundle: ModelBundle, image: Path) -> NDArray[Any]:
    """Return the scores of one image from a bare `paddle.inference` call, without oneDNN."""
    config = inference.Config(
        str(bundle.root / "inference.json"), str(bundle.root / "inference.pdiparams")
    )
    config.disable_gpu()
    config.disable_mkldnn()
    config.disable_glog_info()
    predictor = inference.create_predictor(config)
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    tensor = Preprocessor(bundle.own_preprocess())(read_image(image))[None]
    handle.reshape(tensor.shape)
    handle.copy_from_cpu(tensor)
    predictor.run()
    name = predictor.get_output_names()[0]
    return np.asarray(predictor.get_output_handle(name).copy_to_cpu()).reshape(-1)


def check_answer(bundle: ModelBundle, engine: str, image: Path) -> None:
    """Compare an engine's prediction with a bare call of Paddle.

    Raises:
        HGDeployError: the engine refuses the model.
        AssertionError: the answers differ.
    """
    settings = ClassifierSettings(engine, postprocess=Postprocess(Topk(5)))
    with Classifier.from_settings(bundle.root, settings) as classifier:
        (found,) = classifier.predict(image)
    assert found.error is None, found.error
    right = bare_paddle(bundle, image)
    near = 2e-3 * max(1.0, float(np.abs(right).max()))
    assert len(found.class_ids) == min(5, len(right))
    assert right.max() - right[found.class_ids[0]] <= near
    for class_id, score in zip(found.class_ids, found.scores, strict=True):
        assert abs(right[class_id] - score) <= near, f"{engine}: {score}, not {right[class_id]}"


def outcomes(root: Path, images: Path, verbs: tuple[str, ...] = VERBS) -> dict[str, str]:
    """Return what each verb says of a bundle: `YES`, or its error of one line.

    Raises:
        AssertionError: an answer is not Paddle's.
        Exception: what is no error of ours, which a user would see as a traceback.
    """
    bundle, image = open_bundle(root), sorted(images.iterdir())[0]
    files = tuple(find_images(images))

    def validated() -> None:
        runs = Run("paddle"), Run("onnxruntime")
        report = validate(bundle, ValidateOptions(runs, files[:4], random_rows=2))
        misses = [miss for pair in report.pairs for miss in pair.misses]
        assert report.passed, "; ".join(misses)

    def explained() -> None:
        ops = bundle.own_preprocess()
        explain(image, *(Side(e, ops, bundle, Run(e)) for e in ("paddle", "onnxruntime")))

    def on_mobile(engine: str) -> None:
        convert_for_engine(bundle, engine, nothing)
        check_answer(bundle, engine, image)

    options = QuantizeOptions(method="minmax", min_agreement=0.0)
    actions: dict[str, Callable[[], object]] = {
        "paddle": lambda: check_answer(bundle, "paddle", image),
        "convert": lambda: convert_to_onnx(bundle, ConvertOptions(), nothing),
        "onnxruntime": lambda: check_answer(bundle, "onnxruntime", image),
        "openvino": lambda: check_answer(bundle, "openvino", image),
        "mnn": lambda: on_mobile("mnn"),
        "ncnn": lambda: on_mobile("ncnn"),
        "validate": validated,
        "quantize": lambda: quantize(bundle, files, options, nothing, nothing),
        "explain": explained,
    }
    found = {}
    for verb, action in actions.items():
        if verb not in verbs:
            continue
        if found.get("convert", YES) != YES and verb != "paddle":
            found[verb] = NEEDS_ONNX
            continue
        try:
            action()
            found[verb] = YES
        except HGDeployError as error:
            text = str(error).replace(f"{root}/", "").replace(str(root), root.name)
            assert "\n" not in text, text
            found[verb] = text
    return {verb: found[verb] for verb in VERBS if verb in found}


def architectures(folder: Path) -> Iterator[tuple[str, Callable[[], Path]]]:
    """Yield the name of every foreign architecture, and what makes its bundle in `folder`."""
    for name in MODELS:
        yield name, lambda name=name: make_foreign(name, folder / name)
    for name in VISION:
        yield name, lambda name=name: make_vision(name, folder / name)


_HEAD = """\
# Models that are not of our zoo

Users bring their own models. This table shows what each verb says of small ones that have traits
of theirs, and of networks of `paddle.vision` with random weights. **yes** means that it runs, and
that a prediction equals that of a bare `paddle.inference` call; otherwise it is refused in one
line, which stands below the table. A test compares the table with what happens, and
`python tests/makers/foreign_matrix.py` writes it anew.

"""


def page(found: dict[str, dict[str, str]]) -> str:
    """Return docs/models.md."""
    reasons: dict[str, int] = {}

    def cell(text: str) -> str:
        if text in (YES, NEEDS_ONNX):
            return "yes" if text == YES else "no ONNX file"
        return f"refused ({reasons.setdefault(text, len(reasons) + 1)})"

    lines = ["| architecture | " + " | ".join(VERBS) + " |", "|---" * (len(VERBS) + 1) + "|"]
    for name, row in found.items():
        lines.append(f"| {name} | " + " | ".join(cell(row[verb]) for verb in VERBS) + " |")
    lines.append("")
    lines += [f"{number}. `{text}`" for text, number in reasons.items()]
    return _HEAD + "\n".join(lines) + "\n"


def served(text: str) -> dict[str, dict[str, bool]]:
    """Return, from docs/models.md, which verbs serve which architecture."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {
        name: {verb: cell == "yes" for verb, cell in zip(VERBS, cells, strict=True)}
        for name, *cells in rows[1:]
    }


def main() -> None:
    """Try everything, and write the page."""
    found: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory() as name:
        images = crops(Path(name) / "images")
        for architecture, make in architectures(Path(name)):
            found[architecture] = outcomes(make(), images)
            print(architecture, found[architecture], file=sys.stderr)
    PAGE.write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
