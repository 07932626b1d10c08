# SPDX-License-Identifier: Apache-2.0
"""A run may be killed, interrupted, starved of disk or started twice: no row is lost or doubled."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from killed_runs import check, expected_rows, make_file, predicted, rows_of, run

from conftest import DEADLINE, MAKERS
from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.images.find import ImageFile
from hgdeploy.results.file import ResultsFile
from hgdeploy.results.rows import file_facts
from hgdeploy.transforms.prediction import Prediction

SUFFIXES = (".jsonl", ".csv", ".parquet")
DRIVER = MAKERS / "killed_runs.py"
OWN_MOUNTS = ["unshare", "--user", "--map-root-user", "--mount"]


@pytest.fixture(params=SUFFIXES)
def output(request, tmp_path) -> Path:
    """A result file of each kind, in a folder of its own."""
    if request.param == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / f"x{request.param}"


@pytest.fixture
def files(tmp_path) -> list[ImageFile]:
    """Ten images."""
    (tmp_path / "images").mkdir()
    return [make_file(tmp_path / "images", f"{i}.jpg", i) for i in range(10)]


def drive(mode: str, output: Path, *before: str) -> list[str]:
    """Run the driver on the folder that `output` is to be made in; return the lines it prints."""
    shutil.rmtree(output.parent)
    result = subprocess.run(
        [*before, sys.executable, str(DRIVER), mode, str(output.parent.parent), output.suffix],
        capture_output=True, text=True, timeout=DEADLINE, check=False,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr, "a child failed"
    return result.stdout.splitlines()


def begun(output: Path, files: list[ImageFile], many: int) -> None:
    """A run that ended after so many rows."""
    with ResultsFile(output) as results:
        plan = results.begin(files, {"model": "A"})
        for file in plan.remaining[:many]:
            results.write(predicted(file, "A"), file_facts(file.path))


def rows_file(output: Path) -> Path:
    return output if output.suffix == ".jsonl" else output.with_name(f"{output.name}.rows.jsonl")


def assert_reported(line: str, output: Path, reason: str) -> None:
    """The line of an error names the file, the reason, how far the rows go and what to do."""
    assert f"{output.name} cannot be written: {reason}; " in line
    assert line.endswith(
        f" of 400 images are done and their rows are in {rows_file(output).name}; "
        "run the same command with --resume to do the rest"
    )


# A CSV file is made from its rows as a Parquet file is.
@pytest.mark.parametrize(
    "output", [".jsonl", ".parquet", pytest.param(".csv", marks=pytest.mark.slow)], indirect=True
)
def test_a_run_killed_at_any_step_ends_with_one_row_for_each_image(output):
    assert int(*drive("steps", output)) > 30


def test_a_run_killed_at_any_moment_ends_with_one_row_for_each_image(output):
    assert int(*drive("moments", output)) >= 25


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_says_how_many_rows_there_are(tmp_path):
    (tmp_path / "out").mkdir()
    assert int(*drive("interrupts", tmp_path / "out" / "x.jsonl")) >= 25


def test_a_file_that_may_not_grow_fails_with_its_reason_and_keeps_whole_rows(output):
    lines = drive("limit", output)
    assert len(lines) == (2 if output.suffix == ".jsonl" else 3)
    for line in lines:
        assert_reported(line, output, "File too large")


def test_a_full_disk_fails_with_its_reason_and_keeps_whole_rows(output):
    mounts = shutil.which("unshare") and subprocess.run(
        [*OWN_MOUNTS, "mount", "-t", "tmpfs", "none", output.parent], check=False
    )
    if not mounts or mounts.returncode:
        pytest.skip("this user may not mount a small disk")
    lines = drive("disk", output, *OWN_MOUNTS)
    assert len(lines) == 2
    for line in lines:
        assert_reported(line, output, "No space left on device")


@pytest.mark.parametrize("torn", [1, 30, 1000])
def test_half_a_row_at_the_end_is_dropped_and_done_again(output, files, torn):
    begun(output, files, 5)
    whole = rows_file(output).read_bytes()
    rows_file(output).write_bytes(whole + whole[: min(torn, len(whole.splitlines()[0]) - 1)])
    assert run(output, files, "A", "refuse") == 5
    check(output, files, "A")


def test_without_resume_a_run_starts_from_the_first_image(output, files):
    run(output, files, "A")
    assert run(output, files[:3], "B") == 0
    check(output, files[:3], "B")


def test_resume_of_nothing_begins(output, files):
    assert run(output, files, "A", "refuse") == 0
    check(output, files, "A")


def test_a_finished_run_is_resumed_with_nothing_left(output, files):
    run(output, files, "A")
    assert run(output, files, "A", "refuse") == 10
    check(output, files, "A")


def test_new_images_are_done_and_all_rows_are_in_order(output, files):
    run(output, files[1::3], "A")
    assert run(output, files, "A", "refuse") == 3
    check(output, files, "A")


def test_a_name_that_stands_several_times_has_as_many_rows(output, files):
    listed = [files[3], files[1], files[3], files[2], files[3]]
    begun(output, listed, 3)
    assert run(output, listed, "A", "refuse") == 3
    check(output, listed, "A")
    with pytest.raises(ConfigError, match=r"2 rows .*3\.jpg is not among them, 3\.jpg is not"):
        run(output, listed[:2] + listed[3:4], "A", "refuse")


@pytest.mark.parametrize("finished", [False, True])
def test_changed_and_vanished_images_are_refused_or_done_again(output, files, finished):
    if finished:
        run(output, files, "A")
    else:
        begun(output, files, 6)
    before = {path: path.read_bytes() for path in output.parent.iterdir()}
    files[1].path.write_text("11")  # another size
    os.utime(files[2].path, ns=(0, 5))  # another time
    files[3].path.unlink()
    with pytest.raises(ConfigError) as refused:
        run(output, [*files[:5], *files[6:]], "A", "refuse")
    assert str(refused.value) == (
        f"--resume: 4 rows of {output} do not fit the images found now: 1.jpg has changed, 2.jpg "
        "has changed, 3.jpg has changed and 1 more; add --redo-changed to drop these rows and "
        "classify what changed again"
    )
    assert {path: path.read_bytes() for path in output.parent.iterdir()} == before
    now = [*files[:3], files[4], *files[6:]]
    with ResultsFile(output) as results:
        plan = results.begin(now, {"model": "A"}, "redo")
        assert (plan.kept, plan.dropped, plan.kept_failed) == ((6, 4, 2) if finished else (2, 4, 1))
        assert [file.name for file in plan.remaining[:2]] == ["1.jpg", "2.jpg"]
    assert run(output, now, "A", "refuse") == plan.kept
    check(output, now, "A")


def test_an_image_that_could_not_be_read_is_kept_until_it_can(output, files):
    files[4].path.unlink()

    def prediction(file):
        if file.path.exists():
            return predicted(file, "A")
        return Prediction.failed(file.name, "does not exist")

    for kept in (0, 10):
        with ResultsFile(output) as results:
            plan = results.begin(files, {"model": "A"}, "refuse")
            assert plan.kept == kept
            for file in plan.remaining:
                results.write(prediction(file), file_facts(file.path))
            results.finish()
    assert rows_of(output)[4]["error"] == "does not exist"
    files[4].path.write_text("4")
    with pytest.raises(ConfigError, match=r"1 rows .*4\.jpg has changed"):
        run(output, files, "A", "refuse")
    assert run(output, files, "A", "redo") == 9
    check(output, files, "A")


def test_a_run_with_another_fingerprint_is_refused_by_name_or_done_again(output, files):
    def begin(resume, **fingerprint):
        with ResultsFile(output) as results:
            results.begin(files, fingerprint, resume)

    run(output, files, "A")
    before = output.read_bytes()
    with pytest.raises(ConfigError, match=r"precision was not set, is bf16; add --redo-changed"):
        begin("refuse", model="A", precision="bf16")
    with pytest.raises(ConfigError, match=r"not made by this run: model was A, is B; add"):
        begin("refuse", model="B")
    with pytest.raises(ConfigError, match=r"not made by this run: model has changed; add"):
        begin("refuse", model="b" * 64)
    assert output.read_bytes() == before
    assert run(output, files, "B", "redo") == 0
    check(output, files, "B")


@pytest.mark.parametrize(
    "record",
    [
        None,
        "",
        "[]",
        '{"schema": 1}',
        '{"schema": 9, "fingerprint": {}}',
        '{"schema": 1, "fingerprint": {"model": ["A"]}}',
        50_000 * "[",
    ],
)
def test_rows_of_unknown_making_are_refused_or_done_again(output, files, record):
    run(output, files, "A")
    path = output.with_name(f"{output.name}.run.json")
    path.unlink() if record is None else path.write_text(record)
    with pytest.raises(ConfigError, match=f"x{output.suffix}.run.json.* add --redo-changed"):
        run(output, files, "A", "refuse")
    assert run(output, files, "B", "redo") == 0
    check(output, files, "B")


@pytest.mark.parametrize(
    "line", [b"\0" * 50, b"{}", b'{"path": "1.jpg"}', b'["a"]', b"\xff\xfe", b"", b"[" * 50_000]
)
def test_a_damaged_row_is_refused_or_done_again(output, files, line):
    begun(output, files, 6)
    lines = rows_file(output).read_bytes().splitlines()
    rows_file(output).write_bytes(b"\n".join([*lines[:2], line, *lines[3:]]) + b"\n")
    with pytest.raises(ConfigError, match=r"1 rows .*: line 3 is damaged; add"):
        run(output, files, "A", "refuse")
    assert run(output, files, "A", "redo") == 5
    check(output, files, "A")


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("path", ["1.jpg"]),
        ("class_ids", [[1], "x"]),
        ("class_ids", [1]),
        ("class_ids", [2**40, 1]),
        ("scores", [0.5, "x"]),
        ("scores", [float("nan"), 0.5]),
        ("labels", ["a", 1]),
        ("labels", ["a"]),
        ("error", {}),
        ("size", 2**70),
        ("mtime_ns", True),
    ],
)
def test_a_row_with_a_value_of_another_kind_is_damaged(output, files, column, value):
    begun(output, files, 6)
    lines = rows_file(output).read_bytes().splitlines()
    row = json.loads(lines[2]) | {"class_ids": [1, 2], "scores": [0.5, 0.25], "labels": []}
    lines[2] = json.dumps(row | {column: value}).encode()
    rows_file(output).write_bytes(b"\n".join(lines) + b"\n")
    with pytest.raises(ConfigError, match=r"1 rows .*: line 3 is damaged; add"):
        run(output, files, "A", "refuse")


@pytest.mark.parametrize("text", [b"", b"\0\0", b"a,b\n1,2\n", b"\xff\xfe\xfd", b"PAR1"])
@pytest.mark.parametrize("output", [".csv", ".parquet"], indirect=True)
def test_a_table_that_cannot_be_read_is_not_resumed(output, files, text):
    run(output, files, "A")
    output.write_bytes(text)
    with pytest.raises(ConfigError, match=r"cannot be read: .*leave out --resume"):
        run(output, files, "A", "refuse")
    run(output, files, "A")
    check(output, files, "A")


def test_two_runs_do_not_write_one_file(output, files):
    with ResultsFile(output) as first:
        first.begin(files, {"model": "A"})
        with pytest.raises(OutputError, match="another process is writing it"):
            ResultsFile(output)
        first.write(predicted(files[0], "A"), file_facts(files[0].path))
        assert len(rows_of(rows_file(output))) == 1, "a row is with the system once it is written"
    assert run(output, files, "A", "refuse") == 1
    check(output, files, "A")


def test_a_table_and_its_rows_are_not_the_files_of_two_runs(tmp_path, files):
    output = tmp_path / "x.csv"
    with ResultsFile(output), pytest.raises(ConfigError, match=r"keeps the rows of x\.csv there"):
        ResultsFile(rows_file(output))
    link = tmp_path / "y.jsonl"
    link.symlink_to(rows_file(output).name)
    with pytest.raises(ConfigError, match=r"keeps the rows of x\.csv there"):
        ResultsFile(link)
    run(tmp_path / "x.rows.jsonl", files, "A")


CHANGES = {
    "cut": lambda path: os.truncate(path, 0),
    "written to": lambda path: path.write_bytes(2 * path.read_bytes()),
    "removed": lambda path: shutil.rmtree(path.parent),
    "replaced": lambda path: shutil.copy(path, path.parent / "a").replace(path),
}


@pytest.mark.parametrize("rows", [3, 10])
@pytest.mark.parametrize("how", CHANGES)
def test_rows_that_something_else_changes_end_the_run(output, files, how, rows):
    with ResultsFile(output) as results:
        plan = results.begin(files, {"model": "A"})
        for file in plan.remaining[:rows]:
            results.write(predicted(file, "A"), file_facts(file.path))
        next_step = results.finish
        if rows < len(files):
            prediction, facts = predicted(files[rows], "A"), file_facts(files[rows].path)
            next_step = functools.partial(results.write, prediction, facts)
        CHANGES[how](rows_file(output))
        assert results.progress() == "run the same command with --resume to do the rest"
        with pytest.raises(OutputError, match=f"was {how} during the run by something else"):
            next_step()
    assert output.suffix == ".jsonl" or not output.exists()
    output.parent.mkdir(exist_ok=True)
    run(output, files, "A", "redo")
    check(output, files, "A")


def test_a_row_that_is_damaged_during_the_run_is_in_no_table(tmp_path, files):
    output = tmp_path / "x.csv"
    with ResultsFile(output) as results:
        for file in results.begin(files, {"model": "A"}).remaining:
            results.write(predicted(file, "A"), file_facts(file.path))
        data = rows_file(output).read_bytes()
        with rows_file(output).open("r+b") as file:
            file.write(b"?" + data[1:])
        with pytest.raises(OutputError, match="row 1 was damaged during the run"):
            results.finish()
    assert not output.exists()


def test_a_finished_file_that_is_gone_before_the_run_ends_is_an_error(output, files):
    results = ResultsFile(output)
    for file in results.begin(files, {"model": "A"}).remaining:
        results.write(predicted(file, "A"), file_facts(file.path))
    results.finish()
    told = f"10 of 10 images are done and their rows are in {output.name}; run the same command"
    assert results.progress().startswith(told)
    output.unlink()
    with pytest.raises(OutputError, match="removed, replaced or cut by something else before"):
        results.close()
    results.close()


@pytest.mark.parametrize("resume", [None, "refuse"])
def test_another_name_of_the_rows_on_the_disk_is_a_copy_that_stays(output, files, resume):
    begun(output, files, 4)
    copy = output.parent.parent / "copy"
    copy.hardlink_to(rows_file(output))
    before = copy.read_bytes()
    run(output, files, "A", resume)
    check(output, files, "A")
    assert copy.read_bytes() == before


def killed_after(output: Path, files: list[ImageFile], rows: int) -> int:
    """A run that is killed after so many more rows; return what `begin` said of those before."""
    record = output.with_name(f"{output.name}.run.json")
    with ResultsFile(output) as results:
        plan = results.begin(files, {"model": "A"}, "refuse")
        for file in plan.remaining[:rows]:
            results.write(predicted(file, "A"), file_facts(file.path))
        running = record.read_bytes()
    record.write_bytes(running)  # a killed run does not come to `close`
    return plan.killed


def test_runs_that_are_killed_at_one_image_are_counted(output, files):
    assert [killed_after(output, files, rows) for rows in (0, 0, 4, 0, 1, 0)] == [0, 1, 2, 1, 2, 1]
    begun_again = killed_after(output, files, 0)
    assert begun_again == 2
    run(output, files, "A", "refuse")
    assert killed_after(output, files, 0) == 0, "that run was not killed"


def test_what_a_killed_run_wrote_aside_is_removed(output, files):
    begun(output, files, 3)
    left = output.with_name(f".{rows_file(output).name}.01234567.tmp")
    left.write_bytes(b"half")
    run(output, files, "A", "refuse")
    check(output, files, "A")


def test_a_claim_alone_changes_nothing(output, files):
    with ResultsFile(output):
        pass
    assert not list(output.parent.iterdir())
    run(output, files, "A")
    with ResultsFile(output):
        pass
    check(output, files, "A")


def test_what_cannot_be_written_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(OutputError, match=r"none/x\.jsonl cannot be written: No such file"):
        ResultsFile(tmp_path / "none" / "x.jsonl")
    for name in ("x.jsonl", "x.csv", "y.csv.rows.jsonl"):
        (tmp_path / name).mkdir()
    for name in ("x.jsonl", "x.csv", "y.csv"):
        with pytest.raises(OutputError, match="not a regular file"):
            ResultsFile(tmp_path / name)
    os.mkfifo(tmp_path / "z.jsonl")
    with pytest.raises(OutputError, match="not a regular file"):
        ResultsFile(tmp_path / "z.jsonl")
    with pytest.raises(ConfigError, match=r"unknown suffix, did you mean '\.jsonl'\?"):
        ResultsFile(tmp_path / "x.json")
    assert not list(tmp_path.glob(".*"))


def test_a_link_to_a_result_file_stays_a_link(output, files, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    there = tmp_path / "elsewhere" / output.name
    output.symlink_to(there)
    begun(output, files, 4)
    run(output, files, "A", "refuse")
    assert output.is_symlink()
    check(there, files, "A")


def test_rows_are_taken_in_the_order_of_the_images_only(tmp_path, files):
    with ResultsFile(tmp_path / "x.jsonl") as results:
        with pytest.raises(ValueError, match="no row is expected"):
            results.write(predicted(files[0], "A"), file_facts(files[0].path))
        results.begin(files[:2], {})
        with pytest.raises(ValueError, match=r"the next row is that of '0\.jpg', not of '1\.jpg'"):
            results.write(predicted(files[1], "A"), file_facts(files[1].path))
        results.write(predicted(files[0], "A"), file_facts(files[0].path))
        with pytest.raises(ValueError, match="finished too early: 1 of 2 images are done"):
            results.finish()
        results.write(predicted(files[1], "A"), file_facts(files[1].path))
        with pytest.raises(ValueError, match="no row is expected"):
            results.write(predicted(files[1], "A"), file_facts(files[1].path))
        results.finish()
    assert rows_of(tmp_path / "x.jsonl") == expected_rows(files[:2], "A")


def test_kept_rows_are_replayed_to_other_writers(output, files):
    run(output, files[4:8], "A")
    seen = []

    class Other:
        def write(self, prediction, facts):
            seen.append((prediction, facts))

    with ResultsFile(output) as results:
        results.begin(files, {"model": "A"}, "refuse")
        results.replay([Other()])
    assert seen == [(predicted(file, "A"), file_facts(file.path)) for file in files[4:8]]


def test_names_of_any_bytes_are_found_again(output, tmp_path):
    (tmp_path / "images").mkdir()
    names = [
        "a,b.jpg", 'a"b.jpg', "a\nb.jpg", "a\r\nb.jpg", "\r.jpg", "a\tb.jpg", " a .jpg ",
        "=1.jpg", "ü.jpg", "u\u0308.jpg", "\u2028.jpg", "\u202e.jpg", "a\\xffb.jpg", "\x1b[31m.jpg",
        "😀.jpg", os.fsdecode(b"\xff\xfe.jpg"), os.fsdecode(b"a\x80\n.jpg"), "<b>.jpg",
        "null", "%s{0}.jpg",
    ]  # fmt: skip
    files = [make_file(tmp_path / "images", name, i) for i, name in enumerate(names)]
    begun(output, files, 18)
    assert run(output, files, "A", "refuse") == 18
    found = [row["path"] for row in rows_of(output)]
    if output.suffix == ".jsonl":
        assert found == names
    else:
        utf8 = [name.encode("utf-8", "backslashreplace").decode() for name in names]
        assert found == utf8
    assert run(output, files, "A", "refuse") == len(names)
    assert [row["path"] for row in rows_of(output)] == found
