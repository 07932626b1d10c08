# SPDX-License-Identifier: Apache-2.0
"""Check that an artifact computes what the file that it was made from computes."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hgdeploy.engines import load_engine
from hgdeploy.engines.ending import read_ending
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.paddle.options import PaddleOptions
from hgdeploy.engines.paddle.sizes import specs_at
from hgdeploy.errors import HGDeployError, ValidationError
from hgdeploy.validation.compare import compare, kind_of
from hgdeploy.validation.inputs import common_batch_size, infer_in_batches, random_rows
from hgdeploy.validation.noise import rounding_noise, rounding_text
from hgdeploy.validation.tolerance import tolerance_for, tolerance_misses, too_coarse

# Unoptimised: ONNX Runtime would remove the rounding that emulates bf16.
_AS_WRITTEN = EngineOptions(graph_optimization=False)


# Two other image sizes, as what they have more than the model's own: multiples of 32, by which
# networks divide them, and one that is not square.
_OTHER_SIZES = ((64, 64), (96, 128))

# What Paddle itself computes: its oneDNN path may be wrong for a model.
_PADDLE_ITSELF = EngineOptions(own=(PaddleOptions(onednn=False),))


class _Side(NamedTuple):
    """One of the two models that are compared."""

    engine: str
    path: Path
    options: EngineOptions = EngineOptions()


def verify_conversion(
    source: Path, target: Path, output_name: str | None = None, *, other_sizes: bool = False
) -> dict[str, Any]:
    """Compare a Paddle model and the ONNX file made from it, in fp32, on seeded random inputs.

    Args:
        source: the Paddle program, with its parameters beside it.
        target: the ONNX file.
        output_name: the output that has the scores, of a model that has several.
        other_sizes: compare them on two other image sizes too, which both must take.

    Returns:
        The figures, ready for a sidecar; those of the program's own size.

    Raises:
        BundleError: the program is bound to its own size.
        ValidationError: they differ by more than fp32 allows; the figures are in the message.
    """
    paddle = _Side("paddle", source, dataclasses.replace(_PADDLE_ITSELF, output_name=output_name))
    onnx = _Side("onnxruntime", target, _AS_WRITTEN)
    verdict = _verify(paddle, onnx, "fp32", None)
    if other_sizes:
        height, width = (s if s > 0 else 224 for s in specs_at(source, None).inputs[0].shape[2:])
        for more in _OTHER_SIZES:
            _verify_size(paddle, onnx, (height + more[0], width + more[1]))
    return verdict


def _verify_size(paddle: _Side, onnx: _Side, size: tuple[int, int]) -> None:
    """Compare a Paddle model and its ONNX file on images of another size than the model's."""
    options = dataclasses.replace(paddle.options, image_size=size)
    with contextlib.closing(load_engine(onnx.engine, onnx.path, onnx.options)) as engine:
        spec = engine.inputs[0]
    rows = random_rows(dataclasses.replace(spec, shape=(*spec.shape[:2], *size)), None, 4, 0)
    try:
        _verify(_Side(paddle.engine, paddle.path, options), onnx, "fp32", rows)
    except HGDeployError as error:
        raise type(error)(
            f"dynamic height and width are not possible: on images of {size[1]}x{size[0]} (width x "
            f"height), the converter or the export has frozen a size: {error}"
        ) from None


def verify_precision(
    precision: str, rows: Sequence[NDArray[Any]], output_name: str | None = None
) -> Callable[[Path, Path], dict[str, Any]]:
    """Return a function that compares an fp32 ONNX file with a variant of it in `precision`.

    Args:
        precision: the precision, which decides the tolerance.
        rows: preprocessed images (1, 3, H, W); empty for seeded random inputs.
        output_name: the output that has the scores, of a file that has several.

    Returns:
        A function like `verify_conversion`.
    """
    given = np.concatenate(rows) if rows else None
    options = dataclasses.replace(_AS_WRITTEN, output_name=output_name)
    return lambda source, target: _verify(
        _Side("onnxruntime", source, options),
        _Side("onnxruntime", target, options),
        precision,
        given,
    )


def verify_engine(
    engine: str,
    output_name: str | None = None,
    precision: str = "fp32",
    rows: Sequence[NDArray[Any]] = (),
) -> Callable[[Path, Path], dict[str, Any]]:
    """Return a function that compares an fp32 ONNX file with the form of it that `engine` reads.

    Args:
        engine: the engine's name.
        output_name: the output that has the scores, of an ONNX file that has several.
        precision: what the weights of that form are stored in, which decides the tolerance; ncnn
            is asked to compute in it.
        rows: preprocessed images (1, 3, H, W); empty for seeded random inputs.

    Returns:
        A function like `verify_conversion`.
    """
    given = np.concatenate(rows) if rows else None
    options = dataclasses.replace(_AS_WRITTEN, output_name=output_name)
    own = EngineOptions(precision=precision if engine == "ncnn" else "fp32")
    return lambda source, target: _verify(
        _Side("onnxruntime", source, options), _Side(engine, target, own), precision, given
    )


def _verify(a: _Side, b: _Side, precision: str, rows: NDArray[Any] | None) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        engines = []
        for side in (a, b):
            engines.append(load_engine(side.engine, side.path, side.options))
            stack.callback(engines[-1].close)
        inputs = "random" if rows is None else "images"
        if rows is None:
            rows = random_rows(engines[0].inputs[0], None, 4, 0)
        batch = common_batch_size(engines, 3)
        reference, candidate = (infer_in_batches(engine, rows, batch) for engine in engines)
        kind = kind_of(read_ending(a.path, engines[0].outputs[0].name), reference)
        noise = rounding_noise(engines[0], rows, reference, kind, precision, batch)
        version = engines[0].runtime.version
    comparison = compare(reference, candidate, kind=kind)
    tolerance = tolerance_for(comparison, precision, noise, reference.dtype, candidate.dtype)
    misses = tolerance_misses(comparison, tolerance, inputs)
    if misses:
        figures = f"{'; '.join(misses)}; {rounding_text(comparison, noise)}"
        if too_coarse(comparison, precision, noise):
            finer = "--check off writes it all the same" if precision == "fp32" else "use fp32"
            raise ValidationError(
                f"{precision} is too coarse for {a.path}, whose scores rounding alone moves too "
                f"far: {figures}; {finer}; nothing was written"
            )
        raise ValidationError(
            f"{b.path.name} does not compute what {a.path} does: {figures}; nothing was written"
        )
    return {
        "against": f"{a.engine} {version}",
        "inputs": inputs,
        "scores": kind,
        "noise": None if noise is None else dataclasses.asdict(noise),
        **dataclasses.asdict(comparison),
    }
