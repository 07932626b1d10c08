# SPDX-License-Identifier: Apache-2.0
"""Options of a TensorRT build: what reaches the library, what the key keeps, what is refused.

TensorRT-RTX builds without a GPU, so these builds are real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from written_networks import quantized

from conftest import IMAGES, require_engine
from hgdeploy import cli
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.names import engine_name, onnx_name, runtime_named
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert import onnx_from_paddle
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8.from_onnx import int8_from_onnx
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.tensorrt.from_onnx import engine_from_onnx
from hgdeploy.convert.tensorrt.layers import Layer, layers_of_facts
from hgdeploy.convert.tensorrt.options import BuildOptions, Shapes
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError
from hgdeploy.gpu.driver import nvidia_gpus
from hgdeploy.images.find import find_images
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.zoo.export import bundle_from_weights

rtx = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

RTX = runtime_named("tensorrt-rtx")
AMPERE = ("--runtime", RTX.name, "--compute-capability", "8.6")


def main(*arguments: object) -> int:
    return cli.main([str(argument) for argument in arguments])


def key_of(engine: Path) -> dict[str, Any]:
    facts = read_sidecar(engine)
    assert facts is not None
    return facts["key"]


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Returns what `look` sees of the configuration of each build from now on."""

    def watch(look: Callable[[Any], Any]) -> list[Any]:
        seen: list[Any] = []
        whole = rtx.Builder.build_serialized_network

        def noting(builder: Any, network: Any, config: Any) -> Any:
            seen.append(look(config))
            return whole(builder, network, config)

        monkeypatch.setattr(rtx.Builder, "build_serialized_network", noting)
        return seen

    return watch


# TF32.


def test_tf32_is_the_fp32_file_with_the_flag_in_an_engine_of_its_own(mini, configured):
    seen = configured(lambda config: config.get_flag(rtx.BuilderFlag.TF32))
    for precision, flag in (("fp32", "off"), ("tf32", "on")):
        assert main("build", mini, *AMPERE, "--precision", precision) == 0
        key = key_of(mini / engine_name(precision, RTX))
        assert (key["precision"], key["flags"]["tf32"]) == (precision, flag)
    assert seen == [False, True]
    assert engine_name("tf32", RTX) == "inference.tf32.rtx.engine"
    assert onnx_name("tf32") == "inference.onnx"


def test_tf32_is_refused_where_the_gpu_has_none(mini, capsys):
    code = main("build", mini, *AMPERE[:3], "7.5,8.6", "--precision", "tf32")
    assert code == 2
    assert capsys.readouterr().err == (
        "hgdeploy: error: tf32 needs compute capability 8.0 (Ampere) or later, and 7.5 computes "
        "fp32 as it is; build with --precision fp32\n"
    )


@pytest.mark.parametrize("engine", ["paddle", "onnxruntime", "openvino"])
def test_a_cpu_has_no_tf32(mini, engine):
    require_engine(engine)
    source = mini / ("inference.pdmodel" if engine == "paddle" else "inference.onnx")
    with pytest.raises(EngineError, match=r"tf32.*CPU.*available: fp32"):
        load_engine(engine, source, EngineOptions(precision="tf32"))


# Settings of the builder.


def test_the_settings_of_trtexec_reach_the_builder_and_the_key(mini, configured):
    tilings = rtx.TilingOptimizationLevel
    seen = configured(
        lambda config: (
            config.max_aux_streams,
            config.tiling_optimization_level,
            config.get_flag(rtx.BuilderFlag.SPARSE_WEIGHTS),
        )
    )
    flags = ("--max-aux-streams", 2, "--tiling-level", 3, "--sparsity", "enable")
    assert main("build", mini, *AMPERE, *flags) == 0
    assert seen == [(2, tilings.FULL, True)]
    engine = mini / engine_name("fp32", RTX)
    wanted = {"max_aux_streams": "2", "tiling_level": "3", "sparsity": "enable"}
    assert wanted.items() <= key_of(engine)["flags"].items()
    assert main("build", mini, *AMPERE, *flags) == 0
    assert len(seen) == 1, "the engine that is there has these settings"
    assert main("build", mini, *AMPERE) == 0
    assert seen[1:] == [(rtx_default_streams(), tilings.NONE, False)]
    assert not wanted.keys() & key_of(engine)["flags"].keys()


