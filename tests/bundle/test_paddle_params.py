# SPDX-License-Identifier: Apache-2.0
"""A program runs with its own parameters only: those of another export are refused by name."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest

from conftest import DATA
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.paddle_params import StoredTensor, checked_params, read_params
from hgdeploy.bundle.paddle_program import declared_params
from hgdeploy.convert.onnx.from_paddle import onnx_from_paddle
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError

PROGRAMS = {"pphgnet_mini": "inference.pdmodel", "pphgnet_mini_pir": "inference.json"}
FLOAT32, INT8, FLOAT16 = 5, 21, 4


@pytest.fixture(params=PROGRAMS)
def program(request, tmp_path):
    """A program of each format, in a folder of its own."""
    shutil.copytree(DATA / request.param, tmp_path / "bundle")
    return tmp_path / "bundle" / PROGRAMS[request.param]


def varint(number: int) -> bytes:
    found = b""
    while number >= 0x80:
        found += bytes([number & 0x7F | 0x80])
        number >>= 7
    return found + bytes([number])


def stored(dtype: int, shape: tuple[int, ...], data: bytes) -> bytes:
    description = b"\x08" + varint(dtype) + b"".join(b"\x10" + varint(n) for n in shape)
    return struct.pack("<IQIi", 0, 0, 0, len(description)) + description + data


def rewrite(program: Path, change) -> None:
    """Write the parameters anew; `change` gets the place of each and returns its dtype and shape.

    None leaves the parameter out.
    """
    params = program.with_suffix(".pdiparams")
    data, parts = params.read_bytes(), []
    for place, tensor in enumerate(read_params(params)):
        made = change(place, tensor)
        if made is None:
            continue
        dtype, shape = made
        size = {FLOAT32: 4, INT8: 1, FLOAT16: 2}.get(dtype, 8)
        count = 1
        for n in shape:
            count *= n
        content = data[tensor.offset : tensor.offset + tensor.length].ljust(count * size, b"\0")
        parts.append(stored(dtype, shape, content[: count * size]))
    params.write_bytes(b"".join(parts))


def test_the_parameters_of_a_program_fit_it_by_name_and_shape(program):
    declared = declared_params(program)
    assert len(declared) == len(checked_params(program)) == 143
    names = [parameter.name for parameter in declared]
    assert names == sorted(names)
    rewrite(program, lambda _, tensor: (tensor.dtype, tensor.shape))
    assert len(checked_params(program)) == 143


def other_classes(place: int, tensor: StoredTensor):
    """The dense layer of 10 classes becomes one of 4."""
    return tensor.dtype, tuple(4 if size == 10 else size for size in tensor.shape)


def turned(place: int, tensor: StoredTensor):
    """As many values in another shape."""
    return tensor.dtype, tensor.shape[::-1]


def one_less(place: int, tensor: StoredTensor):
    return None if place == 142 else (tensor.dtype, tensor.shape)


def halves(place: int, tensor: StoredTensor):
    return FLOAT16, tensor.shape


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (other_classes, r"is f32 \[10\] in the program and f32 \[4\] in the parameters"),
        (turned, r"is f32 \[\d+, \d+(, \d+)*\] in the program and f32 \[\d+, \d+(, \d+)*\] in"),
        (one_less, "the program has 143 parameters, the file 142"),
        (halves, r"is f32 \[\d+\] in the program and f16 \[\d+\] in the parameters"),
    ],
)
def test_parameters_of_another_export_are_refused_by_name(program, change, told):
    rewrite(program, change)
    with pytest.raises(BundleError, match=told) as caught:
        checked_params(program)
    assert "both files come from one export" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_way_to_a_model_compares_its_parameters(program):
    rewrite(program, other_classes)
    told = r"inference\.pdiparams is not of inference\.(json|pdmodel)"
    engines = ["paddle", "openvino"] if program.suffix == ".pdmodel" else ["paddle"]
    for engine in engines:
        with pytest.raises(BundleError, match=told):
            load_engine(engine, program, EngineOptions(threads=1))
    with pytest.raises(BundleError, match=told):
        onnx_from_paddle(open_bundle(program.parent), verify=None)
    assert not list(program.parent.glob("*.onnx.meta.json"))


def test_weights_that_paddleslim_stores_as_int8_are_of_the_program(program):
    rewrite(program, lambda _, t: (INT8 if len(t.shape) == 4 else t.dtype, t.shape))
    assert len(checked_params(program)) == 143


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b'{"program": 3}', b"\x0a\xff\xff\x03"])
def test_a_damaged_program_is_told_in_one_line(program, content):
    program.write_bytes(content)
    with pytest.raises(BundleError, match="is not a readable Paddle program"):
        checked_params(program)
