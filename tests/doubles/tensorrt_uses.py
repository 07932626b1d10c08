# SPDX-License-Identifier: Apache-2.0
"""Finds every use of TensorRT's API in our source, class by class, without running it.

A small interpreter walks the code and notes for each expression not its value but what kind of
TensorRT object it can be: `trt` is the library, `trt.Builder(logger)` gives a Builder, and what
`create_network` of a Builder returns is in the API itself. Calls of our own functions are
followed with the kinds of their arguments, so that helpers need no annotations. All branches are
walked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tensorrt_api import Api, Member, Use

_LIBRARIES = ("trt", "tensorrt", "tensorrt_rtx")
_IMPORTERS = ("import_module", "import_library")
_SAME_ITEMS = ("closing", "enter_context", "fromkeys", "list", "reversed", "set", "sorted", "tuple")


@dataclass(frozen=True)
class _Thing:
    """Something of TensorRT: its `module`, a `class`, an `object` of one, or a `function`."""

    kind: str
    owner: str = ""
    name: str = ""
    bound: bool = False


@dataclass(frozen=True)
class _Text:
    """A string that the source spells out."""

    text: str


@dataclass(frozen=True)
class _Many:
    """A container: what iterating it gives, and its values if it is a mapping."""

    items: Values
    values: Values | None = None


@dataclass(frozen=True)
class _Row:
    """A tuple, place by place."""

    places: tuple[Values, ...]


@dataclass(frozen=True)
class _Giver:
    """A function that returns the same whatever its arguments."""

    result: Values


@dataclass(eq=False)
class _Scope:
    file: str
    parent: _Scope | None = None
    names: dict[str, Values] = field(default_factory=dict)
    returned: Values = frozenset()


@dataclass(frozen=True)
class _Class:
    """A class of ours; `bases` are those of its bases that are TensorRT's."""

    node: ast.ClassDef
    scope: _Scope
    bases: tuple[str, ...]


@dataclass(frozen=True)
class _Instance:
    made_of: _Class


@dataclass(frozen=True)
class _Function:
    """A function of ours; `owner` is what its first parameter gets."""

    node: ast.FunctionDef | ast.Lambda
    scope: _Scope
    owner: _Instance | None = None


@dataclass(frozen=True)
class _Arguments:
    """The arguments of a call; `starred` where the source does not say how many."""

    positional: list[Values]
    named: _Named
    starred: bool

    def counted(self, extra: int) -> tuple[int, tuple[str, ...]] | None:
        """Return how many there are, with `extra` before them, and the names of the others."""
        return None if self.starred else (len(self.positional) + extra, tuple(self.named))


Value = _Thing | _Text | _Many | _Row | _Giver | _Class | _Instance | _Function
Values = frozenset[Value]
_Named = dict[str, Values]
_NOTHING: Values = frozenset()
_MODULE: Values = frozenset([_Thing("module")])


def uses_in(sources: Mapping[str, str], apis: Iterable[Api]) -> frozenset[Use]:
    """Return every use of TensorRT in some files.

    Args:
        sources: text by file name; the files may import each other.
        apis: the versions in which to look up what a function returns; the first that knows it
            is used.
    """
    reader = _Reader(tuple(apis))
    trees = {file: ast.parse(text) for file, text in sources.items()}
    for _ in range(3):  # attributes of our own objects are known from the second round on
        reader.read_program(trees)
    return frozenset(reader.uses)


def _joined(parts: Iterable[Values]) -> Values:
    return frozenset().union(*parts)


def _items(values: Values) -> Values:
    """Return what iterating gives."""
    found = [value.items for value in values if isinstance(value, _Many)]
    found += [_joined(value.places) for value in values if isinstance(value, _Row)]
    return _joined(found)


def _is_property(node: ast.FunctionDef | ast.Lambda) -> bool:
    names = [getattr(decorator, "id", "") for decorator in getattr(node, "decorator_list", ())]
    return bool({"property", "cached_property"} & set(names))


