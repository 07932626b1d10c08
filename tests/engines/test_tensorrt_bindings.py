# SPDX-License-Identifier: Apache-2.0
"""Every name of TensorRT that our code touches exists in each version that it is for.

The API is read from NVIDIA's own Python bindings of TensorRT 10 and 11, which import on any machine
against a stub of the libraries, and from TensorRT-RTX. What our code touches is read from its
source, and noted while it builds and while it runs.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

import pytest
from fake_gpu import make_fake_gpu
from tensorrt_api import Api, Member, Use, problem_of, read_api
from tensorrt_uses import uses_in

from conftest import DEADLINE, DOUBLES, MINI, REPO
from hgdeploy.system.libraries import installed_version

PACKAGE = REPO / "deploy" / "python" / "hgdeploy"
BINDINGS = REPO / ".cache" / "tensorrt-bindings"
# The Makefile says which versions, and installs them.
[_WRITTEN] = re.findall(r"^TENSORRT_BINDINGS := (.+)$", (REPO / "Makefile").read_text(), re.M)
VERSIONS = _WRITTEN.split()
LIBRARIES = ("nvinfer", "nvinfer_plugin", "nvonnxparser")

# What our code uses where it exists only, and how it knows.
_FOR_RTX = "TensorRT-RTX builds without a GPU, for a given kind of it: `runtime.needs_gpu` is False"
_IN_RTX = "TensorRT-RTX compiles on the machine that runs it: asked for by name"
ONLY_WHERE_IT_EXISTS = {
    "ComputeCapability": _FOR_RTX,
    "IBuilderConfig.num_compute_capabilities": _FOR_RTX,
    "IBuilderConfig.set_compute_capability": _FOR_RTX,
    "CudaGraphStrategy": _IN_RTX,
    "DynamicShapesKernelSpecializationStrategy": _IN_RTX,
    "IRuntimeConfig.cuda_graph_strategy": _IN_RTX,
    "IRuntimeConfig.create_runtime_cache": _IN_RTX,
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": _IN_RTX,
    "IRuntimeConfig.set_runtime_cache": _IN_RTX,
}


def missing(what: str) -> NoReturn:
    """Skip, unless this run must not."""
    if "tensorrt-bindings" in os.environ.get("HGDEPLOY_REQUIRED_ENGINES", "").split(","):
        pytest.fail(f"the check against TensorRT's bindings is required here, and {what}")
    pytest.skip(what)


def printed_api(module: str, **environment: str) -> Api:
    """The API of a module, imported in a process of its own."""
    done = subprocess.run(
        [sys.executable, str(DOUBLES / "tensorrt_api.py"), module],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return read_api(done.stdout)


def api_of_bindings(version: str, folder: Path) -> Api:
    """The API of one version of TensorRT, on a stub of its libraries that is compiled here."""
    compiler, installed = shutil.which("cc"), BINDINGS / version
    if not installed.is_dir():
        missing(f"{installed} is missing; make test installs it")
    if compiler is None:
        missing("there is no C compiler (cc) for the stub of TensorRT's libraries")
    for name in LIBRARIES:
        soname = f"lib{name}.so.{version.partition('.')[0]}"
        source = DOUBLES / "tensorrt_stub" / "tensorrt_stub.c"
        flags = ["-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(folder / soname)]
        subprocess.run([compiler, *flags, str(source)], check=True)
    return printed_api("tensorrt_bindings", LD_LIBRARY_PATH=str(folder), PYTHONPATH=str(installed))


@pytest.fixture(scope="module")
def apis(tmp_path_factory) -> tuple[Api, ...]:
    """TensorRT-RTX and each version of TensorRT, the newest first."""
    if installed_version("tensorrt-rtx") is None:
        missing("tensorrt-rtx is not installed")
    found = [api_of_bindings(version, tmp_path_factory.mktemp("stub")) for version in VERSIONS]
    return (*reversed(found), printed_api("tensorrt_rtx"))


@pytest.fixture(scope="module")
def uses(apis) -> frozenset[Use]:
    """What the source of our code uses."""
    texts = {
        path.relative_to(PACKAGE).as_posix(): path.read_text() for path in PACKAGE.rglob("*.py")
    }
    about = {f: text for f, text in texts.items() if "tensorrt" in f or re.search(r"\btrt\b", text)}
    return uses_in(about, apis)


def problems(uses: frozenset[Use], apis: tuple[Api, ...], allowed: Mapping[str, str]) -> list[str]:
    """What is wrong with some uses; those that are allowed may be missing in a version."""
    found = {
        problem_of(use, api)
        for use in uses
        for api in apis
        if use.full_name not in allowed or api.find(use.owner, use.name) is not None
    }
    return sorted(problem for problem in found if problem is not None)


def test_every_name_that_our_source_uses_exists_in_each_version(uses, apis):
    assert {use.file.partition("/")[0] for use in uses} == {"convert", "engines"}
    found = problems(uses, apis, ONLY_WHERE_IT_EXISTS)
    assert not found, "\n".join(found)


def test_each_exception_is_one(uses, apis):
    used = {use.full_name: use for use in uses}
    for name in ONLY_WHERE_IT_EXISTS:
        assert name in used, f"{name} is not used any more"
        there = [api.find(used[name].owner, used[name].name) is not None for api in apis]
        assert any(there), f"{name} exists nowhere"
        assert not all(there), f"{name} exists everywhere"


# What our code touches while it works: as a check of the reading of the source, and of the numbers
# of arguments that the source does not give.

_NOTED = """
import dataclasses, json, sys
from pathlib import Path
import {module} as library
from tensorrt_api import note_uses
uses = note_uses(library, Path({package!r}))
folder = Path({folder!r})
{work}
print(json.dumps([dataclasses.asdict(use) for use in set(uses)]))
"""
_BUILD = """
import pytest
from hgdeploy.errors import BundleError
from hgdeploy.convert.tensorrt.options import BuildOptions, Shapes
from hgdeploy.convert.tensorrt.from_onnx import engine_from_onnx
from hgdeploy.bundle.names import runtime_named
options = BuildOptions(runtime_named("tensorrt-rtx"), compute_capabilities=("8.6",))
source, target = Path({onnx!r}), folder / "inference.rtx.engine"
assert engine_from_onnx(source, target, Shapes(), options, lambda line: None).built
odd = folder / "odd.onnx"
odd.write_bytes(source.read_bytes().replace(b"Relu", b"Rule"))
with pytest.raises(BundleError, match="Rule"):
    engine_from_onnx(odd, target, Shapes(), options, lambda line: None)
