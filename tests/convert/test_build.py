# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines: what is built, when it is built again, and what is refused.

TensorRT-RTX builds without a GPU, so these builds are real; running them is for machines with one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import DEADLINE, DOUBLES, HGDEPLOY, IMAGES, run_command
from hgdeploy import cli
from hgdeploy.bundle.engine_key import EngineKey, Profile
from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.bundle.names import engine_name, runtime_named
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.convert import bf16_from_onnx, fp16_from_onnx, onnx_from_paddle
from hgdeploy.convert import engine_files as files_of_runs
from hgdeploy.convert.engine_files import ensure_artifact
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import set_dims
from hgdeploy.convert.int8.from_onnx import int8_from_onnx
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.tensorrt import builder as tensorrt_builder
from hgdeploy.convert.tensorrt import from_onnx as tensorrt
from hgdeploy.convert.tensorrt import network
from hgdeploy.convert.tensorrt.from_onnx import engine_from_onnx
from hgdeploy.convert.tensorrt.options import BuildOptions, EngineBuild, Shapes
from hgdeploy.convert.tensorrt.target_gpu import Gpu
from hgdeploy.convert.tensorrt.timing_cache import load_timing_cache, save_timing_cache
from hgdeploy.convert.variants import build_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, EngineError, HGDeployError
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.images.find import find_images
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.libraries import installed_version
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.zoo.export import bundle_from_weights

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

RTX = runtime_named("tensorrt-rtx")
AMPERE, BLACKWELL = "8.6", "12.0"
PRECISIONS = ("fp32", "fp16", "bf16", "int8")
HERE = ("--runtime", "tensorrt-rtx", "--compute-capability", AMPERE)
needs_paddle2onnx = pytest.mark.skipif(
    installed_version("paddle2onnx") is None,
    reason="paddle2onnx is not installed; it has no wheels for this Python",
)
needs_no_gpu = pytest.mark.skipif(nvidia_gpus()[0] > 0, reason="this machine has a GPU")


@pytest.fixture(scope="session")
def rtx() -> ModuleType:
    """TensorRT-RTX; its absence skips, unless this run must have it."""
    if installed_version("tensorrt-rtx") is None:
        if RTX.name in os.environ.get("HGDEPLOY_REQUIRED_ENGINES", "").split(","):
            pytest.fail("tensorrt-rtx is required here, and it is not installed")
        pytest.skip("tensorrt-rtx is not installed")
    import tensorrt_rtx

    return tensorrt_rtx


SLOW_MODEL = pytest.param("PPHGNet_tiny", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[SLOW_MODEL, "EfficientNetLite0"])
def model(request, registry_weights, tmp_path_factory) -> ModelBundle:
    """A whole model with its ONNX file in every precision."""
    pytest.importorskip("paddle2onnx", reason="paddle2onnx is not installed")
    weights = None if request.param == "PPHGNet_tiny" else registry_weights(request.param)
    folder = tmp_path_factory.mktemp(request.param) / "bundle"
    bundle = open_bundle(bundle_from_weights(request.param, weights, folder))
    source = onnx_from_paddle(bundle, verify=None)
    for convert in (fp16_from_onnx, bf16_from_onnx):
        name = convert.__name__.partition("_")[0]
        convert(source, source.with_name(f"inference.{name}.onnx"), None, verify=None)
    int8_from_onnx(
        source,
        source.with_name("inference.int8.onnx"),
        find_images(IMAGES) * 2,
        Preprocessor(bundle.preprocess),
        QuantizeOptions(images=10, method="minmax", min_agreement=0.0),
        lambda _: None,
    )
    return bundle


def build(
    source: Path, target: Path, shapes: Shapes | None = None, **options: Any
) -> tuple[EngineBuild, list[str]]:
    """Build with TensorRT-RTX for an Ampere GPU, and return also the lines of progress."""
    said: list[str] = []
    how = BuildOptions(**{"runtime": RTX, "compute_capabilities": (AMPERE,), **options})
    return engine_from_onnx(source, target, shapes or Shapes(), how, said.append), said


def facts_of(engine: Path) -> dict[str, Any]:
    facts = read_sidecar(engine)
    assert facts is not None
    return facts


