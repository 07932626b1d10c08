# SPDX-License-Identifier: Apache-2.0
"""What a build is told, and its layers; run by test_tensorrt.py with the fake library."""

from __future__ import annotations

import fake_builder
import fake_tensorrt
import numpy as np
import onnx
import pytest
from fake_gpu import count

from conftest import IMAGES
from hgdeploy import cli
from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8.from_onnx import int8_from_onnx
from hgdeploy.convert.int8.options import QuantizeOptions
from hgdeploy.convert.tensorrt import target_gpu
from hgdeploy.engines import load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.images.find import find_images
from hgdeploy.transforms.preprocess import Preprocessor


@pytest.mark.parametrize("again", [False, True], ids=["built", "that fits"])
def test_the_layers_of_an_engine_are_timed_and_shown(mini, capsys, again):
    command = ["build", str(mini), "--batch", "2"]
    if again:
        assert cli.main(command) == 0
    capsys.readouterr()
    assert cli.main([*command, "--profile"]) == 0
    printed = capsys.readouterr()
    engine = mini / "inference.engine"
    first, head, *rows = printed.out.splitlines()
    assert first == str(engine)
    assert head.split() == ["layer", "type", "precision", "ms", "share", "computes"]
    assert rows[0].split() == ["conv", "+", "relu", "CaskConvolution", "fp32", "0.7500", "75.0%"]
    assert rows[1].split() == ["<fc>", "CaskGemmConvolution", "fp32", "0.2500", "25.0%"]
    assert rows[2].split() == ["all", "layers", "1.0000", "100.0%"]
    assert "no times" not in printed.err
    page = (mini / "inference.engine.profile.html").read_text(encoding="utf-8")
    assert "&lt;fc&gt;" in page
    assert "width:100.0%" in page
    assert "width:33.3%" in page
    assert count("device bytes") == 0


def test_the_sidecar_lists_the_layers(mini):
    assert cli.main(["build", str(mini)]) == 0
    facts = read_sidecar(mini / "inference.engine")
    assert facts is not None
    told = facts["network"]["engine"]
    names = [layer["name"] for layer in told["layer_list"]]
    assert names == [name for name, _, _ in fake_tensorrt.LAYERS]
    assert told["precisions"] == {"fp32": 2}


def test_an_engine_is_built_for_other_gpus_and_later_versions_where_asked(mini, monkeypatch):
    seen = []
    whole = fake_builder.Builder.build_serialized_network

    def noting(builder, network, config):
        seen.append((config.flags, config.hardware_compatibility_level.name))
        return whole(builder, network, config)

    monkeypatch.setattr(fake_builder.Builder, "build_serialized_network", noting)
    flags = ("--hardware-compatibility", "ampere+", "--version-compatible")
    for given in (flags, flags, ()):
        assert cli.main(["build", str(mini), *given]) == 0
    compatible = {fake_builder.BuilderFlag.VERSION_COMPATIBLE}
    assert seen == [(compatible, "AMPERE_PLUS"), (set(), "NONE")]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--tiling-level", "1"), "tensorrt 10.16.1.11 has no --tiling-level; 10.8 has"),
        (
            ("--hardware-compatibility", "same-compute-capability"),
            "tensorrt 10.16.1.11 has no --hardware-compatibility same-compute-capability; 10.9 has",
        ),
    ],
)
def test_what_an_older_version_lacks_is_refused_by_name(mini, capsys, flags, message):
    """The fake has as little as TensorRT 10.4."""
    assert cli.main(["build", str(mini), *flags]) == 2
    assert message in capsys.readouterr().err


def test_what_the_gpu_lacks_is_refused_by_name(mini, capsys, monkeypatch):
    monkeypatch.setattr(target_gpu, "open_device", lambda _: Turing())
    for flags, message in (
        (("--precision", "tf32"), "tf32 needs compute capability 8.0 (Ampere) or later, and 7.5"),
        (
            ("--hardware-compatibility", "ampere+"),
            "--hardware-compatibility ampere+ needs compute capability 8.0 or later, and this GPU",
        ),
    ):
        assert cli.main(["build", str(mini), *flags]) == 2
        assert message in capsys.readouterr().err


class Turing:
    """An older GPU."""

    name, compute_capability = "T4", "7.5"


def test_an_int8_file_runs_with_the_rest_in_fp16(mini, golden):
    """The file stays as it is; what is built of it is its own affair."""
    source, options = mini / "folded.onnx", QuantizeOptions(images=10, min_agreement=0.0)
    onnx.save(OnnxGraph.read(mini / "inference.onnx").folded()[0].model, source)
    preprocess = Preprocessor(open_bundle(mini).own_preprocess())
    target, images = mini / "inference.int8.onnx", find_images(IMAGES) * 2
    int8_from_onnx(source, target, images, preprocess, options, lambda _: None)
    before = target.read_bytes()
    assert cli.main(["build", str(mini), "--precision", "int8", "--batch", "1,4"]) == 0
    assert target.read_bytes() == before
    options = EngineOptions(device="gpu:0", precision="int8", max_batch=4)
    with load_engine("tensorrt", mini / "inference.int8.engine", options) as engine:
        found = engine.infer({"x": golden["x"][:4]})["probabilities"]
    np.testing.assert_allclose(found, golden["probabilities"][:4], atol=0.2)
