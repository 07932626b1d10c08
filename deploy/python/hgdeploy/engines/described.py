# SPDX-License-Identifier: Apache-2.0
"""Inputs and outputs of a model whose own file does not tell them: its sidecar does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import BundleError


def described_specs(
    source: Path, verb: str
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Return the inputs and outputs of an artifact, as its sidecar describes them.

    Args:
        source: the artifact.
        verb: the command that makes it, for the errors.

    Raises:
        BundleError: the artifact or its sidecar is missing, or the sidecar does not describe it.
    """
    if not source.is_file():
        raise BundleError(f"{source} does not exist; make it with {verb}")
    facts = read_sidecar(source) or {}
    try:
        inputs, outputs = (tuple(_spec(one) for one in facts[key]) for key in ("inputs", "outputs"))
    except (KeyError, TypeError, ValueError):
        raise BundleError(
            f"{source} does not tell its shapes, and {sidecar_path(source).name} beside it, which "
            f"does, is missing or damaged; make both with {verb}"
        ) from None
    return inputs, outputs


def _spec(described: Any) -> TensorSpec:
    name, dtype, shape = described["name"], described["dtype"], described["shape"]
    if not isinstance(name, str) or not isinstance(dtype, str):
        raise TypeError("a name is not a text")
    return TensorSpec(name, dtype, tuple(int(size) for size in shape))
