# SPDX-License-Identifier: Apache-2.0
"""The commands of docs/training.md in order: from a folder of photographs to a validated int8 file.

They run in this process, on small images and with a tiny network in the place of the page's.
`benchmarks/chain.py` then measures what they made on every engine: this is its short version.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from conftest import REPO, require_engine
from hgdeploy.cli.main import main
from hgdeploy.system.libraries import installed_version

PAGE = (REPO / "docs" / "training.md").read_text(encoding="utf-8")
# What the test has instead of the page's: a network and images that take seconds.
SMALLER = {
    "PPHGNet_tiny": "PPLCNet_x0_25",
    "epochs: 20": "epochs: 12",
    "num_workers: 4": "num_workers: 0",
    "batch_size: 32": "batch_size: 16",
    "224": "64",
    "232": "72",
    # So small a network loses more by int8, and the search for what to keep in fp32 takes seconds.
    "--activations uint8": "--activations uint8 --method minmax --min-agreement 0",
}
COLOURS = {
    "daisy": (235, 235, 40),
    "iris": (40, 30, 235),
    "rose": (235, 30, 40),
    "tree": (20, 180, 40),
}

CHANCE = 1 / len(COLOURS)  # so few steps end well above it, and elsewhere on each kind of CPU


def smaller(text: str) -> str:
    for own, other in SMALLER.items():
        text = text.replace(own, other)
    return text


def write_photos(folder: Path, each: int, seed: int) -> None:
    """Write photographs: a class is a colour, which changes from image to image and within one."""
    random = np.random.default_rng(seed)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            coarse = random.normal(0, 12, (5, 5, 3)).repeat(16, 0).repeat(16, 1)
            pixels = np.array(colour) + random.normal(0, 8, 3) + coarse
            pixels = np.clip(pixels, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.jpg")


@pytest.fixture(scope="module", autouse=True)
def one_cpu() -> Iterator[None]:
    """One CPU for these tests: with more, each evaluation by Paddle would start processes."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    yield
    os.sched_setaffinity(0, allowed)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the page's reader is."""
    require_engine("paddle")
    require_engine("onnxruntime")
    if installed_version("paddle2onnx") is None:
        pytest.skip("paddle2onnx is not installed; it has no wheels for this Python")
    folder = tmp_path_factory.mktemp("training")
    write_photos(folder / "photos" / "train", 20, 1)
    write_photos(folder / "photos" / "val", 10, 2)
    (config,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    (folder / "flowers.yaml").write_text(smaller(config))
    return folder


def test_the_page_leads_from_photographs_to_a_validated_int8_file(
    place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(place)
    own = rf"^```bash no-test: [^\n]*{Path(__file__).name}[^\n]*\n(.*?)^```$"
    (commands,) = re.findall(own, PAGE, re.MULTILINE | re.DOTALL)
    for line in smaller(commands).splitlines():
        verb, *words = shlex.split(line)
        assert verb == "hgdeploy"
        code = main(words)
        out, err = capfd.readouterr()
        assert code == 0, f"{line}\n{err}"
    assert len(out.splitlines()) == 40  # predict names each of the photographs
    found = json.loads(Path("report.json").read_text())
    for of in (found["against"], found):
        low, _ = of["topk"]["1"]["interval"]
        assert low > CHANCE, f"{of['run']} is no better than chance"
    assert Path("confusion.png").read_bytes().startswith(b"\x89PNG")
    names = Path("output/PPLCNet_x0_25/labels.txt").read_text().split()
    assert names == ["0", "daisy", "1", "iris", "2", "rose", "3", "tree"]


def in_this_process(words: list[str], log: Path) -> int:
    """Run `hgdeploy` for the chain."""
    with log.open("a") as stream, contextlib.redirect_stdout(stream):
        return main(words)


def test_a_short_chain_measures_every_artifact_and_fp32_is_the_same_on_every_engine(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    require_engine("openvino")
    bundle, work = place / "my_model", place / "chain"
    if not bundle.is_dir():
        pytest.skip("the page's commands have not made the model")
    (work / "images").mkdir(parents=True)
    bundle.rename(work / "bundle")
    photos = sorted((place / "photos" / "val").glob("*/*.jpg"))
    labels = [(photo, sorted(COLOURS).index(photo.parent.name)) for photo in photos]
    lines = "".join(f"{photo} {label}\n" for photo, label in labels)
    (work / "images" / "test.txt").write_text(lines)
    (work / "images" / "labels.txt").touch()  # the chain's images are written already
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    chain = importlib.import_module("chain")
    runs = ("onnxruntime", "openvino", "onnxruntime:int8")
    output = place / "chain.json"
    given = ("--work", work, "--output", output, "--run", *runs)
    chain.main(list(map(str, given)), in_this_process)
    found = json.loads(output.read_text())["runs"]
    assert list(found) == ["paddle", *runs]
    first = found["paddle"]["topk"]["1"]
    assert first["interval"][0] > CHANCE, "no better than chance"
    for run in ("onnxruntime", "openvino"):
        assert found[run]["against_fp32"]["same"] == len(photos), f"{run} is not fp32"
        assert found[run]["topk"] == found["paddle"]["topk"]
    printed = capsys.readouterr().out
    assert "| onnxruntime | " in printed
    assert "onnxruntime:int8 is " in printed


def test_the_table_of_the_page_is_that_of_the_results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    chain = importlib.import_module("chain")
    found = json.loads((REPO / "benchmarks" / "results" / "chain.json").read_text())
    assert "\n".join(chain.lines_of(found)) in PAGE
    assert all(chain.as_good(found, run) for run in ("onnxruntime:int8", "openvino:int8"))


def test_the_chain_reads_fashion_mnist_s_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(REPO / "benchmarks")
    data = importlib.import_module("chain_data")
    pixels = np.arange(20 * 28 * 28, dtype=np.uint32).astype(np.uint8).reshape(20, 28, 28)
    for part in ("train", "t10k"):
        write_idx(tmp_path / f"{part}-images-idx3-ubyte.gz", pixels)
        write_idx(tmp_path / f"{part}-labels-idx1-ubyte.gz", np.arange(20, dtype=np.uint8) % 10)
    data.write_images(tmp_path, tmp_path / "images", 10)
    lines = {name: (tmp_path / "images" / f"{name}.txt").read_text().splitlines() for name in SETS}
    assert {name: len(listed) for name, listed in lines.items()} == SETS
    place, label = lines["test"][13].split()
    assert label == "3"
    with Image.open(tmp_path / "images" / place) as image:
        assert np.array(image).tolist() == pixels[13].tolist()
    with pytest.raises(SystemExit, match="apt-get install dataset-fashion-mnist"):
        data.write_images(tmp_path / "gone", tmp_path / "other", 10)


SETS = {"train": 9, "val": 1, "test": 20}


def write_idx(path: Path, values: np.ndarray) -> None:
    shape = np.array(values.shape, ">u4").tobytes()
    head = bytes([0, 0, 8, values.ndim])
    path.write_bytes(gzip.compress(head + shape + values.tobytes()))
