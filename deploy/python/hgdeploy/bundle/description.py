# SPDX-License-Identifier: Apache-2.0
"""Write a bundle's `inference.yml`, and note what it says in what is made from the bundle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hgdeploy.bundle.names import DESCRIPTION
from hgdeploy.errors import ConfigError
from hgdeploy.system.files import write_text
from hgdeploy.transforms.difference import ops_difference
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import ops_to_config, parse_ops
from hgdeploy.transforms.postprocess import Output, Topk
from hgdeploy.transforms.postprocess_config import postprocess_to_config

_TOPK = 5


def usual_output(labels: Sequence[str] | None, num_classes: int) -> Topk:
    """Return the output of a bundle where nothing asks for another: the 5 best, or all classes."""
    named = None if labels is None else dict(enumerate(labels))
    return Topk(min(_TOPK, num_classes), named)


def write_description(folder: Path, name: str, preprocess: Sequence[Op], output: Output) -> Path:
    """Write a bundle's `inference.yml`, in the uniform format of PaddleX and PaddleClas.

    Args:
        folder: the bundle's folder.
        name: the model's name.
        preprocess: the model's own operators.
        output: what is made of its scores; see `usual_output`.

    Returns:
        Path of the file.

    Raises:
        OutputError: it cannot be written.
    """
    description = {
        "Global": {"model_name": name},
        "PreProcess": {"transform_ops": ops_to_config(preprocess)},
        "PostProcess": postprocess_to_config(output),
    }
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    return write_text(folder / DESCRIPTION, text)


def recorded_description(
    ops: Sequence[Op] | None, labels: Mapping[int, str] | None
) -> dict[str, Any]:
    """Return what the sidecar of an artifact keeps of the description that it was made under.

    Args:
        ops: the bundle's operators; None where none are stated.
        labels: the bundle's labels; None where none are stated.
    """
    return {
        "preprocess": None if ops is None else ops_to_config(ops),
        "labels_sha256": None if labels is None else _digest(labels),
    }


def description_changes(
    recorded: object, ops: Sequence[Op] | None, labels: Mapping[int, str] | None
) -> list[str]:
    """Return what has changed in a description since; empty where nothing has, or none is known.

    Args:
        recorded: what `recorded_description` returned, as read from a sidecar.
        ops: the operators now.
        labels: the labels now.
    """
    if not isinstance(recorded, dict):
        return []
    changes = []
    try:
        then = parse_ops(recorded.get("preprocess"), "preprocess")
    except ConfigError:  # none were stated, or another version wrote them
        then = None
    if ops is not None and then is not None:
        changes += ops_difference(ops, then, "now", "then")
    digest = recorded.get("labels_sha256")
    if labels is not None and digest is not None and digest != _digest(labels):
        changes.append("other labels")
    return changes


def _digest(labels: Mapping[int, str]) -> str:
    text = json.dumps(sorted(labels.items()), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
