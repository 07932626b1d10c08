# SPDX-License-Identifier: Apache-2.0
"""Validation finds what is wrong, passes what is right, and says which is which."""

from __future__ import annotations

import html.parser
import json
import re
import shutil

import onnx
import pytest
from broken_models import BREAKS
from image_files import encoded, jpeg
from PIL import Image

from conftest import IMAGES, MINI, require_engine
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import write_sidecar
from hgdeploy.cli.main import main
from hgdeploy.cli.measure.explain import parse_side
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import Run, parse_runs
from hgdeploy.errors import (
    BundleError,
    ConfigError,
    EngineError,
    ImageError,
    InputError,
    ValidationError,
)
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.images.find import find_images
from hgdeploy.images.labelled import read_labelled_images
from hgdeploy.system.machine import cpu_flags
from hgdeploy.transforms.prediction import printable
from hgdeploy.validation.divergence import first_divergence
from hgdeploy.validation.explain import explain
from hgdeploy.validation.validate import ValidateOptions, validate
from hgdeploy.validation.verify import verify_conversion

FP32 = ("paddle", "onnxruntime", "openvino")
PHOTOS = tuple(find_images(IMAGES))


@pytest.fixture(autouse=True)
def _engines():
    for name in FP32:
        require_engine(name)


def options(*runs: Run, **more: object) -> ValidateOptions:
    return ValidateOptions(runs or parse_runs(",".join(FP32)), PHOTOS, **more)


def break_onnx(bundle, change) -> None:
    model = onnx.load(bundle / "inference.onnx")
    change(model)
    onnx.checker.check_model(model)
    onnx.save(model, bundle / "inference.onnx")


def test_fp32_engines_agree_to_the_last_digits(mini):
    for name in (mobile := ("mnn", "ncnn")):
        require_engine(name)
    report = validate(open_bundle(mini), options(*parse_runs(",".join((*FP32, *mobile)))))
    assert report.passed
    assert report.images == len(PHOTOS)
    assert len(report.pairs) == 10 * 2, "ten pairs, on images and on random inputs"
    for pair in report.pairs:
        assert pair.comparison.max_abs < 1e-6
        assert pair.comparison.max_log < 1e-5
    assert report.runtimes["openvino"].precision == "fp32"


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: change.__name__)
def test_a_broken_conversion_is_caught(mini, change):
    break_onnx(mini, change)
    report = validate(open_bundle(mini), options(*parse_runs("paddle,onnxruntime")))
    assert not report.passed
    assert all(pair.misses for pair in report.pairs), "on images, and on random inputs"


@pytest.mark.parametrize("change", BREAKS, ids=lambda change: change.__name__)
def test_a_broken_conversion_fails_verification(mini, change):
    break_onnx(mini, change)
    with pytest.raises(ValidationError, match="does not compute what"):
        verify_conversion(mini / "inference.pdmodel", mini / "inference.onnx")


def test_a_right_conversion_passes_verification():
    figures = verify_conversion(MINI / "inference.pdmodel", MINI / "inference.onnx")
    assert figures["max_abs"] < 1e-6
    assert figures["against"].startswith("paddle ")


def test_the_worst_image_is_named_with_both_answers(mini):
    break_onnx(mini, BREAKS[0])
    report = validate(open_bundle(mini), options(*parse_runs("paddle,onnxruntime")))
    (pair,) = [pair for pair in report.pairs if pair.inputs == "images"]
    gaps = [worst.max_abs for worst in pair.worst]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] == pytest.approx(pair.comparison.max_abs)
    assert {worst.name for worst in pair.worst} == {file.name for file in PHOTOS}


@pytest.mark.skipif(not cpu_flags() & {"avx512_bf16", "amx_bf16"}, reason="no bf16 on this CPU")
def test_a_reduced_precision_is_held_to_its_own_tolerance(mini):
    runs = parse_runs("paddle,openvino", "bf16")
    assert runs == (Run("paddle", "fp32"), Run("openvino", "bf16"))
    report = validate(open_bundle(mini), options(*runs))
    assert report.passed
    assert all(pair.comparison.max_abs > 1e-5 for pair in report.pairs)