def main(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


# What is built.


@pytest.mark.usefixtures("rtx")
def test_each_precision_of_whole_models_builds_for_two_generations(model, tmp_path):
    source = {p: model.root / f"inference.{p}.onnx" for p in PRECISIONS}
    source["fp32"] = model.root / "inference.onnx"
    convolutions = sum(n.op_type == "Conv" for n in onnx.load(source["fp32"]).graph.node)
    sizes: dict[tuple[str, str], int] = {}
    for target in (AMPERE, BLACKWELL):
        for precision in PRECISIONS:
            path = tmp_path / target / engine_name(precision, RTX)
            options = {"precision": precision, "compute_capabilities": (target,)}
            build(source[precision], path, Shapes(batch=(1, 4, 16)), **options)
            facts = facts_of(path)
            network = facts["network"]
            assert facts["sha256"] == file_sha256(path)
            assert network["plan_bytes"] == path.stat().st_size
            assert network["inputs"] == [
                {"name": "x", "dtype": "float32", "shape": [-1, 3, 224, 224]}
            ]
            assert network["outputs"] == [
                {"name": "probabilities", "dtype": "float32", "shape": [-1, 1000]}
            ]
            assert network["layer_types"]["CONVOLUTION"] == convolutions
            computed = network["layer_precisions"]
            if precision in ("fp16", "bf16"):
                kind = {"fp16": "float16", "bf16": "bfloat16"}[precision]
                # The casts at both ends and the softmax stay in fp32.
                assert set(computed) == {kind, "float32", "int64"}
                assert computed["float32"] <= 3 < convolutions < computed[kind]
            elif precision == "int8":
                # A pair before each layer, but none in gates, and one for readers of one tensor.
                assert network["layer_types"]["QUANTIZE"] > 0.8 * convolutions
                assert computed["int8"] > 0.8 * convolutions
                assert computed["float16"] > convolutions > 5 > computed["float32"]
            else:
                assert set(computed) == {"float32", "int64"}
                assert "QUANTIZE" not in network["layer_types"]
            sizes[target, precision] = path.stat().st_size
    weights = (model.root / "inference.pdiparams").stat().st_size
    for target in (AMPERE, BLACKWELL):
        assert 0.9 < sizes[target, "fp32"] / weights < 1.3
        for precision in ("fp16", "bf16"):
            assert 0.4 < sizes[target, precision] / sizes[target, "fp32"] < 0.65
        assert sizes[target, "int8"] < 0.65 * sizes[target, "fp32"]


@pytest.mark.usefixtures("rtx")
def test_the_command_says_what_it_built_and_the_sidecar_keeps_the_key(mini, capsys):
    code = main("build", mini, *HERE, "--batch", "1,2,4", "--optimization-level", 2)
    printed = capsys.readouterr()
    engine = mini / "inference.rtx.engine"
    assert code == 0, printed.err
    assert printed.out == f"{engine}\n"
    assert "x float32 [-1, 3, 64, 64] to probabilities float32 [-1, 10];" in printed.err
    key = EngineKey.from_json(facts_of(engine)["key"], "")
    assert key.onnx_sha256 == file_sha256(mini / "inference.onnx")
    assert (key.runtime, key.version) == ("tensorrt-rtx", installed_version("tensorrt-rtx"))
    assert (key.compute_capabilities, key.gpu, key.precision) == ((AMPERE,), None, "fp32")
    assert (key.profile.batch, key.profile.height) == ((1, 2, 4), (64, 64, 64))
    assert dict(key.flags) == {"optimization_level": "2", "tf32": "off", "workspace_mb": "default"}
    assert facts_of(engine)["source"] == {"inference.onnx": key.onnx_sha256}
    assert open_bundle(mini).find([engine.name]) == engine


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("flag", "batch"),
    [(None, (1, 8, 32)), ("8", (8, 8, 8)), ("2,16", (2, 16, 16)), ("1,4,6", (1, 4, 6))],
)
def test_a_batch_is_a_range_in_one_two_or_three_numbers(mini, tmp_path, flag, batch):
    output = tmp_path / "elsewhere" / "my.engine"
    flags = () if flag is None else ("--batch", flag)
    assert main("build", mini, *HERE, *flags, "--output", output) == 0
    assert facts_of(output)["key"]["profile"]["batch"] == list(batch)
    assert not list(mini.glob("*.engine"))


def test_each_batch_that_is_given_is_a_profile(rtx, mini, monkeypatch, capsys):
    added: list[list[tuple[int, ...]]] = []
    add = rtx.IBuilderConfig.add_optimization_profile

    def remember(config: Any, profile: Any) -> int:
        added.append([tuple(shape)[:1] for shape in profile.get_shape("x")])
        return add(config, profile)

    monkeypatch.setattr(rtx.IBuilderConfig, "add_optimization_profile", remember)
    flags = ("--batch", "1", "--batch", "2,8,16", "--batch", "1")
    assert main("build", mini, *HERE, *flags) == 0
    assert added == [[(1,)] * 3, [(2,), (8,), (16,)]]
    key = facts_of(mini / "inference.rtx.engine")["key"]
    assert key["profile"]["batch"] == [1, 1, 16]
    assert key["flags"]["batches"] == "1/1/1, 2/8/16"
    assert main("build", mini, *HERE, *flags) == 0
    assert "there is nothing to build" in capsys.readouterr().err
    assert main("build", mini, *HERE, "--batch", "1,1,16") == 0
    assert len(added) == 3
    assert main("build", mini, *flags, "--triton", mini / "served") == 2
    assert "--triton serves one optimisation profile; give --batch once" in capsys.readouterr().err


@pytest.mark.usefixtures("rtx")
def test_one_engine_serves_several_gpus(mini):
    assert main("build", mini, *HERE[:3], "12.0,8.6,12.0") == 0
    assert facts_of(mini / "inference.rtx.engine")["key"]["compute_capabilities"] == ["8.6", "12.0"]


def edited(source: Path, target: Path, dims: list[int | str]) -> Path:
    """The model of `source` with other dimensions of its input."""
    found = onnx.load(source)
    set_dims(found.graph.input[0], dims)
    set_dims(found.graph.output[0], [dims[0], 10])
    del found.graph.value_info[:]
    onnx.save(found, target)
    return target


@pytest.mark.usefixtures("rtx")
def test_sizes_that_the_model_leaves_open_are_asked_for(mini, capsys):
    edited(mini / "inference.onnx", mini / "inference.onnx", ["batch", 3, "height", "width"])
    assert main("build", mini, *HERE) == 2
    assert "leaves its height open; say which sizes to serve with --input-size" in (
        capsys.readouterr().err
    )
    assert main("build", mini, *HERE, "--input-size", "64x96,96x128,128x160") == 0
    profile = facts_of(mini / "inference.rtx.engine")["key"]["profile"]
    assert (profile["height"], profile["width"]) == ([64, 96, 128], [96, 128, 160])


