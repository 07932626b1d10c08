# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy-predict` beside `hgdeploy predict`: the same lines, rows, messages and exit codes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from conftest import DEADLINE, IMAGES, hgdeploy, require_engine
from hgdeploy import Classifier
from hgdeploy.cli.main import main

ENGINE = ("--engine", "openvino")
PHOTOS = sorted(IMAGES.glob("*.jpg"))


@pytest.fixture(autouse=True)
def _openvino() -> None:
    require_engine("openvino")


@pytest.fixture
def cpp(cpp_build: Path):
    """Run `hgdeploy-predict ARGUMENTS`."""

    def run(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [cpp_build / "hgdeploy-predict", *map(str, arguments)],
            capture_output=True, text=True, errors="surrogateescape", timeout=DEADLINE, check=False,
            **options,
        )  # fmt: skip

    return run


def messages(text: str) -> list[str]:
    """What was said, without what differs from run to run."""
    skipped = ("hgdeploy: time of ", "hgdeploy: slowest to read: ")
    lines = [line for line in text.splitlines() if not line.startswith(skipped)]
    return [line.partition(" s, ")[0].rpartition(", ")[0] if "found " in line else line
            for line in lines]  # fmt: skip


def test_lines_and_messages_are_pythons(mini, cpp, run_here, tmp_path):
    folder = tmp_path / "some"
    (folder / "in" / "it").mkdir(parents=True)
    names = ("a.jpg", "b é 日本.JPG", "line\nbreak.jpg", "quote ' and \" .jpg", "in/it/z.jpg")
    for name in names:
        shutil.copy(PHOTOS[len(name) % 5], folder / name)
    shutil.copy(PHOTOS[0], os.fsencode(folder) + b"/\xff\xfe.jpg")
    (folder / "in" / "broken.jpg").write_bytes(b"\xff\xd8\xff broken")
    (folder / "empty.png").write_bytes(b"")
    (folder / "a.heic").write_bytes(b"x")
    labels = ("8", "1.5", "yes", "True", "it's", "both \" and '", r'"tab\t"', "é日本", "'7'", "1e5")
    description = mini / "inference.yml"
    text = description.read_text(encoding="utf-8")
    for i, label in enumerate(labels):
        text = text.replace(f"- name {i}, the", f"- {label}")
    description.write_text(text.replace("topk: 5", "topk: 10"), encoding="utf-8")

    python = run_here(main, "predict", mini, folder, *ENGINE)
    found = cpp(mini, folder, *ENGINE)
    assert messages(found.stderr) == messages(python.stderr)
    assert found.stdout == python.stdout
    assert found.returncode == python.returncode == 3

    rows = tmp_path / "rows.jsonl"
    run_here(main, "predict", mini, folder, *ENGINE, "--output", rows)
    assert cpp(mini, folder, "--json", "--batch-size", "4").stdout == rows.read_text("ascii")


def test_scores_are_pythons(mini, cpp_build):
    description = mini / "inference.yml"
    text = description.read_text(encoding="utf-8").partition("PostProcess:")[0]
    description.write_text(text + "PostProcess: {ScoreOutput: {decimal_places: 15}}\n")
    found = subprocess.run(
        [cpp_build / "tests" / "hgdeploy-scores", mini, *PHOTOS],
        capture_output=True, text=True, timeout=DEADLINE, check=True,
    ).stdout  # fmt: skip
    scores = np.array([line.split() for line in found.splitlines()], np.float64)
    with Classifier(mini, "openvino") as classifier:
        expected = [prediction.scores for prediction in classifier.predict(IMAGES)]
    np.testing.assert_array_equal(scores.astype(np.float32), np.array(expected, np.float32))


def stale(bundle: Path) -> None:
    facts = {"source": {"inference.pdmodel": "0" * 64}}
    (bundle / "inference.onnx.meta.json").write_text(json.dumps(facts))


def foreign(bundle: Path) -> None:
    (bundle / "inference.onnx.meta.json").write_text(json.dumps({"sha256": "0" * 64}))


def foreign_in_the_bundle(bundle: Path) -> None:
    facts = {"files": {"inference.onnx": "0" * 64, "inference.yml": "0" * 64}}
    (bundle / "inference.meta.json").write_text(json.dumps(facts))


def no_model(bundle: Path) -> None:
    (bundle / "inference.onnx").unlink()
    (bundle / "inference.pdmodel").unlink()


def half_params(bundle: Path) -> None:
    (bundle / "inference.onnx").unlink()
    params = bundle / "inference.pdiparams"
    params.write_bytes(params.read_bytes()[:-100])


def description(text: str):
    def change(bundle: Path) -> None:
        (bundle / "inference.yml").write_text(text)

    change.__name__ = f"description {text[:20]!r}"
    return change


def edited(before: str, after: str):
    def change(bundle: Path) -> None:
        path = bundle / "inference.yml"
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    change.__name__ = f"{before} to {after}"
    return change


CHANGES = (
    stale,
    foreign,
    foreign_in_the_bundle,
    half_params,
    description("- 1\n"),
    edited("CropImage: {size: 64}", "CropImage: {size: 65}"),
    edited("CropImage: {size: 64}", "CropImage: {sise: 64}"),
    edited("ResizeImage: {resize_short: 72}", "RandCropImage: {size: 72}"),
    edited("- ToCHWImage:", ""),
    edited("      - name 9, the\n", ""),
    edited("Topk:\n    topk: 5", "Topk:\n    topk: none"),
)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_wrong_bundle_is_refused_as_in_python(change, mini, cpp, run_here):
    change(mini)
    python = run_here(main, "predict", mini, PHOTOS[0], *ENGINE)
    found = cpp(mini, PHOTOS[0], *ENGINE)
    assert python.returncode == 5
    assert (found.stdout, found.returncode) == ("", 5)
    assert messages(found.stderr) == messages(python.stderr)


