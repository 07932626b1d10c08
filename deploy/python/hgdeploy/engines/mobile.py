# SPDX-License-Identifier: Apache-2.0
"""What the engines of `hgdeploy convert --to ENGINE` have in common.

They run on a CPU only. Their files do not tell the shapes of inputs and outputs, which are in the
sidecar; and their layers are fused, and have other names than those of the ONNX file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.engines.base import USE_CPU, TensorSpec, device_index
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import BundleError, EngineError

Specs = tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]
"""The inputs and the outputs."""


def maker(engine: str) -> str:
    """Return the command that makes an engine's file, for errors."""
    return f"hgdeploy convert BUNDLE --to {engine}"


def check_options(
    engine: str, library: str, options: EngineOptions, precisions: Sequence[str]
) -> None:
    """Refuse a device or precision that an engine does not have.

    Args:
        engine: the engine's name.
        library: what its library calls itself.
        options: what was asked for.
        precisions: those it has.

    Raises:
        EngineError: the message says what is available.
    """
    if device_index(options.device) is not None:
        raise EngineError(
            f"{options.device} was asked for, but the {engine} engine runs on a CPU only; {USE_CPU}"
        )
    if options.precision not in precisions:
        raise EngineError(
            f"{library} cannot run {options.precision} here, available: {', '.join(precisions)}"
        )


def described_specs(engine: str, source: Path) -> Specs:
    """Return the inputs and outputs of an artifact, as its sidecar describes them.

    Args:
        engine: the engine's name.
        source: the artifact.

    Raises:
        BundleError: the artifact or its sidecar is missing, or the sidecar does not describe it.
    """
    if not source.is_file():
        raise BundleError(f"{source} does not exist; make it with {maker(engine)}")
    facts = read_sidecar(source) or {}
    try:
        inputs, outputs = (tuple(_spec(one) for one in facts[key]) for key in ("inputs", "outputs"))
    except (KeyError, TypeError, ValueError):
        raise BundleError(
            f"{source} does not tell its shapes, and {sidecar_path(source).name} beside it, which "
            f"does, is missing or damaged; make both with {maker(engine)}"
        ) from None
    return inputs, outputs


def _spec(described: Any) -> TensorSpec:
    name, dtype, shape = described["name"], described["dtype"], described["shape"]
    if not isinstance(name, str) or not isinstance(dtype, str):
        raise TypeError("a name is not a text")
    return TensorSpec(name, dtype, tuple(int(size) for size in shape))


def no_intermediates(
    engine: str,
) -> Callable[[Path, EngineOptions, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Return an engine's `intermediates`, which always raises an EngineError."""

    def intermediates(source: Path, *_: object) -> dict[str, NDArray[Any]]:
        raise EngineError(f"the {engine} engine does not show the layers inside {source}")

    return intermediates