"""
_RUN = """
import numpy as np
from fake_tensorrt import engine_file
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines import load_engine
onnx = Path({onnx!r}).read_bytes()
shapes = [(batch, 3, 64, 64) for batch in (1, 2, 4)]
path = folder / {name!r}
path.write_bytes(engine_file(onnx, {{"x": shapes}}, version=library.__version__))
engine = load_engine("tensorrt", path, EngineOptions(device="gpu:0"))
assert engine.infer({{"x": np.zeros(shapes[2], np.float32)}})
engine.close()
"""


def noted(module: str, folder: Path, work: str, environment: Mapping[str, str]) -> frozenset[Use]:
    """What our code touches of a module while some work is done, in a process of its own."""
    code = _NOTED.format(module=module, package=str(PACKAGE), folder=str(folder), work=work)
    paths = [str(DOUBLES), *environment.get("PYTHONPATH", "").split(os.pathsep)]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return frozenset(
        Use(**{**use, "call": use["call"] and (use["call"][0], tuple(use["call"][1]))})
        for use in json.loads(done.stdout.splitlines()[-1])
    )


def unread(touched: frozenset[Use], uses: frozenset[Use]) -> list[Use]:
    """What was touched at a place where the source has not been read to use it."""
    return [
        seen
        for seen in touched
        if not any(
            (use.file, use.owner, use.name) == (seen.file, seen.owner, seen.name)
            and use.line <= seen.line <= use.last_line
            and use.stored == seen.stored
            for use in uses
        )
    ]


def test_a_real_build_touches_what_the_source_says(uses, apis, tmp_path):
    work = _BUILD.format(onnx=str(MINI / "inference.onnx"))
    touched = noted("tensorrt_rtx", tmp_path, work, os.environ)
    names = {use.full_name for use in touched}
    assert {"Builder.build_serialized_network", "ParserError.desc"} <= names
    assert unread(touched, uses) == []
    assert problems(touched, apis, ONLY_WHERE_IT_EXISTS) == []


@pytest.mark.parametrize(
    ("module", "name"), [("tensorrt", "x.engine"), ("tensorrt_rtx", "x.rtx.engine")]
)
def test_a_run_touches_what_the_source_says(uses, apis, tmp_path, module, name):
    machine = tmp_path / "machine"
    machine.mkdir()
    work = _RUN.format(onnx=str(MINI / "inference.onnx"), name=name)
    touched = noted(module, tmp_path, work, make_fake_gpu(machine))
    assert "IExecutionContext.execute_async_v3" in {use.full_name for use in touched}
    assert unread(touched, uses) == []
    assert problems(touched, apis, ONLY_WHERE_IT_EXISTS) == []


# The fake that stands in for a GPU in our tests has nothing that the real library lacks.


def differences(fake: Api, real: Api, owner: str = "", true_owner: str = "") -> Iterator[str]:
    """What a fake has, or takes, that the real library does not."""
    for name, member in fake.classes[owner].items():
        true = real.find(true_owner, name)
        if name.startswith("_") and name != "__init__":
            continue
        if true is None:
            yield f"{owner}.{name} does not exist in {real.name}"
        elif member.kind == "class":
            yield from differences(fake, real, member.type, true.type)
        elif member.kind == "function" and true.signatures:
            yield from wrong_calls(f"{owner}.{name}", member, true, real.name)


def wrong_calls(name: str, fake: Member, real: Member, version: str) -> Iterator[str]:
    """The calls that only a fake takes: the shortest, and with each optional argument named."""
    parameters = fake.signatures[0].parameters
    required = [parameter.name for parameter in parameters if parameter.required]
    optional = [parameter.name for parameter in parameters if not parameter.required]
    bound = int(fake.signatures[0].is_method)
    named = tuple(required[bound:])
    for call in ((len(required), ()), (bound, named), *((bound, (*named, o)) for o in optional)):
        found = [signature.problem(*call) for signature in real.signatures]
        if all(found):
            yield f"{name}{call} is no call: {found[0]} in {version}"


def test_the_fake_runtime_has_nothing_that_a_real_one_lacks(apis):
    fake = printed_api("fake_tensorrt")
    assert fake.find("IExecutionContext", "execute_async_v3") is not None
    assert [difference for api in apis for difference in differences(fake, api)] == []
    rtx = printed_api("fake_tensorrt_rtx")
    assert rtx.find("IRuntimeConfig", "cuda_graph_strategy") is not None
    assert list(differences(rtx, apis[-1])) == []


def test_a_fake_that_has_more_is_reported(apis, tmp_path):
    (tmp_path / "fake_tensorrt_plus.py").write_text(
        """\
