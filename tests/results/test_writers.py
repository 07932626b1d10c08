# SPDX-License-Identifier: Apache-2.0
"""Rows keep what was found, whatever the name; lists of failures can be classified again."""

from __future__ import annotations

import csv
import errno
import io
import os
from pathlib import Path

import pytest

from hgdeploy.errors import ConfigError, OutputError
from hgdeploy.images.find import ImageFile, find_images
from hgdeploy.results.rows import (
    COLUMNS,
    FileFacts,
    file_facts,
    line_from_row,
    prediction_from_row,
    row_from_line,
    row_from_prediction,
)
from hgdeploy.results.tables import table_format
from hgdeploy.results.writers import FailuresWriter, LabelFolderWriter, LineWriter
from hgdeploy.transforms.prediction import Prediction

FACTS = FileFacts(Path("somewhere/x.jpg"), 12345, 1_700_000_000_123_456_789)
PREDICTIONS = [
    Prediction("a/x.jpg", (8, 3), (0.71479, 0.125), ("hen, or so", "cock")),
    Prediction("no names.jpg", (8, 3), (0.5, 0.25), ()),
    Prediction("no class.jpg", (), (), ()),
    Prediction("a score.jpg", None, (-12.5,), ()),
    Prediction.failed("broken.jpg", 'is "corrupt", truly (JPEG)'),
]


def in_table(suffix: str, rows: list[dict[str, object]], folder: Path) -> list[dict[str, object]]:
    """Rows after they were written to a table and read back."""
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    path = folder / f"x{suffix}"
    table = table_format(path)
    with path.open("wb") as stream:
        table.write(stream, iter(rows))
    return list(table.read(path))


def test_a_row_is_one_line_of_ascii_and_gives_the_prediction_back():
    for prediction in PREDICTIONS:
        line = line_from_row(row_from_prediction(prediction, FACTS))
        assert line.count(b"\n") == 1
        assert line.endswith(b"\n")
        assert line.isascii()
        row = row_from_line(line)
        assert prediction_from_row(row) == prediction
        assert (row["size"], row["mtime_ns"]) == (12345, 1_700_000_000_123_456_789)


@pytest.mark.parametrize(
    "name", ["a\nb", "\r\n", "\x00", "\x85\u2028", os.fsdecode(b"\xff\xfe"), '"\\', "\x1b[2J", "😀"]
)
def test_jsonl_holds_any_name_on_one_line(name):
    line = line_from_row(row_from_prediction(Prediction.failed(name, name), FACTS))
    assert line.splitlines() == [line[:-1]]
    assert prediction_from_row(row_from_line(line)) == Prediction.failed(name, name)


def test_scores_have_five_decimals():
    prediction = Prediction("x", (1,), (0.123456789,), ("a",))
    assert row_from_prediction(prediction, FACTS)["scores"] == [0.12346]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_tables_give_back_the_rows_they_were_made_of(suffix, tmp_path):
    facts = [FACTS, FACTS, FileFacts(FACTS.path, 0, 0), FileFacts(FACTS.path, None, None), FACTS]
    rows = [row_from_prediction(*pair) for pair in zip(PREDICTIONS, facts, strict=True)]
    assert in_table(suffix, rows, tmp_path) == rows


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_of_many_wide_rows_is_whole(suffix, tmp_path):
    """More rows than are held at a time, and one with more names than csv reads by default."""
    wide = Prediction("x", tuple(range(9000)), (0.5,) * 9000, ("a name of a class",) * 9000)
    rows = [
        row_from_prediction(Prediction(f"{i}.jpg", (i,), (0.5,), ("a",)), FACTS)
        for i in range(9000)
    ]
    rows.append(row_from_prediction(wide, FACTS))
    assert in_table(suffix, rows, tmp_path) == rows


def test_csv_is_read_by_other_readers_with_one_record_for_each_row(tmp_path):
    names = ["a,b", 'a"b', "a\nb", "a\r\nb", "a\rb", "=1", " x ", os.fsdecode(b"\xff")]
    rows = [
        row_from_prediction(Prediction(name, (1, 2), (0.5, 0.25), ("a, b", "c")), FACTS)
        for name in names
    ]
    in_table(".csv", rows, tmp_path)
    with (tmp_path / "x.csv").open(encoding="utf-8", newline="") as file:
        head, *records = csv.reader(file)
    assert tuple(head) == COLUMNS
    assert [record[0] for record in records] == [*names[:-1], "\\udcff"]
    expected = ["1 2", "0.50000 0.25000", "a, b | c", "", "12345", "1700000000123456789"]
    assert all(record[1:] == expected for record in records)


