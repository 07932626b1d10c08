# SPDX-License-Identifier: Apache-2.0
"""Write a bundle as a model repository for NVIDIA's Triton Inference Server.

`config.pbtxt` is built as the protobuf message that the server itself parses, and what it says of
the model's inputs and outputs is read from the served file or, for TensorRT, from its sidecar.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.bundle.engine_key import EngineKey, Profile
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import engine_name, runtime_named
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.engines import TensorSpec, engine_module, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import (
    BundleError,
    ConfigError,
    EngineError,
    OutputError,
    nearest,
    one_line,
)
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.libraries import import_library
from hgdeploy.transforms.operators_config import ops_to_config
from hgdeploy.transforms.preprocess import Preprocessor

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
# The parameter of a model's config that carries our own facts, as JSON.
FACTS = "hgdeploy"

_VERSION_FOLDER = "1"
# Where the model allows any batch and none is asked for.
_DEFAULT_MAX_BATCH = 8
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DTYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
}


@dataclass(frozen=True)
class TritonOptions:
    """What the server is to do with the model.

    Attributes:
        backend: `tensorrt`, `onnxruntime` or `openvino`.
        precision: which of the bundle's artifacts to serve.
        name: the model's name in the server; None takes the bundle's.
        device: `gpu` or `cpu`; None takes the GPU for TensorRT, else the CPU.
        instances: copies of the model that run at once, on each device.
        max_batch: the most images of one run; None takes what the engine was built for, or 8.
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
        if self.backend not in _BACKENDS:
            raise ConfigError(
                f"unknown Triton backend {self.backend!r}, {nearest(self.backend, _BACKENDS)}"
            )
        allowed = _BACKENDS[self.backend]
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
            _checked_name(self.name)
        for what, number, least in (
            ("instances", self.instances, 1),
            ("max_batch", self.max_batch, 1),
            ("queue_delay_us", self.queue_delay_us, 0),
            ("threads", self.threads, 1),
        ):
            if number is not None and number < least:
                raise ConfigError(f"{what} is {number}, expected at least {least}")
        if self.threads is not None and self.backend == "tensorrt":
            raise ConfigError("threads has no effect on Triton's tensorrt backend; leave it out")

    @property
    def runs_on(self) -> str:
        """`gpu` or `cpu`."""
        return self.device or _BACKENDS[self.backend].devices[0]


