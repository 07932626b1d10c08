# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy export-mobile`: a folder that is whole, measured, and feeds its model exactly."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import yaml

from conftest import DEADLINE, DOUBLES, IMAGES, MINI, require_engine
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.classify.classifier import Classifier
from hgdeploy.cli import main
from hgdeploy.convert.mobile import export, from_onnx
from hgdeploy.convert.mobile.export import MobileOptions, export_mobile
from hgdeploy.errors import BundleError, ConfigError, EngineError, OutputError, ValidationError
from hgdeploy.images.find import find_images
from hgdeploy.system.libraries import installed_version
from hgdeploy.transforms.preprocess import Preprocessor

MODEL_FILES = {"ncnn": {"inference.ncnn.param", "inference.ncnn.bin"}, "mnn": {"inference.mnn"}}
SAMPLE = {"classify.cpp", "engine.h", "model.h", "preprocess.h", "resize.h", "CMakeLists.txt"}


def exported(bundle: Path, target: str, folder: Path, **more: object) -> Path:
    require_engine(target)
    return export_mobile(open_bundle(bundle), folder, MobileOptions(target, **more), print)


def set_ops(bundle: Path, *ops: object) -> None:
    file = bundle / "inference.yml"
    content = yaml.safe_load(file.read_text())
    content["PreProcess"]["transform_ops"] = list(ops)
    file.write_text(yaml.safe_dump(content))


@pytest.mark.parametrize("target", MODEL_FILES)
def test_a_folder_has_all_that_an_app_needs(target: str, mini: Path, tmp_path: Path, run_here):
    require_engine(target)
    before, folder = sorted(mini.iterdir()), tmp_path / "app"
    done = run_here(main, "export-mobile", mini, "--to", target, folder, "--images", IMAGES)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{folder}\n"
    assert {p.name for p in folder.iterdir()} == SAMPLE | MODEL_FILES[target] | {
        "labels.txt",
        "README.md",
    }
    assert (folder / "labels.txt").read_text().splitlines() == [f"name {i}, the" for i in range(10)]
    readme = (folder / "README.md").read_text()
    assert re.search(r"on 5 images, .* top-1 agreement 1\.0000 \(at least 0\.566", readme)
    assert re.search(r"a log-probability 0?\.?\d", readme)
    assert "short side has 72 pixels, bilinear, as OpenCV computes it" in readme
    assert "$" not in readme.replace("$ANDROID_NDK", "")
    weights = max((folder / name).stat().st_size for name in MODEL_FILES[target])
    assert f"{weights:,}" in readme
    assert weights < 0.55 * (MINI / "inference.pdiparams").stat().st_size  # fp16
    assert sorted(mini.iterdir()) == before  # nothing is written into the bundle


def test_fp32_is_twice_as_large_and_nearer(mini: Path, tmp_path: Path):
    folder = exported(mini, "mnn", tmp_path / "app", precision="fp32")
    assert (folder / "inference.mnn").stat().st_size > 0.9 * (MINI / "inference.mnn").stat().st_size
    readme = (folder / "README.md").read_text()
    found = re.search(r"on 4 random inputs.* of a log-probability (\S+)\.\n", readme)
    assert found is not None
    assert float(found[1]) < 1e-4
    assert "kFp16 = false" in (folder / "model.h").read_text()


def test_a_result_that_differs_is_not_written(mini: Path, tmp_path: Path, monkeypatch):
    """As where a converter drops an operator: here it is given a model of other weights."""
    other = tmp_path / "other.onnx"
    graph = from_onnx.OnnxGraph.read(mini / "inference.onnx")
    constants = (node.attribute[0].t for node in graph.nodes if node.op_type == "Constant")
    weights = next(tensor for tensor in constants if len(tensor.dims) == 4)
    weights.raw_data = bytes(len(weights.raw_data))
    other.write_bytes(graph.to_bytes())
    run = from_onnx.run_converter

    def misled(request, *rest):
        run({**request, "source": str(other)}, *rest)

    monkeypatch.setattr(from_onnx, "run_converter", misled)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ValidationError, match=r"does not compute what .*nothing was written"):
        exported(mini, "mnn", tmp_path / "app")
    assert sorted(tmp_path.iterdir()) == before


NORMALIZE, CHW = {"NormalizeImage": {"order": ""}}, {"ToCHWImage": None}
CROP = {"CropImage": {"size": 64}}
PIL = {"resize_short": 72, "backend": "pil"}