def test_facts_of_a_file_tell_when_it_changes(tmp_path):
    path = tmp_path / "x.jpg"
    assert file_facts(path) == FileFacts(path, None, None)
    assert file_facts(Path("a\0b")) == FileFacts(Path("a\0b"), None, None)
    path.write_bytes(b"12345")
    os.utime(path, ns=(0, 1_234_567_890))
    first = file_facts(path)
    assert (first.size, first.mtime_ns) == (5, 1_234_567_890)
    os.utime(path, ns=(0, 1_234_567_891))
    assert file_facts(path) != first


def test_a_time_beyond_the_year_2262_fits_in_every_table(tmp_path):
    path = tmp_path / "x.jpg"
    path.write_bytes(b"")
    os.utime(path, (0, 14_000_000_000))
    rows = [row_from_prediction(PREDICTIONS[0], file_facts(path))]
    for suffix in (".csv", ".parquet"):
        assert in_table(suffix, rows, tmp_path) == rows


def test_lines_are_paddleclas_own_and_failures_have_none():
    stream = io.StringIO()
    writer = LineWriter(stream)
    for prediction in PREDICTIONS:
        writer.write(prediction, FACTS)
    assert stream.getvalue() == (
        "x.jpg:\tclass id(s): [8, 3], score(s): [0.71, 0.12], label_name(s): "
        "['hen, or so', 'cock']\n"
        "no names.jpg:\tclass id(s): [8, 3], score(s): [0.50, 0.25], label_name(s): []\n"
        "no class.jpg:\tclass id(s): [], score(s): [], label_name(s): []\n"
        "a score.jpg:\tscore(s): [-12.50]\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_line_that_cannot_be_written_is_an_error_at_once():
    with Path("/dev/full").open("w") as stream:
        with pytest.raises(OSError, match="No space left") as raised:
            LineWriter(stream).write(PREDICTIONS[0], FACTS)
        assert raised.value.errno == errno.ENOSPC
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # so that it can be closed


def listed(path: Path, failures: list[tuple[Path, str | None]]) -> str:
    writer = FailuresWriter(path)
    for file, reason in failures:
        prediction = (
            Prediction(file.name, (1,), (0.5,), ()) if reason is None
            else Prediction.failed(file.name, reason)
        )  # fmt: skip
        writer.write(prediction, FileFacts(file, None, None))
    writer.finish()
    writer.close()
    return writer.text()


def test_the_list_of_failures_is_an_input_and_the_reasons_stand_beside_it(tmp_path):
    names = ["good.jpg", "a b.jpg", " first.jpg", "#1.jpg", "ü,\t.jpg", "\u202e.jpg", "no suffix"]
    files = [tmp_path / "images" / name for name in names]
    (tmp_path / "images").mkdir()
    for file in files:
        file.write_bytes(b"")
    path = tmp_path / "lists" / "failures.txt"
    path.parent.mkdir()
    path.write_text("of an older run")
    sentence = listed(path, [(files[0], None), *((file, "is\tempty\n") for file in files[1:])])
    assert sentence == f"6 failed images are in {path}, with reasons in failures.txt.reasons.tsv"
    assert [found.path for found in find_images(path)] == files[1:]
    reasons = (path.parent / "failures.txt.reasons.tsv").read_text(encoding="utf-8").splitlines()
    assert reasons[0] == "path\treason"
    assert reasons[1] == f"{files[1]}\tis\\tempty\\n"
    assert reasons[4:6] == [
        f"{tmp_path}/images/ü,\\t.jpg\tis\\tempty\\n",
        f"{tmp_path}/images/\\u202e.jpg\tis\\tempty\\n",
    ]
    assert len(reasons) == 7
    assert len(list(path.parent.iterdir())) == 2


def test_relative_paths_are_listed_from_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed(Path("f.lst"), [(Path("a.jpg"), "is empty")])
    assert Path("f.lst").read_text() == f"{tmp_path}/a.jpg\n"


@pytest.mark.parametrize("name", ["a\nb.jpg", "end ", os.fsdecode(b"\xff.jpg")])
def test_a_name_that_a_list_cannot_hold_is_reported_with_its_reason(tmp_path, name):
    path = tmp_path / "f.txt"
    sentence = listed(path, [(tmp_path / name, "is empty"), (tmp_path / "x.jpg", "is empty")])
    assert "2 failed images are in" in sentence
    assert "1 of them only there" in sentence
    assert path.read_text() == f"{tmp_path}/x.jpg\n"
    assert len((tmp_path / "f.txt.reasons.tsv").read_text().splitlines()) == 3


def test_an_unfinished_list_of_failures_leaves_the_older_one(tmp_path):
    path = tmp_path / "f.txt"
    path.write_text("of an older run")
    writer = FailuresWriter(path)
    writer.write(Prediction.failed("x", "is empty"), FACTS)
    writer.close()
    writer.close()
    assert path.read_text() == "of an older run"
    assert list(tmp_path.iterdir()) == [path]


def test_a_list_of_failures_that_cannot_be_is_refused_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"--failures .*x\.csv: unknown suffix, expected one of"):
        FailuresWriter(tmp_path / "x.csv")
    with pytest.raises(OutputError, match="cannot be written: No such file"):
        FailuresWriter(tmp_path / "none" / "x.txt")
    (tmp_path / "x.txt").mkdir()
    with pytest.raises(OutputError, match="not a regular file"):
        FailuresWriter(tmp_path / "x.txt")