def test_a_run_says_its_device_and_gets_no_other(mini):
    runs = parse_runs("onnxruntime,onnxruntime@gpu:0,tensorrt:fp16@gpu:1")
    assert runs[1:] == (Run("onnxruntime", "fp32", "gpu:0"), Run("tensorrt", "fp16", "gpu:1"))
    assert [run.name for run in runs] == [
        "onnxruntime", "onnxruntime@gpu:0", "tensorrt:fp16@gpu:1",
    ]  # fmt: skip
    if nvidia_gpus()[0]:
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineError, match="gpu:0 was asked for"):
        validate(open_bundle(mini), options(*runs[:2]))


def test_images_that_cannot_be_read_are_named_and_left_out(mini, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    files = (*find_images(tmp_path / "bad.jpg"), *PHOTOS)
    report = validate(open_bundle(mini), ValidateOptions(parse_runs("paddle,onnxruntime"), files))
    assert report.failed == (("bad.jpg", "is empty"),)
    assert report.images == len(PHOTOS)


def test_no_readable_image_is_an_error(mini, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    files = tuple(find_images(tmp_path / "bad.jpg"))
    with pytest.raises(InputError, match=r"none of 1 images can be read; bad\.jpg: is empty"):
        validate(open_bundle(mini), ValidateOptions(parse_runs("paddle,onnxruntime"), files))


def test_accuracy_is_reported_with_its_interval(mini):
    # pphgnet_mini answers class 2 to every photograph; so two of these five labels are right.
    labelled = options(*parse_runs("paddle,onnxruntime"), labels=(2, 2, 0, 0, 0))
    report = validate(open_bundle(mini), labelled)
    assert [accuracy.run for accuracy in report.accuracies] == ["paddle", "onnxruntime"]
    for accuracy in report.accuracies:
        assert accuracy.rows == 5
        assert accuracy.top1 == pytest.approx(0.4)
        low, high = accuracy.top1_interval
        assert low < 0.4 < high
        assert accuracy.top5 >= accuracy.top1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("paddel", "did you mean 'paddle'"),
        ("paddle:fp8", "unknown precision"),
        ("paddle,paddle", "names paddle twice"),
        ("", "unknown engine"),
    ],
)
def test_a_wrong_list_of_engines_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_runs(text)


def test_a_file_alone_is_validated_and_not_what_lies_beside_it(mini, capsys):
    net = mini / "net.onnx"
    (mini / "inference.onnx").rename(net)
    command = ["validate", str(net), "--random", "2", "--engines"]
    assert main([*command, "onnxruntime,openvino"]) == 0
    assert capsys.readouterr().out.startswith(f"# Validation of {net}: passed\n")
    assert main([*command, "paddle,onnxruntime"]) == 5
    assert "nothing that paddle reads" in capsys.readouterr().err
    assert main([*command, "onnxruntime,openvino", "--report", str(net)]) == 2


def test_a_missing_artifact_is_an_error(mini):
    with pytest.raises(BundleError, match=r"has no inference\.int8\.onnx"):
        validate(open_bundle(mini), options(*parse_runs("paddle,onnxruntime:int8")))


def test_labels_are_read_from_a_list_and_from_folders(tmp_path):
    for folder, name in (("7", "a.jpg"), ("hen", "b b.jpg")):
        (tmp_path / folder).mkdir()
        shutil.copy(IMAGES / "coffee.jpg", tmp_path / folder / name)
    files, labels = read_labelled_images(tmp_path, tmp_path, {7: "cock", 8: "hen, fowl"})
    assert [(file.name, label) for file, label in zip(files, labels, strict=True)] == [
        ("7/a.jpg", 7),
        ("hen/b b.jpg", 8),
    ]
    listed = tmp_path / "list.txt"
    listed.write_text("7/a.jpg 3\n\nhen/b b.jpg 12\n")
    files, labels = read_labelled_images(listed, tmp_path, None)
    assert labels == (3, 12)
    assert [file.path for file in files] == [tmp_path / "7/a.jpg", tmp_path / "hen/b b.jpg"]


