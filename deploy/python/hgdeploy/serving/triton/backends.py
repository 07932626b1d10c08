# SPDX-License-Identifier: Apache-2.0
"""Triton's backends: the files that each serves, and its settings."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hgdeploy._version import __version__
from hgdeploy.bundle.engine_key import EngineKey
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import engine_name, runtime_named
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.engines import TensorSpec
from hgdeploy.engines.options import PRECISIONS
from hgdeploy.errors import BundleError, ConfigError, nearest
from hgdeploy.serving.triton.files import (
    Network,
    find_images_model,
    find_onnx,
    read_images_model,
    read_onnx,
)
from hgdeploy.system.checks import check, check_fields
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.kinds import BATCH_SIZE, THREADS, one_of, optional, whole

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class TritonOptions:
    """How the server should serve the model.

    Attributes:
        backend: `tensorrt`, `onnxruntime` or `openvino`, which take tensors, or `python`, which
            takes image files.
        precision: which of the bundle's artifacts to serve.
        name: the model's name in the server; None for the bundle's, with `_image` behind it where
            the model takes image files.
        device: `gpu` or `cpu`; None for the GPU with TensorRT, else the CPU.
        instances: copies of the model that run at once, on each device.
        max_batch: the most images of one run; None for what the engine was built for, or 8.
        queue_delay_us: how long a request may wait for others to share its run, in microseconds.
        threads: CPU threads of one instance; None leaves it to the backend.
    """

    backend: str = "tensorrt"
    precision: str = "fp32"
    name: str | None = None
    device: str | None = None
    instances: int = 1
    max_batch: int | None = None
    queue_delay_us: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        check("Triton backend", self.backend, one_of(BACKENDS))
        allowed = BACKENDS[self.backend]
        for what, value, known in (
            ("precision", self.precision, allowed.precisions),
            ("device", self.device or allowed.devices[0], allowed.devices),
        ):
            if value not in known:
                raise ConfigError(
                    f"Triton's {self.backend} backend does not serve {what} {value!r}, "
                    f"{nearest(value, known)}"
                )
        if self.name is not None:
            check_model_name(self.name)
        check_fields(
            self,
            instances=THREADS,
            max_batch=optional(BATCH_SIZE),
            queue_delay_us=whole(0, 60_000_000),
            threads=optional(THREADS),
        )
        if self.threads is not None and not allowed.has_threads:
            raise ConfigError(
                f"threads has no effect on Triton's {self.backend} backend; leave it out"
            )

    @property
    def runs_on(self) -> str:
        """The device that is used: `gpu` or `cpu`."""
        return self.device or BACKENDS[self.backend].devices[0]


@dataclass(frozen=True)
class _Backend:
    """One of Triton's backends.

    Attributes:
        platform: Triton's name for backend and file format; empty where it has none.
        precisions: the precisions that it serves.
        devices: where it runs, the usual one first.
        batches: whether it joins requests into batches of any size up to a maximum.
        has_threads: whether it has a setting for CPU threads.
        find: returns the files to serve, by the name that they get: the model first.
        read: reads the model's inputs and outputs from its source file and the copy to serve.
        parameters: returns the backend's own settings.
        caveats: returns where it cannot do what was asked, and what to do about it.
        suffix: what the name of its models ends in.
    """

    platform: str
    precisions: tuple[str, ...]
    devices: tuple[str, ...]
    batches: bool
    has_threads: bool
    find: Callable[[ModelBundle, str], dict[str, Path]]
    read: Callable[[ModelBundle, Path, Path, str], Network]
    parameters: Callable[[TritonOptions], dict[str, str]]
    caveats: Callable[[TritonOptions], list[str]]
    suffix: str = ""


def check_model_name(name: str) -> str:
    """Return a model's name, if it can be the name of a folder.

    Raises:
        ConfigError: it cannot.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"Triton model name {name!r}, expected letters, digits and . _ - only, since it names "
            "a folder; give the model another name"
        )
    return name


def _find_engine(bundle: ModelBundle, precision: str) -> dict[str, Path]:
    names = {r: engine_name(precision, runtime_named(r)) for r in ("tensorrt", "tensorrt-rtx")}
    rtx = bundle.root / names["tensorrt-rtx"]
    if rtx.is_file() and not (bundle.root / names["tensorrt"]).is_file():
        raise _only_rtx(rtx)
    return {"model.plan": bundle.find((names["tensorrt"],))}


def _only_rtx(path: Path) -> BundleError:
    return BundleError(
        f"{path} is an engine of TensorRT for RTX, which Triton has no backend for; build one with "
        "hgdeploy build --runtime tensorrt"
    )


