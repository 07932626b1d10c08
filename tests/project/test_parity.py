# SPDX-License-Identifier: Apache-2.0
"""Whole models from weights to every engine and precision: the same answers, within tolerance."""

from __future__ import annotations

import itertools
import pickle
from pathlib import Path

import numpy as np
import pytest
from golden_fill import golden_fill
from photos import photographs

from conftest import IMAGES, hgdeploy, require_engine
from hgdeploy import zoo
from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.cli.main import main
from hgdeploy.convert.mobile.from_onnx import TARGETS
from hgdeploy.convert.mobile.variants import convert_for_engine
from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
from hgdeploy.engines import engine_module, infer_rows, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import parse_runs
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import ImageFile, find_images
from hgdeploy.system.libraries import installed_version
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.validate import ValidateOptions, validate
from hgdeploy.zoo.export import bundle_from_weights

ENGINES = ("paddle", "onnxruntime", "openvino", "mnn", "ncnn")

pytestmark = pytest.mark.skipif(
    installed_version("paddle2onnx") is None,
    reason="paddle2onnx is not installed; it has no wheels for this Python",
)


def ignore(_: str) -> None:
    pass


def logs_of(bundle: ModelBundle, images: Path, without: str = "") -> dict[str, np.ndarray]:
    """Each engine's log-probabilities of the images, in fp32; its file is made first."""
    preprocess = Preprocessor(bundle.preprocess)
    rows = np.stack([preprocess(read_image(file.path)) for file in find_images(images)])
    found = {}
    for name in set(ENGINES) - {without}:
        require_engine(name)
        if name in TARGETS:
            convert_for_engine(bundle, name, ignore, check=False)
        source = bundle.find(engine_module(name).artifact_names("fp32"))
        with load_engine(name, source, EngineOptions()) as engine:
            found[name] = np.log(infer_rows(engine, rows))
    return found


def assert_parity(logs: dict[str, np.ndarray]) -> None:
    """All pairs agree to 1e-5 on log-probabilities, absolutely up to 1 and relatively beyond."""
    for a, b in itertools.combinations(logs, 2):
        np.testing.assert_allclose(logs[a], logs[b], rtol=1e-5, atol=1e-5, err_msg=f"{a}, {b}")


# In each run, tests/engines/test_engines.py holds every engine to Paddle's golden answers of a
# small network of the same blocks, and the test of real weights below does so at real size.
@pytest.mark.slow
@pytest.mark.parametrize("name", ["PPHGNet_tiny", "PPHGNet_small", "PPHGNet_base"])
def test_pphgnet_with_golden_weights_is_the_same_in_every_engine(name, tmp_path):
    state = zoo.build(name).state_dict()
    weights = tmp_path / f"{name}.pdparams"
    values = {key: golden_fill(key, tuple(tensor.shape)) for key, tensor in state.items()}
    weights.write_bytes(pickle.dumps(values, protocol=2))
    bundle = open_bundle(bundle_from_weights(name, weights, tmp_path / name))
    convert_to_onnx(bundle, ConvertOptions(), ignore)
    assert_parity(logs_of(bundle, IMAGES))


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])
            for name in (
                "EfficientNetB0",
                "ResNet34",
                "ResNet34_vd",
                "ResNet50",
                "ResNet50_vd",
                "EfficientNetB1",
                "SwinTransformer_tiny_patch4_window7_224",
                "SwinTransformer_base_patch4_window7_224",
                "Res2Net200_vd_26w_4s",
                "ResNeXt101_32x48d_wsl",
                *(f"PPHGNetV2_B{variant}" for variant in range(7)),
                *("PPLCNet_x0_25", "PPLCNet_x1_0"),
            )
        ),
    ],
)
def test_a_baseline_with_random_weights_is_the_same_in_every_engine(name, tmp_path):
    bundle = open_bundle(bundle_from_weights(name, None, tmp_path / name))
    artifact = convert_to_onnx(bundle, ConvertOptions(), ignore)
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(artifact, load_external_data=False).graph
    # Branches over shapes, which OpenVINO and TensorRT cannot compile.
    assert "If" not in {node.op_type for node in graph.node}
    # ncnn's tensors have at most four dimensions, and Swin's windows need more.
    logs = logs_of(bundle, IMAGES, "ncnn" if name.startswith("Swin") else "")
    assert_parity(logs)
    # Engines that give every image the same answer would agree whatever they compute.
    assert np.ptp(logs["paddle"], axis=0).max() > 1e-3


