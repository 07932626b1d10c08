# SPDX-License-Identifier: Apache-2.0
"""All files of a model, and its digest: by content, whatever their names and times are."""

from __future__ import annotations

import os
import shutil

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from hgdeploy.bundle.model_files import model_digest, model_files
from hgdeploy.errors import BundleError
from hgdeploy.system.digests import file_sha256


def tensor(name, location):
    """Four weights that lie in a file of their own."""
    made = numpy_helper.from_array(np.zeros(4, np.float32), name)
    made.ClearField("raw_data")
    made.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "16")):
        made.external_data.add(key=key, value=value)
    return made


@pytest.fixture
def spread(tmp_path):
    """An ONNX model with weights everywhere that ONNX allows, each in another file."""
    names = [f"{place}.bin" for place in ("initializer", "constant", "branch", "sparse", "inside")]
    for name in names:
        (tmp_path / name).write_bytes(np.arange(4, dtype=np.float32).tobytes())
    branch = helper.make_graph([], "branch", [], [], [tensor("d", "branch.bin")])
    sparse = onnx.SparseTensorProto(dims=[8])
    sparse.values.CopyFrom(tensor("s", "sparse.bin"))
    inside = helper.make_node("Constant", [], ["v"], value=tensor("v", "inside.bin"))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tensor("c", "constant.bin")),
        helper.make_node("If", ["t"], ["o"], then_branch=branch, else_branch=branch),
    ]
    graph = helper.make_graph(nodes, "g", [], [], [tensor("a", "initializer.bin")])
    graph.sparse_initializer.append(sparse)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "F", [], ["v"], [inside], opsets))
    path = tmp_path / "inference.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_every_file_of_weights_that_an_onnx_file_names_is_found(spread):
    found = [path.name for path in model_files(spread)]
    others = ["branch.bin", "constant.bin", "initializer.bin", "inside.bin", "sparse.bin"]
    assert found == ["inference.onnx", *others]


@pytest.mark.parametrize("name", ["initializer", "constant", "branch", "sparse", "inside"])
def test_other_weights_of_the_same_size_and_time_give_another_digest(spread, name):
    before, weights = model_digest(spread), spread.with_name(f"{name}.bin")
    times = weights.stat()
    weights.write_bytes(np.arange(1, 5, dtype=np.float32).tobytes())
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert model_digest(spread) != before


def test_the_files_of_each_kind_of_model(tmp_path):
    pairs = {
        "inference.json": "inference.pdiparams",
        "inference.pdmodel": "inference.pdiparams",
        "model.xml": "model.bin",
        "inference.engine": "inference.engine.meta.json",
        "inference.fp16.rtx.engine": "inference.fp16.rtx.engine.meta.json",
    }
    for first, second in pairs.items():
        (tmp_path / first).write_text(first)
        assert model_files(tmp_path / first) in (
            (tmp_path / first,),
            (tmp_path / first, tmp_path / "inference.pdiparams"),
        )
        alone = model_digest(tmp_path / first)
        (tmp_path / second).write_text(f"{first} {second}")
        assert model_files(tmp_path / first) == (tmp_path / first, tmp_path / second)
        assert model_digest(tmp_path / first) != alone


def test_a_copy_has_the_same_digest_and_one_file_its_own(mini, tmp_path):
    shutil.copytree(mini, tmp_path / "copy")
    assert model_digest(mini / "inference.pdmodel") == model_digest(
        tmp_path / "copy" / "inference.pdmodel"
    )
    assert model_digest(mini / "inference.onnx") == file_sha256(mini / "inference.onnx")


@pytest.mark.parametrize("location", ["../w.bin", "/etc/passwd", "a/../../w.bin"])
def test_weights_outside_of_the_folder_are_refused(tmp_path, location):
    graph = helper.make_graph([], "g", [], [], [tensor("a", location)])
    path = tmp_path / "inference.onnx"
    path.write_bytes(helper.make_model(graph).SerializeToString())
    with pytest.raises(BundleError, match="names weights outside of its folder"):
        model_digest(path)


def test_missing_weights_and_a_damaged_file_are_told_in_one_line(spread, tmp_path):
    spread.with_name("branch.bin").unlink()
    with pytest.raises(BundleError, match=r"keeps weights in .*branch\.bin, which does not exist"):
        model_digest(spread)
    spread.write_bytes(spread.read_bytes()[:-3])
    with pytest.raises(BundleError, match="is not a readable ONNX model"):
        model_digest(spread)
    with pytest.raises(BundleError, match="cannot be read: No such file"):
        model_digest(tmp_path / "none.onnx")


def test_a_file_that_is_changed_while_it_is_settled_is_read_again(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"a" * 100)
    hour_ago = path.stat().st_mtime_ns - 3600 * 10**9
    os.utime(path, ns=(hour_ago, hour_ago))
    first = file_sha256(path)
    path.write_bytes(b"b" * 100)
    os.utime(path, ns=(hour_ago, hour_ago))
    assert file_sha256(path) != first
