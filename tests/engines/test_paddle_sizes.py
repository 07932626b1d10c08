# SPDX-License-Identifier: Apache-2.0
"""Paddle programs at another image size than they were exported for: right, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import IMAGES
from hgdeploy import Classifier, ClassifierSettings
from hgdeploy.bundle import paddle_program
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import BundleError
from hgdeploy.system.documents import read_json

paddle = pytest.importorskip("paddle")

from foreign import Net, make_foreign, make_old_foreign, save_network  # noqa: E402
from paddle import nn  # noqa: E402
from paddle.nn import functional  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_trial_process")

PHOTOS = sorted(IMAGES.glob("*.jpg"))


def options(height: int, width: int, **others: Any) -> EngineOptions:
    return EngineOptions(image_size=(height, width), **others)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, height, width), dtype=np.float32)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_foreign("plain", tmp_path_factory.mktemp("sizes") / "plain")


@pytest.fixture(scope="module")
def open_size(tmp_path_factory: pytest.TempPathFactory) -> Callable[[np.ndarray], np.ndarray]:
    """The network of `plain`, exported for any size, by `paddle.inference` alone."""
    folder = make_foreign("any_size_pooled", tmp_path_factory.mktemp("sizes") / "open")
    config = paddle.inference.Config(
        str(folder / "inference.json"), str(folder / "inference.pdiparams")
    )
    config.disable_glog_info()
    predictor = paddle.inference.create_predictor(config)

    def answer(x: np.ndarray) -> np.ndarray:
        predictor.get_input_handle("x").copy_from_cpu(x)
        predictor.run()
        return predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()

    return answer


@pytest.mark.parametrize("size", [(96, 96), (48, 80), (64, 64)])
def test_another_size_gives_what_an_export_of_any_size_gives(
    plain: Path, open_size: Callable[[np.ndarray], np.ndarray], size: tuple[int, int]
) -> None:
    x = noise(*size)
    with load_engine("paddle", plain / "inference.json", options(*size)) as engine:
        assert engine.inputs[0].shape == (-1, 3, *size)
        told = f"exported for images of 64x64 and runs {size[1]}x{size[0]} (width x height)"
        assert [told in warning for warning in engine.warnings] == [True] * (size != (64, 64))
        (found,) = engine.infer({"x": x}).values()
    np.testing.assert_allclose(found, open_size(x), atol=1e-6)


def test_paddle_2s_format_is_read_as_well(
    tmp_path: Path, open_size: Callable[[np.ndarray], np.ndarray]
) -> None:
    old = make_old_foreign("plain", tmp_path / "old")
    x = noise(96, 128)
    with load_engine("paddle", old / "inference.pdmodel", options(96, 128)) as engine:
        (found,) = engine.infer({"x": x}).values()
    np.testing.assert_allclose(found, open_size(x), atol=1e-6)


def test_processes_side_by_side_run_the_other_size_too(
    plain: Path, open_size: Callable[[np.ndarray], np.ndarray]
) -> None:
    x = noise(96, 96)
    wanted = options(96, 96, streams=2, threads=1)
    with load_engine("paddle", plain / "inference.json", wanted) as engine:
        assert len(engine.warnings) == 1
        (found,) = engine.infer({"x": x}).values()
    np.testing.assert_allclose(found, open_size(x), atol=1e-6)


class Ending(nn.Layer):
    """Convolutions of 64 x 64 pixels to 8 x 8, and a function from there to the scores."""

    def __init__(self, ending: Callable[[Any], Any], features: int = 32) -> None:
        super().__init__()
        paddle.seed(0)
        self.net, self.ending, self.dense = Net(), ending, nn.Linear(features, 5)

    def forward(self, x: Any) -> Any:
        h = self.net.conv2(functional.relu(self.net.norm(self.net.conv1(x))))
        return functional.softmax(self.dense(self.ending(h)), axis=-1)


def shuffled(h: Any) -> Any:
    n, c, height, width = h.shape
    h = h.reshape([n, 2, c // 2, height, width]).transpose([0, 2, 1, 3, 4])
    return h.reshape([n, c, height, width]).mean([2, 3])


# What each does to (N, 32, 8, 8), and whether it follows the size.
ENDINGS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "mean": (lambda h: h.mean([2, 3]), True),
    "mean of one axis": (lambda h: h.mean(-1).mean(axis=-1), True),
    "joined": (lambda h: paddle.concat([h[:, :16], h[:, 16:] * 2], 1).mean([2, 3]), True),
    "joined across": (lambda h: paddle.concat([h, h], 2).mean([2, 3]), False),
    "one pixel": (lambda h: h[:, :, 0, 0], False),
    "split": (lambda h: paddle.concat([x.mean([2, 3]) for x in h.split(2, axis=1)], 1), True),
    "gate": (lambda h: (h * functional.sigmoid(h.mean([2, 3], keepdim=True))).mean([2, 3]), True),
    "flat positions": (lambda h: h.flatten(2).transpose([0, 2, 1]).mean(1), True),
    "pool": (lambda h: nn.AdaptiveAvgPool2D(1)(functional.max_pool2d(h, 2)).flatten(1), True),
    "pool_of_all": (lambda h: functional.avg_pool2d(h, h.shape[2:]).mean([2, 3]), False),
    "sum": (lambda h: h.sum([2, 3]) / (h.shape[2] * h.shape[3]), False),
    "shuffle": (shuffled, False),
    "enlarged": (lambda h: functional.interpolate(h, size=[8, 8]).mean([2, 3]), False),
    "cut": (lambda h: h[:, :, :7, :7].mean([2, 3]), False),
    "padded": (lambda h: functional.pad(h, [1, 1, 1, 1]).mean([2, 3]), False),
    "branch": (
        lambda h: paddle.static.nn.cond(
            h.mean() > 0, lambda: h.sum([2, 3]) / 64, lambda: h.mean([2, 3])
        ),
        False,
    ),
}


# Whether oneDNN is right is tried in a process of its own; the rule here is the same without it.
OFF = options(96, 128, own=(PaddleOptions(onednn=False),))


@pytest.mark.parametrize("name", ENDINGS)
def test_what_follows_the_size_is_right_and_what_holds_it_is_refused(
    tmp_path: Path, name: str
) -> None:
    ending, follows = ENDINGS[name]
    network = Ending(ending)
    save_network(network, tmp_path, paddle.static.InputSpec([None, 3, 64, 64], "float32", "x"))
    program = tmp_path / "inference.json"
    if follows:
        x = noise(96, 128)
        with load_engine("paddle", program, OFF) as engine:
            (found,) = engine.infer({"x": x}).values()
        expected = network(paddle.to_tensor(x)).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        return
    with pytest.raises(BundleError) as caught:
        load_engine("paddle", program, OFF)
    assert "takes images of 64x64, but the preprocessing makes 128x96 (width x height)" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_a_dense_layer_of_the_whole_picture_is_refused_before_the_first_image(
    tmp_path: Path,
) -> None:
    network = Ending(lambda h: h.flatten(1), 32 * 8 * 8)
    save_network(network, tmp_path, paddle.static.InputSpec([None, 3, 64, 64], "float32", "x"))
    with pytest.raises(BundleError, match=r"64x64.* matmul "):
        load_engine("paddle", tmp_path / "inference.json", OFF)


def test_a_classifier_takes_images_as_its_preprocessing_leaves_them(plain: Path) -> None:
    description = plain / "inference.yml"
    text = description.read_text()
    try:
        description.write_text(text.replace("  - CropImage: {size: 64}\n", ""))
        with Classifier(plain) as classifier:
            wide, other = list(classifier.predict([np.zeros((90, 180, 3), np.uint8), PHOTOS[0]]))
            assert (wide.error, other.error) == (None, None)
        description.write_text(text.replace("size: 64", "size: 96").replace("72", "100"))
        with Classifier(plain) as classifier:
            assert next(classifier.predict(PHOTOS[0])).error is None
    finally:
        description.write_text(text)


def test_a_model_of_one_size_fails_the_images_of_others(mini: Path) -> None:
    description = mini / "inference.yml"
    text = description.read_text()
    assert "CropImage" in text
    ops = "PreProcess: {transform_ops: [NormalizeImage: {order: ''}, ToCHWImage: null]}"
    description.write_text(ops)
    with Classifier(mini, "onnxruntime", topk=2) as classifier:
        square, wide = classifier.predict(
            [np.zeros((64, 64, 3), np.uint8), np.zeros((64, 80, 3), np.uint8)]
        )
    assert square.error is None
    assert wide.error == (
        "the preprocessing makes [3, 64, 80] of it, but the model takes [3, 64, 64]; add "
        "ResizeImage with a size, or CropImage"
    )


def test_a_program_is_parsed_once_while_it_is_loaded_and_not_kept(plain, monkeypatch):
    """Its parameters, its tensors, what holds its size and how it ends are all read from it."""
    parsed: list[Path] = []

    def counted(path: Path) -> Any:
        parsed.append(path)
        return read_json(path)

    monkeypatch.setattr(paddle_program, "read_json", counted)
    settings = ClassifierSettings(options=EngineOptions(own=(PaddleOptions(onednn=False),)))
    for times in (1, 2):
        with Classifier(plain, settings=settings):
            assert parsed == times * [plain / "inference.json"]
