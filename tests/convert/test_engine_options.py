# SPDX-License-Identifier: Apache-2.0
"""Options of a TensorRT build: what reaches the library, what the key keeps, what is refused.

TensorRT-RTX builds without a GPU, so these builds are real.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import require_engine
from hgdeploy import cli
from hgdeploy.bundle.names import engine_name, onnx_name, runtime_named
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError

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
