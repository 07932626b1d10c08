# SPDX-License-Identifier: Apache-2.0
"""TensorRT engine files: their names, and the key that says what each was built for.

An engine file holds machine code for one library version, one kind of GPU and one range of shapes.
Its sidecar keeps the key of all that, so that a file that does not fit is known before it is
loaded: the builder then builds again, and the engine refuses.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hgdeploy.errors import BundleError
from hgdeploy.system.checks import Given, Kind, check_fields
from hgdeploy.system.kinds import all_keys, list_of, mapping_of, optional, text, whole


@dataclass(frozen=True)
class Profile:
    """The range of input shapes that an engine serves, and the one it is tuned for.

    Attributes:
        batch: (min, opt, max) images.
        height: (min, opt, max) pixels.
        width: (min, opt, max) pixels.
    """

    batch: tuple[int, int, int]
    height: tuple[int, int, int]
    width: tuple[int, int, int]

    def __post_init__(self) -> None:
        check_fields(self, "TensorRT profile", batch=_rising, height=_rising, width=_rising)

    def covers(self, other: Profile) -> bool:
        """Tell whether every shape that `other` serves lies within this profile."""
        pairs = [(getattr(self, f.name), getattr(other, f.name)) for f in dataclasses.fields(self)]
        return all(mine[0] <= its[0] and its[2] <= mine[2] for mine, its in pairs)

    def joined(self, others: Sequence[Profile]) -> Profile:
        """Return the range of all that this one and others serve, tuned for what this one is."""
        ends = {}
        for field in dataclasses.fields(self):
            sizes = [getattr(each, field.name) for each in (self, *others)]
            ends[field.name] = (min(s[0] for s in sizes), sizes[0][1], max(s[2] for s in sizes))
        return Profile(**ends)

    @property
    def best(self) -> tuple[int, int, int]:
        """The shape that the engine is tuned for: images, height, width."""
        return self.batch[1], self.height[1], self.width[1]

    def text(self) -> str:
        """Return it for people: `batch 1/8/32, height 224/224/224, width 224/224/224`."""
        return ", ".join(
            f"{field.name} {'/'.join(map(str, getattr(self, field.name)))}"
            for field in dataclasses.fields(self)
        )


@dataclass(frozen=True)
class EngineKey:
    """What an engine file was built from, with and for; two equal keys mean the same engine.

    Attributes:
        onnx_sha256: hash of the ONNX file (and of its external data) that was built.
        runtime: `tensorrt` or `tensorrt-rtx`.
        version: the library's version.
        compute_capabilities: the GPUs it is for, such as `8.6`.
        gpu: name of the GPU it was tuned on; None where it was built without one.
        precision: `fp32`, `tf32`, `fp16`, `bf16` or `int8`.
        profile: the shapes it serves, of all its optimisation profiles.
        flags: the builder's settings, by name; with `batches` where it has several profiles.
    """

    onnx_sha256: str
    runtime: str
    version: str
    compute_capabilities: tuple[str, ...]
    gpu: str | None
    precision: str
    profile: Profile
    flags: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the key as a sidecar holds it."""
        content = dataclasses.asdict(self)
        content["flags"] = dict(self.flags)
        return content

    @classmethod
    def from_json(cls, content: Mapping[str, Any], where: str) -> EngineKey:
        """Read a key.

        Args:
            content: what `to_json` gave, after a way through JSON.
            where: the sidecar, for the error.

        Raises:
            BundleError: it is no such key.
        """
        hint = "delete the engine and its sidecar, and build it again with hgdeploy build"
        given = Given(f"{where}: key", content, hint, BundleError)
        return cls(**all_keys(_KEY)(given))

    def digest(self) -> str:
        """Return 16 hexadecimal digits that tell this key from every other."""
        text = json.dumps(self.to_json(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def difference(self, wanted: EngineKey) -> str | None:
        """Tell the first thing in which this key is not the `wanted` one; None where they equal."""
        for field in dataclasses.fields(self):
            mine, other = getattr(self, field.name), getattr(wanted, field.name)
            if mine != other:
                return f"{field.name} is {_shown(mine)}, wanted {_shown(other)}"
        return None


def _shown(value: object) -> str:
    if isinstance(value, Profile):
        return value.text()
    if isinstance(value, tuple):
        return ", ".join("=".join(part) if isinstance(part, tuple) else part for part in value)
    return str(value)


def _rising(given: Given) -> tuple[int, ...]:
    """Is the kind of (min, opt, max)."""
    words = "three rising numbers from 1: min,opt,max"
    sizes = list_of(whole(1), 3, 3, words=words)(given)
    if list(sizes) != sorted(sizes):
        raise given.refused(words)
    return sizes


def _profile(given: Given) -> Profile:
    sizes: dict[str, Kind[Any]] = {field.name: _rising for field in dataclasses.fields(Profile)}
    return Profile(**all_keys(sizes)(given))


def _flags(given: Given) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(mapping_of(text)(given).items()))


_KEY: dict[str, Kind[Any]] = {
    "onnx_sha256": text,
    "runtime": text,
    "version": text,
    "compute_capabilities": list_of(text),
    "gpu": optional(text),
    "precision": text,
    "profile": _profile,
    "flags": _flags,
}
