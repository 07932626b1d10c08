# SPDX-License-Identifier: Apache-2.0
"""YAML and JSON from outside: a small file may ask for much, and gets one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.documents import parse_json, read_json, read_yaml


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
