# SPDX-License-Identifier: Apache-2.0
"""YAML and JSON from outside: a small file may ask for much, and gets one line."""

from __future__ import annotations

import json
import os
import random
import threading
from pathlib import Path

import pytest
import yaml

from conftest import REPO
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system import documents
from hgdeploy.system.documents import parse_json, read_json, read_lines, read_yaml


def bomb(line: str) -> str:
    """Nine lists of which each names the one before nine times; `line` is the first."""
    lists = (f"a{i}: &a{i} [{', '.join(9 * [f'*a{i - 1}'])}]\n" for i in range(1, 9))
    return f"a0: &a0 {line}\n{''.join(lists)}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (bomb("[lol, lol]"), "its aliases make more than 1,000,000 values of it"),
        (bomb("{x: 1}") + "b: {<<: *a8}\n", "its aliases make more than 1,000,000 values of it"),
        ("a: &a {b: *a}\n", "an alias names what it stands in"),
        ("a: &a [*a]\n", "an alias names what it stands in"),
        ("a: " + 5000 * "[", "it is nested deeper than 64 levels"),
        ("a: " + 100 * "{b: ", "it is nested deeper than 64 levels"),
        ("".join(f"{i * ' '}a:\n" for i in range(100)), "it is nested deeper than 64 levels"),
        ("a: " + 2000 * "1:" + "1\n", "it holds a number of 4001 digits"),
        ("a: 1\nb: {c: 1, d: 2, c: 1}\n", "the key 'c' stands twice, in lines 2 and 2"),
        ("Global: {}\nb:\nGlobal: {x: 1}\n", "the key 'Global' stands twice, in lines 1 and 3"),
        ("a: !!bool maybe\n", "'maybe'"),
        ("a: !!int ''\n", "string index out of range"),
        ("a: !!python/object/apply:os.system [exit]\n", "could not determine a constructor"),
    ],
)
def test_yaml_that_asks_for_too_much_is_refused(tmp_path, text, reason):
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(BundleError, match=r"description .* is not valid YAML: ") as caught:
        read_yaml(path, "description", BundleError)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_yaml_within_the_bounds_is_read(tmp_path):
    path = tmp_path / "x.yml"
    labels = [f"name {i}" for i in range(2000)]
    path.write_text(
        f"a: &a {{x: [1, 0x10]}}\nb: {{<<: *a, y: *a}}\nc: {60 * '['}{60 * ']'}\nl: {labels}\n"
    )
    found = read_yaml(path, "config file")
    assert found["b"] == {"x": [1, 16], "y": {"x": [1, 16]}}
    assert found["l"] == labels


def found_in(text: str, path: Path) -> object:
    path.write_text(text, encoding="utf-8")
    try:
        return repr(read_yaml(path, "config file", texts=("t",)))
    except ConfigError as error:
        return str(error)


def test_with_libyaml_and_without_a_text_holds_the_same(tmp_path, monkeypatch):
    """Or is refused with the same words: PyYAML may have been built without libyaml."""
    if not yaml.__with_libyaml__:
        pytest.skip("PyYAML is built without libyaml here")
    shipped = [
        path.read_text(encoding="utf-8") for path in sorted((REPO / "deploy").rglob("*.yaml"))[:3]
    ]
    letters = [
        *"ab:-?[]{},#&*!|>'\"% \n\t~01.\\=",
        "a: ",
        "\nb: ",
        "\n  - ",
        "<<",
        "\ufeff",
        "é",
        ": ",
    ]
    rng = random.Random(0)
    made = ["t: " + "".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(400)]
    odd = [
        "a: [x:]",
        "a:\tb",
        "a: |#",
        "a: >-#",
        "a: !",
        "a: x\n\ufeff",
        "t: [no, 010, 12:30]",
        'a: "\\q"',
    ]
    texts = [*shipped, *made, *odd, bomb("[lol, lol]"), "a: " + 5000 * "["]
    fast = [found_in(text, tmp_path / "x.yml") for text in texts]
    monkeypatch.setattr(yaml, "__with_libyaml__", False)
    assert [found_in(text, tmp_path / "x.yml") for text in texts] == fast
    assert sum(str(found).startswith("{") for found in fast) > 30


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no file without an end")
def test_a_file_without_an_end_is_not_read_to_its_end():
    with pytest.raises(ConfigError, match=r"/dev/zero cannot be read: it is larger than 4 MiB$"):
        read_yaml(Path("/dev/zero"), "config file")


@pytest.mark.parametrize("text", [100_000 * "[", '{"a":' * 100_000, "{", "", b"\xff", 5000 * "1"])
def test_json_that_asks_for_too_much_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


def test_a_json_file_of_many_megabytes_is_read(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(["x" * 1000] * 20_000))
    assert len(read_json(path)) == 20_000


@pytest.mark.parametrize(
    "written",
    ["no", "Yes", "on", "010", "0x10", "0b1", "0b_", "12:30", "1_000", "1.10", "1e3", "-0", "+1",
     ".inf", "null", "~", "NULL", "2024-01-31", "2024-13-45", "2001-12-14 21:59:43.10", "<<", "=",
     "0", "-3", "1.5", "True", "9" * 400],
)  # fmt: skip
def test_names_stay_as_they_are_written(tmp_path, written):
    path = tmp_path / "x.yml"
    path.write_text(f"a: {{names: [{written}, '0', b], other: 1.10}}\nname: {written}\n")
    found = read_yaml(path, "config file", texts=["names", "name"])
    assert found == {"a": {"names": [written, "0", "b"], "other": 1.1}, "name": written}
    printed = written in ("0", "-3", "1.5", "True") or written.startswith("999")
    assert repr(found["name"]) == (written if printed else repr(written))
    assert repr(found["a"]["names"][1]) == "'0'"


def test_names_that_are_shared_with_a_number_leave_it_a_number(tmp_path):
    path = tmp_path / "x.yml"
    path.write_text("n: &n 010\nl: &l [010]\nb: &b {name: 1:30}\na: {<<: *b, names: *l, n: *n}\n")
    found = read_yaml(path, "config file", texts=["names", "name"])
    assert found["a"] == {"name": "1:30", "names": ["010"], "n": 8}
    assert (found["n"], found["l"]) == (8, [8])


def test_a_list_is_split_at_the_ends_of_lines_only(tmp_path):
    path = tmp_path / "x.txt"
    inner = "a\x0bb\x0c \x1c\x1d\x1e\x85\u2028\u2029c\td "
    path.write_bytes(f"\ufeff0 {inner}\r\n1 b\r2 c\n\n".encode())
    assert read_lines(path) == [f"0 {inner}", "1 b", "2 c", "", ""]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_read_and_one_that_nobody_writes_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(documents, "_PATIENCE_SECONDS", 1)
    pipe = tmp_path / "x.yml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="cannot be read: it is a pipe into which nothing came"):
        read_yaml(pipe, "config file")
    writer = threading.Thread(target=pipe.write_text, args=("a: 1\n",))
    writer.start()
    assert read_yaml(pipe, "config file") == {"a": 1}
    writer.join()
