# SPDX-License-Identifier: Apache-2.0
"""Values from outside are returned as the program holds them, or refused in one line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.checks import Given, Kind, check, check_fields, mapping
from hgdeploy.system.kinds import (
    all_keys,
    anything,
    as_text,
    exactly,
    flag,
    keys,
    list_of,
    literal,
    mapping_of,
    number,
    one_of,
    optional,
    parse_literal,
    path,
    text,
    whole,
)

NAMES = ("paddle", "onnxruntime")


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        (whole(), -3, -3),
        (whole(1, 5), 5, 5),
        (whole(1), np.int64(2), 2),
        (number(0, 1), 1, 1.0),
        (number(), np.float32(0.5), 0.5),
        (number(above=0, finite=False), math.inf, math.inf),
        (flag, False, False),
        (text, "a", "a"),
        (as_text, "a", "a"),
        (as_text, 2024, "2024"),
        (path, "a/b", Path("a/b")),
        (path, Path("a"), Path("a")),
        (one_of(NAMES), "paddle", "paddle"),
        (exactly(3, 4), 4, 4),
        (list_of(whole()), [1, 2], (1, 2)),
        (list_of(number(), 2, 2), (1, 2), (1.0, 2.0)),
        (mapping, {"a": 1}, {"a": 1}),
        (mapping_of(number()), {"a": 1}, {"a": 1.0}),
        (keys({"a": whole(), "b": text}), {"a": 1}, {"a": 1}),
        (all_keys({"a": whole(), "b": optional(text)}), {"a": 1}, {"a": 1, "b": None}),
        (optional(text), None, None),
        (optional(text), "a", "a"),
        (literal(whole()), "8", 8),
        (literal(whole()), 8, 8),
        (literal(flag), "tRuE", True),
        (literal(text), "a/b", "a/b"),
        (anything, None, None),
    ],
)
def test_what_fits_is_returned_as_the_program_holds_it(kind: Kind[Any], value: Any, read: Any):
    found = check("x", value, kind)
    assert found == read
    assert type(found) is type(read)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (whole(), 1.0, "x is 1.0, expected a whole number"),
        (whole(1), 0, "x is 0, expected a whole number from 1"),
        (whole(1), True, "x is True, expected a whole number from 1"),
        (whole(1), None, "x is None, expected a whole number from 1"),
        (whole(0, 5), 6, "x is 6, expected a whole number from 0 to 5"),
        (number(), "1", "x is '1', expected a number"),
        (number(), np.True_, f"x is {np.True_!r}, expected a number"),
        (number(), math.inf, "x is inf, expected a number"),
        (number(), 10**400, f"x is 1{'0' * 56}..., expected a number"),
        (number(0), math.nan, "x is nan, expected a number from 0"),
        (number(finite=False), math.nan, "x is nan, expected a number"),
        (number(0, 0.5), 0.6, "x is 0.6, expected a number from 0 to 0.5"),
        (number(above=0, below=1), 0, "x is 0, expected a number above 0 and below 1"),
        (number(above=0, below=1), 1, "x is 1, expected a number above 0 and below 1"),
        (number(below=1), 1, "x is 1, expected a number below 1"),
        (flag, 1, "x is 1, expected true or false"),
        (text, "", "x is '', expected a text"),
        (text, 3, "x is 3, expected a text"),
        (as_text, True, "x is True, expected a text"),
        (path, "", "x is '', expected a path"),
        (path, 3, "x is 3, expected a path"),
        (one_of(NAMES), "padle", "unknown x 'padle', did you mean 'paddle'?"),
        (one_of(NAMES), "z", "unknown x 'z', expected one of: onnxruntime, paddle"),
        (one_of(NAMES), ["paddle"], "x is ['paddle'], expected one of: paddle, onnxruntime"),
        (exactly(3, 4), 4.0, "x is 4.0, expected 3 or 4"),
        (exactly(1), True, "x is True, expected 1"),
        (exactly("", "a", "b"), "c", "x is 'c', expected '', 'a' or 'b'"),
        (list_of(text, words="a list of names"), "a", "x is 'a', expected a list of names"),
        (list_of(text, 1), [], "x is [], expected a list"),
        (list_of(number(), 2, 2, words="two numbers"), (1,), "x is [1], expected two numbers"),
        (list_of(number(), 2, 2), [1, 2, 3], "x is [1, 2, 3], expected a list"),
        (list_of(list_of(text)), [["a"], ["b", 3]], "x[1][1] is 3, expected a text"),
        (mapping, [], "x is [], expected a mapping of keys to values"),
        (mapping_of(number()), {"a": "b"}, "x.a is 'b', expected a number"),
        (keys({"size": whole()}), {"sise": 1}, "unknown key x.sise, did you mean 'size'?"),
        (keys({"size": whole()}), {1: 1}, "unknown key x.1, expected one of: size"),
        (keys({"size": whole()}), {"a\nb": 1}, r"unknown key x.'a\nb', expected one of: size"),
        (keys({}), {"size": 1}, "unknown key x.size, there are none"),
        (keys({"size": whole()}), {"size": "1"}, "x.size is '1', expected a whole number"),
        (keys({}), None, "x is None, expected a mapping of keys to values"),
        (all_keys({"size": whole()}), {}, "x.size is missing, expected a whole number"),
        (all_keys({"a": whole()}), {"a": 1, "b": 2}, "unknown key x.b, expected one of: a"),
        (optional(whole(1)), 0, "x is 0, expected a whole number from 1"),
        (literal(whole(1)), "0", "x is '0', expected a whole number from 1"),
        (literal(whole(1)), "os.getpid()", "x is 'os.getpid()', expected a whole number from 1"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(kind: Kind[Any], value: Any, message: str):
    with pytest.raises(ConfigError) as error:
        check("x", value, kind)
    assert str(error.value) == message


def test_the_error_is_of_the_class_and_has_the_hint_that_the_caller_names():
    with pytest.raises(BundleError, match=r"^x\[0\] is 1, expected a text; write it anew$"):
        check("x", [1], list_of(text), hint="write it anew", error=BundleError)
    with pytest.raises(BundleError, match=r"^unknown key x\.a, there are none; write it anew$"):
        check("x", {"a": 1}, keys({}), hint="write it anew", error=BundleError)


@pytest.mark.parametrize(
    "value", ["a" * 1000, ["a"] * 1000, "a\nb" * 100, np.eye(9), [10**9999]], ids=lambda _: ""
)
def test_a_long_value_is_cut_and_stays_on_one_line(value: Any):
    with pytest.raises(ConfigError) as error:
        check("x", value, flag)
    line = str(error.value)
    assert line.startswith("x is ")
    assert "\n" not in line
    assert len(line) < 100


def test_a_key_is_read_by_its_place_in_the_file():
    given = Given("f.json:", {"a": {"b": [1, "c"]}}, "measure again")
    assert given.at("a").read("b", list_of(anything)) == (1, "c")
    with pytest.raises(ConfigError, match=r"^f\.json: a\.b\[1\] is 'c', expected a number; meas"):
        given.at("a").read("b", list_of(number()))
    with pytest.raises(ConfigError, match=r"^f\.json: a\.d is missing, expected a number; meas"):
        given.at("a").read("d", number())
    with pytest.raises(ConfigError, match=r"^f\.json: d is missing, expected a mapping"):
        given.at("d").at("e")
    with pytest.raises(ConfigError, match=r"^f\.json is 3, expected a mapping of keys to values;"):
        Given("f.json:", 3, "measure again").at("a")
    assert given.read("d", optional(number())) is None
    assert Given("", None).or_empty().read("d", optional(number())) is None
    assert Given("", {"d": 1}).or_empty().read("d", whole()) == 1


@pytest.mark.parametrize("kind", [anything, exactly(1), one_of(NAMES), text, literal(whole())])
def test_only_an_optional_key_may_be_missing(kind: Kind[Any]):
    with pytest.raises(ConfigError, match=r"^a is missing, expected"):
        Given("", {}).read("a", kind)


def test_a_dataclass_checks_its_fields_and_holds_what_the_kinds_read():
    @dataclass(frozen=True)
    class Options:
        seconds: float = 1
        batch: int | None = None

        def __post_init__(self) -> None:
            check_fields(self, seconds=number(0), batch=optional(whole(1)))

    assert type(Options(seconds=3).seconds) is float
    assert type(Options(batch=np.int32(3)).batch) is int
    with pytest.raises(ConfigError, match=r"^batch is 0, expected a whole number from 1$"):
        Options(batch=0)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1.5", 1.5),
        ("[1, 'a']", [1, "a"]),
        ("False", False),
        ("None", None),
        ("a/b", "a/b"),
        ("__import__('os').getpid()", "__import__('os').getpid()"),
        ("{[]: 1}", "{[]: 1}"),
        ("(" * 300, "(" * 300),
        ("-" * 9999 + "1", "-" * 9999 + "1"),
        (3, 3),
    ],
)
def test_a_text_is_parsed_as_a_literal_and_never_evaluated(written: Any, value: Any):
    assert parse_literal(written) == value
