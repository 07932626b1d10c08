# SPDX-License-Identifier: Apache-2.0
"""What goes together among drivers, GPUs and libraries, on machines that are only described."""

from __future__ import annotations

import pytest

from hgdeploy.gpu.driver import NvidiaGpu
from hgdeploy.gpu.rules import problems
from hgdeploy.gpu.stack import DISTRIBUTIONS, Stack, release, stack_here

V100 = NvidiaGpu(0, "Tesla V100-SXM2-16GB", (7, 0), 16384)
T4 = NvidiaGpu(0, "Tesla T4", (7, 5), 15360)
A100 = NvidiaGpu(0, "NVIDIA A100-SXM4-40GB", (8, 0), 40960)
H100 = NvidiaGpu(0, "NVIDIA H100 80GB HBM3", (9, 0), 81920)
B200 = NvidiaGpu(0, "NVIDIA B200", (10, 0), 180000)
RTX_5090 = NvidiaGpu(0, "NVIDIA GeForce RTX 5090", (12, 0), 32768)
P100 = NvidiaGpu(0, "Tesla P100-PCIE-16GB", (6, 0), 16384)

CU12 = frozenset(["libcudart.so.12", "libcudnn.so.9"])
CU13 = frozenset(["libcudart.so.13", "libcudnn.so.9"])


def machine(
    gpus: NvidiaGpu | tuple[NvidiaGpu, ...] = (),
    cuda: str | None = None,
    libraries: frozenset[str] | None = None,
    **versions: str,
) -> Stack:
    """Describe a machine; `tensorrt_cu12="10.4.0"` installs that."""
    gpus = gpus if isinstance(gpus, tuple) else (gpus,)
    named = {name.replace("_", "-"): version for name, version in versions.items()}
    assert set(named) <= set(DISTRIBUTIONS)
    return Stack(cuda, gpus, named, libraries)


@pytest.mark.parametrize(
    "stack",
    [
        machine(gpus=V100, cuda="12.4", tensorrt_cu12="10.4.0", cuda_bindings="12.9.4"),
        machine(gpus=T4, cuda="12.2", tensorrt_cu12="11.4.0.106", tensorrt_rtx_cu12="1.7.1.116"),
        machine(gpus=A100, cuda="12.8", onnxruntime_gpu="1.26.0", libraries=CU12),
        machine(gpus=H100, cuda="13.0", onnxruntime_gpu="1.31.1", libraries=CU13),
        machine(gpus=H100, cuda="13.0", onnxruntime_gpu="1.26.0", libraries=CU12),
        machine(gpus=H100, cuda="13.0", tensorrt="11.4.0.106", tensorrt_cu13="11.4.0.106"),
        machine(gpus=RTX_5090, cuda="12.9", tensorrt_cu12="10.8.0.43"),
        machine(gpus=A100, cuda="12.8", paddlepaddle_gpu="3.3.1"),
        machine(gpus=A100, cuda="12.8", paddlepaddle_gpu="0.0.0"),  # built from its sources
        machine(
            gpus=A100, cuda="12.8", tensorrt="10.3.0", cuda_python="12.9.1"
        ),  # NVIDIA's archive
        machine(onnxruntime="1.32.0", paddlepaddle="3.3.1", tensorrt_rtx_cu13="1.7.1.116"),
        machine(gpus=(), cuda=None),
    ],
)
def test_what_goes_together_is_not_complained_of(stack: Stack):
    assert problems(stack) == []


