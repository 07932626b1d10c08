# SPDX-License-Identifier: Apache-2.0
"""A folder of files that try to break a classifier: every one is accounted for, in every engine."""

from __future__ import annotations

import csv
import errno
import json
import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile_files import ODD_NAMES, make_hostile_folder
from image_files import jpeg

from conftest import hgdeploy, run_command
from hgdeploy.cli import main
from hgdeploy.errors import EXIT_SOME_IMAGES_FAILED
from hgdeploy.images.find import find_images
from hgdeploy.transforms.prediction import printable

pytestmark = pytest.mark.timeout(300)

Expected = dict[str, str | None]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Expected]]:
    """The folder, and by name the start of the reason why each file fails, or None."""
    folder = tmp_path_factory.mktemp("hostile")
    yield folder, make_hostile_folder(folder)
    (folder / "special" / "locked.jpg").chmod(0o600)


def check_accounts(outcomes: dict[str, str | None], expected: Expected) -> None:
    """Each file is there once, classified or failed as it has to, and for its own reason."""
    assert outcomes.keys() == expected.keys()
    for name, reason in expected.items():
        got = outcomes[name]
        assert (got is None) == (reason is None), (name, got, reason)
        assert got is None or got.startswith(reason or ""), (name, got, reason)


def stays_on_its_line(text: str) -> bool:
    """Nothing in it breaks a line or a terminal, or turns the text around it."""
    kinds = {unicodedata.category(character) for character in text}
    turning = {unicodedata.bidirectional(character) for character in text}
    return kinds.isdisjoint({"Cc", "Cs", "Zl", "Zp"}) and turning.isdisjoint(
        {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    )


def test_the_folder_has_hundreds_of_files_of_both_kinds(hostile) -> None:
    folder, expected = hostile
    assert [file.name for file in find_images(folder)] == sorted(
        expected, key=lambda name: str(folder / name)
    )
    failing = [name for name, reason in expected.items() if reason is not None]
    assert len(expected) - len(failing) >= 150
    assert len(failing) >= 200


def test_every_file_is_accounted_for_in_json_lines(hostile, mini, engine_name, tmp_path, capsys):
    folder, expected = hostile
    output = tmp_path / "rows.jsonl"
    outputs = ["--output", str(output), "--failures", str(tmp_path / "failed.txt")]
    engine = ["--engine", engine_name, "--batch-size", "7"]
    code = main(["predict", str(mini), str(folder), *engine, *outputs])
    assert code == EXIT_SOME_IMAGES_FAILED
    lines = output.read_bytes().split(b"\n")
    assert lines.pop() == b""
    rows = [json.loads(line) for line in lines]
    assert [row["path"] for row in rows] == [file.name for file in find_images(folder)]
    check_accounts({row["path"]: row["error"] for row in rows}, expected)
    assert all(len(row["class_ids"]) == (0 if row["error"] else 5) for row in rows)
    assert not [row for row in rows if row["error"] and not row["error"].isprintable()]
    failed = sum(reason is not None for reason in expected.values())
    account = f"found {len(rows)} = classified {len(rows) - failed} + failed {failed},"
    assert account in capsys.readouterr().err


def test_each_result_and_each_failure_is_one_line_of_text(hostile, mini, capsys):
    folder, expected = hostile
    assert main(["predict", str(mini), str(folder), "--batch-size", "8"]) == EXIT_SOME_IMAGES_FAILED
    out, err = capsys.readouterr()
    results, messages = out.split("\n"), err.split("\n")
    assert results.pop() == ""
    assert all(stays_on_its_line(line.replace("\t", "", 1)) for line in results)
    files = find_images(folder)
    classified = [file.name for file in files if expected[file.name] is None]
    for line, name in zip(results, classified, strict=True):
        assert line.startswith(f"{printable(name.rpartition('/')[2])}:\tclass id(s): [")
    prefix = "hgdeploy: warning: "
    warnings = [line.removeprefix(prefix) for line in messages if line.startswith(prefix)]
    assert all(stays_on_its_line(line) for line in warnings)
    assert "1 without a suffix" in warnings.pop(0)  # special/target
    failed = [file.name for file in files if expected[file.name] is not None]
    for line, name in zip(warnings, failed, strict=True):
        assert line.startswith(f"{printable(name)}: {expected[name]}")


def test_every_file_is_accounted_for_in_csv(hostile, mini, tmp_path):
    folder, expected = hostile
    output = tmp_path / "rows.csv"
    assert main(["predict", str(mini), str(folder), "--output", str(output)]) == 3
    with output.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = {
        file.name: file.name.encode("utf-8", "backslashreplace") for file in find_images(folder)
    }
    by_name = {row["path"].encode(): row["error"] or None for row in rows}
    check_accounts({name: by_name[stored] for name, stored in names.items()}, expected)
    assert len(rows) == len(expected)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_a_run_keeps_its_memory_within_bounds(hostile, mini, tmp_path):
    folder, expected = hostile
    output = tmp_path / "rows.jsonl"
    # Asked from inside: what the parent of a new process uses counts as the process's own maximum
    # for others.
    code = (
        "import re, sys; from pathlib import Path; from hgdeploy.cli import main; code = main()\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])\n"
        "sys.exit(code)"
    )
    arguments = ("--engine", "onnxruntime", "--workers", "1", "--output", output)
    result = run_command("-c", code, "predict", mini, folder, *arguments)
    assert result.returncode == EXIT_SOME_IMAGES_FAILED, result.stderr
    assert output.read_bytes().count(b"\n") == len(expected)
    # The largest picture that is no bomb takes 108 MB; a bomb would take gigabytes.
    assert int(result.stdout) < 500_000


@pytest.mark.parametrize("name", ODD_NAMES)
def test_every_odd_name_can_be_given_by_itself(hostile, name):
    folder, _ = hostile
    (found,) = find_images(folder / "names" / name)
    assert found.name == name
    assert stays_on_its_line(printable(name))


def test_a_closed_folder_inside_fails_and_the_rest_goes_on(mini, tmp_path, monkeypatch, capsys):
    for name in ("a", "closed", "z"):
        (tmp_path / "in" / name).mkdir(parents=True)
        (tmp_path / "in" / name / "x.jpg").write_bytes(jpeg(80, 80))
    real = os.scandir

    def scandir(path):
        if Path(path).name == "closed":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    output = tmp_path / "rows.jsonl"
    arguments = [str(mini), str(tmp_path / "in"), "--engine", "onnxruntime"]
    code = main(["predict", *arguments, "--output", str(output)])
    assert code == EXIT_SOME_IMAGES_FAILED
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    reasons = {row["path"]: row["error"] for row in rows}
    denied = "cannot be read: permission denied"
    assert reasons == {"a/x.jpg": None, "closed": denied, "z/x.jpg": None}
    said = capsys.readouterr().err
    assert f"hgdeploy: warning: closed: {denied}\n" in said
    assert "found 3 = classified 2 + failed 1," in said


def test_a_folder_that_cannot_be_searched_fails_the_run_in_one_line(mini, tmp_path):
    result = hgdeploy("predict", mini, tmp_path / ("x" * 300))
    assert result.returncode == 4
    assert result.stderr.count("\n") == 1