@dataclass(frozen=True)
class _Network:
    """What the served file takes and gives; `profile` is that of a TensorRT engine."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    profile: Profile | None = None

    @property
    def any_batch(self) -> bool:
        """Every input and output leaves its first axis open."""
        return all(spec.shape[:1] == (-1,) for spec in (*self.inputs, *self.outputs))


@dataclass(frozen=True)
class _Backend:
    """One of Triton's backends.

    Attributes:
        platform: Triton's name for backend and file format; empty where it has none.
        precisions: what it can be asked for.
        devices: where it runs, the usual one first.
        batches: it joins requests into batches of any size up to a maximum.
        find: names the files to serve, by the name that they get: the model first.
        read: reads what the model takes and gives from its files: source, and copy to be served.
        parameters: its own settings.
        caveats: what it does otherwise than was asked for, and how to have it so.
    """

    platform: str
    precisions: tuple[str, ...]
    devices: tuple[str, ...]
    batches: bool
    find: Callable[[ModelBundle, str], dict[str, Path]]
    read: Callable[[Path, Path, str], _Network]
    parameters: Callable[[TritonOptions], dict[str, str]]
    caveats: Callable[[TritonOptions], list[str]]


def triton_repository(
    bundle: ModelBundle, folder: Path, options: TritonOptions, warn: Callable[[str], None]
) -> Path:
    """Write `FOLDER/NAME/config.pbtxt`, `FOLDER/NAME/1/MODEL` and, with labels, `labels.txt`.

    The config's parameter `hgdeploy` holds JSON: `preprocess` is the bundle's own preprocessing,
    in PaddleClas's words, so that a client can ask the server how to make a tensor of an image.

    Args:
        bundle: the bundle; it has the artifact of the backend and precision.
        folder: the model repository. A model of that name in it is replaced if it was written from
            this bundle and nobody has changed or added anything since.
        options: what the server is to do.
        warn: takes a line for what a client or operator has to know.

    Returns:
        The model's folder, `FOLDER/NAME`; it is there whole, or as it was before.

    Raises:
        BundleError: the artifact is missing or stale, or does not fit the backend or the labels.
        ConfigError: the model cannot be served as asked.
        EngineError: tritonclient, or ONNX Runtime for an ONNX file, is not installed.
        OutputError: the folder cannot be written, or holds something else.
    """
    _schema()  # first: without it there is nothing to write
    backend, identity = _BACKENDS[options.backend], _identity(bundle)
    name = options.name or _checked_name(identity)
    files = backend.find(bundle, options.precision)
    target = folder / name
    _check_replaceable(target, identity)
    with _aside(target) as made:
        version = made / _VERSION_FOLDER
        version.mkdir(parents=True)
        for served, source in files.items():
            shutil.copyfile(source, version / served)
        model, source = next(iter(files.items()))
        network = backend.read(source, version / model, options.precision)
        _check_fit(bundle, network, source)
        config = _config(name, model, network, options)
        labels = _labels(bundle, network, source)
        if labels is not None:
            text = "".join(f"{label}\n" for label in labels)
            (made / LABELS_FILE).write_text(text, encoding="utf-8", newline="\n")
            config.output[0].label_filename = LABELS_FILE
        _add_warmup(config, bundle, network.profile)
        _add_facts(config, made, bundle, options)
        _write_config(config, made / CONFIG_FILE)
        _publish(made, target)
    for note in (*backend.caveats(options), *_notes(config, bundle, network)):
        warn(note)
    return target


def _identity(bundle: ModelBundle) -> str:
    return bundle.model_name or bundle.root.resolve().name


def _checked_name(name: str) -> str:
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


def _read_engine(source: Path, copy: Path, _precision: str) -> _Network:
    """Read the sidecar, since only the GPU that an engine was built for can open it."""
    where = sidecar_path(source)
    facts = read_sidecar(source)
    if facts is None or facts.get("sha256") != file_sha256(copy):
        raise BundleError(
            f"{where} is missing or describes another file, so what {source.name} takes is "
            "unknown; build it again with hgdeploy build"
        )
    key = EngineKey.from_json(facts.get("key") or {}, str(where))
    if key.runtime != "tensorrt":
        raise _only_rtx(source)
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
            f"{where} does not say what the engine takes and gives; build it again with "
            "hgdeploy build"
        ) from None
    return _Network(inputs, outputs, key.profile)


def _find_onnx(engine: str, bundle: ModelBundle, precision: str) -> dict[str, Path]:
    """Name the ONNX file that one of our engines reads, and the files that hold its weights."""
    names = engine_module(engine).artifact_names(precision)
    path = bundle.find([name for name in names if name.endswith(".onnx")])
    beside = (read_sidecar(path) or {}).get("files", {})
    files = {"model.onnx": path}
    for name in beside:
        if Path(name).name != name or name in files or not path.with_name(name).is_file():
            raise BundleError(
                f"{path} keeps weights in {name!r}, which is not a file beside it; make it anew "
                "with hgdeploy convert"
            )
        files[name] = path.with_name(name)
    return files


def _read_onnx(source: Path, copy: Path, precision: str) -> _Network:
    """Load the copy, which shows that it is whole: weights in other files are found beside it."""
    options = EngineOptions(precision=precision, threads=1, graph_optimization=False)
    try:
        engine = load_engine("onnxruntime", copy, options)
    except BundleError as error:
        raise BundleError(
            f"{source} cannot be served, its copy does not load ({error}); make it anew with "
            "hgdeploy convert or quantize"
        ) from None
    try:
        return _Network(engine.inputs, engine.outputs)
    finally:
        engine.close()


def _check_fit(bundle: ModelBundle, network: _Network, source: Path) -> None:
    """Refuse a model that is no image classifier, or not what the bundle's preprocessing feeds."""
    for spec in (*network.inputs, *network.outputs):
        if spec.dtype not in _DTYPES:
            raise BundleError(f"{source}: {spec.name} is {spec.dtype}, which Triton does not serve")
    if len(network.inputs) != 1 or len(network.inputs[0].shape) != 4 or not network.outputs:
        told = ", ".join(f"{spec.name} {list(spec.shape)}" for spec in network.inputs)
        raise BundleError(f"{source} is no image classifier: expected one NCHW input, got {told}")
    if bundle.preprocess is None:
        return
    spec, made = network.inputs[0], Preprocessor(bundle.preprocess)
    size = made.output_size or (-1, -1)
    fits = all(-1 in pair or pair[0] == pair[1] for pair in zip(size, spec.shape[2:], strict=True))
    if not fits or made.dtype.name != spec.dtype:
        raise BundleError(
            f"{source} takes {spec.dtype} of {spec.shape[3]}x{spec.shape[2]}, but the bundle's "
            f"preprocessing makes {made.dtype.name} of {size[1]}x{size[0]} (width x height, -1 "
            "is any)"
        )