@pytest.mark.parametrize(
    ("stack", "words"),
    [
        (
            machine(gpus=T4, cuda="12.4", tensorrt="10.14.1.48", tensorrt_cu13="10.14.1.48"),
            (
                "tensorrt-cu13 10.14.1.48 is for CUDA 13",
                "uninstall tensorrt-cu13 tensorrt-cu13-bindings",
                "CUDA 12.4",
                "'.[tensorrt-cu12]'",
                "R580",
            ),
        ),
        (
            machine(gpus=T4, cuda="12.4", onnxruntime_gpu="1.27.0", libraries=CU13),
            (
                "onnxruntime-gpu 1.27.0 is for CUDA 13",
                "CUDA 12.4",
                "'.[gpu-cu12]'",
                "R580",
            ),
        ),
        (
            machine(gpus=T4, cuda="11.8", onnxruntime_gpu="1.23.2", libraries=CU12),
            ("onnxruntime-gpu 1.23.2 is for CUDA 12", "CUDA 11.8", "install a driver from R525"),
        ),
        (
            machine(gpus=T4, cuda="12.4", tensorrt_rtx="1.7.1.116", tensorrt_rtx_cu13="1.7.1.116"),
            ("tensorrt-rtx-cu13 1.7.1.116 is for CUDA 13", "'.[tensorrt-rtx-cu12]'"),
        ),
        (
            machine(gpus=T4, cuda="12.4", cuda_bindings="13.5.0"),
            ("cuda-bindings 13.5.0 is for CUDA 13", "'.[tensorrt-cu12]'"),
        ),
        (
            machine(gpus=T4, cuda="12.4", cuda_python="12.6.0"),
            ("cuda-python 12.6.0 holds Python's lock", "cuda-python>=12.9.1"),
        ),
        (
            machine(gpus=T4, cuda="12.4", cuda_python="12.9.0", cuda_bindings="12.9.0"),
            ("cuda-bindings 12.9.0 holds Python's lock",),
        ),
        (
            machine(onnxruntime="1.32.0", onnxruntime_gpu="1.26.0"),
            ("onnxruntime 1.32.0 and onnxruntime-gpu 1.26.0 overwrite", "pip uninstall"),
        ),
        (
            machine(paddlepaddle="3.3.1", paddlepaddle_gpu="3.3.1"),
            ("paddlepaddle 3.3.1 and paddlepaddle-gpu 3.3.1 overwrite", "pip uninstall"),
        ),
        (
            machine(tensorrt_cu12="10.4.0", tensorrt_cu13="11.4.0.106"),
            ("tensorrt-cu12 10.4.0 and tensorrt-cu13 11.4.0.106 overwrite",),
        ),
        (
            machine(gpus=A100, cuda="12.8", onnxruntime_gpu="1.26.0", libraries=CU13),
            ("needs libcudart.so.12, which", "'.[gpu-cu12]'"),
        ),
        (
            machine(gpus=A100, cuda="13.0", onnxruntime_gpu="1.31.1", libraries=frozenset()),
            ("needs libcudart.so.13 and libcudnn.so.9, which", "'.[gpu-cu13]'"),
        ),
        (
            machine(gpus=A100, cuda="12.8", paddlepaddle_gpu="2.6.2"),
            ("paddlepaddle-gpu 2.6.2 cannot read inference.json", "Paddle's own index"),
        ),
        (
            machine(paddlepaddle="2.6.2"),
            ("paddlepaddle 2.6.2 cannot read inference.json", "install Paddle 3"),
        ),
        (
            machine(gpus=V100, cuda="12.4", tensorrt_cu12="10.5.0"),
            ("10.5.0 does not serve gpu:0 Tesla V100", "10.4 is the last", "tensorrt-cu12==10.4.*"),
        ),
        (
            machine(gpus=V100, cuda="13.0", onnxruntime_gpu="1.31.1", libraries=CU13),
            (
                "onnxruntime-gpu 1.31.1 is for CUDA 13, which does not serve",
                "7.0",
                "'.[gpu-cu12]'",
            ),
        ),
        (
            machine(gpus=B200, cuda="12.8", tensorrt_cu12="10.7.0.post1"),
            ("10.7.0.post1 does not serve gpu:0 NVIDIA B200", "10.8 is the first", ">=10.8"),
        ),
        (
            machine(gpus=P100, cuda="12.4", tensorrt_cu12="10.4.0"),
            ("does not serve gpu:0 Tesla P100", "no TensorRT from 10 on does"),
        ),
        (
            machine(gpus=H100, cuda="13.0", tensorrt_rtx_cu13="1.7.1.116"),
            ("tensorrt-rtx-cu13 1.7.1.116 does not serve gpu:0 NVIDIA H100", "use tensorrt"),
        ),
    ],
)
def test_what_does_not_go_together_is_one_line_that_says_what_to_do(
    stack: Stack, words: tuple[str, ...]
):
    [(_, text)] = problems(stack)
    assert "\n" not in text
    for word in words:
        assert word in text


def test_gpus_of_one_kind_are_complained_of_once_and_others_each():
    second = NvidiaGpu(1, V100.name, V100.compute_capability, V100.memory_mb)
    third = NvidiaGpu(2, B200.name, B200.compute_capability, B200.memory_mb)
    found = problems(machine((V100, second, third), "12.8", tensorrt_cu12="10.6.0"))
    assert [problem.text.split(" does not serve ")[1][:5] for problem in found] == [
        "gpu:0",
        "gpu:2",
    ]


@pytest.mark.parametrize(
    ("version", "numbers"),
    [
        ("10.14.1.48.post1", (10, 14, 1, 48)),
        ("3.0.0-beta1", (3, 0, 0)),
        ("1.26.0+cu12", (1, 26, 0)),
    ],
)
def test_a_version_counts_by_its_numbers(version: str, numbers: tuple[int, ...]):
    assert release(version) == numbers


def test_this_machine_can_be_described():
    stack = stack_here()
    assert stack.versions.get("onnxruntime") or stack.versions.get("onnxruntime-gpu")
    assert (stack.cuda is not None) >= bool(stack.gpus)