@pytest.mark.usefixtures("rtx")
def test_a_fixed_model_serves_its_own_shape_only(mini, capsys):
    edited(mini / "inference.onnx", mini / "inference.onnx", [2, 3, 64, 64])
    for flags, message in (
        (("--batch", "1,2,4"), "fixed batch of 2, but 1,2,4 was asked for"),
        (("--input-size", "96"), "fixed height of 64, but 96,96,96 was asked for"),
    ):
        assert main("build", mini, *HERE, *flags) == 2
        assert message in capsys.readouterr().err
    for flags in ((), ("--batch", 2, "--input-size", 64)):
        assert main("build", mini, *HERE, *flags) == 0
    engine = mini / "inference.rtx.engine"
    assert facts_of(engine)["network"]["inputs"][0]["shape"][0] == 2
    made, _ = build(mini / "inference.onnx", engine, Shapes(batch=(1, 4, 4)), accept_wider=True)
    assert not made.built


# When it is built again.


@pytest.mark.usefixtures("rtx")
def test_an_engine_is_built_once_for_each_key(mini):
    source, target = mini / "inference.onnx", mini / "inference.rtx.engine"
    first, said = build(source, target)
    assert first.built
    assert f"building {target}: there is none yet" in said
    before = target.stat().st_ino, target.stat().st_mtime_ns
    again, said = build(source, target)
    assert not again.built
    assert said == [f"{target} fits: there is nothing to build"]
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == before
    changes: list[tuple[dict[str, Any], Shapes, str]] = [
        ({"optimization_level": 1}, Shapes(), "flags is optimization_level=default"),
        ({"compute_capabilities": ("8.9",)}, Shapes(), "compute_capabilities is 8.6, wanted 8.9"),
        ({}, Shapes(batch=(1, 1, 1)), "profile is batch 1/8/32"),
        ({"force": True}, Shapes(batch=(1, 1, 1)), "it was asked for"),
    ]
    for options, shapes, reason in changes:
        other, said = build(source, target, shapes, **options)
        assert other.built
        assert reason in said[0]
        build(source, target)


@pytest.mark.usefixtures("rtx")
def test_another_model_or_library_version_builds_again(mini):
    source, target = mini / "inference.onnx", mini / "inference.rtx.engine"
    build(source, target)
    sidecar = sidecar_path(target)
    sidecar.write_text(sidecar.read_text().replace(str(installed_version("tensorrt-rtx")), "1.0.0"))
    rebuilt, said = build(source, target)
    assert rebuilt.built
    assert "version is 1.0.0" in said[0]
    found = onnx.load(source)
    found.producer_name = "somebody else"
    onnx.save(found, source)
    with pytest.raises(BundleError, match=r"stale: inference\.onnx has changed"):
        open_bundle(mini).find([target.name])
    rebuilt, said = build(source, target)
    assert rebuilt.built
    assert "onnx_sha256 is" in said[0]


@pytest.mark.usefixtures("rtx")
def test_weights_beside_the_onnx_file_belong_to_the_key(mini):
    source, target = mini / "inference.onnx", mini / "inference.rtx.engine"
    found = onnx.load(source)
    for node in found.graph.node:  # external data need initializers
        if node.op_type == "Constant" and len(node.attribute[0].t.raw_data) > 1024:
            node.attribute[0].t.name = node.output[0]
            found.graph.initializer.append(node.attribute[0].t)
    weights_of = {tensor.name for tensor in found.graph.initializer}
    kept = [node for node in found.graph.node if node.output[0] not in weights_of]
    nodes = [type(node).FromString(node.SerializeToString()) for node in kept]
    del found.graph.node[:]
    found.graph.node.extend(nodes)
    onnx.save_model(
        found, source, save_as_external_data=True, location="weights.bin", size_threshold=1024
    )
    weights = mini / "weights.bin"
    build(source, target)
    assert not build(source, target)[0].built
    assert set(facts_of(target)["source"]) == {"inference.onnx", "weights.bin"}
    assert target.stat().st_size > weights.stat().st_size  # the plan has taken them in
    values = np.fromfile(weights, np.float32)
    (values * 2).tofile(weights)
    rebuilt, said = build(source, target)
    assert rebuilt.built
    assert "onnx_sha256 is" in said[0]
    weights.unlink()
    with pytest.raises(BundleError, match=r"keeps weights in .*weights\.bin, which does not exist"):
        build(source, target)


def spoil_engine(engine: Path) -> None:
    data = bytearray(engine.read_bytes())
    data[len(data) // 2] ^= 1
    engine.write_bytes(data)


def put_foreign_engine(engine: Path) -> None:
    sidecar_path(engine).unlink()
    engine.write_bytes(b"made by somebody else")


def spoil_sidecar(engine: Path) -> None:
    sidecar_path(engine).write_text("{")


def drop_key(engine: Path) -> None:
    facts = facts_of(engine)
    facts["key"] = {"runtime": "tensorrt-rtx"}
    sidecar_path(engine).write_text(json.dumps(facts))


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (spoil_engine, "it is not the file that its sidecar"),
        (put_foreign_engine, "does not exist, so it is unknown what it was built for"),
        (spoil_sidecar, "cannot be read, so it is unknown what it was built for"),
        (drop_key, "has no readable key"),
    ],
)
def test_a_file_that_cannot_be_trusted_is_built_again(mini, spoil, reason):
    source, target = mini / "inference.onnx", mini / "inference.rtx.engine"
    build(source, target)
    spoil(target)
    rebuilt, said = build(source, target)
    assert rebuilt.built
    assert reason in said[0]
    assert facts_of(target)["sha256"] == file_sha256(target)
    assert not build(source, target)[0].built