def _labels(bundle: ModelBundle, network: _Network, source: Path) -> list[str] | None:
    """Return a name for each class in their order; None where the bundle has none."""
    if bundle.postprocess is None or bundle.postprocess.output.labels is None:
        return None
    labels, shape = bundle.postprocess.output.labels, network.outputs[0].shape
    classes = shape[-1] if shape and shape[-1] != -1 else len(labels)
    bundle.postprocess.check_classes(classes, source)
    ordered = [labels[index] for index in range(classes)]
    for label in ordered:
        if "\n" in label:
            raise BundleError(
                f"{bundle.root}: the label {label!r} has more than one line, and Triton reads one "
                "label a line; shorten it in inference.yml"
            )
    return ordered


def _max_batch(network: _Network, options: TritonOptions) -> int:
    """Return Triton's `max_batch_size`: 0 where a request's shape is the model's as it stands."""
    backend, profile = _BACKENDS[options.backend], network.profile
    if not (backend.batches and network.any_batch):
        why = "the model has a fixed batch" if backend.batches else "the backend joins no requests"
        if options.max_batch is not None or options.queue_delay_us:
            raise ConfigError(
                f"{options.backend}: max_batch and queue_delay_us do not apply, since {why}; leave "
                "them out" + (", or make the model with a dynamic batch" if backend.batches else "")
            )
        return 0
    least, most = (profile.batch[0], profile.batch[2]) if profile is not None else (1, None)
    wanted = options.max_batch or most or _DEFAULT_MAX_BATCH
    if wanted < least or (most is not None and wanted > most):
        raise ConfigError(
            f"max_batch is {wanted}, but the engine serves batches of {least} to {most}; choose "
            "one of these, or build it anew with hgdeploy build --batch"
        )
    if wanted == 1 and options.queue_delay_us:
        raise ConfigError("queue_delay_us does not apply to batches of 1; leave it out")
    return wanted


def _config(name: str, model: str, network: _Network, options: TritonOptions) -> Any:
    """Build the `ModelConfig`, but for what depends on the bundle."""
    schema, backend = _schema(), _BACKENDS[options.backend]
    max_batch = _max_batch(network, options)
    first_axis = 1 if max_batch else 0
    config = schema.ModelConfig(
        name=name,
        platform=backend.platform,
        backend=options.backend,
        default_model_filename=model,
        max_batch_size=max_batch,
    )
    config.version_policy.latest.num_versions = 1
    for spec in network.inputs:
        # Triton allows a format only where dims are the three of an image.
        layout = "FORMAT_NCHW" if max_batch else "FORMAT_NONE"
        config.input.add(
            name=spec.name,
            data_type=_DTYPES[spec.dtype],
            format=layout,
            dims=spec.shape[first_axis:],
        )
    for spec in network.outputs:
        config.output.add(
            name=spec.name, data_type=_DTYPES[spec.dtype], dims=spec.shape[first_axis:]
        )
    config.instance_group.add(kind=f"KIND_{options.runs_on.upper()}", count=options.instances)
    for key, value in backend.parameters(options).items():
        config.parameters[key].string_value = value
    if max_batch > 1:
        batching = config.dynamic_batching
        batching.max_queue_delay_microseconds = options.queue_delay_us
        batching.SetInParent()
    if network.profile is not None:
        _tune_for_profile(config, network.profile)
    return config


