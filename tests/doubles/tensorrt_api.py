# SPDX-License-Identifier: Apache-2.0
"""What a TensorRT Python module offers, as plain data, and what our code uses of it.

`python tensorrt_api.py MODULE` prints the API of a module that has TensorRT's shape: the classes,
their members, and the parameters of each function. The classes come from pybind11, so parameters
and types are read from the first lines of the docstrings that it writes.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

_PREFIX = re.compile(r"\b(?:\w+_bindings\.\w+\.|nvinfer1::(?:\w+::)*|nvonnxparser::)")
_SIGNATURE = re.compile(r"^(?:\d+\. )?\w*\((?P<parameters>.*)\) -> (?P<result>.+)$")
_KINDS = _POSITIONAL, _EITHER, _STAR, _KEYWORD, _STARS = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.KEYWORD_ONLY,
    inspect.Parameter.VAR_KEYWORD,
)


@dataclass(frozen=True)
class Parameter:
    """A parameter of a function; `kind` is inspect's number, `type` pybind11's name of it."""

    name: str
    kind: int
    required: bool
    type: str = ""


@dataclass(frozen=True)
class Signature:
    """One way to call a function: its parameters with `self`, and the type that comes back."""

    parameters: tuple[Parameter, ...]
    result: str = ""

    @property
    def is_method(self) -> bool:
        """Whether its first parameter is the object that it is called on."""
        return bool(self.parameters) and self.parameters[0].name == "self"

    def problem(self, positional: int, keywords: tuple[str, ...]) -> str | None:
        """Return why it cannot be called with so many arguments, `self` included; None if it can.

        Args:
            positional: number of positional arguments.
            keywords: names of the others.
        """
        parameters = [
            inspect.Parameter(
                parameter.name,
                _KINDS[parameter.kind],
                default=inspect.Parameter.empty if parameter.required else None,
            )
            for parameter in self.parameters
        ]
        try:
            inspect.Signature(parameters).bind(*[None] * positional, **dict.fromkeys(keywords))
        except TypeError as error:
            return str(error)
        return None


@dataclass(frozen=True)
class Member:
    """One name of a module or of a class.

    Attributes:
        kind: `class`, `function`, `property` or `value`.
        type: of a class its name; of a property or a value its class.
        writable: whether a property can be set.
        signatures: the ways to call a function; none means that they are not known.
    """

    kind: str
    type: str = ""
    writable: bool = False
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True)
class Api:
    """Everything public of one version.

    Attributes:
        name: the library and its version.
        classes: the members of each class; "" is the module itself.
    """

    name: str
    classes: dict[str, dict[str, Member]]

    def find(self, owner: str, name: str) -> Member | None:
        """Return the member `name` of a class (of the module for "")."""
        return self.classes.get(owner, {}).get(name)

    def class_named(self, text: str) -> str | None:
        """Return the class that a type of a docstring means: `IBuilder` of C++ is `Builder`."""
        return next((name for name in (text, text[1:]) if name and name in self.classes), None)


@dataclass(frozen=True)
class Use:
    """One place where our code touches TensorRT.

    Attributes:
        file: name of the source file.
        line: its first line.
        last_line: its last line.
        owner: the class; "" is the module.
        name: the member.
        call: (number of positional arguments with `self`, names of the others) of a call that
            spells them out; None where the member is only named, or called with `*arguments`.
        stored: whether it is assigned to.
    """

    file: str
    line: int
    last_line: int
    owner: str
    name: str
    call: tuple[int, tuple[str, ...]] | None = None
    stored: bool = False

    @property
    def full_name(self) -> str:
        """The member with its class."""
        return f"{self.owner}.{self.name}" if self.owner else self.name


def problem_of(use: Use, api: Api) -> str | None:
    """Return why a version does not support a use; None where it does."""
    members = api.classes.get(use.owner)
    if members is None:
        return None  # the place that names the class is reported instead
    member, where = members.get(use.name), f"{use.file}:{use.line}: {use.full_name}"
    if member is None:
        return f"{where} does not exist in {api.name}"
    if use.stored and not member.writable:
        return f"{where} cannot be set in {api.name}"
    if use.call is None:
        return None
    if not member.signatures and use.name == "__init__":
        return f"{where}: it cannot be made by a call in {api.name}"
    problems = [signature.problem(*use.call) for signature in member.signatures]
    return f"{where}: {problems[0]} in {api.name}" if problems and all(problems) else None


def read_api(text: str) -> Api:
    """Read what this file prints when run as a program."""
    content = json.loads(text)
    return Api(
        content["name"],
        {
            owner: {name: _member(**value) for name, value in members.items()}
            for owner, members in content["classes"].items()
        },
    )


def _member(signatures: list[Any], **content: Any) -> Member:
    ways = tuple(
        Signature(tuple(Parameter(**parameter) for parameter in way["parameters"]), way["result"])
        for way in signatures
    )
    return Member(signatures=ways, **content)


def print_api(module: ModuleType) -> None:
    """Print the API of a module as JSON."""
    content = {
        owner: {
            name: dataclasses.asdict(_described(holder, name))
            for name in getattr(holder, "__all__", dir(holder))
            if _is_own(holder, name)
        }
        for owner, holder in {"": module, **_classes_of(module)}.items()
    }
    name = f"{module.__name__.removesuffix('_bindings')} {module.__version__}"
    print(json.dumps({"name": name, "classes": content}))


def _is_ours(value: Any) -> bool:
    """Return whether something comes from TensorRT's own packages, or one that mimics them."""
    home = getattr(value, "__module__", None)
    return not isinstance(home, str) or "tensorrt" in home or home.startswith("pybind11")


