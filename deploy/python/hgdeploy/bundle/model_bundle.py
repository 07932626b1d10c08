# SPDX-License-Identifier: Apache-2.0
"""A bundle: the folder of a model with the facts needed to feed it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from hgdeploy.bundle.description import description_changes
from hgdeploy.bundle.integrity import (
    bundle_notes,
    check_artifact,
    check_unaltered,
    description_changed,
)
from hgdeploy.bundle.names import (
    ALONE,
    DESCRIBED,
    DESCRIPTION,
    INT8_PARAMS,
    ONNX_FILE,
    RECOMMENDED,
    beside,
)
from hgdeploy.bundle.sidecar import changed_source, read_bundle_sidecar, read_sidecar
from hgdeploy.errors import BundleError, ConfigError
from hgdeploy.system.documents import read_yaml
from hgdeploy.transforms.families import feed_differences, published_feed
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.postprocess import Postprocess
from hgdeploy.transforms.postprocess_config import LABEL_KEYS, SAVE, parse_postprocess

T = TypeVar("T")
# What Global may say about a model, in `inference.yml`.
_NAMES = ("model_name", "output_name")
_SHOWN = 300  # letters of a path, which may be too long for the system
PREPROCESS, POSTPROCESS = "PreProcess", "PostProcess"


@dataclass(frozen=True)
class ModelBundle:
    """A model's folder and what its `inference.yml` says.

    Attributes:
        root: the folder.
        model_name: the model's name; None where no `inference.yml` states it.
        preprocess: the model's own transform ops; None where none are stated, or not served.
        postprocess: the model's own postprocessing; None where none is stated, or not served.
        unserved: why a section of `inference.yml` is not served, by its name; a run with a config
            of its own does not need it.
        asks_for_copies: it has a `SavePreLabel`, which is told and not followed: a model does not
            say where files are written.
        output_name: the output that has the scores; None where it is the only one.
        file: the model file that stands for the bundle's; None where they have their usual names.
    """

    root: Path
    model_name: str | None
    preprocess: tuple[Op, ...] | None
    postprocess: Postprocess | None
    unserved: Mapping[str, str] = field(default_factory=dict)
    asks_for_copies: bool = False
    output_name: str | None = None
    file: Path | None = None

    @property
    def place(self) -> Path:
        """The folder, or the file that stands alone, as it was given."""
        return self.file or self.root

    def path(self, name: str) -> Path:
        """Return where the file that bundles call `name` lies, or would lie."""
        return self.root / name if self.file is None else beside(self.file, name)

    def find(self, names: Sequence[str]) -> Path:
        """Return the first of the files `names` that the bundle has.

        Raises:
            BundleError: it has none of them; the message lists what it has. Or the one it has, or
                what that was made from, has changed since.
        """
        for path in map(self.path, names):
            if path.is_file():
                check_artifact(path)
                return path
        models = (".json", ".pdmodel", ".pdiparams", *ALONE, *DESCRIBED)
        present = sorted(
            path.name
            for path in self.root.iterdir()
            if path.suffix in models and not path.name.endswith((".meta.json", RECOMMENDED))
        )
        raise BundleError(
            f"{self.root} has no {' or '.join(self.path(name).name for name in names)}; "
            + (f"it has {', '.join(present)}" if present else "there are no model files in it")
        )

    def fresh(self, name: str) -> Path | None:
        """Return the file `name` if the bundle has it and nothing it was made from has changed.

        Raises:
            BundleError: it is there, but not the file that was made: another's is not made anew.
        """
        path = self.path(name)
        if not path.is_file():
            return None
        check_unaltered(path)
        return path if changed_source(path) is None else None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know about the bundle's files, one line each."""
        notes = bundle_notes(self.root) if self.file is None else ()
        if self.file is None and description_changed(self.root):  # which is said already
            return notes
        return (*notes, *self._changes_since_conversion())

    @property
    def labels(self) -> Mapping[int, str] | None:
        """The classes' names by number; None where none are stated."""
        return None if self.postprocess is None else self.postprocess.output.labels

    def _changes_since_conversion(self) -> Iterator[str]:
        """Yield a line where `inference.yml` says something else than when ONNX was made of it."""
        onnx = self.path(ONNX_FILE)
        recorded = (read_sidecar(onnx) or {}).get("description") if onnx.is_file() else None
        changes = description_changes(recorded, self.preprocess, self.labels)
        if changes:
            yield (
                f"{self.root / DESCRIPTION} has changed since {onnx.name} was made: "
                f"{'; '.join(changes)}; it is used as it is now: convert again if that is meant"
            )

    def feed_notes(self, ops: Sequence[Op], *, sizes: bool = True) -> tuple[str, ...]:
        """Return where operators differ from what the model's network is published with.

        Args:
            ops: those that are used.
            sizes: see `feed_differences`.

        Returns:
            One line, or none: where nothing differs, or the bundle does not say which network it
            is, in `inference.yml` or in its sidecar, or that is not a known one.
        """
        sidecar = read_bundle_sidecar(self.root) if self.file is None else None
        name = self.model_name or (sidecar or {}).get("model")
        feed = published_feed(name) if isinstance(name, str) else None
        found = [] if feed is None else feed_differences(feed, ops, sizes=sizes)
        if not found:
            return ()
        return (
            f"{self.place}: {name} is published with other preprocessing than is used: "
            f"{'; '.join(found)}; unless it was trained with that, its answers are worse, or wrong",
        )

    def own_preprocess(self) -> tuple[Op, ...]:
        """Return the model's own transform ops.

        Raises:
            ConfigError: the bundle does not say how to preprocess.
            BundleError: it says so in a way that is not served.
        """
        self._check_served(PREPROCESS)
        if self.preprocess is None:
            raise ConfigError(
                f"nothing says how to preprocess images for {self.root}: it has no {DESCRIPTION} "
                "with PreProcess.transform_ops"
            )
        return self.preprocess

    def own_postprocess(self) -> Postprocess | None:
        """Return the model's own postprocessing; None where none is stated.

        Raises:
            BundleError: it is not served.
        """
        self._check_served(POSTPROCESS)
        return self.postprocess

    def _check_served(self, section: str) -> None:
        if section in self.unserved:
            raise BundleError(self.unserved[section])