@pytest.mark.usefixtures("rtx")
def test_a_wider_engine_is_taken_only_where_that_is_asked_for(mini):
    source, target = mini / "inference.onnx", mini / "inference.rtx.engine"
    wide = {"compute_capabilities": (AMPERE, BLACKWELL), "optimization_level": 1}
    build(source, target, Shapes(batch=(1, 8, 32)), **wide)
    for batch, built_again in (((1, 4, 4), False), ((1, 64, 64), True)):
        result, _ = build(source, target, Shapes(batch=batch), accept_wider=True)
        assert result.built == built_again
    assert build(source, target, Shapes(batch=(1, 4, 4)))[0].built


# Several at once, and the end before the end.


@pytest.mark.usefixtures("rtx")
def test_of_two_processes_one_builds_and_the_other_finds_it(mini):
    command = [*HGDEPLOY, "build", str(mini), *HERE]
    both = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=DEADLINE)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted("there is nothing to build" in text for text in said) == [False, True], said
    engine = mini / "inference.rtx.engine"
    assert facts_of(engine)["sha256"] == file_sha256(engine)
    assert not [path for path in mini.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("rtx")
def test_a_killed_builder_holds_nobody_up(mini):
    pytest.importorskip("fcntl", reason="this system has no locks on folders")
    code = (
        "import sys, time; from pathlib import Path\n"
        "from hgdeploy.system.locks import wait_for\n"
        "with wait_for(Path(sys.argv[1]), ''): print('held', flush=True); time.sleep(300)"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, mini], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        assert holder.stdout.readline() == "held\n"
        said: list[str] = []

        def tell(line: str) -> None:
            said.append(line)
            if "another process builds" in line:
                holder.kill()

        options = BuildOptions(RTX, compute_capabilities=(AMPERE,))
        made = engine_from_onnx(
            mini / "inference.onnx", mini / "inference.rtx.engine", Shapes(), options, tell
        )
    assert made.built
    assert said[0] == f"another process builds in {mini}: waiting for it"


@pytest.mark.usefixtures("rtx")
def test_what_a_killed_build_has_left_goes_with_the_next(mini):
    pytest.importorskip("fcntl", reason="this system has no locks on folders")
    source, target = mini / "inference.onnx", mini / "inference.rtx.engine"
    build(source, target)
    before = sorted(path.name for path in mini.iterdir())
    code = (
        "import os, signal, sys\n"
        "from hgdeploy.convert.tensorrt import from_onnx\n"
        "def killed(trt, job, aside, *_):\n"
        "    aside.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        "from_onnx.write_engine = killed\n"
        "from hgdeploy.cli import main; main()"
    )
    killed = run_command("-c", code, "build", mini, *HERE, "--force")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert [path for path in mini.rglob(target.name) if path != target]
    made, said = build(source, target)
    assert not made.built, said
    assert sorted(path.name for path in mini.iterdir()) == before


@pytest.mark.usefixtures("rtx")
def test_without_locks_it_builds_all_the_same(mini):
    code = (
        "import sys; sys.modules['fcntl'] = None\nfrom hgdeploy.cli import main; sys.exit(main())"
    )
    made = run_command("-c", code, "build", mini, *HERE)
    assert made.returncode == 0, made.stderr
    assert f"{mini} cannot be locked (this system has no file locks)" in made.stderr
    assert (mini / "inference.rtx.engine").is_file()


# A signal to a worker of pytest-xdist can end the worker.
@pytest.mark.alone
@pytest.mark.usefixtures("rtx", "interruptible")
def test_ctrl_c_ends_a_build_and_leaves_nothing_behind(mini, capsys, monkeypatch):
    before, ends = sorted(path.name for path in mini.iterdir()), []
    stops: list[threading.Event] = []

    def write_engine(*arguments: Any) -> Any:
        stops.extend(a for a in arguments if isinstance(a, threading.Event))
        try:
            return whole(*arguments)
        except HGDeployError as error:
            ends.append(str(error))
            raise

    def say(line: str) -> None:
        print(line, file=sys.stderr)
        if line.endswith("Building engine"):  # the library is at work, in a thread of its own
            os.kill(os.getpid(), signal.SIGINT)
            stops[0].wait(DEADLINE)  # until the main thread has noticed

    whole = tensorrt.write_engine
    monkeypatch.setattr(tensorrt, "write_engine", write_engine)
    monkeypatch.setattr("hgdeploy.cli.make.build.say", say)
    assert main("build", mini, *HERE) == 130
    assert capsys.readouterr().err.endswith("hgdeploy: interrupted\n")
    assert len(ends) == 1  # it was not built to the end and then thrown away
    assert "Build canceled by user" in ends[0]
    assert sorted(path.name for path in mini.iterdir()) == before
    monkeypatch.undo()
    assert main("build", mini, *HERE) == 0


# What is refused.


def write_model(path: Path, *nodes: onnx.NodeProto) -> Path:
    """A model from images x of shape (batch, 3, 8, 8) to scores y, valid or not."""
    helper, float32 = onnx.helper, onnx.TensorProto.FLOAT
    shapes = {"x": ["batch", 3, 8, 8], "y": ["batch", 3]}
    ends = [helper.make_tensor_value_info(name, float32, dims) for name, dims in shapes.items()]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.example", 1)]
    made = helper.make_model(
        helper.make_graph(nodes, "odd", ends[:1], ends[1:]), opset_imports=opsets, ir_version=8
    )
    path.write_bytes(made.SerializeToString())
    return path


@pytest.mark.usefixtures("rtx")
def test_the_parsers_reason_names_the_node(tmp_path):
    node = onnx.helper.make_node
    relu = node("Relu", ["x"], ["z"], name="first")
    odd = node("NoSuchOp", ["z"], ["y"], name="second", domain="com.example")
    cases = [
        (write_model(tmp_path / "plugin.onnx", relu, odd), r"'second' \(NoSuchOp\): .*Plugin not"),
        (
            write_model(tmp_path / "text.onnx", node("StringNormalizer", ["x"], ["y"], name="s")),
            r"node 's' \(StringNormalizer\): unsupported node",
        ),
        (
            write_model(tmp_path / "loose.onnx", node("Relu", ["nowhere"], ["y"])),
            r"node 0 \(Relu\): invalid graph: .*input was not registered",
        ),
    ]
    for source, reason in cases:
        with pytest.raises(BundleError, match=rf"cannot read .*{reason}") as error:
            build(source, tmp_path / "x.engine")
        assert "\n" not in str(error.value)
    junk = tmp_path / "junk.onnx"
    junk.write_bytes(b"junk" * 100)
    with pytest.raises(BundleError, match="is not a readable ONNX model"):
        build(junk, tmp_path / "x.engine")
    assert not list(tmp_path.glob("*.engine*"))


@pytest.mark.usefixtures("rtx")
def test_the_builders_reason_is_reported_and_the_old_engine_stays(mini):
    source, target = mini / "inference.onnx", mini / "inference.rtx.engine"
    build(source, target)
    before = file_sha256(target)
    with pytest.raises(EngineError, match=r"cannot build .*FP32 GEMM is not supported") as error:
        build(source, target, compute_capabilities=("7.5",))
    assert "\n" not in str(error.value)
    assert file_sha256(target) == before
    assert not build(source, target)[0].built


CUDA_35 = "CUDA initialization failure with error: 35. Please check your CUDA installation"


def test_a_library_that_is_newer_than_the_driver_says_so(rtx, mini, monkeypatch):
    def null(logger: Any) -> None:
        logger.log(rtx.ILogger.WARNING, CUDA_35)
        raise TypeError("pybind11::init(): factory function returned nullptr")

    monkeypatch.setattr(rtx, "Builder", null)
    with pytest.raises(EngineError, match=rf"cannot create a builder: {CUDA_35} \(.*driver"):
        build(mini / "inference.onnx", mini / "inference.rtx.engine")


def test_all_builds_share_one_logger(rtx, mini, tmp_path, monkeypatch):
    builder, loggers = rtx.Builder, []

    def remember(logger: Any) -> Any:
        loggers.append(logger)
        return builder(logger)

    monkeypatch.setattr(rtx, "Builder", remember)
    for name in "ab":
        build(mini / "inference.onnx", tmp_path / name)
    assert len(loggers) == 2
    assert loggers[0] is loggers[1]


def builds_on_a_gpu(monkeypatch, on_leaving: Any) -> None:
    """Have a build think that it works on a GPU of this machine."""

    @contextlib.contextmanager
    def working_on(_: Gpu) -> Iterator[None]:
        try:
            yield
        finally:
            on_leaving()

    monkeypatch.setattr(tensorrt_builder, "local_gpu", lambda *_: Gpu(0, "A GPU", AMPERE))
    monkeypatch.setattr(network, "working_on", working_on)


@pytest.mark.parametrize("fails_at", ["parse", "precision", "profile", "build", "load"])
def test_a_build_that_fails_leaves_nothing_alive_on_the_gpu(
    rtx, mini, tmp_path, monkeypatch, fails_at: str
):
    alive, left = set(), []

    class Builder(rtx.Builder):
        def __init__(self, logger: Any) -> None:
            super().__init__(logger)
            alive.add("builder")

        def __del__(self) -> None:
            alive.discard("builder")

        def build_serialized_network(self, *_: Any) -> Any:
            return None if fails_at == "build" else super().build_serialized_network(*_)

    def leaves() -> None:
        left.append(set(alive))

    none = SimpleNamespace(deserialize_cuda_engine=lambda _: None)
    monkeypatch.setattr(rtx, "Runtime", lambda _: none)
    monkeypatch.setattr(rtx, "Builder", Builder)
    builds_on_a_gpu(monkeypatch, leaves)
    source, precision, batch = mini / "inference.onnx", "fp32", (1, 2, 4)
    if fails_at == "parse":
        source = write_model(mini / "odd.onnx", onnx.helper.make_node("Nothing", ["x"], ["y"]))
    if fails_at == "precision":
        precision = "fp16"
    if fails_at == "profile":
        source = edited(source, mini / "fixed.onnx", [2, 3, 64, 64])
        wrong = (Profile(*[(1, 1, 4)] * 3),)
        monkeypatch.setattr(tensorrt, "profiles_to_serve", lambda *_: wrong)
    options = BuildOptions(RTX, precision)
    with pytest.raises(HGDeployError) as caught:
        engine_from_onnx(source, tmp_path / "e", Shapes(batch), options, lambda _: None)
    assert "\n" not in str(caught.value)
    assert left == [set()]
    assert [path.name for path in tmp_path.iterdir()] == ["mini"]


TENSORRT_10 = {"Name": "y", "Format/Datatype": "Row major linear FP16 format"}
TENSORRT_11 = {"Name": "y", "Format": "Row major linear", "DataType": "Half"}


@pytest.mark.parametrize(
    ("layers", "precisions"),
    [
        ([{"Outputs": [TENSORRT_10]}], {"fp16": 1}),
        ([{"Outputs": [TENSORRT_11] * 2}, {"Name": "sync"}], {"fp16": 1, "not said": 1}),
        ([{"Outputs": [{"Name": "y"}]}, "a name alone"], {"not said": 2}),
        (None, None),
    ],
    ids=["10", "11", "less", "none"],
)
def test_an_engines_layers_are_described_by_each_version(
    rtx, mini, monkeypatch, layers: Any, precisions: Any
):
    """The library cannot load an engine without a GPU, so what it would say is put here."""
    inspector = SimpleNamespace(
        get_engine_information=lambda _: json.dumps({"Layers": layers} if layers else {})
    )
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda _: engine)
    monkeypatch.setattr(rtx, "Runtime", lambda _: runtime)
    builds_on_a_gpu(monkeypatch, lambda: None)
    target, said = mini / "inference.rtx.engine", []
    engine_from_onnx(mini / "inference.onnx", target, Shapes(), BuildOptions(RTX), said.append)
    found = facts_of(target)["network"]["engine"]
    if layers is None:
        assert found is None
        assert "does not describe its engine" in " ".join(said)
    else:
        assert (found["layers"], found["precisions"]) == (len(layers), precisions)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_a_file_that_computes_in_fp32_is_no_engine_of_less(mini, precision):
    shutil.copy(mini / "inference.onnx", mini / f"inference.{precision}.onnx")
    with pytest.raises(BundleError, match=f"computes in float32, but {precision} was asked for"):
        build(
            mini / f"inference.{precision}.onnx", mini / "inference.rtx.engine", precision=precision
        )


