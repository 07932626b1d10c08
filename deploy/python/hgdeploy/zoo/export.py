# SPDX-License-Identifier: Apache-2.0
"""Make a bundle: export a network with its weights, and check what was exported."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy import zoo
from hgdeploy.bundle.description import usual_output, write_description
from hgdeploy.bundle.names import PADDLE_PARAMS, PADDLE_PROGRAMS
from hgdeploy.bundle.sidecar import write_sidecar
from hgdeploy.bundle.staging import staged_folder
from hgdeploy.engines import infer_rows, load_engine
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.errors import BundleError, ConfigError, one_line
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.libraries import import_library
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.postprocess import Output
from hgdeploy.zoo.random_weights import SEED, random_layer
from hgdeploy.zoo.weights.load import load_into, read_weights, weights_file

MODEL_FILE = PADDLE_PROGRAMS[0]  # what Paddle 3 writes
_TOLERANCE = 1e-5  # of a probability, between the network and its export


@dataclass(frozen=True)
class ExportOptions:
    """What is exported of a model of the zoo.

    Attributes:
        num_classes: classes of the last layer.
        ending: what follows the logits: `softmax`, `sigmoid`, or None for nothing.
        size: height and width of the images in pixels; None for the model's own.
        preprocess: what `inference.yml` says of the images; None for the model's own.
        output: what it says of the scores; None for the best 5 classes, with ImageNet's names for
            a model of 1000.
    """

    num_classes: int = 1000
    ending: str | None = "softmax"
    size: tuple[int, int] | None = None
    preprocess: tuple[Op, ...] | None = None
    output: Output | None = None


def bundle_from_weights(
    name: str,
    weights: Path | None,
    output: Path,
    *,
    num_classes: int = 1000,
    labels: Sequence[str] | None = None,
    on_progress: OnLine = nothing,
) -> Path:
    """Export a model of the zoo, with a softmax at its end, as `export_bundle` does.

    Args:
        name: a model of the zoo.
        weights: a `.pdparams` file, whose suffix may be left out, or a PyTorch file; None exports
            seeded random weights, for timing only, and the sidecar says so.
        output: the bundle's folder: `inference.json`, `inference.pdiparams`, `inference.yml` (the
            model's own preprocessing, and the labels) and `inference.meta.json`. Input `x`:
            float32 (N, 3, R, R). Output: float32 probabilities (N, num_classes).
        num_classes: classes of the last layer.
        labels: one name per class; None uses ImageNet's names for a model with 1000 classes, and
            no names for any other.
        on_progress: called with a line at the start of each long step.

    Returns:
        `output`.

    Raises:
        ConfigError: the model is unknown, or the number of classes or labels is wrong.
        HGDeployError: as `export_bundle`.
    """
    if labels is not None and len(labels) != num_classes:
        raise ConfigError(f"{len(labels)} labels were given for {num_classes} classes")
    made = None if labels is None else usual_output(labels, num_classes)
    options = ExportOptions(num_classes, output=made)
    return export_bundle(name, weights, output, options, on_progress)


def export_bundle(
    name: str,
    weights: Path | None,
    output: Path,
    options: ExportOptions,
    on_progress: OnLine = nothing,
) -> Path:
    """Export a model of the zoo as a bundle for Paddle Inference.

    The export is loaded with Paddle Inference and compared with the network before it appears in
    `output`; a failed export leaves nothing there.

    Args:
        name: a model of the zoo.
        weights: as for `bundle_from_weights`.
        output: the bundle's folder, likewise.
        options: what to export.
        on_progress: called with a line at the start of each long step.

    Returns:
        `output`.

    Raises:
        ConfigError: the model is unknown, or the number of classes is wrong.
        EngineError: Paddle is not installed.
        WeightsError: the weights cannot be read or do not fit.
        BundleError: the export fails, or its results differ from the network's.
        OutputError: `output` cannot be written.
    """
    info, classes = zoo.info(name), options.num_classes
    on_progress(f"making the network {info.architecture} with its weights")
    # Paddle orders the weights in their file by names that it numbers through a process's life.
    with import_library("paddle", "cpu").utils.unique_name.guard():
        layer, origin = _loaded_layer(name, weights, classes)
    shape = (3, *(options.size or (info.input_size, info.input_size)))
    network = _ended(layer, options.ending)
    with staged_folder(output) as folder:
        x = np.random.default_rng(SEED).standard_normal((2, *shape), dtype=np.float32)
        expected = _computed(network, x)
        on_progress(f"writing it to {output}")
        _save(network, folder, shape)
        on_progress("comparing what was written with the network")
        _check(_infer(folder, x), expected, probabilities=options.ending == "softmax")
        named = zoo.imagenet_labels() if classes == 1000 else None
        described = options.output or usual_output(named, classes)
        write_description(folder, name, options.preprocess or info.preprocess, described)
        _write_sidecar(folder, info, origin, options)
    return output


def _loaded_layer(name: str, weights: Path | None, num_classes: int) -> tuple[Any, dict[str, Any]]:
    """Return the network with its weights, and what the sidecar says about these."""
    if weights is None:
        layer = random_layer(name, num_classes)
        origin = {
            "file": None,
            "sha256": None,
            "source": "random",
            "seed": SEED,
            "warning": "RANDOM WEIGHTS: predictions mean nothing; for timing and tests only",
        }
        return layer, origin
    weights = weights_file(weights)
    arrays = read_weights(weights)
    layer = zoo.build(name, num_classes)
    load_into(layer, arrays, weights)
    return layer, {"file": weights.name, "sha256": file_sha256(weights), "source": "file"}


def _ended(layer: Any, ending: str | None) -> Any:
    """Return a network with the softmax or sigmoid that follows its logits."""
    paddle = import_library("paddle", "cpu")
    endings = {"softmax": paddle.nn.Softmax(axis=-1), "sigmoid": paddle.nn.Sigmoid()}
    network = paddle.nn.Sequential(layer, *([] if ending is None else [endings[ending]]))
    network.eval()
    return network


def _computed(network: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network itself gives for `x`, before Paddle has traced it."""
    paddle = import_library("paddle", "cpu")
    try:
        with paddle.no_grad():
            return np.array(network(paddle.to_tensor(x)).numpy())
    except (ValueError, RuntimeError) as error:  # such as images of a size that it is not made for
        size = "x".join(map(str, x.shape[2:]))
        raise BundleError(f"the network cannot take images of {size}: {one_line(error)}") from None


