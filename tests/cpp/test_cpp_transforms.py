# SPDX-License-Identifier: Apache-2.0
"""The C++ part preprocesses and postprocesses as Python does: the same bits, and the same words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from cpp_probe import CppError, Probe, told
from golden_set import FOLDER, NAMES, NOT_IN_DEBIAN, digest
from image_files import encoded
from PIL import Image

from hgdeploy.errors import ConfigError
from hgdeploy.images.decode import decode_image
from hgdeploy.system.documents import read_yaml
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.postprocess_config import LABEL_KEYS, parse_postprocess
from hgdeploy.transforms.preprocess import Preprocessor

pytestmark = pytest.mark.timeout(300)
WHERE = "PreProcess.transform_ops"


@pytest.fixture(scope="module")
def probe(cpp_build: Path) -> Iterator[Probe]:
    with Probe(cpp_build / "tests" / "hgdeploy-probe") as opened:
        yield opened


def test_the_golden_tensors_are_made_in_every_bit(probe):
    for row in json.loads((FOLDER / "cases.json").read_text(encoding="utf-8")):
        if row["file"].endswith(NOT_IN_DEBIAN):
            continue
        probe.use_ops(row["ops"])
        tensor = probe.read_file(FOLDER / row["file"])
        assert (str(tensor.dtype), list(tensor.shape)) == (row["dtype"], row["shape"]), row
        assert digest(tensor) == row["sha256"], row


def random_ops(random: np.random.Generator, index: int) -> list[dict[str, Any]]:
    backend = ("cv2", "pil")[index % 2]
    how = {"backend": backend, "interpolation": NAMES[backend][index // 2 % len(NAMES[backend])]}
    if random.random() < 0.2:
        size = [int(side) for side in random.integers(1, 300, 2)]
        resize, least = {"size": size, **how}, min(size)
    else:
        short = random.choice([int(random.integers(1, 260)), 1 + 200 * random.random()])
        short = int(short) if short == int(short) else float(short)
        resize, least = {"resize_short": short, **how}, int(short)
    crop = [{"CropImage": {"size": int(random.integers(1, least + 1))}}]
    crop = crop if random.random() < 0.7 else []
    late = backend == "cv2" and random.random() < 0.15
    planar = not late and random.random() < 0.3
    normalize = {
        "scale": "1.0/255.0",
        "order": "chw" if planar else "",
        "channel_num": int(random.choice([3, 4])),
        "output_fp16": bool(not late and random.random() < 0.2),
    }
    ops = [{"DecodeImage": {"to_rgb": bool(random.random() < 0.5)}}, {"ResizeImage": resize}, *crop]
    if planar:
        return [*ops, {"ToCHWImage": None}, {"NormalizeImage": normalize}]
    if late:
        ops.insert(1, {"NormalizeImage": normalize})
    elif random.random() < 0.9:
        ops.append({"NormalizeImage": normalize})
    return ops if random.random() < 0.4 else [*ops, {"ToCHWImage": None}]


def random_file(random: np.random.Generator) -> bytes:
    width, height = random.integers(1, 400, 2)
    pixels = random.integers(0, 256, (height, width, 3), np.uint8)
    if random.random() < 0.7:
        steps = random.integers(-9, 10, (height, width, 3))
        pixels = np.clip(np.cumsum(steps, axis=1) + 128, 0, 255).astype(np.uint8)
    kind = str(random.choice(["PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM"]))
    quality = {"quality": int(random.integers(30, 99))} if kind in ("JPEG", "WEBP") else {}
    fast = {"compress_level": 1} if kind == "PNG" else {"method": 0} if kind == "WEBP" else {}
    return encoded(Image.fromarray(pixels), kind, **quality, **fast)


def test_500_generated_pictures_are_preprocessed_in_every_bit(probe):
    random = np.random.default_rng(17)
    for index in range(500):
        ops, data = random_ops(random, index), random_file(random)
        probe.use_ops(ops)
        ours = told(Preprocessor(parse_ops(ops, WHERE)), decode_image(data))
        theirs = told(probe.read_bytes, data)
        if isinstance(ours, str):
            assert theirs == ours, ops
        else:
            assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape), ops
            assert theirs.tobytes() == ours.tobytes(), ops


REFUSED_OPS = """
5
[5]
[CropImage]
[{CropImage: 5, ResizeImage: 5}]
[{CropImage: null}]
[{CropImage: {}}]
[{CropImage: {size: null}}]
[{CropImage: {size: 0}}]
[{CropImage: {size: [3]}}]
[{CropImage: {size: [3, 4.5]}}]
[{CropImage: {size: "[8, x]"}}]
[{CropImage: {size: 224, crop: 5}}]
[{CropImag: {size: 224}}]
[{Xyzzy: null}]
[{RandFlipImage: null}]
[{DetResize: null}]
[{ToTensor: null}]
[{DecodeImage: {to_rgb: maybe}}]
[{DecodeImage: {channel_first: true}}]
[{DecodeImage: {backend: pil}}]
[{DecodeImage: {to_rgb: null}}]
[{ResizeImage: null}]
[{ResizeImage: {size: 0}}]
[{ResizeImage: {resize_short: 0}}]
[{ResizeImage: {resize_short: 0.5}}]
[{ResizeImage: {resize_short: yes}}]
[{ResizeImage: {resize_short: "2x"}}]
[{ResizeImage: {resize_short: .inf}}]
[{ResizeImage: {resize_short: 100000}}]
[{ResizeImage: {size: [100000, 100000]}}]
[{ResizeImage: {resize_short: 8, interpolation: cubic}}]
[{ResizeImage: {resize_short: 8, interpolation: random}}]
[{ResizeImage: {resize_short: 8, interpolation: 7}}]
[{ResizeImage: {resize_short: 8, interpolation: box}}]
[{ResizeImage: {resize_short: 8, interpolation: [1]}}]
[{ResizeImage: {resize_short: 8, backend: PIL, interpolation: area}}]
[{ResizeImage: {resize_short: 8, backend: skimage}}]
[{NormalizeImage: {scale: "1/0", order: ""}}]
[{NormalizeImage: {scale: "2**3", order: ""}}]
[{NormalizeImage: {scale: 0, order: ""}}]
[{NormalizeImage: {scale: 1e60, order: ""}}]
[{NormalizeImage: {scale: 1.0e+60, order: ""}}]
[{NormalizeImage: {mean: [1, 2], order: ""}}]
[{NormalizeImage: {mean: [1, 2, x], order: ""}}]
[{NormalizeImage: {std: [1, 0, 1], order: ""}}]
[{NormalizeImage: {std: [1, 1.0e-300, 1], order: ""}}]
[{NormalizeImage: {scale: 1.0e+30, std: [1.0e-20, 1, 1], order: ""}}]
[{NormalizeImage: {scale: 1000, output_fp16: true, order: ""}}]
[{NormalizeImage: {order: cwh}}]
[{NormalizeImage: {order: 5}}]
[{NormalizeImage: {channel_num: 5, order: ""}}]
[{NormalizeImage: {channel_num: true, order: ""}}]
[{NormalizeImage: {output_fp16: 2, order: ""}}]
[{NormalizeImage: null}]
[{NormalizeImage: {order: ""}}, {NormalizeImage: {order: ""}}]
[{ToCHWImage: null}, {NormalizeImage: {order: hwc}}]
[{ToCHWImage: null}, {ToCHWImage: null}]
[{ToCHWImage: {x: 1}}]
[{ToCHWImage: null}, {CropImage: {size: 3}}]
[{CropImage: {size: 3}}, {DecodeImage: null}]
[{ResizeImage: {resize_short: 8}}, {CropImage: {size: 9}}]
[{ResizeImage: {resize_short: 8.25}}, {CropImage: {size: 9}}]
[{ResizeImage: {size: [8, 9]}}, {CropImage: {size: 9}}]
[{NormalizeImage: {order: ""}}, {ResizeImage: {resize_short: 8, backend: pil}}]
[{CropImage: {size: "\\e[31m and a text that is longer than what errors show of a value at all"}}]
"""
TAKEN_OPS = """
[]
[{CropImage: {size: "8"}}]
[{CropImage: {size: "[9, 8]"}}]
[{CropImage: {size: 8.0}}]
[{CropImage: {size: [0b11, 0x4]}}]
[{ResizeImage: {resize_short: "12", interpolation: 2}}]
[{ResizeImage: {resize_short: 12, size: 5}}]
[{ResizeImage: {resize_short: 0, size: 5, interpolation: 1, backend: PIL}}]
[{ResizeImage: {resize_short: 8, interpolation: null, return_numpy: false}}]
[{ResizeImage: {resize_short: 1:10}}]
[{ResizeImage: {resize_short: 1_0}}]
[{ResizeImage: {resize_short: 010}}]
[{DecodeImage: {to_rgb: no, to_np: True, backend: cv2}}]
[{NormalizeImage: {scale: null, mean: null, std: null, order: null}}]
[{NormalizeImage: {scale: "(1. / 255) * -.5", mean: "[0, '1', 2.5]", order: HWC}}]
[{NormalizeImage: {std: ['1', 2e0, .5], order: hwc}}]
[{NormalizeImage: {scale: 0.00392, output_fp16: "on", channel_num: "4", order: ""}}]
"""


def lines(text: str) -> list[str]:
    return text.strip().splitlines()


def test_operators_are_refused_in_the_same_words(probe):
    for text in lines(REFUSED_OPS):
        with pytest.raises(ConfigError) as ours:
            parse_ops(yaml.safe_load(text), WHERE)
        with pytest.raises(CppError) as theirs:
            probe._ask("O" + text)
        assert (str(theirs.value), theirs.value.code) == (str(ours.value), 2), text


def test_operators_are_read_alike(probe):
    data = random_file(np.random.default_rng(3))
    for text in lines(TAKEN_OPS):
        probe._ask("O" + text)
        ours = Preprocessor(parse_ops(yaml.safe_load(text), WHERE))(decode_image(data))
        assert probe.read_bytes(data).tobytes() == ours.tobytes(), text


OUTPUTS = """
{Topk: {topk: 5}}
{Topk: null}
{Topk: {topk: "3", label_list: [a, 2, yes, 1.50, no label, 'x', 0x10, null]}}
{main_indicator: Topk, Topk: {topk: 2.0}, SavePreLabel: {save_dir: x}}
{name: Topk, topk: 100}
{ThreshOutput: {threshold: 0.5}}
{ThreshOutput: {threshold: "0.2", default_label_index: 1, label_0: no, label_1: 5}}
{MultiLabelThreshOutput: {threshold: 0.3}}
{main_indicator: [MultiLabelThreshOutput], MultiLabelThreshOutput: null}
{ScoreOutput: {decimal_places: 2}}
{ScoreOutput: {decimal_places: 0}}
{PersonAttribute: {threshold: 0.4}}
{FaceAttribute: {convert_cn: true}}
{FaceAttribute: null}
{VehicleAttribute: {type_threshold: 0.6}}
{TableAttribute: {angle_threshold: 0.7}}
"""
REFUSED_OUTPUTS = """
5
{}
{Topk: 5}
{Topk: {topk: 0}}
{Topk: {topk: "x"}}
{Topk: {top: 5}}
{Topk: {label_list: []}}
{Topk: {label_list: [[1]]}}
{Topk: {class_id_map_file: 5}}
{Topk: {class_id_map_file: /nowhere/at/all.txt}}
{Topk: {delimiter: ''}}
{Topp: {topk: 5}}
{Binarize: null}
{Topk: null, ThreshOutput: null}
{main_indicator: ThreshOutput, Topk: null}
{main_indicator: [a, b], Topk: null}
{name: 5}
{name: ScoreOutput}
{ScoreOutput: {decimal_places: 16}}
{ThreshOutput: {threshold: .nan}}
{ThreshOutput: {label_0: [1]}}
{TableAttribute: {threshold: 0.5}}
{FaceAttribute: {convert_cn: perhaps}}
"""


def section_of(text: str, folder: Any) -> Any:
    path = folder / "section.yml"
    path.write_text(f"PostProcess: {text}\n", encoding="utf-8")
    return read_yaml(path, "section", texts=LABEL_KEYS)["PostProcess"]


def test_predictions_are_the_same(probe, tmp_path):
    random = np.random.default_rng(5)
    for text in lines(OUTPUTS):
        output = parse_postprocess(section_of(text, tmp_path), "PostProcess").output
        probe.use_postprocess(text)
        count = getattr(output, "classes", None) or (len(output.labels) if output.labels else 11)
        for size in {count, 2} if "Thresh" in text and output.labels is None else {count}:
            for _ in range(20):
                scores = random.random(size, np.float32).round(1 if random.random() < 0.3 else 7)
                ours = output("x.jpg", scores)
                theirs = probe.predict(scores)
                as_lists = json.loads(json.dumps(vars(ours) | {"path": None, "error": None}))
                assert {**as_lists, **theirs} == as_lists, text


def test_outputs_are_refused_in_the_same_words(probe, tmp_path):
    for text in lines(REFUSED_OUTPUTS):
        with pytest.raises(ConfigError) as ours:
            parse_postprocess(section_of(text, tmp_path), "PostProcess")
        with pytest.raises(CppError) as theirs:
            probe.use_postprocess(text)
        assert (str(theirs.value), theirs.value.code) == (str(ours.value), 2), text


def test_label_files_are_read_alike(probe, tmp_path):
    contents = [
        b"0 a cat\n1 b\r\n2\n\n3  two spaces\n", b"\xef\xbb\xbf0 x\r1 y\x0c z", b"", b"x y\n",
        b"0 a\n0 b\n", b"0 \xff\n", b"-1 a\n", b"1234567890123456789 a\n",
        b"12 " + "long é ".encode() * 30 + b"\nzz\xc3\xa9 " + b"y" * 90,
    ]  # fmt: skip
    for number, content in enumerate(contents):
        path = tmp_path / f"labels{number}.txt"
        path.write_bytes(content)
        text = f"{{Topk: {{topk: 9, class_id_map_file: {path}}}}}"
        ours = told(parse_postprocess, yaml.safe_load(text), "PostProcess")
        theirs = told(probe.use_postprocess, text)
        if isinstance(ours, str):
            assert theirs == ours, content
        else:
            labels = ours.output.labels
            found = probe.predict(np.zeros(len(labels), np.float32))
            assert found["labels"] == [labels[index] for index in found["class_ids"]], content


def test_the_probe_ends_by_itself(cpp_build):
    with Probe(cpp_build / "tests" / "hgdeploy-probe") as alone:
        assert alone.shown("a") == ("'a'", "a")