__version__ = "1"
class IExecutionContext:
    def execute_async_v2(self, bindings, stream_handle): ...
    def execute_async_v3(self, stream): ...
    def set_input_shape(self, name): ...
    def get_tensor_shape(self, name, profile=0): ...
    def infer_shapes(self): ...
class Session: ...
"""
    )
    fake = printed_api("fake_tensorrt_plus", PYTHONPATH=str(tmp_path))
    found = list(differences(fake, apis[0]))
    assert sorted(text.removesuffix(f" in {TENSORRT_11}") for text in found) == [
        ".Session does not exist",
        "IExecutionContext.execute_async_v2 does not exist",
        "IExecutionContext.execute_async_v3(1, ('stream',)) is no call: "
        "missing a required argument: 'stream_handle'",
        "IExecutionContext.get_tensor_shape(1, ('name', 'profile')) is no call: "
        "got an unexpected keyword argument 'profile'",
        "IExecutionContext.set_input_shape(1, ('name',)) is no call: "
        "missing a required argument: 'shape'",
        "IExecutionContext.set_input_shape(2, ()) is no call: missing a required argument: 'shape'",
    ]


# The check itself: what it must report, and what it must not.

TENSORRT_10, TENSORRT_11 = (f"tensorrt {version}" for version in VERSIONS)
TENSORRT_RTX = f"tensorrt_rtx {installed_version('tensorrt-rtx')}"
ALL = (TENSORRT_10, TENSORRT_11, TENSORRT_RTX)

REMOVED_FLAG = """\
def build(trt, logger):
    config = trt.Builder(logger).create_builder_config()
    config.set_flag(trt.BuilderFlag.FP16)
"""
METHOD_OF_AN_ATTRIBUTE = """\
class Lane:
    def __init__(self, session):
        self._context = session.context()
    def run(self, stream):
        return self._context.execute_async_v2([], stream)
class Session:
    def __init__(self, trt):
        self.engine = trt.Runtime(trt.Logger()).deserialize_cuda_engine(b"")
    def context(self):
        return self.engine.create_execution_context()
def load(trt):
    return Lane(Session(trt))
