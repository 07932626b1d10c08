# SPDX-License-Identifier: Apache-2.0
"""Write a bundle as a model repository for NVIDIA's Triton Inference Server.

`config.pbtxt` is built as the protobuf message that the server itself parses. The model's inputs
and outputs are read from the served file or, for TensorRT, from its sidecar.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.engines.fit import check_feed, image_input
from hgdeploy.engines.scores import class_count
from hgdeploy.errors import BundleError, OutputError
from hgdeploy.serving.triton.backends import BACKENDS, TritonOptions, check_model_name
from hgdeploy.serving.triton.files import FACTS, Network, write_warmup
from hgdeploy.serving.triton.image_model import MODEL_FILE, MODEL_TEXT
from hgdeploy.serving.triton.model_config import (
    DTYPES,
    add_warmup,
    config_digest,
    load_schema,
    model_config,
    read_config,
    write_config,
)
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.documents import parse_json
from hgdeploy.system.files import replacing_folder
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.operators_config import ops_to_config
from hgdeploy.transforms.preprocess import Preprocessor

CONFIG_FILE = "config.pbtxt"
LABELS_FILE = "labels.txt"
# What Python writes beside a model.py that it has run.
_CACHE = "__pycache__"
_VERSION_FOLDER = "1"


def triton_repository(
    bundle: ModelBundle, folder: Path, options: TritonOptions, on_warning: OnLine
) -> Path:
    """Write `FOLDER/NAME/config.pbtxt`, `FOLDER/NAME/1/MODEL` and, with labels, `labels.txt`.

    With the backend `python`, `MODEL` is a `model.py` that takes image files, with the ONNX file
    beside it, and `NAME` ends in `_image`, so that it can lie beside the model that takes tensors.

    The config's parameter `hgdeploy` contains JSON. Its `preprocess` is the bundle's preprocessing
    in PaddleClas's form, so that a client can ask the server how to make a tensor of an image.

    Args:
        bundle: a bundle with the artifact for the backend and precision.
        folder: the model repository. A model with the same name in it is replaced if it was written
            from this bundle and nothing in it has been changed or added since.
        options: how the server should serve the model.
        on_warning: called with each thing that clients or operators should know, on one line.

    Returns:
        The model's folder, `FOLDER/NAME`. After an error it is as it was before.

    Raises:
        BundleError: the artifact is missing or stale, or does not fit the backend or the labels.
        ConfigError: the model cannot be served as asked.
        EngineError: tritonclient, or ONNX Runtime for an ONNX file, is not installed.
        OutputError: the folder cannot be written, or contains something else.
    """
    load_schema()  # first: nothing can be written without it
    backend, identity = BACKENDS[options.backend], _identity(bundle)
    name = options.name or check_model_name(identity) + backend.suffix
    files = backend.find(bundle, options.precision)
    target = folder / name
    _check_replaceable(target, identity)
    with replacing_folder(target) as made:
        version = made / _VERSION_FOLDER
        version.mkdir()
        for served, source in files.items():
            shutil.copyfile(source, version / served)
        model, source = next(iter(files.items()))
        network = backend.read(bundle, source, version / model, options.precision)
        if network.takes_images:
            model = MODEL_FILE
            (version / model).write_text(MODEL_TEXT, encoding="utf-8", newline="\n")
            write_warmup(made)
        else:
            _check_fit(bundle, network, source)
        config = model_config(name, model, network, options)
        labels = _labels(bundle, network, source)
        if labels is not None:
            text = "".join(f"{label}\n" for label in labels)
            (made / LABELS_FILE).write_text(text, encoding="utf-8", newline="\n")
            config.output[0].label_filename = LABELS_FILE
        add_warmup(config, bundle, network)
        _add_facts(config, made, bundle, options)
        write_config(config, made / CONFIG_FILE)
    for note in (*backend.caveats(options), *_notes(config, bundle, network)):
        on_warning(note)
    return target


def _identity(bundle: ModelBundle) -> str:
    return bundle.model_name or bundle.root.resolve().name


def _check_fit(bundle: ModelBundle, network: Network, source: Path) -> None:
    """Refuse a model that is not an image classifier, or does not take the preprocessed images."""
    for spec in (*network.inputs, *network.outputs):
        if spec.dtype not in DTYPES:
            raise BundleError(f"{source}: {spec.name} is {spec.dtype}, which Triton does not serve")
    spec = image_input(network.inputs, source)
    if bundle.preprocess is not None:
        check_feed(spec, source, Preprocessor(bundle.preprocess))


def _labels(bundle: ModelBundle, network: Network, source: Path) -> list[str] | None:
    """Return the names of the classes in order; None where the bundle has none."""
    if bundle.postprocess is None or bundle.postprocess.output.labels is None:
        return None
    labels = bundle.postprocess.output.labels
    classes = class_count(network.outputs[0].shape) or -1
    if classes == -1:
        classes = len(labels)
    bundle.postprocess.check_classes(classes, source)
    ordered = [labels[index] for index in range(classes)]
    for label in ordered:
        if "\n" in label:
            raise BundleError(
                f"{bundle.root}: the label {label!r} has more than one line, but Triton reads one "
                "label per line; shorten it in inference.yml"
            )
    return ordered


def _add_facts(config: Any, made: Path, bundle: ModelBundle, options: TritonOptions) -> None:
    """Add what clients and a later run need to know, as JSON in a parameter."""
    ops = bundle.preprocess
    facts = {
        "version": __version__,
        "bundle": _identity(bundle),
        "precision": options.precision,
        "preprocess": ops_to_config(ops) if ops is not None else None,
        "files": _contents(made),
        "config": config_digest(config),
    }
    config.parameters[FACTS].string_value = json.dumps(facts, ensure_ascii=False)


def _contents(folder: Path) -> dict[str, str | None]:
    """Return the hash of each file in a folder, except the config; None for each folder in it."""
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path != folder / CONFIG_FILE and _CACHE not in path.parts
    }


def _check_replaceable(target: Path, identity: str) -> None:
    """Refuse a folder with anything other than what an earlier run wrote for this bundle."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    try:
        config = read_config(target / CONFIG_FILE)
        facts = parse_json(config.parameters.pop(FACTS).string_value)
        written = facts["bundle"], facts["files"], facts["config"]
        ours = written == (identity, _contents(target), config_digest(config))
    except (OSError, ValueError, KeyError, TypeError):
        ours = False
    if not ours:
        raise OutputError(
            f"{target} contains another model, or was changed since it was written; move it away, "
            "or choose another folder or model name"
        )


def _notes(config: Any, bundle: ModelBundle, network: Network) -> Iterator[str]:
    """Yield what clients and operators should know about this model."""
    if bundle.preprocess is None:
        yield "the bundle has no preprocessing, so clients cannot ask the server what to feed"
    if not config.output[0].label_filename:
        yield "the bundle has no labels, so the server knows no class names"
    elif not config.max_batch_size and network.inputs[0].shape[0] != 1:
        yield (
            "the server ranks all images of a request together, so ask it for class names "
            "(class_count) with one image at a time"
        )
    if network.profile is not None and network.profile.batch[0] > 1:
        yield (
            f"the engine takes at least {network.profile.batch[0]} images at a time, but Triton "
            "may send fewer"
        )
    if not config.model_warmup:
        yield "the image size is open, so the server does not warm up, and its first answer is slow"