def _is_own(holder: Any, name: str) -> bool:
    """Return whether a module or class has a member of its own, not one of Python's."""
    if isinstance(holder, type):
        return _is_ours(next((base for base in holder.__mro__ if name in vars(base)), object))
    value = getattr(holder, name)
    return _is_ours(value) and not isinstance(value, ModuleType)


def _classes_of(module: ModuleType) -> dict[str, type]:
    """Return the classes that a module defines, and those inside them, by qualified name."""
    found: dict[str, type] = {}
    waiting = list(vars(module).values())
    while waiting:
        value = waiting.pop()
        is_class = isinstance(value, type) and _is_ours(value)
        if is_class and value.__qualname__ not in found:
            found[value.__qualname__] = value
            waiting += vars(value).values()
    return found


def _described(holder: Any, name: str) -> Member:
    """Describe a member of a module or class."""
    value, static = getattr(holder, name), inspect.getattr_static(holder, name)
    if isinstance(value, type):
        return Member("class", value.__qualname__)
    if isinstance(static, property):
        ways = _documented(static.fget)
        return Member("property", ways[0].result if ways else "", static.fset is not None)
    if inspect.isfunction(value):
        return Member("function", signatures=(_of_python(value),))
    if callable(value):
        return Member("function", signatures=_documented(value))
    return Member("value", type(value).__qualname__)


def _of_python(function: Any) -> Signature:
    return Signature(
        tuple(
            Parameter(parameter.name, int(parameter.kind), _required(parameter))
            for parameter in inspect.signature(function).parameters.values()
        )
    )


def _required(parameter: inspect.Parameter) -> bool:
    starred = parameter.kind in (_STAR, _STARS)
    return parameter.default is inspect.Parameter.empty and not starred


def _documented(function: Any) -> tuple[Signature, ...]:
    """Read the signatures in pybind11's docstring; more than one where it is overloaded."""
    lines = [line.strip() for line in (function.__doc__ or "").strip().splitlines()]
    if not lines:
        return ()
    overloaded = "Overloaded function." in lines[:2]
    matches = [_SIGNATURE.match(_PREFIX.sub("", line)) for line in lines]
    found = matches if overloaded else matches[:1]
    return tuple(Signature(_parameters(m["parameters"]), m["result"]) for m in found if m)


def _parameters(text: str) -> tuple[Parameter, ...]:
    """Read `self: A, name: str, path: str = None`; pybind11 calls one without a name `arg0`."""
    found: list[Parameter] = []
    kind = _EITHER
    for part in _split(text):
        declared, has_default, _ = part.partition(" = ")
        name, _, type_name = declared.partition(": ")
        if part == "/":
            found = [dataclasses.replace(one, kind=int(_POSITIONAL)) for one in found]
        elif part.startswith("*"):
            stars = _STARS if part.startswith("**") else _STAR
            kind = _KEYWORD
            if part != "*":
                found.append(Parameter(name.lstrip("*"), int(stars), False))
        else:
            here = _POSITIONAL if re.fullmatch(r"arg\d+", name) else kind
            found.append(Parameter(name, int(here), not has_default, type_name))
    return tuple(found)


def _split(text: str) -> list[str]:
    """Split at the commas that no bracket encloses."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in "[(<{") - (character in "])>}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


class _Notes:
    """Records the uses of a TensorRT module by code below a folder."""

    def __init__(self, package: Path) -> None:
        self.package = package
        self.uses: list[Use] = []

    def add(self, owner: str, name: str, call: Any = None, stored: bool = False) -> None:
        """Record what the caller's caller uses, if its code lies in the folder."""
        frame = sys._getframe(2)
        file, line = Path(frame.f_code.co_filename), frame.f_lineno
        if file.is_relative_to(self.package):
            inside = file.relative_to(self.package).as_posix()
            self.uses.append(Use(inside, line, line, owner, name, call, stored))

    def function(self, owner: str, name: str, function: Any) -> Any:
        """Return a method that records its calls."""

        def call(*arguments: Any, **named: Any) -> Any:
            self.add(owner, name, (len(arguments), tuple(named)))
            return function(*arguments, **named)

        return call

    def property(self, owner: str, name: str, found: property) -> property:
        """Return a property that records its reads and writes."""

        def read(thing: Any) -> Any:
            self.add(owner, name)
            return found.__get__(thing)

        def store(thing: Any, value: Any) -> None:
            self.add(owner, name, stored=True)
            found.__set__(thing, value)

        return property(read, None if found.fset is None else store)


def note_uses(module: ModuleType, package: Path) -> list[Use]:
    """From now on, note every use of a TensorRT module by code below `package`.

    The module's classes are changed in place, so call this in a separate process.

    Returns:
        The list that grows; an owner is the class that defines what is used.
    """
    notes = _Notes(package)

    class NotedModule(ModuleType):
        def __getattribute__(self, name: str) -> Any:
            notes.add("", name)
            return super().__getattribute__(name)

    for owner, cls in _classes_of(module).items():
        for name, value in list(vars(cls).items()):
            if name != "__init__" and name.startswith("_"):
                continue
            if type(value) is property:
                setattr(cls, name, notes.property(owner, name, value))
            elif type(value).__name__ in ("function", "instancemethod"):
                setattr(cls, name, notes.function(owner, name, value))
    module.__class__ = NotedModule
    return notes.uses


if __name__ == "__main__":
    print_api(importlib.import_module(sys.argv[1]))
