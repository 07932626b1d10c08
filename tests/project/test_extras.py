# SPDX-License-Identifier: Apache-2.0
"""The extras of setup.cfg: what they install goes together, and what we advise exists."""

from __future__ import annotations

import configparser
import re

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from conftest import REPO

SETUP = configparser.ConfigParser()
SETUP.read(REPO / "setup.cfg", encoding="utf-8")
EXTRAS = {
    name: [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]
    for name, text in SETUP["options.extras_require"].items()
}
GPU = [n for n in EXTRAS if n.startswith(("gpu-", "tensorrt-")) and n != "tensorrt-rtx"]
# Such as `pip install -e '.[cpu,convert]'`, installing("cpu", "gpu-cu12") or
# import_library("onnx", "convert").
_QUOTED = r"""(?:["'][a-z0-9-]+["'](?:, )?)+"""
ADVICE = re.compile(
    rf"'\.\[([a-z0-9,-]+)\]'|\binstalling\(({_QUOTED})\)|\bimport_library\([^,()]+, ({_QUOTED})\)"
)


def wanted(extra: str) -> dict[str, Requirement]:
    """What an extra installs, through the extras of ours that it stands for."""
    found = {}
    for requirement in EXTRAS[extra]:
        if requirement.name == "hgdeploy":
            for inner in requirement.extras:
                found |= wanted(inner)
        else:
            found[requirement.name] = requirement
    return found


def takes(extra: str, name: str, version: str) -> bool:
    return Version(version) in wanted(extra)[name].specifier


@pytest.mark.parametrize("extra", EXTRAS)
def test_no_extra_brings_what_overwrites_another(extra: str):
    """Plain names are for whichever CUDA is newest; Paddle for GPUs is not on the registry."""
    names = set(wanted(extra))
    assert not names & {"tensorrt", "paddlepaddle-gpu"}
    assert extra in ("cpu", "test") or not names & {"onnxruntime", "paddlepaddle", "tensorrt-rtx"}
    assert len({name for name in names if name.startswith(("tensorrt", "onnxruntime"))}) <= 1


@pytest.mark.parametrize("extra", GPU)
def test_extras_for_a_gpu_say_which_cuda_they_are_for(extra: str):
    cuda = extra.rpartition("-cu")[2]
    assert cuda in ("12", "13")
    found = wanted(extra)
    assert "nvidia-ml-py" in found
    if extra.startswith("tensorrt"):
        assert extra in found
        assert takes(extra, "cuda-python", {"12": "12.9.1", "13": "13.4.4"}[cuda])
        for other in ("12.6.0", "12.9.0", {"12": "13.4.4", "13": "12.9.1"}[cuda]):
            assert not takes(extra, "cuda-python", other)
    else:
        assert found["onnxruntime-gpu"].extras == {"cuda", "cudnn"}
        assert takes(extra, "onnxruntime-gpu", {"12": "1.26.0", "13": "1.27.0"}[cuda])
        assert not takes(extra, "onnxruntime-gpu", {"12": "1.27.0", "13": "1.26.0"}[cuda])


def test_the_v100_gets_its_last_tensorrt():
    assert takes("tensorrt-cu12", "tensorrt-cu12", "10.4.0")


@pytest.mark.parametrize("extra", ["gpu", "tensorrt", "tensorrt-rtx"])
def test_a_name_without_cuda_means_the_one_that_every_driver_runs(extra: str):
    assert wanted(extra) == wanted(f"{extra}-cu12")


def test_every_extra_that_we_advise_exists():
    advised: dict[str, str] = {}
    for folder, kinds in {"deploy": "*.py", "benchmarks": "*.py", "docs": "*.md"}.items():
        for path in (REPO / folder).rglob(kinds):
            for found in ADVICE.findall(path.read_text(encoding="utf-8")):
                advised |= dict.fromkeys(re.findall("[a-z0-9-]+", " ".join(found)), path.name)
    assert {"cpu", "convert", "gpu-cu12", "ray", "openvino"} <= set(advised)
    assert not {name: path for name, path in advised.items() if name not in EXTRAS}