def rtx_default_streams() -> int:
    config = rtx.Builder(rtx.Logger(rtx.Logger.ERROR)).create_builder_config()
    return config.max_aux_streams


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--hardware-compatibility", "ampere+"), "has no --hardware-compatibility; it builds for"),
        (("--version-compatible",), "has no --version-compatible; build again for each version"),
        (("--hardware-compatibility", "ampere"), "hardware_compatibility 'ampere', did you mean"),
        (("--tiling-level", 4), "tiling_level is 4, expected a whole number from 0 to 3"),
        (("--max-aux-streams", -1), "max_aux_streams is -1, expected a whole number from 0"),
        (("--sparsity", "force"), "unknown sparsity 'force', expected one of: disable, enable"),
        (("--int8-rest", "fp32"), "--int8-rest has no effect without --precision int8"),
        (("--precision", "int8", "--int8-rest", "bf16"), "unknown int8_rest 'bf16', did you mean"),
    ],
)
def test_a_setting_that_the_library_lacks_is_refused_by_name(mini, capsys, flags, message):
    assert main("build", mini, *AMPERE, *flags) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


# The layers as they run.


def test_without_a_gpu_the_layers_are_listed_without_times(mini, capsys):
    if nvidia_gpus()[0]:
        pytest.skip("this machine has a GPU")
    assert main("build", mini, *AMPERE, "--profile") == 0
    printed = capsys.readouterr()
    engine, head, *rows = printed.out.splitlines()
    assert head.split() == ["layer", "type", "precision", "ms", "share", "computes"]
    assert len(rows) > 30
    assert "%" not in printed.out
    assert "the layers have no times: tensorrt-rtx needs NVIDIA GPU 0" in printed.err
    page = Path(f"{engine}.profile.html").read_text(encoding="utf-8")
    assert page.count("<tr>") == len(rows) + 1


def layers_of_int8(source: Path, target: Path) -> list[Layer]:
    options = BuildOptions(RTX, "int8", ("8.6",))
    engine_from_onnx(source, target, Shapes(), options, lambda _: None)
    facts = read_sidecar(target)
    assert facts is not None
    layers = layers_of_facts(facts)
    assert layers is not None
    return layers


def that_computes(layers: list[Layer], *names: str) -> Layer:
    found = [layer for layer in layers if set(names) <= set(layer.onnx)]
    assert len(found) == 1, [layer for layer in layers if set(names) & set(layer.onnx)]
    return found[0]


def test_convolutions_run_in_int8_and_what_follows_them_is_one_kernel(tmp_path):
    """A shortcut, a swish and a gate, as TensorRT-RTX really compiles them."""
    text = (
        "c0=Conv(x) r0=Relu(c0) c1=Conv(r0) a=Add(c1,r0) r1=Relu(a) c2=Conv(r1) s=Sigmoid(c2) "
        "m=Mul(c2,s) p0=GlobalAveragePool(m) t0=Conv1(p0) u0=Relu(t0) t1=Conv1(u0) g=Sigmoid(t1) "
        "w=Mul(m,g) c3=Conv(w) p=GlobalAveragePool(c3) f=Flatten(p) l=Gemm(f) y=Softmax(l)"
    )
    source = tmp_path / "inference.int8.onnx"
    source.write_bytes(quantized(text, tmp_path).to_bytes())
    layers = layers_of_int8(source, tmp_path / "inference.int8.rtx.engine")
    for name in ("c0", "c1", "c2", "c3"):
        assert any(name in layer.onnx and layer.reads == ("int8",) for layer in layers), name
    for name in ("t0", "t1"):
        assert all("int8" not in layer.reads for layer in layers if name in layer.onnx)
    residual = that_computes(layers, "a", "r1")
    assert "int8" in residual.reads
    assert residual.gives == ("int8",)
    swish = that_computes(layers, "s", "m")
    assert "int8" not in swish.reads


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "int8", "gates"),
    [("ResNet50", 53, 0), ("PPHGNet_small", 42, 5), ("EfficientNetB0", 49, 32)],
)
def test_whole_models_run_in_int8_and_each_sum_is_one_kernel(name, int8, gates, tmp_path):
    """The figures of docs/tensorrt.md."""
    pytest.importorskip("paddle2onnx", reason="paddle2onnx is not installed")
    bundle = open_bundle(bundle_from_weights(name, None, tmp_path / name))
    source, target = onnx_from_paddle(bundle, verify=None), bundle.root / "inference.int8.onnx"
    options = QuantizeOptions(images=10, method="minmax", min_agreement=0.0)
    preprocess = Preprocessor(bundle.own_preprocess())
    images = find_images(IMAGES) * 2
    int8_from_onnx(source, target, images, preprocess, options, lambda _: None)
    layers = layers_of_int8(target, bundle.root / "inference.int8.rtx.engine")
    convolutions = [layer for layer in layers if layer.kind == "correlation"]
    assert sum(layer.reads == ("int8",) for layer in convolutions) == int8
    nodes = OnnxGraph.read(target).nodes
    assert sum(node.op_type == "Conv" for node in nodes) == int8 + gates
    for node in nodes:
        if node.op_type == "Add":
            assert "int8" in that_computes(layers, node.name).gives