@pytest.mark.usefixtures("rtx")
def test_uint8_activations_are_refused_with_the_way_out(mini):
    pytest.importorskip("onnxslim", reason="onnxslim is not installed")
    source, target = mini / "folded.onnx", mini / "inference.int8.onnx"
    onnx.save(OnnxGraph.read(mini / "inference.onnx").folded()[0].model, source)
    options = QuantizeOptions(images=10, method="minmax", min_agreement=0, activations="uint8")
    preprocess = Preprocessor(open_bundle(mini).preprocess)
    int8_from_onnx(source, target, find_images(IMAGES) * 2, preprocess, options, lambda _: None)
    with pytest.raises(BundleError, match=r"hgdeploy quantize makes with --activations int8"):
        build(target, mini / "x.engine", precision="int8")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--runtime", "tensorrtx"), "unknown TensorRT runtime 'tensorrtx', did you mean"),
        (("--precision", "fp61"), "unknown precision 'fp61', did you mean 'fp16'?"),
        (("--batch", "0"), "--batch is '0', expected one, two or three numbers from 1"),
        (("--batch", "1,2,3,4"), "expected one, two or three numbers"),
        ((*HERE, "--batch", "8,1"), "expected three rising numbers from 1"),
        (("--input-size", "224x"), "--input-size is '224x', expected one, two or three sizes"),
        (
            ("--optimization-level", "6"),
            "optimization_level is 6, expected a whole number from 0 to 5",
        ),
        (("--workspace-mb", "0"), "workspace_mb is 0, expected a whole number from 1"),
        (
            (*HERE[:3], "9.0"),
            "does not build for compute capability '9.0', expected one of: 7.5, 8.0, 8.6, 8.9, 12",
        ),
        ((*HERE, "--triton", "x"), "Triton has no backend for tensorrt-rtx; leave out --output"),
        (("--triton", "x", "--output", "y"), "--triton serves the engine in the bundle"),
        (("--triton-backend", "openvino"), "--triton-backend has no effect without --triton"),
        (("--triton", "x", "--triton-backend", "pytorch"), "unknown Triton backend 'pytorch'"),
        (("--device", "cpu"), "--device is 'cpu', expected gpu:N such as gpu:0"),
        ((*HERE, "--device", "gpu:0"), "--device has no effect with --compute-capability"),
        ((*HERE[:3], "86"), "does not build for compute capability '86', expected one of"),
    ],
)
def test_a_wrong_flag_is_one_line_that_says_what_is_allowed(rtx, mini, capsys, flags, message):
    assert main("build", mini, *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("hgdeploy: error: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_repository_for_the_onnx_file_needs_no_engine(mini, tmp_path, capsys, backend):
    flags = ("--triton", tmp_path / "served", "--triton-backend", backend)
    assert main("build", mini, *flags) == 0
    folder = tmp_path / "served" / "pphgnet_mini"
    assert capsys.readouterr().out == f"{folder}\n"
    assert (folder / "1" / "model.onnx").read_bytes() == (mini / "inference.onnx").read_bytes()
    assert not list(mini.glob("*.engine"))


@needs_no_gpu
def test_tensorrt_without_a_gpu_is_one_line_and_no_crash(mini):
    code = "import sys; from hgdeploy.cli import main; sys.exit(main())"
    refused = run_command("-c", code, "build", mini)
    assert refused.returncode == 6
    assert refused.stderr.count("\n") == 1
    assert "tensorrt needs NVIDIA GPU 0, but no NVIDIA driver" in refused.stderr


@needs_no_gpu
@pytest.mark.usefixtures("rtx")
def test_rtx_without_a_gpu_asks_what_to_build_for(mini, capsys):
    assert main("build", mini, "--runtime", "tensorrt-rtx") == 6
    assert (
        "name the GPUs to build for with hgdeploy build --compute-capability"
        in capsys.readouterr().err
    )


def test_a_missing_library_is_one_line_that_names_the_extra(mini):
    code = (
        "import sys; sys.modules['tensorrt_rtx'] = None\n"
        "from hgdeploy.cli import main; sys.exit(main())"
    )
    refused = run_command("-c", code, "build", mini, *HERE)
    assert refused.returncode == 6
    assert refused.stderr.count("\n") == 1
    assert "pip install -e '.[tensorrt-rtx]'" in refused.stderr


@pytest.fixture(scope="module")
def fake_driver(tmp_path_factory) -> Path:
    """The folder of a libcuda.so.1 that shows a GPU of any compute capability."""
    compiler, source = shutil.which("cc"), DOUBLES / "fake_cuda" / "fake_cuda.c"
    if compiler is None or installed_version("cuda-bindings") is None:
        pytest.skip("there is no C compiler, or cuda-bindings is not installed")
    folder = tmp_path_factory.mktemp("driver")
    flags = ("-shared", "-fPIC", "-pthread", "-Wl,-soname,libcuda.so.1")
    library = folder / "libcuda.so.1"
    subprocess.run([compiler, *flags, "-o", library, source], check=True)
    return folder


@pytest.mark.usefixtures("rtx")
def test_the_gpu_that_is_asked_for_is_built_for(mini, monkeypatch):
    asked: list[int] = []

    def local_gpu(index: int, _: Any) -> Gpu:
        asked.append(index)
        return Gpu(index, "A GPU", AMPERE)

    monkeypatch.setattr(tensorrt_builder, "local_gpu", local_gpu)
    monkeypatch.setattr(tensorrt, "write_engine", _without_the_gpu(tensorrt.write_engine))
    assert main("build", mini, *HERE[:2], "--device", "gpu:1") == 0
    assert set(asked) == {1}
    asked.clear()
    assert main("build", mini, *HERE[:2]) == 0
    assert set(asked) == {0}


@needs_no_gpu
@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(
    ("runtime", "flags", "code", "message"),
    [
        ("tensorrt", ("--device", "gpu:2"), 6, "GPU 2, but this machine has only gpu:0, gpu:1"),
        ("tensorrt-rtx", (), 6, "(compute capability 9.0), only for 7.5, 8.0"),
        ("tensorrt", ("--compute-capability", "8.6"), 2, "capability 9.0, but 8.6 was asked for"),
    ],
)
def test_a_gpu_at_hand_that_cannot_be_built_for_is_named(
    mini, fake_driver, monkeypatch, runtime, flags, code, message
):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_driver))
    monkeypatch.setenv("FAKE_CUDA_CAPABILITY", "9.0")
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    program = "import sys; from hgdeploy.cli import main; sys.exit(main())"
    refused = run_command("-c", program, "build", mini, "--runtime", runtime, *flags)
    assert refused.returncode == code, refused.stderr
    assert message in refused.stderr
    assert refused.stderr.count("\n") == 1