def _read_engine(_bundle: ModelBundle, source: Path, copy: Path, _precision: str) -> Network:
    """Read the sidecar: only the GPU that an engine was built for can open the engine itself."""
    where = sidecar_path(source)
    facts = read_sidecar(source)
    if facts is None or facts.get("sha256") != file_sha256(copy):
        raise BundleError(
            f"{where} is missing or describes another file, so the inputs of {source.name} are "
            "unknown; build it again with hgdeploy build"
        )
    key = EngineKey.from_json(facts.get("key") or {}, str(where))
    if key.runtime != "tensorrt":
        raise _only_rtx(source)
    if "batches" in dict(key.flags):
        raise BundleError(
            f"{source} has several optimisation profiles, and Triton would use the first; build it "
            "for one range with hgdeploy build --batch, given once"
        )
    try:
        network = facts["network"]
        inputs, outputs = (
            tuple(
                TensorSpec(str(t["name"]), str(t["dtype"]), tuple(int(size) for size in t["shape"]))
                for t in network[side]
            )
            for side in ("inputs", "outputs")
        )
    except (KeyError, TypeError, ValueError):
        raise BundleError(
            f"{where} does not describe the engine's inputs and outputs; build it again with "
            "hgdeploy build"
        ) from None
    return Network(inputs, outputs, key.profile)


def _tensorrt_parameters(_options: TritonOptions) -> dict[str, str]:
    return {}


def _onnxruntime_parameters(options: TritonOptions) -> dict[str, str]:
    return {} if options.threads is None else {"intra_op_thread_count": str(options.threads)}


def _openvino_parameters(options: TritonOptions) -> dict[str, str]:
    alone = options.instances == 1
    settings = {
        "NUM_STREAMS": str(options.instances),
        "PERFORMANCE_HINT": "LATENCY" if alone else "THROUGHPUT",
    }
    if options.threads is not None:
        settings["INFERENCE_NUM_THREADS"] = str(options.threads)
    if options.precision == "bf16":
        settings["HINT_BF16"] = "YES"
    return settings


def _python_parameters(options: TritonOptions) -> dict[str, str]:
    return {} if options.threads is None else {"threads": str(options.threads)}


def _python_caveats(_options: TritonOptions) -> list[str]:
    return [
        f"the Python of Triton's Python back end needs HGDeploy {__version__}, ONNX Runtime and a "
        "numpy that it works with: docs/triton.md"
    ]


def _onnxruntime_caveats(options: TritonOptions) -> list[str]:
    if options.runs_on != "gpu" or options.precision == "fp16":
        return []
    tf32 = (
        "in Triton, ONNX Runtime computes fp32 as TF32 on GPUs that have it; start the server with "
        "NVIDIA_TF32_OVERRIDE=0 for IEEE fp32"
    )
    int8 = "ONNX Runtime only rounds to int8 on a GPU, and computes in fp32; serve with tensorrt"
    return [int8, tf32] if options.precision == "int8" else [tf32]


def _openvino_caveats(options: TritonOptions) -> list[str]:
    if options.precision == "bf16":
        return []
    return [
        "Triton's openvino backend has no setting for fp32 and computes in bf16 on CPUs that have "
        "it; serve with onnxruntime for IEEE fp32"
    ]


BACKENDS: Mapping[str, _Backend] = {
    "tensorrt": _Backend(
        platform="tensorrt_plan",
        precisions=PRECISIONS,
        devices=("gpu",),
        batches=True,
        has_threads=False,
        find=_find_engine,
        read=_read_engine,
        parameters=_tensorrt_parameters,
        caveats=lambda _: [],
    ),
    "onnxruntime": _Backend(
        platform="onnxruntime_onnx",
        precisions=("fp32", "fp16", "int8"),
        devices=("cpu", "gpu"),
        batches=True,
        has_threads=True,
        find=functools.partial(find_onnx, "onnxruntime"),
        read=read_onnx,
        parameters=_onnxruntime_parameters,
        caveats=_onnxruntime_caveats,
    ),
    # With max_batch_size set, it would run every request as a full batch of that size.
    "openvino": _Backend(
        platform="",
        precisions=("fp32", "bf16", "int8"),
        devices=("cpu",),
        batches=False,
        has_threads=True,
        find=functools.partial(find_onnx, "openvino"),
        read=read_onnx,
        parameters=_openvino_parameters,
        caveats=_openvino_caveats,
    ),
    "python": _Backend(
        platform="",
        precisions=("fp32", "fp16", "int8"),
        devices=("cpu", "gpu"),
        batches=True,
        has_threads=True,
        find=find_images_model,
        read=read_images_model,
        parameters=_python_parameters,
        caveats=_python_caveats,
        suffix="_image",
    ),
}
