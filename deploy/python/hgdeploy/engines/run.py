# SPDX-License-Identifier: Apache-2.0
"""`engine:precision@device` opened on a bundle: the one way from a bundle to a loaded model."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle, check_reachable
from hgdeploy.bundle.model_files import onnx_precision
from hgdeploy.bundle.names import (
    INT8_PARAMS,
    ONNX_FILE,
    PADDLE_PROGRAMS,
    made_by,
    onnx_name,
    runtime_of,
)
from hgdeploy.engines import ENGINES, Engine, engine_module, load_engine
from hgdeploy.engines.fit import channels_last, check_feed
from hgdeploy.engines.options import PRECISIONS, EngineOptions
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.checks import check
from hgdeploy.system.kinds import one_of
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.preprocess import Preprocessor

# The engine that serves where none is asked for, and the one where that has nothing to read.
_USUAL = ("paddle", "onnxruntime")


@dataclass(frozen=True)
class Run:
    """One engine at one precision on one device.

    Attributes:
        engine: the engine's name.
        precision: the precision's name.
        device: `cpu` or `gpu:N`.
    """

    engine: str
    precision: str = "fp32"
    device: str = "cpu"

    @property
    def name(self) -> str:
        """`engine` for fp32 on the CPU, else with `:precision`, `@device` or both."""
        precision = "" if self.precision == "fp32" else f":{self.precision}"
        return self.engine + precision + ("" if self.device == "cpu" else f"@{self.device}")

    def options(self, others: EngineOptions) -> EngineOptions:
        """Return `others` with this run's precision and device."""
        return dataclasses.replace(others, precision=self.precision, device=self.device)


class OpenedRun(NamedTuple):
    """A run that is ready to infer.

    Attributes:
        engine: the loaded model; the caller closes it.
        source: the file it was loaded from.
        load_seconds: how long loading took, including the import of the library, without what is
            done once for a model on a machine.
    """

    engine: Engine
    source: Path
    load_seconds: float


def parse_run(text: str, precision: str = "fp32") -> Run:
    """Read `ENGINE[:PRECISION][@DEVICE]`, such as `tensorrt:fp16@gpu:0`.

    Args:
        text: what the user wrote.
        precision: the precision if the text has none.

    Raises:
        ConfigError: an unknown engine or precision.
    """
    what, _, device = text.strip().partition("@")
    engine, _, own = what.partition(":")
    run = Run(engine, own or precision, device or "cpu")
    check("engine", run.engine, one_of(ENGINES))
    check("precision", run.precision, one_of(PRECISIONS))
    return run


def parse_runs(texts: str, precision: str = "fp32") -> tuple[Run, ...]:
    """Read a list such as `paddle,onnxruntime,openvino:bf16,tensorrt:fp16@gpu:0`.

    The first engine is the reference. If no precision is given, it runs in fp32 and the others in
    `precision`; if no device is given, an engine runs on the CPU.

    Raises:
        ConfigError: an unknown engine or precision, or the same run twice.
    """
    runs: list[Run] = []
    for text in texts.split(","):
        try:
            run = parse_run(text, precision if runs else "fp32")
        except ConfigError as error:
            raise ConfigError(f"--engines {text!r}: {error}") from None
        if run in runs:
            raise ConfigError(f"--engines {texts!r} names {run.name} twice")
        runs.append(run)
    return tuple(runs)


def artifact_of(bundle: ModelBundle, run: Run) -> Path:
    """Return the file of a bundle that `run` loads.

    Raises:
        BundleError: the bundle does not have it, or it has changed, or is stale. Or the engine
            reads only one of two Paddle programs, and the other is the model.
    """
    names = _names(run.engine, run.precision)
    others = [] if _has(bundle.path, names) else [run.name for run in readable_runs(bundle)]
    if others and bundle.file is not None:
        raise BundleError(
            f"{bundle.file} is nothing that {run.name} reads, nor does such a file lie beside it; "
            f"it is for {', '.join(others)}: choose engine and precision so"
        )
    if others:
        raise BundleError(
            f"{bundle.root} has no {' or '.join(names)}; it has files for {', '.join(others)}: "
            + (f"make it with {how}, or " if (how := made_by(names[0])) else "")
            + "choose engine and precision so"
        )
    source = bundle.find(names)
    if bundle.file is not None:
        return source
    first = next((name for name in PADDLE_PROGRAMS if (bundle.root / name).is_file()), source.name)
    if source.name in PADDLE_PROGRAMS and source.name != first:
        raise BundleError(
            f"{bundle.root} has {first} and {source.name}: the first is the model, and "
            f"{run.engine} does not read it; make an ONNX file with hgdeploy convert, or delete "
            f"{first} if {source.name} is the model"
        )
    return source


def artifact_names(run: Run) -> tuple[str, ...]:
    """Return the names of a bundle's files that `run` can load, best first."""
    return _names(run.engine, run.precision)