def test_a_thread_works_on_the_gpu_it_was_given_and_gives_it_back(fake_driver, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(fake_driver))
    monkeypatch.setenv("FAKE_CUDA_DEVICES", "2")
    program = (
        "from cuda.bindings import driver\n"
        "from hgdeploy.convert.tensorrt.target_gpu import local_gpu, working_on\n"
        "from hgdeploy.bundle.names import RUNTIMES\n"
        "gpu = local_gpu(1, RUNTIMES[0])\n"
        "with working_on(gpu):\n"
        "    print(gpu.index, gpu.compute_capability, int(driver.cuCtxGetDevice()[1]))\n"
        "print(int(driver.cuCtxGetCurrent()[1]))\n"
    )
    ran = run_command("-c", program)
    assert ran.stdout == "1 8.9 1\n0\n", ran.stderr


def test_kernel_times_are_kept_between_builds(rtx, tmp_path):
    path, said = tmp_path / "cache" / "tensorrt.timing_cache", []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in TensorRT-RTX, which times nothing
        builder = rtx.Builder(rtx.Logger(rtx.Logger.ERROR))
        config = builder.create_builder_config()
        load_timing_cache(config, path, said.append)
        save_timing_cache(config, path)
        assert path.stat().st_size > 0
        load_timing_cache(builder.create_builder_config(), path, said.append)
    assert said == []
    assert [file.name for file in path.parent.iterdir()] == [path.name]


