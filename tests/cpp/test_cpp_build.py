# SPDX-License-Identifier: Apache-2.0
"""The C++ part as it is built, installed and found by another project."""

from __future__ import annotations

import subprocess

import pytest

from conftest import DEADLINE, IMAGES, REPO

CPP = REPO / "deploy" / "cpp"
MOST_LINES = 400


def run(*command: object) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_ctest_passes(cpp_build):
    assert "100% tests passed" in run("ctest", "--test-dir", cpp_build, "--output-on-failure")


def test_an_installed_tree_is_found_by_another_project(cpp_build, mini, tmp_path):
    if "sanitize" in cpp_build.name:
        pytest.skip("a sanitized program needs deploy/cpp/tests/deepbind.cpp to run OpenVINO")
    prefix, build = tmp_path / "prefix", tmp_path / "build"
    run("cmake", "--install", cpp_build, "--prefix", prefix)
    openvino = next(
        line.partition("=")[2]
        for line in (cpp_build / "CMakeCache.txt").read_text().splitlines()
        if line.startswith("OpenVINO_DIR:")
    )
    run(
        "cmake", "-S", CPP / "example", "-B", build, f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DOpenVINO_DIR={openvino}",
    )  # fmt: skip
    run("cmake", "--build", build)
    photos = sorted(IMAGES.glob("*.jpg"))
    lines = run(build / "classify", mini, *photos).splitlines()
    assert [line.partition(": name ")[0] for line in lines] == [photo.name for photo in photos]
    assert (prefix / "bin" / "hgdeploy-predict").is_file()


def test_files_are_short_and_state_their_licence():
    files = [path for path in CPP.rglob("*") if path.suffix in (".cpp", ".hpp")]
    assert files
    for path in files:
        lines = path.read_text(encoding="utf-8").splitlines()
        assert len(lines) <= MOST_LINES, f"{path} has {len(lines)} lines"
        assert lines[0] == "// SPDX-License-Identifier: Apache-2.0", path


def test_the_dockerfile_installs_the_packages_that_ci_does():
    packages = (CPP / "packages.txt").read_text(encoding="utf-8").split()
    assert packages == sorted(packages)
    assert "packages.txt" in (CPP / "Dockerfile").read_text(encoding="utf-8")
    page = (REPO / "docs" / "cpp.md").read_text(encoding="utf-8")
    assert all(name in page for name in packages)