def _tune_for_profile(config: Any, profile: Profile) -> None:
    """Prefer the batches that an engine is tuned for, and replay them as CUDA graphs."""
    if config.HasField("dynamic_batching"):
        sizes = {size for size in profile.batch[1:] if 1 < size <= config.max_batch_size}
        config.dynamic_batching.preferred_batch_size.extend(sorted(sizes))
    # A graph is of one shape, and Triton makes one for each batch size only.
    if -1 not in config.input[0].dims:
        config.optimization.cuda.graphs = True


def _add_warmup(config: Any, bundle: ModelBundle, profile: Profile | None) -> None:
    """Let the server run once with the least and the largest batch, where the size is known."""
    (spec,) = config.input
    size = Preprocessor(bundle.preprocess).output_size if bundle.preprocess is not None else None
    if profile is not None:
        size = profile.height[1], profile.width[1]
    channels, *image = spec.dims[-3:]
    if size is not None:
        image = [own if own != -1 else known for own, known in zip(image, size, strict=True)]
    if -1 in (channels, *image):
        return
    batch = [abs(axis) for axis in spec.dims[:-3]]  # an open axis is warmed up with one image
    least = min(profile.batch[0], config.max_batch_size) if profile is not None else 1
    for count in sorted({max(least, 1), max(config.max_batch_size, 1)}):
        sample = config.model_warmup.add(name=f"batch {count}", batch_size=count)
        tensor = sample.inputs[spec.name]
        tensor.data_type = spec.data_type
        tensor.dims.extend([*batch, channels, *image])
        tensor.random_data = True


def _add_facts(config: Any, made: Path, bundle: ModelBundle, options: TritonOptions) -> None:
    """Add what clients and a later run want to know, as JSON in a parameter."""
    ops = bundle.preprocess
    facts = {
        "version": __version__,
        "bundle": _identity(bundle),
        "precision": options.precision,
        "preprocess": ops_to_config(ops) if ops is not None else None,
        "files": _contents(made),
        "config": _digest(config),
    }
    config.parameters[FACTS].string_value = json.dumps(facts, ensure_ascii=False)


def _contents(folder: Path) -> dict[str, str | None]:
    """Return each file below a folder but the config with its hash, and each folder with None."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path != folder / CONFIG_FILE
    }


def _digest(config: Any) -> str:
    return hashlib.sha256(config.SerializeToString(deterministic=True)).hexdigest()


def _write_config(config: Any, path: Path) -> None:
    """Write the config, and read it back as the server will."""
    text_format = import_library("google.protobuf.text_format", "triton")
    text = text_format.MessageToString(config, as_utf8=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    if _read_config(path) != config:
        raise OutputError(f"{path.name} does not read back as what was written; report this")


def _read_config(path: Path) -> Any:
    """Parse a config.

    Raises:
        OSError: there is none.
        ValueError: it is not one.
    """
    text_format = import_library("google.protobuf.text_format", "triton")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), _schema().ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from None


@functools.cache
def _schema() -> Any:
    """Load tritonclient's `model_config_pb2` by itself: its package would ask for grpc.

    Raises:
        EngineError: tritonclient or protobuf is missing, or the two do not fit each other.
    """
    package = Path(import_library("tritonclient", "triton").__path__[0])
    spec = importlib.util.spec_from_file_location(
        "tritonclient_model_config", package / "grpc" / "model_config_pb2.py"
    )
    if spec is None or spec.loader is None:
        raise EngineError(f"tritonclient in {package} cannot be loaded; install it again")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # protobuf's own version error has no public type
        raise EngineError(
            f"tritonclient's ModelConfig does not load ({one_line(error)}); "
            "pip install --upgrade 'hgdeploy[triton]'"
        ) from None
    return module


def _check_replaceable(target: Path, identity: str) -> None:
    """Refuse a folder that holds anything but what an earlier run wrote there for this bundle."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        config = _read_config(target / CONFIG_FILE)
        facts = json.loads(config.parameters.pop(FACTS).string_value)
        told = facts["bundle"], facts["files"], facts["config"]
        ours = told == (identity, _contents(target), _digest(config))
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise OutputError(
            f"{target} holds another model, or something was changed or added in it since it was "
            "written; move it away, or choose another folder or model name"
        )