def test_two_runs_do_not_write_one_list_of_failures(tmp_path):
    writer = FailuresWriter(tmp_path / "f.txt")
    (tmp_path / "link.txt").symlink_to("f.txt")
    with pytest.raises(OutputError, match="another process is writing it"):
        FailuresWriter(tmp_path / "link.txt")
    writer.close()
    FailuresWriter(tmp_path / "f.txt").close()


def saved(folder: Path, **images: bytes) -> dict[str, bytes]:
    """Copy these images, which are found under these names; return all files of the folder."""
    source = folder.parent / "source"
    source.mkdir(exist_ok=True)
    writer = LabelFolderWriter(folder / "sorted")
    for number, (name, content) in enumerate(images.items()):
        (source / str(number)).write_bytes(content)
        path = name.replace("_", "/")
        writer.write(Prediction(path, (3,), (1.0,), ()), file_facts(source / str(number)))
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_copies_replace_no_file_and_no_copy_of_another_image(tmp_path):
    own = tmp_path / "out" / "sorted" / "3" / "a"
    own.mkdir(parents=True)
    (own / "b").write_bytes(b"somebody's own")
    expected = {
        "sorted/3/a/b": b"somebody's own",
        "sorted/3/a/b.2": b"0",
        "sorted/3/a/b.3": b"1",
        "sorted/3/a/b.4": b"1",
    }
    images = {"a_b": b"0", "_a_b": b"1", ".._a_b": b"1"}
    assert saved(tmp_path / "out", **images) == expected
    assert saved(tmp_path / "out", **images) == expected, "a second run adds nothing"


def test_images_that_lie_where_their_copies_go_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "link").symlink_to("x")
    image = ImageFile(str(tmp_path / "link" / "a.jpg"), "a.jpg")
    for folder in (tmp_path, tmp_path / "x", tmp_path / "link"):
        with pytest.raises(ConfigError, match=r"save_dir .*: images to classify lie in it"):
            LabelFolderWriter(folder, [image])
    LabelFolderWriter(tmp_path / "x" / "new", [image])


def test_a_folder_for_copies_that_cannot_be_is_refused_at_once(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file", tmp_path / "file" / "x"):
        with pytest.raises(OutputError, match="cannot be written"):
            LabelFolderWriter(folder)


@pytest.mark.parametrize("name", ["a/b.jpg", "/a/b.jpg", "../a/b.jpg"])
def test_a_saved_image_never_leaves_its_class_folder(tmp_path, name):
    image = tmp_path / "image"
    image.write_bytes(b"x")
    writer = LabelFolderWriter(tmp_path / "sorted")
    writer.write(Prediction(name, (3,), (1.0,), ()), file_facts(image))
    writer.write(Prediction.failed("broken.jpg", "it is broken"), file_facts(image))
    files = [path for path in (tmp_path / "sorted").rglob("*") if path.is_file()]
    assert files == [tmp_path / "sorted" / "3" / "a" / "b.jpg"]
    assert files[0].read_bytes() == b"x"
