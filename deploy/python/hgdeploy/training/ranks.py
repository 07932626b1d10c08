# SPDX-License-Identifier: Apache-2.0
"""The processes that train together, as `paddle.distributed.launch` starts them, and the device."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from dataclasses import dataclass
from typing import Any

from hgdeploy.errors import EngineError, one_line
from hgdeploy.system.libraries import import_library
from hgdeploy.system.machine import available_cpus, cpu_flags, is_amd

_EQUAL = 1e-6  # of a sum: what is left of sums in another order


@dataclass(frozen=True)
class Ranks:
    """Which of them this process is.

    Attributes:
        rank: its number, from 0; the first one writes files and tells how far all are.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and tells."""
        return self.rank == 0

    def joined(self, network: Any) -> Any:
        """Return a network whose gradients are the mean of those of all processes."""
        if self.count == 1:
            return network
        return import_library("paddle", "cpu").DataParallel(network)

    def mean(self, value: float) -> float:
        """Return the mean of a number over all processes; each must ask."""
        if self.count == 1:
            return value
        paddle = import_library("paddle", "cpu")
        tensor = paddle.to_tensor([value], dtype="float64")
        paddle.distributed.all_reduce(tensor)
        return float(tensor.item()) / self.count

    def check_equal(self, network: Any) -> None:
        """Check that all processes have learned the same weights; each must ask.

        Raises:
            EngineError: they have not, so that each has trained on a part of the images alone.
        """
        if self.count == 1:
            return
        learned = [one for one in network.parameters() if not one.stop_gradient]
        own = sum(float(one.abs().astype("float64").sum().item()) for one in learned)
        if self.any(abs(self.mean(own) - own) > _EQUAL * own):
            raise EngineError(
                f"the weights of the {self.count} processes differ, though their gradients are "
                "averaged: do all have the same version of Paddle, and the same config?"
            )

    def any(self, flag: bool) -> bool:
        """Return whether one of the processes says so; each must ask."""
        return flag if self.count == 1 else self.mean(float(flag)) > 0


def is_first_process() -> bool:
    """Return whether this process is the one that writes and tells, before all have met."""
    return os.environ.get("PADDLE_TRAINER_ID", "0") == "0"


def _use_cpu_well(processes: int) -> None:
    """Set, unless the user has, what Paddle's matrix library reads when Paddle is imported.

    Paddle trains on one core by default. Its library is an MKL of 2019, which takes its slowest
    path on an AMD processor unless this variable names a better one: PPHGNet_tiny trained 2.9 times
    as fast on an EPYC with it, in one thread.
    """
    if "paddle" in sys.modules:
        return
    threads = max(1, available_cpus() // processes - (processes == 1))  # one reads the images
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("KMP_BLOCKTIME", "1")  # ms that a thread without work keeps its core
    if is_amd() and "avx2" in cpu_flags():
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")
    # Paddle prints that OpenBLAS, which no wheel of it has, could not take several threads.
    with contextlib.redirect_stderr(io.StringIO()):
        import_library("paddle", "cpu")


def use_device(device: str) -> Ranks:
    """Have Paddle compute on a device, together with the other processes of a launch.

    Args:
        device: `cpu` or `gpu`; of several GPUs, each process takes the one that the launch gave it.

    Raises:
        EngineError: there is no such device, or the processes cannot meet.
    """
    count = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if device == "cpu":
        _use_cpu_well(count)
    paddle = import_library("paddle", "cpu")
    gpus = paddle.device.cuda.device_count() if paddle.is_compiled_with_cuda() else 0
    if device != "cpu" and not gpus:
        built = "finds no GPU" if paddle.is_compiled_with_cuda() else "is a build for the CPU"
        raise EngineError(
            f"Global.device is gpu, PaddleClas's default, and Paddle {paddle.__version__} here "
            f"{built}; give -o Global.device=cpu"
        )
    paddle.set_device("cpu" if device == "cpu" else "gpu")
    if count == 1:
        return Ranks()
    try:
        paddle.distributed.init_parallel_env()
    except (RuntimeError, ValueError) as error:
        raise EngineError(f"the {count} processes cannot meet: {one_line(error)}") from None
    return Ranks(paddle.distributed.get_rank(), count)