def choose_run(
    folder: Path, engine: str | None, precision: str | None, on_choice: OnLine
) -> tuple[str, str]:
    """Return engine and precision for a bundle whose user left one or both open.

    The engine is Paddle, or ONNX Runtime where the bundle has only an ONNX file; an engine file is
    for a GPU, and runs where TensorRT is asked for. The precision is fp32, except that Paddle runs
    PaddleSlim's `inference_int8.*` where its parameters lie in the folder, even beside another
    program: so does PaddleClas.

    Args:
        folder: the bundle's folder, or a model file that stands for one.
        engine: the engine that was asked for, if any.
        precision: the precision that was asked for, if any.
        on_choice: called with one line where the choice is not Paddle in fp32.

    Raises:
        BundleError: the folder may not be searched.
    """
    check_reachable(folder)
    slim = (folder / INT8_PARAMS).is_file()
    if engine is None and folder.is_file():
        engine = "tensorrt" if runtime_of(folder.name) else _USUAL[1]
    if engine is None:
        paddle, other = _USUAL
        served = (slim and precision is None) or _has(folder.joinpath, _names(paddle, precision))
        engine = other if not served and _has(folder.joinpath, _names(other, precision)) else paddle
        if engine == other:
            on_choice(f"{folder} has nothing for {paddle} to run: {other} runs it")
    if precision is None and engine == _USUAL[0] and slim:
        on_choice(
            f"{folder} has {INT8_PARAMS}, so PaddleSlim's int8 program runs, as in PaddleClas; "
            "ask for fp32 to run inference.json or inference.pdmodel"
        )
        return engine, "int8"
    return engine, precision or "fp32"


def readable_runs(bundle: ModelBundle) -> list[Run]:
    """Return the runs whose files a bundle has, one for each engine and file."""
    found: dict[tuple[str, tuple[str, ...]], Run] = {}
    for engine in ENGINES:
        for precision in PRECISIONS:
            names = _names(engine, precision)
            if _has(bundle.path, names):
                found.setdefault((engine, names), Run(engine, precision))
    return list(found.values())


def _names(engine: str, precision: str | None) -> tuple[str, ...]:
    return engine_module(engine).artifact_names(precision or PRECISIONS[0])


def _has(path_of: Callable[[str], Path], names: Sequence[str]) -> bool:
    return any(path_of(name).is_file() for name in names)


def open_run(
    bundle: ModelBundle,
    run: Run,
    options: EngineOptions | None = None,
    preprocessor: Preprocessor | None = None,
) -> OpenedRun:
    """Load the file that `run` reads from a bundle into its engine, on its device.

    Args:
        bundle: the bundle.
        run: engine, precision and device; these override those of `options`.
        options: further options of the engine; None for the defaults.
        preprocessor: makes the images that it will be fed; None where it is fed others.

    Raises:
        BundleError: the file is missing, stale, cannot be loaded, is not an image classifier, or
            does not take what the preprocessor makes.
        EngineError: the engine, precision or device is not available here.
    """
    source = artifact_of(bundle, run)
    chosen = run.options(options or EngineOptions())
    if chosen.output_name is None:
        chosen = dataclasses.replace(chosen, output_name=bundle.output_name)
    if preprocessor is not None:
        size = preprocessor.output_size or (-1, -1)
        chosen = dataclasses.replace(chosen, image_size=size)
    others = _other_precision(source, run)
    start = time.perf_counter()
    engine = load_engine(run.engine, source, chosen)
    engine.warnings = (*engine.warnings, *others)
    seconds = time.perf_counter() - start - engine.once_seconds
    if preprocessor is not None:
        try:
            check_feed(engine.inputs[0], source, preprocessor)
        except BundleError:
            engine.close()
            raise
    return OpenedRun(engine, source, seconds)


def _other_precision(source: Path, run: Run) -> tuple[str, ...]:
    """Return what to tell of an ONNX file that computes in another precision than fp32.

    Raises:
        BundleError: another precision was asked for than the file computes in, and the engine does
            not change it itself.
    """
    if source.suffix != ".onnx":
        return ()
    found, reduced = onnx_precision(source), onnx_name(run.precision)
    if found == "fp32" and reduced in _names(run.engine, run.precision) and reduced != ONNX_FILE:
        raise BundleError(
            f"{source} computes in fp32, whatever its name, and {run.precision} was asked for; "
            f"make it with {made_by(reduced)}, or ask for fp32"
        )
    if run.precision in ("fp32", "tf32") and found != "fp32":
        return (f"{source} computes in {found}, not in {run.precision}, whatever its name",)
    return ()


def intermediates_of(bundle: ModelBundle, run: Run, row: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Run one input through `run` and return every tensor inside its model, in order.

    Args:
        bundle: the bundle.
        run: the run; its device is used.
        row: one input of shape (1, 3, H, W), or (1, H, W, 3).

    Raises:
        BundleError: the file is missing, stale or cannot be loaded.
        EngineError: the engine cannot show its layers, or the device is not available here.
    """
    source = artifact_of(bundle, run)
    height, width = row.shape[1:3] if channels_last(row.shape) else row.shape[2:]
    options = run.options(EngineOptions(image_size=(height, width)))
    return engine_module(run.engine).intermediates(source, options, row)
