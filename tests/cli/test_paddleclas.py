# SPDX-License-Identifier: Apache-2.0
"""`hgdeploy-paddleclas`, with the arguments of the command of PaddleClas's package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest
from paddleclas_cache import MODEL
from web import archive_model, serving

from conftest import IMAGES, REPO
from hgdeploy.cli.main import paddleclas

pytest.importorskip("paddle")

LINE = re.compile(r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] ppcls INFO: (.*)")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def lines(result: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of stdout, each without what stands before it in PaddleClas's log."""
    found = [LINE.fullmatch(line) for line in result.stdout.splitlines()]
    assert all(found), result.stdout
    return [match[1] for match in found if match]


def test_a_folder_is_classified_as_paddleclas_does(mini: Path, run_here: Run):
    result = run_here(
        paddleclas, f"--inference_model_dir={mini}", f"--infer_imgs={IMAGES}", "--use_gpu=FALSE",
        "--engine=onnxruntime",
        "--batch_size", "0", "--topk", "2", "-o", "Global.batch_size=2", "-o", "Global.gpu_id=0",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    *found, last = lines(result)
    assert last == "Predict complete!"
    names = ("camera", "chelsea", "coffee", "flower", "rocket")
    for line, name in zip(found, names, strict=True):
        assert re.fullmatch(
            r"class_ids: \[\d, \d\], scores: \[0\.\d+, 0\.\d+\], "
            rf"label_names: \['name \d, the', 'name \d, the'\], filename: {IMAGES / name}\.jpg",
            line,
        )


def test_a_model_is_downloaded_and_an_address_is_classified(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch, run_here: Run
):
    web = tmp_path / "web"
    archive_model(web / "inference" / "ResNet18_infer.tar", MODEL)
    shutil.copy(IMAGES / "coffee.jpg", web)
    with serving(web) as url:
        monkeypatch.setenv("HGDEPLOY_MODELS_URL", url)
        result = run_here(
            paddleclas, "--model_name=ResNet18", f"--infer_imgs={url}/coffee.jpg", "--use_gpu=0"
        )
    assert result.returncode == 0, result.stderr
    assert f"download {url}/inference/ResNet18_infer.tar" in result.stderr
    (line, _) = lines(result)
    assert f"filename: {home / '.paddleclas' / 'images'}" in line


def test_a_failed_image_is_told_and_the_others_have_their_lines(
    mini: Path, tmp_path: Path, run_here: Run
):
    shutil.copy(IMAGES / "coffee.jpg", tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"none")
    result = run_here(
        paddleclas, f"--inference_model_dir={mini}", f"--infer_imgs={tmp_path}", "--use_gpu=f",
        "--engine=onnxruntime",
        f"--save_dir={tmp_path / 'copies'}", "--predict_type", "cls", "--build_gallery=False",
    )  # fmt: skip
    assert result.returncode == 3
    assert len(lines(result)) == 2
    assert "b.jpg" in result.stderr
    assert [path.name for path in (tmp_path / "copies").rglob("*.jpg")] == ["a.jpg"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "no images were given; give --infer_imgs=PATH"),
        (["--infer_imgs=x"], 2, "no model was given"),
        (["--model_name=ResNet5", "--infer_imgs=x"], 2, "the nearest of "),
        (["--model_name=ResNet50", "--infer_imgs=x", "--index_dir=y"], 2, "belongs to PP-ShiTu"),
        (["--model_name=ResNet50", "--infer_imgs=x", "--predict_type=shitu"], 2, "PP-ShiTuV2"),
        (["--model_name=ResNet50", "--infer_imgs=x", "--topk=many"], 2, "topk is 'many'"),
        (["--model_name=ResNet50", "--infer_imgs=x", "--size=2"], 2, "unknown argument --size"),
        (["--inference_model_dir=nowhere", "--infer_imgs=x"], 5, "nowhere does not exist"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], code: int, message: str, home: Path, run_here: Run
):
    result = run_here(paddleclas, *arguments)
    (line,) = result.stderr.splitlines()
    assert (result.returncode, result.stdout) == (code, "")
    assert message in line


def test_help_lists_the_models(run_here: Run):
    with pytest.raises(SystemExit) as end:
        run_here(paddleclas, "--help")
    assert end.value.code == 0


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of commands, which is first on the PATH."""
    folder = tmp_path / "bin with a space"
    folder.mkdir()
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(folder))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.mark.skipif(os.name == "nt", reason="the command is another there")
def test_the_old_name_is_made_on_request(scripts: Path, run_here: Run):
    for _ in range(2):
        result = run_here(paddleclas, "--install_as_paddleclas")
        assert (result.returncode, result.stdout) == (0, f"{scripts / 'paddleclas'}\n")
    environment = os.environ | {"PYTHONPATH": str(REPO / "deploy" / "python")}
    shown = subprocess.run(
        ["paddleclas", "-h"], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert "--infer_imgs" in shown
    assert "PPHGNet: PPHGNet_tiny PPHGNet_small" in shown
    assert "PULC: car_exists" in shown


def test_the_name_of_another_program_is_kept(scripts: Path, run_here: Run):
    theirs = scripts / ("paddleclas.cmd" if os.name == "nt" else "paddleclas")
    theirs.write_text("#!/bin/sh\n")
    theirs.chmod(0o755)
    result = run_here(paddleclas, "--install_as_paddleclas")
    assert result.returncode == 2
    assert f"{theirs} is another program, which keeps its name" in result.stderr
    assert theirs.read_text() == "#!/bin/sh\n"


def test_the_command_of_paddleclas_s_package_is_kept(
    scripts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_here: Run
):
    package = tmp_path / "site" / "paddleclas-2.6.0.dist-info"
    package.mkdir(parents=True)
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: paddleclas\nVersion: 2.6.0\n")
    monkeypatch.syspath_prepend(package.parent)
    result = run_here(paddleclas, "--install_as_paddleclas")
    assert result.returncode == 2
    assert "paddleclas 2.6.0 is installed, and its command keeps the name" in result.stderr
    assert list(scripts.iterdir()) == []