# The ONNX file, and the engine that a run needs.


@needs_paddle2onnx
@pytest.mark.usefixtures("rtx")
def test_the_fp32_onnx_file_is_made_where_it_is_missing_or_stale(mini):
    (mini / "inference.onnx").unlink()
    bundle, said = open_bundle(mini), []
    options = BuildOptions(RTX, compute_capabilities=(AMPERE,))
    assert build_engine(bundle, Shapes(), options, said.append, said.append).built
    assert "is missing, or the Paddle model has changed since: converting" in said[0]
    assert not build_engine(bundle, Shapes(), options, said.append, said.append).built
    params = mini / "inference.pdiparams"
    data = bytearray(params.read_bytes())
    data[-1] ^= 1
    params.write_bytes(data)
    del said[:]
    assert build_engine(bundle, Shapes(), options, said.append, said.append).built
    assert "the Paddle model has changed since: converting" in said[0]


@pytest.mark.usefixtures("rtx")
def test_a_reduced_precision_is_made_from_an_onnx_file_alone(mini):
    for name in ("inference.pdmodel", "inference.pdiparams"):
        (mini / name).unlink()
    given = file_sha256(mini / "inference.onnx")
    said, warned = [], []
    options = BuildOptions(RTX, "fp16", (AMPERE,))
    made = build_engine(open_bundle(mini), Shapes(), options, said.append, warned.append)
    assert made.path == mini / "inference.fp16.rtx.engine"
    assert "is made without real images" in warned[0]
    assert facts_of(made.path)["network"]["layer_precisions"]["float16"] > 100
    assert file_sha256(mini / "inference.onnx") == given


