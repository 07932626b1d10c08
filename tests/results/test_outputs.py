# SPDX-License-Identifier: Apache-2.0
"""Two outputs are never one file, and no output is what the command reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.results.outputs import check_apart, check_suffix, claiming
from hgdeploy.system.files import check_replaceable


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a file and other ways to it, which is the current one."""
    (tmp_path / "x.jsonl").write_text("rows")
    (tmp_path / "soft").symlink_to("x.jsonl")
    (tmp_path / "hard").hardlink_to(tmp_path / "x.jsonl")
    (tmp_path / "folder").symlink_to(".")
    (tmp_path / "dangling").symlink_to("new.jsonl")
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "report"),
    [
        ("x.jsonl", "x.jsonl"),
        ("x.jsonl", "sub/../x.jsonl"),
        ("x.jsonl", "soft"),
        ("soft", "hard"),
        ("folder/x.jsonl", "x.jsonl"),
        ("new.jsonl", "folder/new.jsonl"),
        ("new.jsonl", "dangling"),
        ("new.jsonl", "NEW.jsonl"),
    ],
)
@pytest.mark.usefixtures("here")
def test_two_outputs_that_are_one_file_are_refused(output, report):
    for path in (Path(report), Path(report).absolute()):
        with pytest.raises(ConfigError) as refused:
            check_apart({"--output": [Path(output)], "--report": [path]})
        assert str(refused.value) == (
            f"--report {path}: --output writes this file ({output}); name another"
        )


@pytest.mark.usefixtures("here")
def test_what_is_written_beside_an_output_is_its_own(here):
    beside = [here / "y.csv", here / "y.csv.run.json"]
    with pytest.raises(ConfigError, match=r"--report .*: --output writes this file \(.*run\.json"):
        check_apart({"--output": beside, "--report": [Path("y.csv.run.json")]})
    check_apart({"--output": beside, "--report": [here / "y.html"]})


@pytest.mark.parametrize("read", ["x.jsonl", "soft", "hard", "folder/x.jsonl"])
@pytest.mark.usefixtures("here")
def test_an_output_that_is_read_is_refused(read):
    inputs = [("an input", "none"), ("an input", "\0"), ("an image", read)]
    with pytest.raises(ConfigError) as refused:
        check_apart({"--report": [Path("hard")]}, inputs)
    assert str(refused.value) == (
        f"--report hard: this file is an image ({read}) and would be overwritten; name another"
    )
    check_apart({"--report": [Path("new.jsonl")]}, inputs)


def test_the_right_to_write_is_for_all_files_or_none(here):
    other = here / "y.jsonl"
    with claiming([here / "soft"]):
        for path in (here / "x.jsonl", here / "soft"):
            with pytest.raises(OutputError, match="another process is writing it"):
                claiming([other, path]).__enter__()
        with claiming([other]):
            pass
    with claiming([here / "x.jsonl", other]):
        pass
    assert not list(here.glob(".*"))


def test_suffixes_count_in_either_case():
    assert check_suffix("--report", Path("x.HTML"), (".html", ".md")) == ".html"
    with pytest.raises(
        ConfigError, match=r"--report x\.htm: unknown suffix, did you mean '\.html'"
    ):
        check_suffix("--report", Path("x.htm"), (".html", ".md"))


def test_a_link_into_a_folder_that_is_not_there_is_refused_at_once(tmp_path):
    (tmp_path / "x.html").symlink_to(tmp_path / "none" / "x.html")
    with pytest.raises(OutputError, match="No such file"):
        check_replaceable(tmp_path / "x.html")