@pytest.mark.parametrize(
    ("ops", "reason"),
    [
        ([CROP, CHW], "has no NormalizeImage"),
        ([CROP, NORMALIZE], "has no ToCHWImage"),
        ([{"NormalizeImage": {"order": "", "channel_num": 4}}, CHW], "four channels or fp16"),
        ([{"NormalizeImage": {"order": "", "output_fp16": True}}, CHW], "four channels or fp16"),
        ([NORMALIZE, CROP, CHW], "resizes or crops after NormalizeImage"),
        (
            [{"ResizeImage": PIL}, {"ResizeImage": {"size": 64}}, NORMALIZE, CHW],
            "OpenCV and by Pil",
        ),
        (
            [{"ResizeImage": {**PIL, "interpolation": "nearest"}}, NORMALIZE, CHW],
            "Pillow's nearest",
        ),
    ],
)
def test_preprocessing_that_the_sample_cannot_do_is_refused(
    ops: list[object], reason: str, mini: Path, tmp_path: Path
):
    set_ops(mini, *ops)
    with pytest.raises(
        BundleError, match=f"cannot do this bundle's preprocessing exactly: .*{reason}"
    ):
        export_mobile(open_bundle(mini), tmp_path / "app", MobileOptions("mnn"), print)
    assert not (tmp_path / "app").exists()


def test_a_folder_with_something_in_it_is_left_alone(mini: Path, tmp_path: Path):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.cpp").touch()
    with pytest.raises(OutputError, match="app is not empty; name a new folder"):
        export_mobile(open_bundle(mini), tmp_path / "app", MobileOptions("mnn"), print)


@pytest.mark.parametrize(
    ("target", "precision", "message"),
    [
        ("tnn", None, "target is 'tnn', expected 'ncnn', 'mnn' or 'paddle-lite'"),
        ("ncnn", "int8", "int8 is not possible with --to ncnn, expected fp16 or fp32"),
        ("mnn", "int8", "int8 needs at least 10 real images"),
        ("paddle-lite", "fp16", "fp16 is not possible with --to paddle-lite, expected fp32"),
    ],
)
def test_what_is_not_possible_is_said(target: str, precision: str | None, message: str):
    with pytest.raises(ConfigError, match=message):
        MobileOptions(target, precision)


def test_int8_is_written_where_it_agrees_and_refused_where_not(
    mini: Path, tmp_path: Path, monkeypatch
):
    photos = tmp_path / "photos"
    photos.mkdir()
    for photo in IMAGES.glob("*.jpg"):
        for i in range(3):
            shutil.copy(photo, photos / f"{i}-{photo.name}")
    images = find_images(photos, print)
    folder = exported(mini, "mnn", tmp_path / "app", precision="int8", images=images)
    small, large = ((p / "inference.mnn").stat().st_size for p in (folder, mini))
    assert small < 0.35 * large
    monkeypatch.setattr(export, "share_interval", lambda *_: (0.5, 0.98))
    with pytest.raises(BundleError, match=r"int8 weights do not agree: 15 images show top-1"):
        exported(mini, "mnn", tmp_path / "other", precision="int8", images=images)
    assert not (tmp_path / "other").exists()


def test_labels_that_do_not_fit_the_model_are_refused(mini: Path, tmp_path: Path):
    file = mini / "inference.yml"
    file.write_text(file.read_text().replace("      - name 9, the\n", ""))
    with pytest.raises(BundleError, match="has 10 classes, but the label list has 9"):
        exported(mini, "mnn", tmp_path / "app")
    assert not (tmp_path / "app").exists()


def test_paddle_lite_needs_its_program_and_a_program_of_paddle_2(
    mini: Path, tmp_path: Path, monkeypatch
):
    options, folder = MobileOptions("paddle-lite"), tmp_path / "app"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(
        EngineError, match=r"paddle_lite_opt is not installed; .*--valid_targets=arm"
    ):
        export_mobile(open_bundle(mini), folder, options, print)
    (mini / "inference.json").write_text("{}")
    with pytest.raises(BundleError, match="is Paddle 3's format, which Paddle-Lite cannot read"):
        export_mobile(open_bundle(mini), folder, options, print)
    assert not folder.exists()


@pytest.fixture
def paddle_lite(tmp_path: Path, monkeypatch) -> None:
    """A program that copies stands for Paddle-Lite's, which lacks wheels for some Pythons."""
    program = tmp_path / "bin" / "paddle_lite_opt"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor word; do last="$word"; done\ncp "${1#*=}" "${last#*=}.nb"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join((str(program.parent), os.environ["PATH"])))


def test_paddle_lites_folder_says_that_nothing_was_measured(
    mini: Path, tmp_path: Path, paddle_lite: None
):
    told: list[str] = []
    options = MobileOptions("paddle-lite")
    folder = export_mobile(open_bundle(mini), tmp_path / "app", options, told.append)
    assert (folder / "inference.nb").read_bytes() == (mini / "inference.pdmodel").read_bytes()
    assert "its agreement is not measured" in told[-1]
    readme = (folder / "README.md").read_text()
    assert "Not measured" in readme
    assert "inference.pdmodel: " in readme
    assert not (folder / "classify.cpp").exists()


