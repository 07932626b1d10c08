# SPDX-License-Identifier: Apache-2.0
"""What the verbs on a training config share: arguments, and the network's run."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hgdeploy.cli.predict_job import PredictJob
from hgdeploy.cli.progress import told_if_slow
from hgdeploy.cli.terminal import say, warn
from hgdeploy.errors import ConfigError, EngineError

if TYPE_CHECKING:
    from hgdeploy.classify.settings import ClassifierSettings
    from hgdeploy.paddleclas.training.config import TrainingConfig

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


@contextlib.contextmanager
def network_job(
    config: TrainingConfig,
    settings: ClassifierSettings,
    ending: str | None,
    bundle: Path | None,
) -> Iterator[PredictJob]:
    """Yield the run of a config's network with its weights, on the engine that it asks for.

    The network is exported to a temporary folder, and converted there for an engine that needs it.

    Args:
        config: the config.
        settings: what is done to images and scores, and the batch size.
        ending: what must follow the network's logits: `softmax`, `sigmoid` or nothing.
        bundle: a bundle to take instead of the config's network and weights.
    """
    from hgdeploy.engines.auto.choose import AUTO, Asked, choose, with_saved
    from hgdeploy.engines.options import EngineOptions

    if config.engine == AUTO and bundle is None:
        raise ConfigError(
            "Global.engine auto is what hgdeploy tune has saved in a bundle, and an export for one "
            "run has nothing saved; give --bundle FOLDER, or name the engine"
        )
    if config.engine != AUTO:
        _check_device(config)
    with contextlib.ExitStack() as stack:
        place = bundle
        if place is None:
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="hgdeploy-"))
            place = _exported(config, settings, ending, Path(scratch) / config.arch)
        asked = Asked(config.engine, config.precision, config.device)
        run, saved = choose(place, asked, say)
        if bundle is None:
            _convert(place, run.engine, run.precision)
        options = run.options(EngineOptions(max_batch=settings.batch_size))
        options = with_saved(options, saved)
        settings = dataclasses.replace(settings, engine=run.engine, options=options)
        yield PredictJob(place, (), settings, saved=saved)


def reference_job(job: PredictJob, text: str, *, exported: bool) -> PredictJob:
    """Return the same run of the same model on `ENGINE[:PRECISION][@DEVICE]`.

    Args:
        job: the run.
        text: what the user wrote.
        exported: the model is a temporary export, where the file that the engine needs is made.

    Raises:
        ConfigError: the engine or precision is unknown, or it is the run itself.
    """
    from hgdeploy.engines.run import Run, parse_run

    try:
        run = parse_run(text)
    except ConfigError as error:
        raise ConfigError(f"--against {text}: {error}") from None
    options = job.settings.options
    if run == Run(job.settings.engine or "paddle", options.precision, options.device):
        raise ConfigError(f"--against {text}: that is the run itself; name another")
    if exported:
        _convert(job.bundle, run.engine, run.precision)
    threads = options.threads if job.saved is None else None
    options = dataclasses.replace(run.options(options), threads=threads, streams=1, own=())
    settings = dataclasses.replace(job.settings, engine=run.engine, options=options)
    return dataclasses.replace(job, settings=settings, saved=None)


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


def _exported(
    config: TrainingConfig, settings: ClassifierSettings, ending: str | None, place: Path
) -> Path:
    """Export a network for one use of it."""
    from hgdeploy.transforms.postprocess import ScoreOutput
    from hgdeploy.transforms.preprocess import Preprocessor
    from hgdeploy.zoo.export import ExportOptions, export_bundle

    ops = settings.preprocess or ()
    output = None if settings.postprocess is None else settings.postprocess.output
    if isinstance(output, ScoreOutput) and output.decimal_places is None:
        output = None  # nothing that a description could say
    size = Preprocessor(ops).output_size or config.size
    options = ExportOptions(config.num_classes, ending, size, ops, output)
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
