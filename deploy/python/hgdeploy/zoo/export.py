# SPDX-License-Identifier: Apache-2.0
"""Make a bundle: export a network with its weights and check the export, or download one."""

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
from hgdeploy.errors import BundleError, ConfigError, one_line
from hgdeploy.system.digests import file_sha256
from hgdeploy.system.libraries import import_library
from hgdeploy.zoo.weights.load import load_into, read_weights

MODEL_FILE = PADDLE_PROGRAMS[0]  # what Paddle 3 writes
_SEED = 0
_TOLERANCE = 1e-5
_LOGIT_SPREAD = 2.0


def bundle_from_weights(
    name: str,
    weights: Path | None,
    output: Path,
    *,
    num_classes: int = 1000,
    labels: Sequence[str] | None = None,
) -> Path:
    """Export a model of the zoo, with a softmax at its end, as a bundle for Paddle Inference.

    The result is loaded with Paddle Inference and compared with the network before it appears
    under `output`; a failed export leaves nothing there.

    Args:
        name: a model of the zoo.
        weights: `.pdparams` or PyTorch file; None exports seeded random weights, for timing only,
            and the sidecar says so.
        output: the bundle's folder: `inference.json`, `inference.pdiparams`, `inference.yml` (the
            model's own preprocessing, and the labels) and `inference.meta.json`. Input `x`:
            float32 (N, 3, R, R). Output: float32 probabilities (N, num_classes).
        num_classes: classes of the last layer.
        labels: one name a class; None gives ImageNet's names to a model of 1000 classes, and no
            names to another.

    Returns:
        `output`.

    Raises:
        ConfigError: an unknown model, or a number of classes or labels that cannot be.
        EngineError: Paddle is not installed.
        WeightsError: the weights cannot be read or do not fit.
        BundleError: the export fails, or computes something else than the network.
        OutputError: `output` cannot be written.
    """
    info = zoo.info(name)
    if labels is None and num_classes == 1000:
        labels = zoo.imagenet_labels()
    if labels is not None and len(labels) != num_classes:
        raise ConfigError(f"{len(labels)} labels were given for {num_classes} classes")
    layer, origin = _loaded_layer(name, weights, num_classes)
    with staged_folder(output) as folder:
        shape = (3, info.input_size, info.input_size)
        x = np.random.default_rng(_SEED).standard_normal((2, *shape), dtype=np.float32)
        expected = _probabilities(layer, x)
        _save(layer, folder, shape)
        _check(_infer(folder, x), expected)
        write_description(folder, name, info.preprocess, labels, num_classes)
        _write_sidecar(folder, info, origin, num_classes)
    return output


def _loaded_layer(name: str, weights: Path | None, num_classes: int) -> tuple[Any, dict[str, Any]]:
    """The network with its weights, and the sidecar's account of them."""
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
    arrays = read_weights(weights)
    layer = zoo.build(name, num_classes)
    load_into(layer, arrays, weights)
    return layer, {"file": weights.name, "sha256": file_sha256(weights), "source": "file"}


def _random_layer(name: str, num_classes: int) -> Any:
    """The network with seeded random weights whose signals keep their size from layer to layer.

    Under Paddle's own initial values they fade until every image gets the same answer, and then a
    comparison of two engines would pass whatever they compute. Along many shortcuts they would grow
    beyond float32, so batch norms bring them back to size.
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
    norms = [part for part in layer.sublayers() if isinstance(part, paddle.nn.BatchNorm2D)]
    hooks = [norm.register_forward_pre_hook(_bound_size) for norm in norms]
    with paddle.no_grad():
        layer(paddle.to_tensor(x))
        for hook in hooks:
            hook.remove()
        last = parameters[-1]
        last.set_value(last * (_LOGIT_SPREAD / float(layer(paddle.to_tensor(x)).std())))
    return layer


def _bound_size(norm: Any, inputs: tuple[Any, ...]) -> None:
    """Make a batch norm divide what is larger than 1, by one value for all channels.

    The channels' own statistics would leave little but differences between images, and rounding
    errors would grow from layer to layer.
    """
    (x,) = inputs
    mean_square = (x * x).mean().clip(min=1)
    norm._variance.set_value(mean_square.expand(norm._variance.shape))


def _probabilities(layer: Any, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network itself gives for `x`, before Paddle has traced it."""
    paddle = import_library("paddle", "cpu")
    with paddle.no_grad():
        logits = layer(paddle.to_tensor(x))
        return np.array(paddle.nn.functional.softmax(logits, axis=-1).numpy())


def _save(layer: Any, folder: Path, shape: tuple[int, int, int]) -> None:
    """Export `layer` and a softmax, with a dynamic batch."""
    paddle = import_library("paddle", "cpu")
    network = paddle.nn.Sequential(layer, paddle.nn.Softmax(axis=-1))
    network.eval()
    spec = [paddle.static.InputSpec([-1, *shape], "float32", name="x")]
    try:
        with _quiet():
            paddle.jit.save(network, str(folder / Path(MODEL_FILE).stem), input_spec=spec)
    except OSError:  # `staged_folder` says what cannot be written
        raise
    # Paddle's tracing raises many types; whatever it is, there is no bundle.
    except Exception as error:
        raise BundleError(f"Paddle cannot export the model: {one_line(error)}") from error
    for name in (MODEL_FILE, PADDLE_PARAMS):
        if not (folder / name).is_file() or not (folder / name).stat().st_size:
            raise BundleError(f"Paddle exported no {name}: this needs Paddle 3")


def _check(found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    """Compare the exported model's probabilities (N, classes) with the network's own."""
    if found.shape != expected.shape:
        raise BundleError(f"the exported model gives shape {found.shape}, not {expected.shape}")
    difference = float(np.abs(found - expected).max())
    # Written so that NaN fails too.
    if not difference <= _TOLERANCE:
        raise BundleError(
            f"the exported model differs from the network by {difference:.1e} in probability, "
            f"more than {_TOLERANCE:.0e}"
        )
    excess = float(np.abs(found.sum(axis=1) - 1).max())
    if not excess <= _TOLERANCE:
        raise BundleError(f"the exported model's probabilities miss a sum of 1 by {excess:.1e}")


def _infer(folder: Path, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run the exported model as predictions will, in the paddle engine on the CPU."""
    engine = load_engine("paddle", folder / MODEL_FILE, EngineOptions(max_batch=len(x)))
    try:
        return infer_rows(engine, x)
    finally:
        engine.close()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Paddle's prints and warnings out of the command's output."""
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
        "output_is_probabilities": True,
    }
    write_sidecar(folder, facts)