def test_labels_that_cannot_be_understood_are_refused(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg\n")
    with pytest.raises(InputError, match=r"line 1: 'a\.jpg' is not 'PATH LABEL'"):
        read_labelled_images(listed, tmp_path, None)
    (tmp_path / "dragon").mkdir()
    shutil.copy(IMAGES / "coffee.jpg", tmp_path / "dragon")
    with pytest.raises(InputError, match="no folder that is a class id"):
        read_labelled_images(tmp_path, tmp_path, {0: "hen"})


def folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)
        shutil.copy(IMAGES / "coffee.jpg", root / name)


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ({0: "0", 1: "90", 2: "180"}, {"0": 0, "90": 1, "180": 2}),
        ({0: "1", 1: "0"}, {"0": 1, "1": 0}),
        ({0: "cat", 1: "dog"}, {"0": 0, "dog": 1}),
        (None, {"0": 0, "90": 90}),
        ({0: "maillot", 1: "maillot, tank suit"}, {"maillot": 0, "tank suit": 1}),
    ],
)
def test_folders_named_by_numbers_have_one_meaning(tmp_path, names, found):
    folders(tmp_path, *found)
    files, labels = read_labelled_images(tmp_path, tmp_path, names)
    assert {f.name.split("/")[0]: n for f, n in zip(files, labels, strict=True)} == found


@pytest.mark.parametrize(
    ("folder", "names", "told"),
    [
        ("2", {0: "0", 1: "90"}, "is in no folder that is one of the model's labels"),
        ("1", {0: "3, three", 1: "cat"}, "is in no folder that is one of the model's labels"),
        ("crane", {0: "crane", 1: "crane"}, "'crane' is the name of the classes 0, 1"),
        ("b", {0: "a, b", 1: "c, b"}, "'b' is the name of the classes 0, 1"),
        ("7", {0: "cat"}, "has class id 7, and the model's labels end at 0"),
        ("cat", None, "is in no folder that is a class id"),
    ],
)
def test_a_folder_without_one_class_is_refused(tmp_path, folder, names, told):
    folders(tmp_path, folder)
    with pytest.raises(InputError, match=told):
        read_labelled_images(tmp_path, tmp_path, names)


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("a.jpg 1\na.jpg 2\n", "line 2: 'a.jpg' has class 2, and 1 in a line before"),
        ("a.jpg 1\n./a.jpg 2\n", "line 2: './a.jpg' has class 2, and 1 in a line before"),
        ("a.jpg " + 5000 * "1", "is not 'PATH LABEL'"),
        ("a.jpg -1", "is not 'PATH LABEL'"),
        ("a.jpg 4", "'a.jpg' has class id 4, and the model's labels end at 3"),
    ],
)
def test_a_list_that_gives_no_one_class_is_refused(tmp_path, lines, told):
    listed = tmp_path / "list.txt"
    listed.write_text(lines)
    with pytest.raises(InputError) as caught:
        read_labelled_images(listed, tmp_path, dict(enumerate("abcd")))
    assert told in str(caught.value)


