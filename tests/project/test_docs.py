# SPDX-License-Identifier: Apache-2.0
"""Every command and Python block of the documentation runs, in a copy of the tree.

A fence `bash` or `python` is executed, unless it says `no-test: REASON`. A command that stands on
several pages, on one line, runs once.
Downloads of official models come from a local server, through the mirror variable users have.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from web import archive_model, serving

from conftest import DEADLINE, REPO, hgdeploy, require_engine
from hgdeploy.system.libraries import installed_version

DOCUMENTS = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
NEEDS_CONVERT = ("convert.md", "mobile.md", "tensorrt.md", "triton.md", "validation.md")
NEEDS_TENSORRT_RTX = ("tensorrt.md",)
UNTRACKED = ("--others", "--exclude-standard")
FENCE = re.compile(r"^```(bash|python)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def mirror(tree: Path, tmp_path_factory):
    """A server with the archives that the documents download; in each is the demo's small model."""
    root = tmp_path_factory.mktemp("mirror")
    bundle = tree / "deploy" / "models" / "EfficientNetLite0_infer"
    for name in ("PPHGNet_tiny", "PPHGNet_small"):
        files = (bundle / "inference.json", bundle / "inference.pdiparams")
        archive_model(root / "inference" / f"{name}_infer.tar", files)
    with serving(root) as url:
        yield url


@pytest.fixture(scope="module")
def made_environment() -> Path:
    """The environment these tests run in, if `make` made it: then `make demo` reuses it."""
    venv = Path(sys.prefix)
    if not (venv / ".cpu").exists():
        pytest.skip("`make demo` would install into this environment; run the tests by `make test`")
    return venv


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the repository as git sees it, with the demo's model made."""
    copy = tmp_path_factory.mktemp("tree") / "HGDeploy"
    for name in files_of_the_project():
        if (REPO / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, copy / name)  # make compares times
    models = copy / "deploy" / "models"
    made = hgdeploy("models", "download", "EfficientNetLite0", "--output", models)
    assert made.returncode == 0, made.stderr
    for command in ("init", "add ."):
        subprocess.run(["git", *command.split()], cwd=copy, check=True, capture_output=True)
    return copy


def files_of_the_project() -> list[str]:
    """What git tracks, and what is new in a folder with tracked files.

    What else is new at the top is a user's, and may be in the way of the documents' commands. A
    developer who adds a file there tells git of it first.
    """
    tracked, new = git_files(REPO, "--cached"), git_files(REPO, *UNTRACKED)
    folders = {name.split("/")[0] for name in tracked if "/" in name}
    return tracked + [name for name in new if "/" in name and name.split("/")[0] in folders]


def git_files(tree: Path, *options: str) -> list[str]:
    listed = subprocess.run(
        ["git", "ls-files", *options, "-z"], cwd=tree, capture_output=True, text=True, check=True
    )
    return listed.stdout.split("\0")[:-1]


@pytest.fixture(scope="module")
def already_run() -> set[str]:
    """The commands that ran, each on a line of its own."""
    return set()


def only_new(script: str, already_run: set[str]) -> str:
    """Return a script without the lines of it that are a whole command which has run already."""
    kept, goes_on = [], False
    for line in script.splitlines():
        command = line.partition("  #")[0].strip()
        follows, goes_on = goes_on, line.endswith("\\")
        if command.startswith("hgdeploy ") and not follows and not goes_on:
            if command in already_run:
                continue
            already_run.add(command)
        kept.append(line)
    return "\n".join([*kept, ""])


def test_of_equal_commands_only_the_first_runs():
    script = "hgdeploy x  # why\nhgdeploy x \\\n    y\nmkdir -p z\n"
    already_run: set[str] = set()
    assert only_new(script, already_run) == script
    assert only_new(script, already_run) == script.partition("\n")[2]
    assert already_run == {"hgdeploy x"}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_command_of_the_documentation_runs(
    document: Path, tree: Path, mirror: str, made_environment: Path, already_run: set[str]
):
    require_engine("paddle")
    if document.name in NEEDS_CONVERT and installed_version("paddle2onnx") is None:
        pytest.skip("paddle2onnx is not installed; it has no wheels for this Python")
    if document.name in NEEDS_TENSORRT_RTX and installed_version("tensorrt-rtx") is None:
        pytest.skip("tensorrt-rtx is not installed; it has wheels for Linux and Windows only")
    venv = made_environment
    environment = os.environ | {
        "PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "VENV": str(venv),
        "HGDEPLOY_MODELS_URL": mirror,
    }
    if document.name == "paddleclas.md":  # its commands fill PaddleClas's cache
        environment["HOME"] = str(tree.parent)
    for language, note, code in FENCE.findall(document.read_text(encoding="utf-8")):
        if "no-test:" in note:
            continue
        # The environment that a user makes and activates is the one these tests run in.
        code = code.replace(". .venv/bin/activate\n", "")
        if language == "python":
            command = [sys.executable, "-W", "error", "-c", code]
        else:
            command = ["bash", "-euo", "pipefail", "-c", only_new(code, already_run)]
        result = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, timeout=DEADLINE,
            check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{code}\n{result.stderr}"
        assert git_files(tree, *UNTRACKED, "--modified") == [], f"{code}\nwrites where git sees it"


def test_the_readme_shows_a_result_within_thirty_lines():
    head = (REPO / "README.md").read_text(encoding="utf-8").splitlines()[:30]
    assert any("make demo" in line for line in head)
    assert any("make test" in line for line in head)
    assert any("class id(s): [" in line for line in head)


def test_the_demo_prints_the_right_classes_and_the_lines_of_the_readme(
    tree: Path, made_environment: Path
):
    # However old the environment's stamp is: make would install the copy into the environment.
    installed = f"--assume-old={made_environment / '.cpu'}"
    result = subprocess.run(
        ["make", "--silent", "demo", f"VENV={made_environment}", installed],
        cwd=tree, capture_output=True, text=True, timeout=DEADLINE, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = dict(line.split(":\t") for line in result.stdout.splitlines())
    right = {
        "camera.jpg": {872},
        "chelsea.jpg": {281, 282, 285},
        "coffee.jpg": {967},
        "flower.jpg": {985},
        "rocket.jpg": {657},
    }
    assert lines.keys() == right.keys()
    for name, classes in right.items():
        assert int(re.search(r"\[(\d+)", lines[name])[1]) in classes, lines[name]
    shown = re.findall(r"^\w+\.jpg:\t.*$", (REPO / "README.md").read_text(), re.MULTILINE)
    assert shown
    assert all(line in result.stdout.splitlines() for line in shown)