@contextlib.contextmanager
def _aside(target: Path) -> Iterator[Path]:
    """Give the path of a folder to make, on the file system of `target`; it goes at the end."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True
        ) as scratch:
            yield Path(scratch) / "new"
    except OSError as error:
        raise OutputError(f"cannot write {target}: {error.strerror or error}") from error


def _publish(made: Path, target: Path) -> None:
    """Put what was made in its place; what was there before comes back if that fails."""
    old = made.with_name("old")
    replaces = target.exists()
    if replaces:
        target.rename(old)
    try:
        made.rename(target)
    except OSError:
        if replaces:
            old.rename(target)
        raise


def _notes(config: Any, bundle: ModelBundle, network: _Network) -> Iterator[str]:
    """Tell what a client or operator has to know of this model."""
    if bundle.preprocess is None:
        yield "the bundle tells no preprocessing, so clients cannot ask the server what to feed"
    if not config.output[0].label_filename:
        yield "the bundle has no labels, so the server knows no class names"
    elif not config.max_batch_size and network.inputs[0].shape[0] != 1:
        yield (
            "the server ranks all images of a request together, so ask it for class names "
            "(class_count) with one image at a time"
        )
    if network.profile is not None and network.profile.batch[0] > 1:
        yield f"the engine takes no fewer than {network.profile.batch[0]} images, and Triton may"
    if not config.model_warmup:
        yield "the image size is open, so the server does not warm up and its first answer is slow"


def _tensorrt_parameters(_options: TritonOptions) -> dict[str, str]:
    return {}


def _tensorrt_caveats(_options: TritonOptions) -> list[str]:
    return []


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


def _onnxruntime_caveats(options: TritonOptions) -> list[str]:
    if options.runs_on != "gpu" or options.precision == "fp16":
        return []
    return [
        "Triton has ONNX Runtime compute fp32 as TF32 on GPUs that have it; start the server with "
        "NVIDIA_TF32_OVERRIDE=0 for IEEE fp32"
    ]


def _openvino_caveats(options: TritonOptions) -> list[str]:
    if options.precision == "bf16":
        return []
    return [
        "Triton's openvino backend has no setting for fp32 and computes in bf16 on CPUs that have "
        "it; serve with onnxruntime for IEEE fp32"
    ]


_BACKENDS: Mapping[str, _Backend] = {
    "tensorrt": _Backend(
        platform="tensorrt_plan",
        precisions=("fp32", "fp16", "bf16", "int8"),
        devices=("gpu",),
        batches=True,
        find=_find_engine,
        read=_read_engine,
        parameters=_tensorrt_parameters,
        caveats=_tensorrt_caveats,
    ),
    "onnxruntime": _Backend(
        platform="onnxruntime_onnx",
        precisions=("fp32", "fp16", "int8"),
        devices=("cpu", "gpu"),
        batches=True,
        find=functools.partial(_find_onnx, "onnxruntime"),
        read=_read_onnx,
        parameters=_onnxruntime_parameters,
        caveats=_onnxruntime_caveats,
    ),
    # With max_batch_size set it would run every request as a whole batch of that size.
    "openvino": _Backend(
        platform="",
        precisions=("fp32", "bf16", "int8"),
        devices=("cpu",),
        batches=False,
        find=functools.partial(_find_onnx, "openvino"),
        read=_read_onnx,
        parameters=_openvino_parameters,
        caveats=_openvino_caveats,
    ),
}
