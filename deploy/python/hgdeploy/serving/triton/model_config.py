# SPDX-License-Identifier: Apache-2.0
"""Triton's `config.pbtxt` as the protobuf message that the server parses."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

from hgdeploy.bundle.engine_key import Profile
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines.fit import channels_last
from hgdeploy.errors import ConfigError, EngineError, OutputError, one_line
from hgdeploy.serving.triton.backends import BACKENDS, TritonOptions
from hgdeploy.serving.triton.files import BYTES, WARMUP_FILE, Network
from hgdeploy.system.libraries import import_library, installing
from hgdeploy.transforms.preprocess import Preprocessor

# Where the model takes any batch and no maximum is asked for.
_DEFAULT_MAX_BATCH = 8
DTYPES = {
    "float32": "TYPE_FP32",
    "float16": "TYPE_FP16",
    "bfloat16": "TYPE_BF16",
    "int8": "TYPE_INT8",
    "uint8": "TYPE_UINT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    BYTES: "TYPE_STRING",
}


def _max_batch(network: Network, options: TritonOptions) -> int:
    """Return Triton's `max_batch_size`; 0 where a request must have the model's whole shape."""
    backend, profile = BACKENDS[options.backend], network.profile
    if not (backend.batches and network.any_batch):
        reason = "the model has a fixed batch"
        if not backend.batches:
            reason = "the backend joins no requests"
        if options.max_batch is not None or options.queue_delay_us:
            raise ConfigError(
                f"{options.backend}: max_batch and queue_delay_us do not apply, since {reason}; "
                "leave them out"
                + (", or make the model with a dynamic batch" if backend.batches else "")
            )
        return 0
    least, most = (profile.batch[0], profile.batch[2]) if profile is not None else (1, None)
    wanted = options.max_batch or most or _DEFAULT_MAX_BATCH
    if wanted < least or (most is not None and wanted > most):
        raise ConfigError(
            f"max_batch is {wanted}, but the engine serves batches of {least} to {most}; choose "
            "one of these, or build it again with hgdeploy build --batch"
        )
    if wanted == 1 and options.queue_delay_us:
        raise ConfigError("queue_delay_us does not apply to batches of 1; leave it out")
    return wanted


def model_config(name: str, model: str, network: Network, options: TritonOptions) -> Any:
    """Return the `ModelConfig`, without what depends on the bundle.

    Args:
        name: the model's name in the server.
        model: the name of the file that the backend opens.
        network: the model's inputs and outputs.
        options: how the server should serve it.

    Raises:
        ConfigError: the model cannot be batched as asked.
        EngineError: tritonclient is missing or does not load.
    """
    schema, backend = load_schema(), BACKENDS[options.backend]
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
        layout = "FORMAT_NONE"
        # Triton allows a format only where `dims` are the three of an image.
        if max_batch and not network.takes_images:
            layout = "FORMAT_NHWC" if channels_last(spec.shape) else "FORMAT_NCHW"
        config.input.add(
            name=spec.name,
            data_type=DTYPES[spec.dtype],
            format=layout,
            dims=spec.shape[first_axis:],
        )
    for spec in network.outputs:
        config.output.add(
            name=spec.name, data_type=DTYPES[spec.dtype], dims=spec.shape[first_axis:]
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
    """Prefer the batches that an engine is tuned for, and run them as CUDA graphs."""
    if config.HasField("dynamic_batching"):
        sizes = {size for size in profile.batch[1:] if 1 < size <= config.max_batch_size}
        config.dynamic_batching.preferred_batch_size.extend(sorted(sizes))
    # A CUDA graph has one shape, and Triton only makes one for each batch size.
    if -1 not in config.input[0].dims:
        config.optimization.cuda.graphs = True


def add_warmup(config: Any, bundle: ModelBundle, network: Network) -> None:
    """Warm up with the smallest and the largest batch, where the size of images is known."""
    (spec,), profile = config.input, network.profile
    if network.takes_images:
        # It warms itself up; a picture shows that strings get through to it, which they do not with
        # a numpy that the back end does not know.
        tensor = config.model_warmup.add(name="a picture", batch_size=1).inputs[spec.name]
        tensor.data_type, tensor.input_data_file = spec.data_type, WARMUP_FILE
        tensor.dims.append(1)
        return
    size = Preprocessor(bundle.preprocess).output_size if bundle.preprocess is not None else None
    if profile is not None:
        size = profile.height[1], profile.width[1]
    last = channels_last((-1, *spec.dims[-3:]))
    channels, *image = (spec.dims[-3:][i] for i in ((2, 0, 1) if last else (0, 1, 2)))
    if size is not None:
        image = [own if own != -1 else known for own, known in zip(image, size, strict=True)]
    if -1 in (channels, *image):
        return
    shape = (*image, channels) if last else (channels, *image)
    batch = [abs(axis) for axis in spec.dims[:-3]]  # an open batch is warmed up with one image
    least = min(profile.batch[0], config.max_batch_size) if profile is not None else 1
    for count in sorted({max(least, 1), max(config.max_batch_size, 1)}):
        sample = config.model_warmup.add(name=f"batch {count}", batch_size=count)
        tensor = sample.inputs[spec.name]
        tensor.data_type = spec.data_type
        tensor.dims.extend([*batch, *shape])
        tensor.random_data = True


def config_digest(config: Any) -> str:
    """Return a hash of the config, to notice later changes."""
    return hashlib.sha256(config.SerializeToString(deterministic=True)).hexdigest()


def write_config(config: Any, path: Path) -> None:
    """Write the config, and read it back as the server will.

    Raises:
        OutputError: it does not read back as it was written.
        OSError: the file cannot be written.
    """
    text_format = import_library("google.protobuf.text_format", "triton")
    text = text_format.MessageToString(config, as_utf8=True)
    path.write_text(text, encoding="utf-8", newline="\n")
    if read_config(path) != config:
        raise OutputError(f"{path.name} does not read back as it was written; please report this")


def read_config(path: Path) -> Any:
    """Parse a config.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not a config.
    """
    text_format = import_library("google.protobuf.text_format", "triton")
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), load_schema().ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(str(error)) from None


@functools.cache
def load_schema() -> Any:
    """Load tritonclient's `model_config_pb2` alone: its package would need grpc.

    Raises:
        EngineError: tritonclient or protobuf is missing, or their versions do not fit together.
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
            f"{installing('triton')}, with --upgrade"
        ) from None
    return module