class _Reader:
    """Walks the files; each `_on_NODE` returns what its expression can be."""

    def __init__(self, apis: tuple[Api, ...]) -> None:
        self.apis = apis
        self.uses: set[Use] = set()
        self.modules: list[_Scope] = []
        self.attributes: dict[tuple[ast.ClassDef, str], Values] = {}
        self.waiting: list[tuple[_Function, list[Values]]] = []
        self.running: list[ast.AST] = []

    def read_program(self, trees: Mapping[str, ast.Module]) -> None:
        self.modules, self.uses = [], set()
        for file, tree in trees.items():
            self.modules.append(_Scope(file))
            self.read_all(tree.body, self.modules[-1])
        while self.waiting:
            function, arguments = self.waiting.pop()
            self.run(function, arguments, {})

    def read_all(self, nodes: Iterable[ast.AST], scope: _Scope) -> Values:
        return _joined([self.read(node, scope) for node in nodes])

    def read(self, node: ast.AST | None, scope: _Scope) -> Values:
        if node is None:
            return _NOTHING
        known = getattr(self, f"_on_{type(node).__name__.lower()}", None)
        if known is not None:
            found: Values = known(node, scope)
            return found
        self.read_all(ast.iter_child_nodes(node), scope)
        return _NOTHING

    def lookup(self, name: str, scope: _Scope) -> Values:
        at: _Scope | None = scope
        while at is not None:
            if name in at.names:
                return at.names[name]
            at = at.parent
        found = _joined(module.names.get(name, _NOTHING) for module in self.modules)
        return found or (_MODULE if name in _LIBRARIES else _NOTHING)

    def note(self, use: _Thing, node: ast.expr, scope: _Scope, **facts: Any) -> None:
        last = node.end_lineno or node.lineno
        self.uses.add(Use(scope.file, node.lineno, last, use.owner, use.name, **facts))

    # What names stand for.

    def bind(self, target: ast.expr, values: Values, scope: _Scope) -> None:
        if isinstance(target, ast.Name):
            scope.names[target.id] = scope.names.get(target.id, _NOTHING) | values
        elif isinstance(target, ast.Attribute):
            for owner in self.read(target.value, scope):
                if isinstance(owner, _Instance):
                    key = (owner.made_of.node, target.attr)
                    self.attributes[key] = self.attributes.get(key, _NOTHING) | values
                elif isinstance(owner, _Thing) and owner.kind == "object":
                    stored = _Thing("function", owner.owner, target.attr)
                    self.note(stored, target, scope, stored=True)
        elif isinstance(target, ast.Tuple | ast.List):
            for place, inner in enumerate(target.elts):
                rows = [v.places for v in values if isinstance(v, _Row)]
                exact = [row[place] for row in rows if len(row) == len(target.elts)]
                many = _items(frozenset(v for v in values if isinstance(v, _Many)))
                self.bind(inner, _joined(exact) | many, scope)
        else:
            self.read(target, scope)

    def member(self, thing: _Thing, name: str, node: ast.expr, scope: _Scope) -> Values:
        """Note the use of a member, and return what it is."""
        found = _Thing("function", thing.owner, name, bound=thing.kind == "object")
        self.note(found, node, scope)
        member = self.known(thing.owner, name)
        if member is None:
            return _NOTHING
        if member.kind == "class":
            return frozenset([_Thing("class", member.type)])
        return frozenset([found]) if member.kind == "function" else self.typed(member.type)

    def known(self, owner: str, name: str) -> Member | None:
        found = (api.classes.get(owner, {}).get(name) for api in self.apis)
        return next((member for member in found if member is not None), None)

    def typed(self, text: str) -> Values:
        """Return what an expression of a type is, such as `list[Dims]`."""
        if text.startswith("list[") and text.endswith("]"):
            return frozenset([_Many(self.typed(text[5:-1]))])
        name = next((name for api in self.apis if (name := api.class_named(text))), None)
        return _NOTHING if name is None else frozenset([_Thing("object", name)])

    def attribute(self, value: Value, name: str, node: ast.expr, scope: _Scope) -> Values:
        if isinstance(value, _Thing) and value.kind != "function":
            return self.member(value, name, node, scope)
        if isinstance(value, _Many):
            return self.method_of_many(value, name)
        if not isinstance(value, _Instance):
            return _NOTHING
        key = (value.made_of.node, name)
        if key in self.attributes or not value.made_of.bases:
            found = self.attributes.get(key, _NOTHING)
            properties = [f for f in found if isinstance(f, _Function) and _is_property(f.node)]
            return (found - set(properties)) | _joined([self.run(f, [], {}) for f in properties])
        bases = [_Thing("object", base) for base in value.made_of.bases]
        return _joined([self.member(base, name, node, scope) for base in bases])

    def method_of_many(self, many: _Many, name: str) -> Values:
        values = many.items if many.values is None else many.values
        given: dict[str, Values] = {
            "get": values,
            "pop": values,
            "items": frozenset([_Many(frozenset([_Row((many.items, values))]))]),
            "values": frozenset([_Many(values)]),
        }
        return frozenset([_Giver(given[name])]) if name in given else _NOTHING

    # Calls.

    def call(self, value: Value, node: ast.Call, given: _Arguments, scope: _Scope) -> Values:
        if isinstance(value, _Giver):
            return value.result
        if isinstance(value, _Function):
            return self.run(value, given.positional, given.named)
        if isinstance(value, _Class):
            return self.made(value, given)
        if not isinstance(value, _Thing) or value.kind not in ("class", "function"):
            return _NOTHING
        if value.kind == "class":
            made = _Thing("function", value.owner, "__init__", bound=True)
            self.note(made, node, scope, call=given.counted(1))
            return frozenset([_Thing("object", value.owner)])
        member = self.known(value.owner, value.name)
        signatures = member.signatures if member is not None else ()
        is_method = any(signature.is_method for signature in signatures)
        self.note(value, node, scope, call=given.counted(int(value.bound and is_method)))
        return _joined([self.typed(signature.result) for signature in signatures])

    def made(self, made_of: _Class, given: _Arguments) -> Values:
        """Make an object of a class of ours, through `__init__` or as a dataclass does."""
        for init in self.attributes.get((made_of.node, "__init__"), _NOTHING):
            if isinstance(init, _Function):
                self.run(init, given.positional, given.named)
        fields = [n.target.id for n in made_of.node.body if isinstance(n, ast.AnnAssign)]
        pairs = [*zip(fields, given.positional, strict=False), *given.named.items()]
        for name, values in pairs:
            key = (made_of.node, name)
            self.attributes[key] = self.attributes.get(key, _NOTHING) | values
        return frozenset([_Instance(made_of)])

    def run(self, function: _Function, positional: list[Values], named: _Named) -> Values:
        """Walk a function of ours with what its arguments are; return what it returns."""
        node = function.node
        if node in self.running:
            return _NOTHING
        scope = _Scope(function.scope.file, function.scope)
        spec = node.args
        places = [*spec.posonlyargs, *spec.args]
        if function.owner is not None:
            positional = [frozenset([function.owner]), *positional]
        given = dict(zip((place.arg for place in places), positional, strict=False)) | named
        for place in (*places, *spec.kwonlyargs):
            known = given.get(place.arg) or self.annotated(place.annotation, scope)
            if not known and place.arg in _LIBRARIES:
                known = _MODULE
            scope.names[place.arg] = known
        self.running.append(node)
        if isinstance(node, ast.Lambda):
            scope.returned = self.read(node.body, scope)
        else:
            self.read_all(node.body, scope)
        self.running.pop()
        return scope.returned

    def annotated(self, annotation: ast.expr | None, scope: _Scope) -> Values:
        """Return what a name annotated with a class of TensorRT is."""
        return frozenset(
            _Thing("object", value.owner)
            for value in self.read(annotation, scope)
            if isinstance(value, _Thing) and value.kind == "class"
        )

    def arguments(self, node: ast.Call, scope: _Scope) -> _Arguments:
        positional = [self.read(argument, scope) for argument in node.args]
        named = {word.arg or "**": self.read(word.value, scope) for word in node.keywords}
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        return _Arguments(positional, named, starred or "**" in named)

    def builtin(self, node: ast.Call, given: _Arguments, scope: _Scope) -> Values:
        """Return what a function returns that is neither ours nor TensorRT's."""
        name = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        first = given.positional[0] if given.positional else _NOTHING
        if name in _IMPORTERS:
            texts = [value.text for value in first if isinstance(value, _Text)]
            return _MODULE if not texts or set(texts) <= set(_LIBRARIES) else _NOTHING
        if name in ("getattr", "hasattr", "setattr") and len(given.positional) > 1:
            return self.named_by_text(first, given.positional[1], node, scope)
        if name in _SAME_ITEMS:
            return first
        if name == "next":
            return _items(first)
        if name in ("enumerate", "zip"):
            places = tuple(_items(values) for values in given.positional)
            row = _Row((_NOTHING, *places) if name == "enumerate" else places)
            return frozenset([_Many(frozenset([row]))])
        return _NOTHING

    def named_by_text(self, values: Values, names: Values, node: ast.Call, scope: _Scope) -> Values:
        """Note what `getattr(trt.BuilderFlag, "TF32")` uses."""
        things = [v for v in values if isinstance(v, _Thing | _Instance)]
        texts = [value.text for value in names if isinstance(value, _Text)]
        for thing in things:
            if not texts and isinstance(thing, _Thing):
                self.note(_Thing("function", thing.owner, "(a name that is computed)"), node, scope)
        return _joined(
            [self.attribute(thing, text, node, scope) for thing in things for text in texts]
        )

    # Nodes that define or bind.

    def _on_functiondef(self, node: ast.FunctionDef, scope: _Scope) -> Values:
        arguments = node.args
        self.read_all([*node.decorator_list, *arguments.defaults, *arguments.kw_defaults], scope)
        function = _Function(node, scope)
        scope.names[node.name] = frozenset([function])
        self.waiting.append((function, []))
        return _NOTHING

    def _on_lambda(self, node: ast.Lambda, scope: _Scope) -> Values:
        function = _Function(node, scope)
        self.waiting.append((function, []))
        return frozenset([function])

    def _on_classdef(self, node: ast.ClassDef, scope: _Scope) -> Values:
        found = self.read_all(node.bases, scope)
        bases = [v.owner for v in found if isinstance(v, _Thing) and v.kind == "class"]
        made_of = _Class(node, scope, tuple(bases))
        scope.names[node.name] = frozenset([made_of])
        for inner in node.body:
            if isinstance(inner, ast.FunctionDef):
                self.method(made_of, inner)
            else:
                self.read(inner, scope)
        return _NOTHING

    def method(self, made_of: _Class, node: ast.FunctionDef) -> None:
        """Keep a method; one that TensorRT calls back gets what the API says and must fit it."""
        function = _Function(node, made_of.scope, _Instance(made_of))
        self.attributes[made_of.node, node.name] = frozenset([function])
        arguments: list[Values] = []
        for base in made_of.bases:
            member = self.known(base, node.name)
            if member is None or node.name == "__init__" or not member.signatures:
                continue
            parameters = member.signatures[0].parameters[1:]
            arguments = [self.typed(parameter.type) for parameter in parameters]
            spec, gets = node.args, len(parameters) + 1
            most = len(spec.posonlyargs) + len(spec.args)
            fits = most - len(spec.defaults) <= gets <= (gets if spec.vararg else most)
            taken = None if fits else (most, ())
            first, last = node.lineno, node.body[0].lineno - 1
            file = made_of.scope.file
            self.uses.add(Use(file, first, last, base, node.name, call=taken))
        self.waiting.append((function, arguments))

    def _on_import(self, node: ast.Import, scope: _Scope) -> Values:
        for alias in node.names:
            if alias.name in _LIBRARIES:
                scope.names[alias.asname or alias.name] = _MODULE
        return _NOTHING

    def _on_assign(self, node: ast.Assign, scope: _Scope) -> Values:
        values = self.read(node.value, scope)
        for target in node.targets:
            self.bind(target, values, scope)
        return _NOTHING

    def _on_annassign(self, node: ast.AnnAssign, scope: _Scope) -> Values:
        values = self.read(node.value, scope) | self.annotated(node.annotation, scope)
        self.bind(node.target, values, scope)
        return _NOTHING

    def _on_namedexpr(self, node: ast.NamedExpr, scope: _Scope) -> Values:
        values = self.read(node.value, scope)
        self.bind(node.target, values, scope)
        return values

    def _on_for(self, node: ast.For, scope: _Scope) -> Values:
        self.bind(node.target, _items(self.read(node.iter, scope)), scope)
        for _ in range(2):  # what one round finds is there in the next
            self.read_all([*node.body, *node.orelse], scope)
        return _NOTHING

    def _on_while(self, node: ast.While, scope: _Scope) -> Values:
        for _ in range(2):
            self.read_all([node.test, *node.body, *node.orelse], scope)
        return _NOTHING

    def _on_comprehension(self, node: ast.comprehension, scope: _Scope) -> Values:
        self.bind(node.target, _items(self.read(node.iter, scope)), scope)
        return self.read_all(node.ifs, scope)

    def _on_withitem(self, node: ast.withitem, scope: _Scope) -> Values:
        values = self.read(node.context_expr, scope)
        if node.optional_vars is not None:
            self.bind(node.optional_vars, values, scope)
        return _NOTHING

    def _on_return(self, node: ast.Return, scope: _Scope) -> Values:
        scope.returned |= self.read(node.value, scope)
        return _NOTHING

    def _on_yield(self, node: ast.Yield, scope: _Scope) -> Values:
        values = self.read(node.value, scope)
        # `with` gets the values themselves, `for` gets them one by one.
        scope.returned |= values | {_Many(values)}
        return _NOTHING

    # Expressions.

    def _on_name(self, node: ast.Name, scope: _Scope) -> Values:
        return self.lookup(node.id, scope)

    def _on_constant(self, node: ast.Constant, _: _Scope) -> Values:
        return frozenset([_Text(node.value)]) if isinstance(node.value, str) else _NOTHING

    def _on_attribute(self, node: ast.Attribute, scope: _Scope) -> Values:
        owners = self.read(node.value, scope)
        found = _joined([self.attribute(owner, node.attr, node, scope) for owner in owners])
        return found or (_MODULE if node.attr in _LIBRARIES else _NOTHING)

    def _on_call(self, node: ast.Call, scope: _Scope) -> Values:
        functions = self.read(node.func, scope)
        given = self.arguments(node, scope)
        if not functions:
            return self.builtin(node, given, scope)
        return _joined([self.call(function, node, given, scope) for function in functions])

    def _on_subscript(self, node: ast.Subscript, scope: _Scope) -> Values:
        self.read(node.slice, scope)
        found = self.read(node.value, scope)
        if isinstance(node.slice, ast.Slice):
            return found
        maps = [v.values for v in found if isinstance(v, _Many) and v.values is not None]
        lists = frozenset(v for v in found if not isinstance(v, _Many) or v.values is None)
        return _joined(maps) | _items(lists)

    def _on_starred(self, node: ast.Starred, scope: _Scope) -> Values:
        return _items(self.read(node.value, scope))

    def _on_tuple(self, node: ast.Tuple, scope: _Scope) -> Values:
        return frozenset([_Row(tuple(self.read(inner, scope) for inner in node.elts))])

    def _on_list(self, node: ast.List | ast.Set, scope: _Scope) -> Values:
        return frozenset([_Many(self.read_all(node.elts, scope))])

    _on_set = _on_list

    def _on_dict(self, node: ast.Dict, scope: _Scope) -> Values:
        keys = _joined([self.read(key, scope) for key in node.keys])
        return frozenset([_Many(keys, self.read_all(node.values, scope))])

    def _on_listcomp(self, node: ast.ListComp | ast.SetComp, scope: _Scope) -> Values:
        self.read_all(node.generators, scope)
        return frozenset([_Many(self.read(node.elt, scope))])

    _on_setcomp = _on_generatorexp = _on_listcomp

    def _on_dictcomp(self, node: ast.DictComp, scope: _Scope) -> Values:
        self.read_all(node.generators, scope)
        return frozenset([_Many(self.read(node.key, scope), self.read(node.value, scope))])

    def _on_ifexp(self, node: ast.IfExp, scope: _Scope) -> Values:
        self.read(node.test, scope)
        return self.read_all([node.body, node.orelse], scope)

    def _on_boolop(self, node: ast.BoolOp, scope: _Scope) -> Values:
        return self.read_all(node.values, scope)
