# SPDX-License-Identifier: Apache-2.0
"""The layers of an engine as they run: what TensorRT's inspector and log tell of them.

TensorRT 10, 11 and RTX tell the same in words of their own. Without a GPU no engine can be loaded,
so none can be inspected; TensorRT-RTX then lists the layers in its log, at the end of a build.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hgdeploy.system.documents import parse_json

LOGGED = "Layers:\n"
_LINE = re.compile(
    r"Name: (?P<Name>.*?), LayerType: (?P<LayerType>[^,]*), Inputs: (?P<Inputs>.*?), "
    r"Constants: .*?, Outputs: (?P<Outputs>.*?), TacticName: .*?, Metadata: (?P<Metadata>.*)"
)
_LOGGED_TYPE = re.compile(r"Datatype: ([^,}]+)")
_ONNX = re.compile(r"\[ONNX Layer: (.*?)\]")
# The first that a description of a tensor has in it; TensorRT 10 tells type and layout in one.
_TYPES = {
    "bf16": "bfloat16|bf16",
    "fp16": "half|fp16|float16",
    "fp8": "fp8|float8",
    "fp32": "float|fp32",
    "uint8": "uint8",
    "int8": "int8",
    "int32": "int32",
    "int64": "int64",
    "bool": "bool",
}


@dataclass(frozen=True)
class Layer:
    """One layer of an engine, which may do the work of many of the model's operators.

    Attributes:
        name: its name, which a profiler reports too.
        kind: its type, such as `CaskConvolution`; for RTX `correlation` is a convolution, `kgen` a
            fused kernel.
        reads: the element types of what it reads, without constants: `int8`, `fp16`, ...
        gives: those of what it makes.
        onnx: the names of the ONNX nodes that it computes, as far as the library knows.
        ms: how long it runs; None where nobody has measured it.
    """

    name: str
    kind: str
    reads: tuple[str, ...]
    gives: tuple[str, ...]
    onnx: tuple[str, ...] = ()
    ms: float | None = None

    @property
    def precision(self) -> str:
        """Its precision for people: `fp16`, or `int8 to fp32` where it changes the type."""
        given = "+".join(dict.fromkeys(self.gives))
        read = "+".join(dict.fromkeys(self.reads))
        if read in (given, ""):
            return given or "not said"
        return f"{read} to {given or 'nothing'}"

    def to_json(self) -> dict[str, Any]:
        """Return it as a sidecar holds it."""
        return dataclasses.asdict(self)


def layers_of_facts(facts: Mapping[str, Any]) -> list[Layer] | None:
    """Return the layers in an engine's sidecar; None where there are none."""
    try:
        return [
            Layer(
                str(one["name"]),
                str(one["kind"]),
                tuple(map(str, one["reads"])),
                tuple(map(str, one["gives"])),
                tuple(map(str, one["onnx"])),
            )
            for one in facts["network"]["engine"]["layer_list"]
        ]
    except (KeyError, TypeError):
        return None


def layers_of_log(text: str) -> list[Layer]:
    """Return the layers of one message of the log, which begins with `LOGGED`."""
    found = []
    for match in map(_LINE.fullmatch, text.splitlines()):
        if match is not None:
            inputs, outputs = (_LOGGED_TYPE.findall(match[side]) for side in ("Inputs", "Outputs"))
            onnx = tuple(_ONNX.findall(match["Metadata"]))
            kinds = tuple(map(_type, inputs)), tuple(map(_type, outputs))
            found.append(Layer(match["Name"], match["LayerType"], *kinds, onnx))
    return found


def layers_of_inspector(text: str) -> list[Layer] | None:
    """Return the layers of an inspector's JSON; None where it tells them in words we do not know.

    An engine that was built without detailed verbosity has only names.
    """
    try:
        told = parse_json(text)["Layers"]
    except (KeyError, TypeError, ValueError):
        return None
    return [_inspected(layer) for layer in told] if isinstance(told, list) else None


def _inspected(told: Any) -> Layer:
    if not isinstance(told, Mapping):
        return Layer(str(told), "not said", (), ())
    onnx = tuple(_ONNX.findall(str(told.get("Metadata", ""))))
    reads, gives = (tuple(_types(told.get(side))) for side in ("Inputs", "Outputs"))
    name, kind = str(told.get("Name")), str(told.get("LayerType", "not said"))
    return Layer(name, kind, reads, gives, onnx)


def _types(tensors: Any) -> Iterator[str]:
    for tensor in tensors if isinstance(tensors, list) else ():
        if isinstance(tensor, Mapping):
            words = ("Datatype", "DataType", "Format/Datatype")
            yield _type(next((str(tensor[word]) for word in words if word in tensor), ""))


def _type(words: str) -> str:
    said = words.lower()
    return next((name for name, mark in _TYPES.items() if re.search(mark, said)), "not said")


def with_times(layers: Iterable[Layer], times: Mapping[str, float]) -> list[Layer]:
    """Return layers with their times, and those that only the profiler knows."""
    known = [dataclasses.replace(layer, ms=times.get(layer.name)) for layer in layers]
    names = {layer.name for layer in known}
    others = [name for name in times if name not in names]
    return [*known, *(Layer(name, "not said", (), (), ms=times[name]) for name in others)]