def test_the_sample_resizes_as_pillow_does(mini: Path, tmp_path: Path, paddle_lite: None):
    """Every filter in turn, to more and fewer pixels; then each bit of the tensor is compared."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    sizes = {"bicubic": (60, 66), "lanczos": (90, 99), "box": (77, 80), "hamming": (140, 99)}
    if int((installed_version("pillow") or "0").split(".")[0]) >= 13:
        sizes["bilinear"] = (141, 64)  # the columns first, as earlier ones do not
    set_ops(
        mini,
        {"DecodeImage": {"to_rgb": False}},
        {"ResizeImage": {"resize_short": 75, "backend": "pil"}},
        {"CropImage": {"size": [70, 75]}},
        *(
            {"ResizeImage": {"size": list(size), "interpolation": name, "backend": "pil"}}
            for name, size in sizes.items()
        ),
        {"CropImage": {"size": 64}},
        {"NormalizeImage": {"scale": "1.0/255.0", "order": ""}},
        CHW,
    )
    options = MobileOptions("paddle-lite")  # whose folder is made soonest
    folder = export_mobile(open_bundle(mini), tmp_path / "app", options, print)
    (folder / "main.cpp").write_text(
        '#include <cstdio>\n#include "preprocess.h"\n'
        "int main() {\n"
        "    Image image{131, 97, std::vector<uint8_t>(131 * 97 * 3)};\n"
        "    if (!std::fread(image.rgb.data(), 1, image.rgb.size(), stdin)) return 1;\n"
        "    const std::vector<float> planes = preprocess(image);\n"
        "    std::fwrite(planes.data(), sizeof(float), planes.size(), stdout);\n"
        "}\n"
    )
    flags = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"]
    program = tmp_path / "main"
    subprocess.run([compiler, *flags, folder / "main.cpp", "-o", program], check=True)
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)
    found = subprocess.run([program], input=image.tobytes(), capture_output=True, check=True)
    wanted = Preprocessor(open_bundle(mini).own_preprocess())(image)
    np.testing.assert_array_equal(np.frombuffer(found.stdout, np.float32), wanted.ravel())


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["cv2", "pil"])
@pytest.mark.parametrize("target", MODEL_FILES)
def test_the_sample_prints_what_predict_does(target: str, backend: str, mini: Path, tmp_path: Path):
    """Built by the README's commands, with OpenCV of the system.

    MNN's library is that of its wheel, which has no headers: those in tests/doubles declare what
    the sample uses. ncnn's wheel has neither, so CMake looks for one that is installed (`ncnn_DIR`,
    as in docs/mobile.md).
    """
    set_ops(
        mini,
        {"ResizeImage": {"resize_short": 72, "interpolation": "bicubic", "backend": backend}},
        CROP,
        {"NormalizeImage": {"scale": "1.0/255.0", "order": ""}},
        CHW,
    )
    folder = exported(mini, target, tmp_path / "app", images=find_images(IMAGES, print))
    build, options = tmp_path / "build", []
    if target == "mnn":
        options = mnn_of_the_wheel(tmp_path)
    made = cmake("-S", folder, "-B", build, *options)
    if made.returncode and re.search(r"(OpenCV|ncnn)(Config|-config)\.cmake", made.stderr):
        pytest.skip(f"CMake finds no OpenCV, or no {target}")
    assert made.returncode == 0, made.stderr
    made = cmake("--build", build)
    assert made.returncode == 0, made.stdout
    classifier = Classifier(mini, engine="onnxruntime")
    for image in sorted(IMAGES.glob("*.jpg")):
        done = subprocess.run(
            [build / "classify", folder, image], capture_output=True, text=True, check=True
        )
        rows = [re.fullmatch(r"(\d+) (\S+) (.*)", line) for line in done.stdout.splitlines()]
        rows = [row for row in rows if row is not None and "supports" not in row[0]]
        (wanted,) = classifier.predict(image)
        assert [int(row[1]) for row in rows] == list(wanted.class_ids)
        assert [row[3] for row in rows] == list(wanted.labels)
        np.testing.assert_allclose([float(row[2]) for row in rows], wanted.scores, atol=2e-3)


def cmake(*arguments: object) -> subprocess.CompletedProcess[str]:
    program = shutil.which("cmake")
    if program is None:
        pytest.skip("there is no cmake")
    words = [program, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE, check=False)


def mnn_of_the_wheel(folder: Path) -> list[str]:
    """MNN's extension module, with Python's library that it needs, as CMake's options."""
    module = next(Path(sysconfig.get_path("purelib")).glob("_mnncengine*.so"))
    python = Path(sysconfig.get_config_var("LIBDIR")) / sysconfig.get_config_var("LDLIBRARY")
    if python.suffix != ".so":
        pytest.skip("this Python has no shared library, which MNN's extension module needs")
    library = folder / "libMNN.so"
    library.symlink_to(module)
    found = module.parent / "mnn.libs"  # OpenMP, which the wheel brings
    flags = f"-Wl,-rpath,{found}"
    return [
        f"-DMNN_INCLUDE={DOUBLES / 'mnn_headers'}",
        f"-DMNN_LIBRARY={library};{python}",
        f"-DCMAKE_EXE_LINKER_FLAGS={flags} -Wl,--disable-new-dtags",
    ]
