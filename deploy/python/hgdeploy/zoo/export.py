# SPDX-License-Identifier: Apache-2.0
"""Make a bundle: export a network with its weights, and check what was exported."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy import zoo
from hgdeploy.bundle.description import write_description
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
from hgdeploy.zoo.weights.load import load_into, read_weights, weights_file

MODEL_FILE = PADDLE_PROGRAMS[0]  # what Paddle 3 writes
_SEED = 0
_TOLERANCE = 1e-5  # of a probability, between the network and its export
_LOGIT_SPREAD = 2.0  # standard deviation of a random network's logits


def bundle_from_weights(
    name: str,
    weights: Path | None,
    output: Path,
    *,
    num_classes: int = 1000,
    labels: Sequence[str] | None = None,
    on_progress: OnLine = nothing,
) -> Path:
    """Export a model of the zoo, with a softmax at its end, as a bundle for Paddle Inference.

    The export is loaded with Paddle Inference and compared with the network before it appears in
    `output`; a failed export leaves nothing there.

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
        EngineError: Paddle is not installed.
        WeightsError: the weights cannot be read or do not fit.
        BundleError: the export fails, or its results differ from the network's.
        OutputError: `output` cannot be written.
    """
    info = zoo.info(name)
    if labels is None and num_classes == 1000:
        labels = zoo.imagenet_labels()
    if labels is not None and len(labels) != num_classes:
        raise ConfigError(f"{len(labels)} labels were given for {num_classes} classes")
    on_progress(f"making the network {info.architecture} with its weights")
    layer, origin = _loaded_layer(name, weights, num_classes)
    with staged_folder(output) as folder:
        shape = (3, info.input_size, info.input_size)
        x = np.random.default_rng(_SEED).standard_normal((2, *shape), dtype=np.float32)
        expected = _probabilities(layer, x)
        on_progress(f"writing it to {output}")
        _save(layer, folder, shape)
        on_progress("comparing what was written with the network")
        _check(_infer(folder, x), expected)
        write_description(folder, name, info.preprocess, labels, num_classes)
        _write_sidecar(folder, info, origin, num_classes)
    return output


def _loaded_layer(name: str, weights: Path | None, num_classes: int) -> tuple[Any, dict[str, Any]]:
    """Return the network with its weights, and what the sidecar says about these."""
    if weights is None:
        layer = _random_layer(name, num_classes)
        origin = {
            "file": None,
            "sha256": None,
            "source": "random",
            "seed": _SEED,
            "warning": "RANDOM WEIGHTS: predictions mean nothing; for timing and tests only",
        }
        return layer, origin
    weights = weights_file(weights)
    arrays = read_weights(weights)
    layer = zoo.build(name, num_classes)
    load_into(layer, arrays, weights)
    return layer, {"file": weights.name, "sha256": file_sha256(weights), "source": "file"}


def _random_layer(name: str, num_classes: int) -> Any:
    """Return the network with seeded random weights that keep the size of signals between layers.

    With Paddle's own initial values, the signals fade until every image gets the same answer, and
    then a comparison of two engines would pass whatever they compute. Over many shortcuts, they
    would grow beyond float32, so batch norms scale them down.
    """
    paddle = import_library("paddle", "cpu")
    layer = zoo.build(name, num_classes)
    rng = np.random.default_rng(_SEED)
    parameters = [parameter for parameter in layer.parameters() if len(parameter.shape) > 1]
    for parameter in parameters:
        shape = tuple(parameter.shape)
        fan_in = shape[0] if len(shape) == 2 else math.prod(shape[1:])
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(2 / fan_in))
        parameter.set_value(values)
    size = zoo.info(name).input_size
    x = rng.standard_normal((2, 3, size, size), dtype=np.float32)
    norms = [one for one in layer.sublayers() if isinstance(one, paddle.nn.BatchNorm2D)]
    hooks = [norm.register_forward_pre_hook(_bound_size) for norm in norms]
    with paddle.no_grad():
        layer(paddle.to_tensor(x))
        for hook in hooks:
            hook.remove()
        last = parameters[-1]
        last.set_value(last * (_LOGIT_SPREAD / float(layer(paddle.to_tensor(x)).std())))
    return layer


def _bound_size(norm: Any, inputs: tuple[Any, ...]) -> None:
    """Make a batch norm scale down signals larger than 1, by one value for all channels.

    With each channel's own statistics, little but the differences between images would be left,
    and rounding errors would grow from layer to layer.
    """
    (x,) = inputs
    mean_square = (x * x).mean().clip(min=1)
    norm._variance.set_value(mean_square.expand(norm._variance.shape))


def _probabilities(layer: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the network itself gives for `x`, before Paddle has traced it."""
    paddle = import_library("paddle", "cpu")
    with paddle.no_grad():
        logits = layer(paddle.to_tensor(x))
        return np.array(paddle.nn.functional.softmax(logits, axis=-1).numpy())


def _save(layer: Any, folder: Path, shape: tuple[int, int, int]) -> None:
    """Write `layer` and a softmax, with a dynamic batch size, as Paddle's files."""
    paddle = import_library("paddle", "cpu")
    network = paddle.nn.Sequential(layer, paddle.nn.Softmax(axis=-1))
    network.eval()
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


def _check(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Compare the exported model's probabilities (N, classes) with the network's own."""
    if found.shape != expected.shape:
        raise BundleError(
            f"the exported model's output has shape {found.shape}, not {expected.shape}"
        )
    difference = float(np.abs(found - expected).max())
    # `not <=` instead of `>`, so that NaN fails too.
    if not difference <= _TOLERANCE:
        raise BundleError(
            f"the exported model's probabilities differ from the network's by {difference:.1e}, "
            f"more than {_TOLERANCE:.0e}"
        )
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
    folder: Path, info: zoo.ModelInfo, origin: dict[str, Any], num_classes: int
) -> None:
    size = info.input_size
    facts = {
        "model": info.name,
        "architecture": info.architecture,
        "num_classes": num_classes,
        "weights": origin,
        "paddle": import_library("paddle", "cpu").__version__,
        "precision": "fp32",
        "inputs": [{"name": "x", "dtype": "float32", "shape": [-1, 3, size, size]}],
        "outputs": [{"dtype": "float32", "shape": [-1, num_classes]}],
        "ending": ["softmax"],
    }
    write_sidecar(folder, facts)
