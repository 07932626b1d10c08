# SPDX-License-Identifier: Apache-2.0
"""What the verbs on a training config share: arguments, the loaded network, the log's lines."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from hgdeploy.cli.progress import told_if_slow
from hgdeploy.cli.terminal import say, warn
from hgdeploy.errors import ConfigError, EngineError
from hgdeploy.transforms.prediction import printable

if TYPE_CHECKING:
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.paddleclas.training.config import TrainingConfig
    from hgdeploy.transforms.operators import Op
    from hgdeploy.transforms.postprocess import Output, Postprocess

_NEAREST = 3


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `-c` and `-o`."""
    parser.add_argument("-c", "--config", type=Path, help="PaddleClas's training config")
    parser.add_argument(
        "-o",
        "--override",
        action="append",
        default=[],
        metavar="Section.key=value",
        help="a key of the config; may be repeated",
    )


def add_bundle_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--bundle`, which is our own."""
    parser.add_argument(
        "--bundle",
        type=Path,
        help="a model's folder to use instead of the config's network and weights",
    )


def loaded_config(arguments: argparse.Namespace) -> TrainingConfig:
    """Return the config that `-c` and `-o` describe, and tell its warnings.

    Raises:
        ConfigError: it is missing or wrong, or its network is not in the zoo.
    """
    import difflib

    from hgdeploy import zoo
    from hgdeploy.paddleclas.training.config import load_training_config

    if arguments.config is None:
        raise ConfigError("no config was given; name PaddleClas's training config with -c")
    config = load_training_config(arguments.config, arguments.override)
    names = zoo.names()
    if config.arch not in names:
        near = difflib.get_close_matches(config.arch, names, _NEAREST, 0)
        raise ConfigError(
            f"Arch.name {config.arch[:100]!r} is not in the zoo; nearest: {', '.join(near)}; it "
            f"has {', '.join(names)}; any other network is served from the bundle that PaddleClas "
            "exports"
        )
    for warning in config.warnings:
        warn(warning)
    return config


def imagenet_labels() -> Path:
    """Return the file of ImageNet's labels that comes with HGDeploy."""
    from hgdeploy import zoo

    return Path(zoo.__file__).with_name("imagenet1k_label_list.txt")


def weights_of(config: TrainingConfig) -> Path:
    """Return the weights that a config names.

    Raises:
        ConfigError: it names none: PaddleClas would compute with random ones.
    """
    if config.weights is None:
        raise ConfigError(
            "Global.pretrained_model is not set, and without weights the results mean nothing; "
            "give it with -o Global.pretrained_model=PATH"
        )
    return config.weights


@dataclasses.dataclass(frozen=True)
class Use:
    """How a network is used.

    Attributes:
        ops: what is done to the images.
        postprocess: what is made of the scores.
        batch_size: images per inference.
        images: how many there are in all.
    """

    ops: tuple[Op, ...]
    postprocess: Postprocess
    batch_size: int
    images: int


@contextlib.contextmanager
def classifier_of(
    config: TrainingConfig, use: Use, bundle: Path | None = None
) -> Iterator[Classifier]:
    """Load the config's network with its weights, on the engine that it asks for.

    The network is exported to a temporary folder, and converted there for an engine that needs it.

    Args:
        config: the config.
        use: how it will be used.
        bundle: a bundle to take instead of the config's network and weights.
    """
    from hgdeploy.bundle.model_bundle import open_bundle
    from hgdeploy.classify.classifier import Classifier
    from hgdeploy.classify.folder import folder_options
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.convert.engine_files import ensure_artifact
    from hgdeploy.engines.options import EngineOptions
    from hgdeploy.engines.run import choose_run

    _check_device(config)
    with contextlib.ExitStack() as stack:
        place = bundle
        if place is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hgdeploy-"))
            place = _exported(config, use, Path(scratch) / config.arch)
        engine, precision = choose_run(place, config.engine, config.precision, say)
        if bundle is None:
            _convert(place, engine, precision)
        options = EngineOptions(config.device, precision, max_batch=use.batch_size)
        options = folder_options(options, use.images)
        options = dataclasses.replace(options, cache_dir=place / ".cache")
        opened = open_bundle(place)
        ensure_artifact(opened, engine, options, say, warn)
        settings = ClassifierSettings(engine, use.batch_size, options, use.ops, use.postprocess)
        with told_if_slow(f"loading {config.arch}"):
            classifier = stack.enter_context(Classifier.from_settings(opened, settings))
        yield classifier


def _check_device(config: TrainingConfig) -> None:
    """Refuse a GPU that is not there before the export: PaddleClas's configs all ask for one."""
    from hgdeploy.engines import engine_module

    engine = config.engine or "paddle"
    if config.device == "cpu":
        return
    found = engine_module(engine).capability()
    if found.version is not None and not any(name.startswith("gpu") for name in found.devices):
        why = "".join(f" ({note})" for note in found.notes if note.startswith("gpu"))
        raise EngineError(
            f"Global.device is gpu, PaddleClas's default, and the {engine} engine has none here"
            f"{why}; give -o Global.device=cpu"
        )


def _exported(config: TrainingConfig, use: Use, place: Path) -> Path:
    """Export a network for one use of it."""
    from hgdeploy.transforms.attributes import Attributes
    from hgdeploy.transforms.postprocess import MultiLabelThreshOutput, ScoreOutput
    from hgdeploy.transforms.preprocess import Preprocessor
    from hgdeploy.zoo.export import ExportOptions, export_bundle

    output: Output | None = use.postprocess.output
    ending: str | None = "softmax"
    if isinstance(output, MultiLabelThreshOutput | Attributes):
        ending = "sigmoid"  # PaddleClas's own outputs for training compute it themselves
    elif isinstance(output, ScoreOutput):
        # All scores as they are: nothing that a description could say.
        ending, output = ("softmax", None) if output.decimal_places is None else (None, output)
    size = Preprocessor(use.ops).output_size or config.size
    options = ExportOptions(config.num_classes, ending, size, use.ops, output)
    with told_if_slow(f"making {config.arch} with the weights {config.weights}"):
        return export_bundle(config.arch, weights_of(config), place, options)


def _convert(place: Path, engine: str, precision: str) -> None:
    """Make the file that an engine reads of an exported network."""
    from hgdeploy.bundle.model_bundle import open_bundle
    from hgdeploy.bundle.names import onnx_name
    from hgdeploy.convert.mobile.variants import convert_for_engine
    from hgdeploy.convert.variants import ConvertOptions, convert_to_onnx
    from hgdeploy.engines import engine_module

    names = engine_module(engine).artifact_names(precision)
    if precision == "int8":
        raise ConfigError(
            "int8 needs images to calibrate with; export the network with hgdeploy export -c, make "
            "its int8 file with hgdeploy quantize, and give --bundle FOLDER"
        )
    if any((place / name).is_file() for name in names):
        return
    bundle = open_bundle(place)
    if engine in ("mnn", "ncnn"):
        convert_for_engine(bundle, engine, warn)
        return
    for made in ("fp32", "fp16", "bf16"):
        if onnx_name(made) in names:
            convert_to_onnx(bundle, ConvertOptions(precision=made), warn)
            return


def log(out: TextIO, line: str) -> None:
    """Print a line as PaddleClas's logger does, with the time."""
    out.write(f"[{time.strftime('%Y/%m/%d %H:%M:%S')}] ppcls INFO: {printable(line)}\n")
    out.flush()