def _save(network: Any, folder: Path, shape: tuple[int, ...]) -> None:
    """Write a network, with a dynamic batch size, as Paddle's files."""
    paddle = import_library("paddle", "cpu")
    spec = [paddle.static.InputSpec([-1, *shape], "float32", name="x")]
    try:
        with _quiet():
            paddle.jit.save(network, str(folder / Path(MODEL_FILE).stem), input_spec=spec)
    except OSError:  # `staged_folder` says what cannot be written
        raise
    # Paddle's tracing raises errors of many types; after any of them, there is no bundle.
    except Exception as error:
        raise BundleError(f"Paddle cannot export the model: {one_line(error)}") from error
    for name in (MODEL_FILE, PADDLE_PARAMS):
        if not (folder / name).is_file() or not (folder / name).stat().st_size:
            raise BundleError(f"Paddle exported no {name}: this needs Paddle 3")


def _check(
    found: NDArray[np.float32], expected: NDArray[np.float32], *, probabilities: bool
) -> None:
    """Compare the exported model's scores (N, classes) with the network's own."""
    if found.shape != expected.shape:
        raise BundleError(
            f"the exported model's output has shape {found.shape}, not {expected.shape}"
        )
    # Probabilities are at most 1; logits may be any size.
    difference = float(np.abs(found - expected).max()) / max(1.0, float(np.abs(expected).max()))
    # `not <=` instead of `>`, so that NaN fails too.
    if not difference <= _TOLERANCE:
        raise BundleError(
            f"the exported model's scores differ from the network's by {difference:.1e}, "
            f"more than {_TOLERANCE:.0e}"
        )
    if not probabilities:
        return
    excess = float(np.abs(found.sum(axis=1) - 1).max())
    if not excess <= _TOLERANCE:
        raise BundleError(
            f"the exported model's probabilities do not add up to 1: off by {excess:.1e}"
        )


def _infer(folder: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the exported model on the CPU, as Paddle itself computes it: without oneDNN."""
    options = EngineOptions(max_batch=len(x), own=(PaddleOptions(onednn=False),))
    engine = load_engine("paddle", folder / MODEL_FILE, options)
    try:
        return infer_rows(engine, x)
    finally:
        engine.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what Paddle prints, and its warnings, out of the command's output."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _write_sidecar(
    folder: Path, info: zoo.ModelInfo, origin: dict[str, Any], options: ExportOptions
) -> None:
    size = options.size or (info.input_size, info.input_size)
    facts = {
        "model": info.name,
        "architecture": info.architecture,
        "num_classes": options.num_classes,
        "weights": origin,
        "paddle": import_library("paddle", "cpu").__version__,
        "precision": "fp32",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 3, *size]}],
        "outputs": [{"dtype": "float32", "shape": [-1, options.num_classes]}],
        "ending": [] if options.ending is None else [options.ending],
    }
    write_sidecar(folder, facts)