def test_a_list_splits_at_the_ends_of_lines_only(tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_bytes("\ufeffa\x0cb.jpg 1\r\nc\u2028d.jpg 2\ra.jpg 1\n./a.jpg 1".encode())
    files, labels = read_labelled_images(listed, tmp_path, None)
    assert [file.name for file in files] == ["a\x0cb.jpg", "c\u2028d.jpg", "a.jpg", "./a.jpg"]
    assert labels == (1, 2, 1, 1)


def test_a_label_that_is_none_of_the_classes_is_refused(mini):
    images = tuple(find_images(IMAGES))[:2]
    wanted = ValidateOptions(parse_runs("onnxruntime,openvino"), images, (3, 10))
    with pytest.raises(InputError, match=r"has class id 10, but the model has 10 classes"):
        validate(open_bundle(mini), wanted)


class Tables(html.parser.HTMLParser):
    """Counts the tags of a page and keeps its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, _: object) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_command_reports_in_every_format_and_ends_with_the_verdict(mini, tmp_path, run_here):
    for suffix in ("json", "md", "html"):
        result = run_here(
            main, "validate", mini, "--images", IMAGES, "--engines", "paddle,onnxruntime,openvino",
            "--report", tmp_path / f"r.{suffix}",
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
    facts = json.loads((tmp_path / "r.json").read_text())
    assert facts["passed"] is True
    assert len(facts["pairs"]) == 6
    assert (tmp_path / "r.md").read_text() == result.stdout
    page = Tables()
    page.feed((tmp_path / "r.html").read_text())
    assert page.tags.count("table") >= 3
    assert not {"script", "link", "img"} & set(page.tags), "one self-contained page"
    assert "passed" in page.text


def test_the_command_fails_in_one_line_where_engines_differ(mini, tmp_path, run_here):
    break_onnx(mini, BREAKS[1])
    report = tmp_path / "r.html"
    result = run_here(main, "validate", mini, "--images", IMAGES, "--report", report)
    assert result.returncode == 11
    assert "hgdeploy: error: 2 of 2 comparisons are out of tolerance; paddle / onnxruntime" in (
        result.stderr
    )
    assert "FAILED" in result.stdout
    assert "FAILED" in report.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--report", "x.txt"), 2, "unknown suffix"),
        (("--report", "none/x.md"), 10, "its folder does not exist"),
        (("--labels", "x.txt"), 2, "--labels needs --images"),
        (("--images", "nowhere"), 4, "nowhere"),
    ],
)
def test_a_wrong_command_line_is_refused_before_any_model_loads(
    mini, arguments, code, message, run_here
):
    result = run_here(main, "validate", mini, *arguments)
    assert result.returncode == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("change", "layer"), list(zip(BREAKS, ("softmax.0", "softmax.0", "conv2d.0"), strict=True))
)
def test_bisect_names_the_first_layer_that_parts(mini, change, layer, run_here):
    break_onnx(mini, change)
    result = run_here(main, "validate", mini, "--images", IMAGES, "--bisect")
    assert result.returncode == 11
    lines = [line for line in result.stdout.splitlines() if "first differs at layer" in line]
    assert len(lines) == 2, "for the images and for the random inputs"
    assert all(f"first differs at layer {layer} by" in line for line in lines)


def test_nothing_parts_where_all_is_right(mini, golden):
    bundle, row = open_bundle(mini), golden["x"][:1]
    for a, b in (("paddle", "onnxruntime"), ("onnxruntime", "openvino"), ("paddle", "openvino")):
        found = first_divergence(bundle, Run(a, "fp32"), Run(b, "fp32"), row)
        assert found.layer is None, found.text()
        assert found.before > 100


def test_bisect_looks_into_the_run_on_its_own_device(mini, golden):
    """Not into that of the CPU: a GPU that is not there is an error."""
    bundle, there, gone = open_bundle(mini), Run("onnxruntime"), Run("onnxruntime", device="gpu:99")
    for pair in ((there, gone), (gone, there)):
        with pytest.raises(EngineError, match="gpu"):
            first_divergence(bundle, *pair, golden["x"][:1])


@pytest.fixture
def other(mini, tmp_path):
    """A second bundle to change."""
    copy = tmp_path / "other"
    shutil.copytree(mini, copy)
    return copy


def described(bundle, old: str, new: str) -> None:
    path = bundle / "inference.yml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "cause"),
    [
        ("transform_ops:", "transform_ops:\n    - DecodeImage: {to_rgb: false}", "decode"),
        ("resize_short: 72", "resize_short: 90", "resize"),
        ("scale: 1.0/255.0", "scale: 1.0/128.0", "normalize"),
    ],
)
def test_explain_names_the_preprocessing_stage_that_differs(mini, other, old, new, cause):
    described(other, old, new)
    found = explain(IMAGES / "chelsea.jpg", parse_side(str(mini)), parse_side(str(other)))
    assert found.cause == cause
    assert [effect.stage for effect in found.effects if not effect.same] == [cause, "model"]
    moved = {effect.stage: effect for effect in found.effects}[cause]
    assert moved.alone == pytest.approx(moved.in_turn)
    total = sum(effect.in_turn for effect in found.effects)
    assert total == pytest.approx(found.score_b - found.score_a, abs=1e-7)


def test_explain_names_the_model(mini, other):
    break_onnx(other, BREAKS[0])
    sides = [parse_side(f"{bundle}@onnxruntime") for bundle in (mini, other)]
    found = explain(IMAGES / "chelsea.jpg", *sides)
    assert found.cause == "model"
    assert found.score_b > found.score_a


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("gone.jpg", None, "does not exist"),
        ("line\nbreak.jpg", None, "does not exist"),
        ("cut.jpg", jpeg()[:-40], r"is truncated \(JPEG\)"),
        ("long.png", encoded(Image.new("RGB", (30_000, 1)), "PNG"), "is too long for resize_short"),
    ],
)
def test_explain_names_the_image_that_it_cannot_use(mini, tmp_path, name, data, reason):
    path = tmp_path / name
    if data is not None:
        path.write_bytes(data)
    side = parse_side(str(mini))
    shown = re.escape(printable(str(path)))
    with pytest.raises(ImageError, match=f"^{shown}: .*{reason}") as raised:
        explain(path, side, side)
    assert "\n" not in str(raised.value)


def test_explain_of_equal_runs_finds_nothing(mini):
    found = explain(IMAGES / "chelsea.jpg", parse_side(str(mini)), parse_side(str(mini)))
    assert found.cause is None
    assert "none, the scores are equal" in found.text()


@pytest.mark.skipif(not cpu_flags() & {"avx512_bf16", "amx_bf16"}, reason="no bf16 on this CPU")
def test_explain_names_the_precision_on_the_command_line(mini, run_here):
    result = run_here(main, "explain", IMAGES / "chelsea.jpg", mini, f"{mini}@paddle:bf16")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "cause: precision"


@pytest.mark.parametrize("engine", ["paddle", "onnxruntime"])
def test_explain_runs_on_the_device_of_a_config(mini, tmp_path, engine, run_here):
    """A GPU that is not there is an error, and never the CPU's answer."""
    config = tmp_path / "gpu.yaml"
    config.write_text(
        f"Global: {{inference_model_dir: {mini}, engine: {engine}, use_gpu: True, gpu_id: 99}}\n"
    )
    for sides in ((config, mini), (mini, f"{mini}@{engine}@gpu:99")):
        result = run_here(main, "explain", IMAGES / "chelsea.jpg", *sides)
        assert (result.returncode, result.stdout) == (6, "")
        assert "gpu:99" in result.stderr


def test_openvino_and_onnx_load_the_broken_models_too(mini):
    """The breaks are valid ONNX: nothing but the numbers gives them away."""
    for change in BREAKS:
        break_onnx(mini, change)
        shutil.copy(mini / "inference.onnx", mini / f"{change.__name__}.onnx")
        shutil.copy(MINI / "inference.onnx", mini)
        for name in ("onnxruntime", "openvino"):
            load_engine(name, mini / f"{change.__name__}.onnx", EngineOptions()).close()


def test_explain_warns_once_of_what_both_sides_share(mini, capsys):
    write_sidecar(mini, {})
    path = mini / "inference.yml"
    path.write_text(path.read_text() + "# changed\n")
    command = ["explain", str(IMAGES / "chelsea.jpg"), str(mini), f"{mini}@onnxruntime"]
    assert main(command) == 0
    assert capsys.readouterr().err.count("has changed since the bundle was made") == 1