def test_the_output_that_has_the_scores_is_chosen_by_name(mini, cpp):
    edited("Global:", "Global:\n  output_name: other")(mini)
    refused = cpp(mini, PHOTOS[0])
    assert refused.returncode == 5
    assert "has no output 'other'; it has " in refused.stderr
    edited("other", "probabilities")(mini)
    assert cpp(mini, PHOTOS[0]).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("BUNDLE", "/no/such.jpg"), 4),
        (("BUNDLE", "/no/such/*.jpg"), 4),
        (("/no/such", PHOTOS[0]), 5),
        ((PHOTOS[0], PHOTOS[0]), 5),
        (("BUNDLE", PHOTOS[0], "--device", "gpu:7"), 6),
        (("BUNDLE", PHOTOS[0], "--device", "tpu"), 6),
        (("BUNDLE", "https://host.example/a.jpg"), 2),
        (("BUNDLE", PHOTOS[0], "--precision", "fp8"), 2),
        (("BUNDLE", PHOTOS[0], "--threads", "100000"), 2),
        (("BUNDLE", PHOTOS[0], "--topk", "0"), 2),
        (("BUNDLE", PHOTOS[0], "--topk", "many"), 2),
        (("BUNDLE", PHOTOS[0], "--tpok", "3"), 2),
        (("BUNDLE",), 2),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_wrong_arguments_end_in_pythons_exit_codes(arguments, code, mini, cpp, run_here):
    words = [mini if word == "BUNDLE" else word for word in arguments]
    assert run_here(main, "predict", *words, *ENGINE).returncode == code
    found = cpp(*words, *ENGINE)
    assert (found.stdout, found.returncode) == ("", code)
    assert found.stderr.startswith("hgdeploy: error: ")
    assert len(found.stderr.splitlines()) == 1


def test_the_engine_is_never_another_one(mini, cpp):
    refused = cpp(mini, PHOTOS[0], "--engine", "tensorrt")
    assert refused.returncode == 6
    assert "this build has not the engine tensorrt; it has openvino" in refused.stderr
    no_model(mini)
    assert cpp(mini, PHOTOS[0]).returncode == 5


def test_labels_that_look_like_null_are_named_as_written(mini, cpp, run_here):
    path = mini / "inference.yml"
    text = path.read_text(encoding="utf-8").replace("topk: 5", "topk: 10")
    for i, label in enumerate(("é", "", "~", "null", "Null", "NULL", '"null"', r'"no\_break\N"')):
        text = text.replace(f"- name {i}, the", f"- {label}")
    path.write_text(text, encoding="utf-8-sig")
    expected = run_here(main, "predict", mini, PHOTOS[0], *ENGINE)
    assert expected.returncode == 0
    assert cpp(mini, PHOTOS[0]).stdout == expected.stdout


@pytest.mark.parametrize("name", ["nope", ""])
def test_an_unknown_engine_ends_as_in_python(name, mini, cpp, run_here):
    refused = cpp(mini, PHOTOS[0], "--engine", name)
    python = run_here(main, "predict", mini, PHOTOS[0], "--engine", name)
    assert refused.returncode == python.returncode == 6
    assert f"unknown engine '{name}'" in refused.stderr


def test_stdout_that_cannot_be_written_ends_the_run(mini, cpp, cpp_build):
    with Path("/dev/full").open("w") as full:
        found = subprocess.run(
            [cpp_build / "hgdeploy-predict", mini, IMAGES], stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=DEADLINE, check=False,
        )  # fmt: skip
    assert found.returncode == 10
    assert "stdout cannot be written: No space left on device" in found.stderr
    piped = f"set -o pipefail; '{cpp_build}/hgdeploy-predict' '{mini}' '{IMAGES}' | true"
    gone = subprocess.run(
        ["bash", "-c", piped],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert gone.returncode == 0
    assert "error" not in gone.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_has_written_what_it_says(
    number, code, mini, cpp_build, tmp_path, interruptible
):
    listed = tmp_path / "many.txt"
    listed.write_text("".join(f"{PHOTOS[i % 5]}\n" for i in range(200_000)))
    out = tmp_path / "out"
    with out.open("wb") as stream:
        process = subprocess.Popen(
            [cpp_build / "hgdeploy-predict", mini, listed], stdout=stream, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        end = time.monotonic() + DEADLINE
        while out.stat().st_size == 0 and time.monotonic() < end:
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=DEADLINE)
    assert process.returncode == code
    lines = len(out.read_bytes().splitlines())
    done = f"{lines} of 200000 images are done and their results are written"
    assert said == f"hgdeploy: interrupted: {done}\n"


@pytest.mark.slow
def test_the_demos_lines_and_scores_are_pythons(cpp, tmp_path):
    bundle = tmp_path / "EfficientNetLite0_infer"
    assert hgdeploy("models", "download", "EfficientNetLite0", "--output", tmp_path).returncode == 0
    assert hgdeploy("convert", bundle).returncode == 0
    python = hgdeploy("predict", bundle, IMAGES, *ENGINE)
    assert python.returncode == 0
    assert cpp(bundle, IMAGES).stdout == python.stdout