@pytest.mark.usefixtures("rtx")
def test_int8_is_never_made_without_images(mini, capsys):
    assert main("build", mini, *HERE, "--precision", "int8") == 5
    assert f"hgdeploy quantize {mini} --calibration FOLDER" in capsys.readouterr().err


@pytest.fixture
def engine_files(monkeypatch) -> None:
    """An engine that loads TensorRT-RTX's files."""

    def artifact_names(precision: str) -> tuple[str, ...]:
        return (engine_name(precision, RTX),)

    module = SimpleNamespace(artifact_names=artifact_names)
    monkeypatch.setattr(files_of_runs, "engine_module", lambda _: module)


@pytest.mark.usefixtures("rtx")
def test_an_onnx_file_alone_is_built_beside_itself(mini, tmp_path, capsys):
    """Its folder may be a model's: nothing else in it is looked at, or made."""
    folder = mini
    net = folder / "net.onnx"
    (folder / "inference.onnx").rename(net)
    before = {path.name for path in folder.iterdir()}
    for precision, name in (("fp32", "net.rtx.engine"), ("fp16", "net.fp16.rtx.engine")):
        assert main("build", net, *HERE, "--precision", precision) == 0, capsys.readouterr().err
        assert capsys.readouterr().out == f"{folder / name}\n"
    made = {path.name for path in folder.iterdir()} - before
    assert {name for name in made if not name.endswith(".meta.json")} == {
        *("net.rtx.engine", "net.fp16.onnx", "net.fp16.rtx.engine"),
    }
    for file, precision, told in (
        ("net.fp16.rtx.engine", "fp32", "is an engine already"),
        ("net.onnx", "int8", "as inference.onnx, and run hgdeploy quantize"),
    ):
        assert main("build", folder / file, *HERE, "--precision", precision) == 5
        assert told in capsys.readouterr().err
    assert main("build", net, *HERE, "--triton", tmp_path / "served") == 2
    assert "--triton needs a bundle" in capsys.readouterr().err


def test_each_kernel_is_timed_as_often_as_by_trtexec(mini, rtx, tmp_path, monkeypatch):
    seen: list[int] = []
    whole = rtx.Builder.build_serialized_network

    def noting(builder: Any, network: Any, config: Any) -> Any:
        seen.append(config.avg_timing_iterations)
        return whole(builder, network, config)

    monkeypatch.setattr(rtx.Builder, "build_serialized_network", noting)
    build(mini / "inference.onnx", tmp_path / "inference.rtx.engine")
    assert seen == [8]


def ensure(bundle: Path, engine: str, **options: Any) -> list[str]:
    said: list[str] = []
    wanted = EngineOptions(**{"device": "gpu:0", **options})
    ensure_artifact(open_bundle(bundle), engine, wanted, said.append, said.append)
    return said


def test_only_engine_files_are_made_for_a_run(mini):
    before = sorted(path.name for path in mini.iterdir())
    for engine in ("paddle", "onnxruntime", "openvino"):
        assert ensure(mini, engine) == []
        assert ensure(mini, engine, device="cpu", precision="fp16") == []
    assert sorted(path.name for path in mini.iterdir()) == before


@pytest.mark.usefixtures("rtx", "engine_files")
def test_a_run_builds_the_engine_that_it_lacks_and_only_then(mini, monkeypatch):
    # There is no GPU here to be found, so one is named where the build asks for it.
    monkeypatch.setattr(tensorrt_builder, "local_gpu", lambda *_: Gpu(0, "A GPU", AMPERE))
    monkeypatch.setattr(tensorrt, "write_engine", _without_the_gpu(tensorrt.write_engine))
    target = mini / "inference.rtx.engine"
    ensure(mini, "tensorrt", max_batch=4)
    assert facts_of(target)["key"]["profile"]["batch"] == [1, 4, 4]
    assert facts_of(target)["key"]["gpu"] is None
    assert ensure(mini, "tensorrt", max_batch=2) == [f"{target} fits: there is nothing to build"]
    assert "profile is batch 1/4/4" in ensure(mini, "tensorrt", max_batch=8)[0]
    assert ensure(mini, "tensorrt", device="cpu", max_batch=99) == []
    (mini / "inference.onnx").unlink()
    assert ensure(mini, "tensorrt", max_batch=99) == []


def _without_the_gpu(write_engine: Any) -> Any:
    def build(trt: Any, job: Any, *rest: Any) -> Any:
        assert job.gpu.compute_capability == AMPERE
        return write_engine(trt, dataclasses.replace(job, gpu=None), *rest)

    return build


@pytest.mark.usefixtures("rtx", "engine_files")
def test_a_run_leaves_alone_what_somebody_else_has_built(mini):
    target = mini / "inference.rtx.engine"
    target.write_bytes(b"made by somebody else")
    assert ensure(mini, "tensorrt") == []
    assert target.read_bytes() == b"made by somebody else"


@needs_no_gpu
@pytest.mark.usefixtures("rtx", "engine_files")
def test_a_run_that_cannot_build_its_engine_says_why(mini):
    with pytest.raises(HGDeployError, match="no NVIDIA driver"):
        ensure(mini, "tensorrt")