def open_model(place: str | Path) -> ModelBundle:
    """Open a bundle's folder, or a model file that stands alone: `.onnx`, `.engine` or `.plan`.

    Raises:
        BundleError: as `open_bundle`, or the file is of another kind.
    """
    file = Path(place)
    check_reachable(file)
    if not file.is_file():
        return open_bundle(file)
    if file.suffix not in ALONE:
        raise BundleError(
            f"model {file} is a file, expected a bundle's folder or a file that ends with "
            f"{', '.join(ALONE)}"
        )
    _check_name(file)
    return ModelBundle(file.parent, None, None, None, file=file)


def open_bundle(root: str | Path) -> ModelBundle:
    """Open a bundle's folder and read its `inference.yml`, where there is one.

    A section of it that cannot be served is no error before it is needed.

    Raises:
        BundleError: there is no such folder, or its `inference.yml` is no YAML of keys and values.
    """
    root = Path(root)
    check_reachable(root)
    if not root.is_dir():
        kind = "is a file, expected the folder it lies in" if root.exists() else "does not exist"
        raise BundleError(f"model folder {root} {kind}")
    _check_name(root)
    path = root / DESCRIPTION
    if not os.path.lexists(path):  # a link to nothing is an error, not a missing description
        return ModelBundle(root, None, None, None)
    raw = read_yaml(path, "description", BundleError, texts=LABEL_KEYS)
    settings, before, after = (raw.get(key) for key in ("Global", PREPROCESS, POSTPROCESS))
    known = settings if isinstance(settings, dict) else {}
    name, output = (None if known.get(k) is None else str(known[k]) for k in _NAMES)
    unserved: dict[str, str] = {}

    def served(section: str, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except ConfigError as error:
            unserved[section] = f"{path}: {error}"
            return None

    ops, postprocess = None, None
    if isinstance(before, dict) and "transform_ops" in before:
        listed = before["transform_ops"]
        ops = served(PREPROCESS, lambda: parse_ops(listed, f"{PREPROCESS}.transform_ops"))
    if after is not None:
        # A bundle's paths count from the bundle, wherever it is used.
        postprocess = served(
            POSTPROCESS,
            lambda: parse_postprocess(after, POSTPROCESS, lambda _, file: str(root / file)),
        )
    asks_for_copies = isinstance(after, dict) and SAVE in after
    return ModelBundle(root, name, ops, postprocess, unserved, asks_for_copies, output)


def check_reachable(place: Path) -> None:
    """Refuse a model whose files may not even be looked for, or whose name is too long for that.

    Raises:
        BundleError: the system's reason.
    """
    try:
        (place / INT8_PARAMS).is_file()
    except OSError as error:
        raise BundleError(
            f"model folder {str(place)[:_SHOWN]} cannot be searched: {error.strerror}"
        ) from None


def _check_name(root: Path) -> None:
    """Refuse a folder whose name no engine can open: bytes of another encoding, such as GBK."""
    try:
        str(root).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(root).decode("utf-8", "backslashreplace")
        raise BundleError(
            f"model folder {shown} has a name that is not UTF-8, which the engines cannot open; "
            "rename it"
        ) from None
