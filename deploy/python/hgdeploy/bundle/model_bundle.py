# SPDX-License-Identifier: Apache-2.0
"""A bundle: the folder of a model with the facts needed to feed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.bundle.names import DESCRIPTION
from hgdeploy.bundle.sidecar import changed_source
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.documents import read_yaml
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.postprocess import Postprocess
from hgdeploy.transforms.postprocess_config import parse_postprocess


@dataclass(frozen=True)
class ModelBundle:
    """A model's folder and what its `inference.yml` says.

    Attributes:
        root: the folder.
        model_name: the model's name; None where no `inference.yml` states it.
        preprocess: the model's own transform ops; None where none are stated.
        postprocess: the model's own postprocessing; None where none is stated.
    """

    root: Path
    model_name: str | None
    preprocess: tuple[Op, ...] | None
    postprocess: Postprocess | None

    def find(self, names: Sequence[str]) -> Path:
        """Return the first of the files `names` that the bundle has.

        Raises:
            BundleError: it has none of them; the message lists what it has. Or the one it has was
                made from a file that has changed since.
        """
        for name in names:
            path = self.root / name
            if path.is_file():
                changed = changed_source(path)
                if changed is not None:
                    raise BundleError(
                        f"{path} is stale: {changed.name} has changed since it was made; make it "
                        "again with hgdeploy convert, quantize or build, or delete it"
                    )
                return path
        models = (".json", ".pdmodel", ".pdiparams", ".onnx", ".engine")
        present = sorted(
            path.name
            for path in self.root.iterdir()
            if path.suffix in models and not path.name.endswith(".meta.json")
        )
        raise BundleError(
            f"{self.root} has no {' or '.join(names)}; "
            + (f"it has {', '.join(present)}" if present else "there are no model files in it")
        )

    def fresh(self, name: str) -> Path | None:
        """Return the file `name` if the bundle has it and nothing it was made from has changed."""
        path = self.root / name
        return path if path.is_file() and changed_source(path) is None else None

    def own_preprocess(self) -> tuple[Op, ...]:
        """Return the model's own transform ops.

        Raises:
            ConfigError: the bundle does not say how to preprocess.
        """
        if self.preprocess is None:
            raise ConfigError(f"{self.root} has no inference.yml, so images cannot be preprocessed")
        return self.preprocess


def open_bundle(root: str | Path) -> ModelBundle:
    """Open a bundle's folder and read its `inference.yml`, where there is one.

    Raises:
        BundleError: there is no such folder, or its `inference.yml` is wrong.
    """
    root = Path(root)
    if not root.is_dir():
        kind = "is a file, expected the folder it lies in" if root.exists() else "does not exist"
        raise BundleError(f"model folder {root} {kind}")
    path = root / DESCRIPTION
    if not path.exists():
        return ModelBundle(root, None, None, None)
    raw = read_yaml(path, "description", BundleError)
    try:
        return _described(root, raw)
    except ConfigError as error:
        raise BundleError(f"{path}: {error}") from None


def _described(root: Path, raw: dict[str, object]) -> ModelBundle:
    """Read the sections of PaddleX's uniform format that concern a classifier."""
    settings, before, after = (raw.get(k) for k in ("Global", "PreProcess", "PostProcess"))
    name = settings.get("model_name") if isinstance(settings, dict) else None
    ops = None
    if isinstance(before, dict) and "transform_ops" in before:
        ops = parse_ops(before["transform_ops"], "PreProcess.transform_ops")
    postprocess = parse_postprocess(after, "PostProcess") if after is not None else None
    return ModelBundle(root, str(name) if name is not None else None, ops, postprocess)
