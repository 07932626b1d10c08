# SPDX-License-Identifier: Apache-2.0
"""Write a bundle's `inference.yml`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from hgdeploy.bundle.names import DESCRIPTION
from hgdeploy.system.files import write_text
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import ops_to_config

_TOPK = 5


def write_description(
    folder: Path,
    name: str,
    preprocess: Sequence[Op],
    labels: Sequence[str] | None,
    num_classes: int,
) -> Path:
    """Write a bundle's `inference.yml`, in the uniform format of PaddleX and PaddleClas.

    Args:
        folder: the bundle's folder.
        name: the model's name.
        preprocess: the model's own operators.
        labels: one name a class, in the order of the outputs; None writes none.
        num_classes: classes of the model; the description asks for the 5 best, or for all of them.

    Returns:
        Path of the file.

    Raises:
        OutputError: it cannot be written.
    """
    topk: dict[str, Any] = {"topk": min(_TOPK, num_classes)}
    if labels is not None:
        topk["label_list"] = list(labels)
    description = {
        "Global": {"model_name": name},
        "PreProcess": {"transform_ops": ops_to_config(preprocess)},
        "PostProcess": {"Topk": topk},
    }
    text = yaml.safe_dump(description, sort_keys=False, allow_unicode=True)
    return write_text(folder / DESCRIPTION, text)
