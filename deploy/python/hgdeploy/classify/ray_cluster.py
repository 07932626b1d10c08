# SPDX-License-Identifier: Apache-2.0
"""The Ray cluster: started or connected to, and how it is divided among workers."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from hgdeploy.classify.classifier import Classifier
from hgdeploy.errors import ConfigError, EngineError, one_line
from hgdeploy.system.libraries import installing, keeping_sigterm
from hgdeploy.system.machine import available_cpus
from hgdeploy.system.progress import OnLine

LOCAL = "local"
_ADDRESS = re.compile(r"[^/\s]+:\d+")
_CONNECT_SECONDS = 10.0


@contextlib.contextmanager
def ray_cluster(address: str) -> Iterator[None]:
    """Start Ray on this machine, or connect to a cluster; leaving the context undoes that.

    If this process has already called `ray.init`, that cluster is used and left as it is.

    Args:
        address: `local`, `auto` for this machine's own cluster, or the HOST:PORT of a cluster.

    Raises:
        ConfigError: another form of address.
        EngineError: Ray is not installed, or there is no cluster at the address.
    """
    if address not in (LOCAL, "auto") and not _ADDRESS.fullmatch(address):
        raise ConfigError(
            f"--ray {address}: expected local, auto or the HOST:PORT of a cluster that this "
            "machine belongs to"
        )
    # Otherwise Ray would send usage statistics to its makers, and its C++ code would write to
    # stderr about errors that this module reports itself, and about things that are not errors.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise EngineError(
            f"--ray needs Ray Data ({one_line(error)}): {installing('ray')}"
        ) from None
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    if ray.is_initialized():
        yield
        return
    try:
        if ":" in address:  # Ray itself would try for more than ten minutes
            host, port = address.rsplit(":", 1)
            socket.create_connection((host.strip("[]"), int(port)), _CONNECT_SECONDS).close()
        with keeping_sigterm():
            ray.init(
                address,
                num_cpus=available_cpus() if address == LOCAL else None,
                include_dashboard=False if address == LOCAL else None,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
            )
    except Exception as error:  # of many types: an address, a version, a timeout
        ray.shutdown()
        raise EngineError(f"--ray {address}: cannot use this cluster: {one_line(error)}") from None
    try:
        yield
    finally:
        with stdout_to_stderr():
            ray.shutdown()


def stdout_to_stderr() -> contextlib.AbstractContextManager[object]:
    """Send what Ray's threads print to stdout to stderr: stdout is for results."""
    return contextlib.redirect_stdout(sys.stderr)


@dataclass(frozen=True)
class Pool:
    """How many workers there are, and how many CPUs and GPUs each of them has."""

    workers: int
    cpus: int
    gpus: int


def divide_cluster(classifier: Classifier, on_warning: OnLine) -> Pool:
    """Return how many workers fit, if each has as many CPUs as the run has here.

    A worker has fewer if even the largest machine does not have that many.

    Args:
        classifier: gives the device and the CPUs.
        on_warning: called with a line if CPUs are left over.

    Raises:
        ConfigError: a GPU other than the first was asked for.
        EngineError: no machine of the cluster has what a worker needs.
    """
    import ray

    device = classifier.settings.options.device
    if device not in ("cpu", "gpu:0"):
        raise ConfigError(
            f"--device {device} has no meaning with --ray, which gives each worker a GPU of its "
            "own; use gpu:0"
        )
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if device == "cpu":
        each = min(classifier.cpus, max(cpus, default=0))
        workers = sum(count // each for count in cpus) if each else 0
        if workers * each < sum(cpus):
            on_warning(
                f"Ray: {workers} workers of {each} CPUs use {workers * each} of {sum(cpus)} CPUs; "
                "choose --threads so that it divides the CPUs of each machine"
            )
    else:
        shares = [cpu // gpu for cpu, gpu in zip(cpus, gpus, strict=True) if gpu]
        each, workers = min([classifier.cpus, *shares]), sum(gpus)
    if not workers or not each:
        raise EngineError(f"the Ray cluster has no machine with what {device} needs: {nodes}")
    return Pool(workers, each, 0 if device == "cpu" else 1)