@pytest.fixture(scope="module")
def lite0(registry_weights, tmp_path_factory) -> ModelBundle:
    """EfficientNetLite0 with its real weights, converted to ONNX."""
    folder = tmp_path_factory.mktemp("lite0") / "bundle"
    bundle = open_bundle(
        bundle_from_weights("EfficientNetLite0", registry_weights("EfficientNetLite0"), folder)
    )
    convert_to_onnx(bundle, ConvertOptions(), ignore)
    return bundle


def test_real_weights_on_real_images_are_the_same_in_every_engine(lite0):
    assert_parity(logs_of(lite0, IMAGES))


@pytest.mark.slow
def test_every_precision_passes_its_verdict_on_a_hundred_photographs(lite0, tmp_path, capsys):
    listed = tmp_path / "photographs.txt"
    listed.write_text("\n".join(map(str, photographs())))
    files = tuple(ImageFile(str(path), path.name) for path in photographs())
    assert len(files) >= 100
    for precision in ("fp16", "bf16"):
        convert_to_onnx(lite0, ConvertOptions(precision=precision, images=files), ignore)
    made = hgdeploy("quantize", lite0.root, "--calibration", listed, "--min-agreement", "0.97")
    assert made.returncode == 0, made.stderr
    runs = "paddle,onnxruntime,openvino,onnxruntime:fp16,onnxruntime:int8"
    computed = engine_module("openvino").capability().precisions
    runs += "".join(f",openvino:{name}" for name in ("fp16", "int8", "bf16") if name in computed)
    if "bf16" in engine_module("paddle").capability().precisions:
        runs += ",paddle:bf16"
    report = validate(lite0, ValidateOptions(parse_runs(runs), files))
    with capsys.disabled():
        for pair in report.pairs:
            if pair.reference == "paddle" and pair.inputs == "images":
                c = pair.comparison
                print(
                    f"\n{pair.candidate}: max abs {c.max_abs:.1e}, max log {c.max_log:.1e}, "
                    f"top-1 {c.top1_agreement:.4f}, top-5 {c.topk_agreement:.4f}",
                    end="",
                )
    assert report.passed


def test_the_commands_lead_from_a_paddle_model_to_every_variant(mini, tmp_path, run_here):
    """pphgnet_mini through the command line: convert, quantize, validate, predict."""
    (mini / "inference.onnx").unlink()
    crops = tmp_path / "crops"
    crops.mkdir()
    import cv2

    for file in find_images(IMAGES):
        image = read_image(file.path)[:, :, ::-1]
        for i in range(6):
            part = image[i * 20 : i * 20 + 200, i * 30 : i * 30 + 200]
            cv2.imwrite(str(crops / f"{file.path.stem}{i}.png"), part)
    for arguments in (
        ("convert", mini),
        ("convert", mini, "--precision", "fp16", "--images", IMAGES),
        ("convert", mini, "--precision", "bf16"),
        ("quantize", mini, "--calibration", crops, "--min-agreement", "0.5"),
        ("validate", mini, "--engines", "paddle,onnxruntime,openvino", "--images", IMAGES),
    ):
        result = run_here(main, *arguments)
        assert result.returncode == 0, result.stderr
    for name in ("inference", "inference.fp16", "inference.bf16", "inference.int8"):
        assert (mini / f"{name}.onnx").is_file()
        assert (mini / f"{name}.onnx.meta.json").is_file()
    result = hgdeploy(
        "predict", mini, IMAGES, "--engine", "onnxruntime", "--precision", "int8", "--topk", 1
    )
    assert len(result.stdout.splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("convert", "{mini}", "--precision", "int8"), 2, "unknown --precision 'int8'"),
        (("convert", "{mini}", "--batch", "many"), 2, "expected dynamic or a number"),
        (("convert", "{mini}", "--batch", "0"), 2, "batch"),
        (("convert", "{mini}", "--opset", "3"), 2, "opset"),
        (("convert", "{mini}", "--check", "maybe"), 2, "unknown --check 'maybe'"),
        (("convert", "nowhere"), 5, "nowhere"),
        (("quantize", "{mini}", "--calibration", "nowhere"), 4, "nowhere"),
        (("quantize", "{mini}", "--calibration", "{images}"), 4, "10"),
        (("quantize", "{mini}", "--calibration", "{images}", "--method", "kl"), 2, "method"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_a_code(mini, arguments, code, told, run_here):
    (mini / "inference.onnx").unlink()
    filled = [str(a).format(mini=mini, images=IMAGES) for a in arguments]
    result = run_here(main, *filled)
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("hgdeploy: error: ")]
    assert len(errors) == 1, result.stderr
    assert told in errors[0]
    assert "Traceback" not in result.stderr