"""
PROPERTY_IN_A_HELPER = """\
def made(make):
    return make()
def graph(config, strategy):
    config.cuda_graph_strategy = strategy
def open(trt, engine_bytes):
    engine = made(lambda: trt.Runtime(trt.Logger()).deserialize_cuda_engine(engine_bytes))
    graph(config=made(engine.create_runtime_config), strategy=None)
"""
NAMES_BY_TEXT = """\
FLAGS = {"INT8": 1}
def wanted(trt):
    for name, _ in FLAGS.items():
        yield getattr(trt.BuilderFlag, name)
    return hasattr(trt, "IInt8Calibrator"), getattr(trt.BuilderFlag, "BF16", None)
"""
NAME_THAT_CANNOT_BE_READ = """\
import importlib
def flag(name, library):
    return getattr(importlib.import_module(library).BuilderFlag, name)
"""
TOO_FEW_ARGUMENTS = """\
import tensorrt
def shapes(network: tensorrt.INetworkDefinition, profile: tensorrt.IOptimizationProfile):
    profile.set_shape(network.get_input(0).name, (1,), (2,))
"""
WRONG_NAME_OF_AN_ARGUMENT = """\
def load(self):
    runtime = self.trt.Runtime(log=None)
"""
NOT_TO_BE_SET_OR_MADE = """\
def wrong(trt):
    trt.OnnxParser(None, None).num_errors = 0
    return trt.IBuilderConfig()
"""
CALLBACK = """\
def logger(trt):
    class Log(trt.ILogger):
        def log(self, message):
            print(message)
    return Log()
"""
TOLD = [
    (REMOVED_FLAG, {"3: BuilderFlag.FP16 does not exist": ALL[1:]}),
    (METHOD_OF_AN_ATTRIBUTE, {"5: IExecutionContext.execute_async_v2 does not exist": ALL}),
    (PROPERTY_IN_A_HELPER, {"4: IRuntimeConfig.cuda_graph_strategy does not exist": ALL[:2]}),
    (
        NAMES_BY_TEXT,
        {
            "4: BuilderFlag.INT8 does not exist": ALL[1:],
            "5: BuilderFlag.BF16 does not exist": ALL[1:],
            "5: IInt8Calibrator does not exist": ALL[1:],
        },
    ),
    (
        NAME_THAT_CANNOT_BE_READ,
        {"3: BuilderFlag.(a name that is computed) does not exist": ALL},
    ),
    (
        TOO_FEW_ARGUMENTS,
        {"3: IOptimizationProfile.set_shape: missing a required argument: 'max'": ALL},
    ),
    (
        WRONG_NAME_OF_AN_ARGUMENT,
        {"2: Runtime.__init__: missing a required argument: 'logger'": ALL},
    ),
    (
        NOT_TO_BE_SET_OR_MADE,
        {
            "2: OnnxParser.num_errors cannot be set": ALL,
            "3: IBuilderConfig.__init__: it cannot be made by a call": ALL,
        },
    ),
    (CALLBACK, {"3: ILogger.log: missing a required argument: 'msg'": ALL}),
]


@pytest.mark.parametrize(("source", "names_of"), TOLD)
def test_the_check_reports_file_line_name_and_version(source, names_of, apis):
    expected = [
        f"x.py:{problem} in {name}" for problem, names in names_of.items() for name in names
    ]
    assert problems(uses_in({"x.py": source}, apis), apis, {}) == sorted(expected)


def test_the_check_says_nothing_of_what_is_right(apis):
    source = """\
def build(trt, path, level):
    logger = trt.Logger(min_severity=trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(path):
        return [parser.get_error(i).desc() for i in range(parser.num_errors)]
    config, x = builder.create_builder_config(), network.get_input(0)
    config.builder_optimization_level = level
    profile = builder.create_optimization_profile()
    profile.set_shape(x.name, *([tuple(x.shape)] * 3))
    profile.set_shape(input=x.name, min=(1,), opt=(2,), max=(3,))
    config.add_optimization_profile(profile)
    return builder.build_serialized_network(network, config), level.bit_length(), path.FP16
"""
    found = uses_in({"x.py": source}, apis)
    assert problems(found, apis, {}) == []
    assert {use.full_name for use in found if use.line in (7, 13, 14)} == {
        "OnnxParser.get_error",
        "OnnxParser.num_errors",
        "ParserError.desc",
        "IBuilderConfig.add_optimization_profile",
        "Builder.build_serialized_network",
    }
