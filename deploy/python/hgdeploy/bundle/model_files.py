# SPDX-License-Identifier: Apache-2.0
"""All files of a model, and the digest that tells it from every other.

A model is rarely one file: Paddle keeps the parameters beside the program, ONNX may keep weights in
files of any name, OpenVINO in a `.bin`. Whatever is kept for a model (a compiled form, the rows of
a run that continues) is kept under the digest of all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from hgdeploy.bundle.names import ALONE, DESCRIBED, RECOMMENDED
from hgdeploy.bundle.protobuf import Message
from hgdeploy.bundle.sidecar import read_sidecar, sidecar_path
from hgdeploy.errors import BundleError
from hgdeploy.system.digests import combined_digest, file_sha256

# What lies beside a model under the same stem.
_BESIDE = {".json": ".pdiparams", ".pdmodel": ".pdiparams", ".xml": ".bin", ".param": ".bin"}

# The ends of the names of what nothing but a model's folder has.
_KEPT = (
    *(".pdmodel", ".pdiparams", *ALONE, ".xml", ".bin", *DESCRIBED),
    *(".yml", ".yaml", ".txt"),
)
_SIDECAR = ".meta.json"

# The numbers of the fields in onnx.proto that lead to tensors, and so to files of weights.
_GRAPH, _FUNCTION, _FUNCTION_NODE = 7, 25, 7  # of ModelProto, of FunctionProto
_NODE, _INITIALIZER, _SPARSE = 1, 5, 15  # of GraphProto
_ATTRIBUTE = 5  # of NodeProto
_TENSORS, _GRAPHS, _SPARSES = (5, 10), (6, 11), (22, 23)  # of AttributeProto
_SPARSE_TENSORS = (1, 2)  # of SparseTensorProto
_EXTERNAL_DATA, _KEY, _VALUE = 13, 1, 2  # of TensorProto, of StringStringEntryProto
_MOST_DEPTH = 32  # graphs within graphs
_OP_TYPE, _DATA_TYPE = 4, 2  # of NodeProto, of TensorProto
# Of TensorProto.DataType, the floats of 16 bits; and what quantizing operators have in their names.
_HALVES = {10: "fp16", 16: "bf16"}
_QUANTIZING = ("QuantizeLinear", "QLinear", "MatMulInteger", "ConvInteger")


def model_files(artifact: Path) -> tuple[Path, ...]:
    """Return the files that a model consists of, itself first.

    Args:
        artifact: the file that an engine loads. A Paddle program has its parameters beside it, an
            ONNX file every file of weights that it names, OpenVINO's `.xml` and ncnn's `.param`
            their `.bin`; an engine file has its sidecar, which says what it was built for.

    Raises:
        BundleError: it cannot be read, or names weights that are missing or lie outside its folder.
    """
    if artifact.suffix == ".onnx":
        return (artifact, *_external_files(artifact))
    if artifact.suffix in (".engine", ".plan"):
        beside = sidecar_path(artifact)
    elif artifact.suffix in _BESIDE:
        beside = artifact.with_suffix(_BESIDE[artifact.suffix])
    else:
        return (artifact,)
    return (artifact, beside) if beside.is_file() else (artifact,)


def files_of_models(folder: Path) -> Iterator[Path]:
    """Yield what a bundle needs, whichever of its models is run: models, description, labels.

    Args:
        folder: the bundle's folder, or a model file in it; nothing where it cannot be read.
    """
    folder = folder.parent if folder.is_file() else folder
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            program = path.suffix == ".json" and path.with_suffix(".pdiparams").is_file()
            if path.suffix in _KEPT or path.name.endswith((_SIDECAR, RECOMMENDED)) or program:
                yield path
            if path.suffix == ".onnx":
                with contextlib.suppress(BundleError):  # said by whoever loads it
                    yield from model_files(path)


def model_digest(artifact: Path) -> str:
    """Return the SHA-256 that stands for all files of a model, by their content.

    Raises:
        BundleError: as for `model_files`.
    """
    files = model_files(artifact)
    try:
        return combined_digest([file_sha256(path) for path in files])
    except OSError as error:
        raise BundleError(f"{artifact} cannot be read: {error.strerror or error}") from None


def onnx_precision(onnx: Path) -> str:
    """Return what an ONNX file computes in, whatever its name: fp32, fp16, bf16 or int8.

    Its sidecar says so, or its operators and weights.

    Raises:
        BundleError: it cannot be read.
    """
    made_in = (read_sidecar(onnx) or {}).get("precision")
    if isinstance(made_in, str):
        return made_in
    try:
        with onnx.open("rb") as file:
            kinds = {kind for graph in Message.whole(file).parts(_GRAPH) for kind in _kinds(graph)}
    except (OSError, ValueError) as error:
        raise BundleError(f"{onnx} is not a readable ONNX model ({error}); make it again") from None
    return next((kind for kind in ("int8", *_HALVES.values()) if kind in kinds), "fp32")


def _kinds(graph: Message) -> Iterator[str]:
    """Yield what an operator or constant of a graph says of the precision it computes in."""
    for node in graph.parts(_NODE):
        op = next((part.text() for part in node.parts(_OP_TYPE)), "")
        if any(name in op for name in _QUANTIZING):
            yield "int8"
        if op == "Constant":
            for attribute in node.parts(_ATTRIBUTE):
                yield from _half(attribute.parts(_TENSORS[0]))
    yield from _half(graph.parts(_INITIALIZER))


def _half(tensors: Iterator[Message]) -> Iterator[str]:
    for tensor in tensors:
        kind = next(tensor.numbers(_DATA_TYPE), 0)
        if kind in _HALVES:
            yield _HALVES[kind]


def _external_files(onnx: Path) -> list[Path]:
    """Return the files of weights that an ONNX file names, in alphabetical order."""
    try:
        with onnx.open("rb") as file:
            locations = sorted(set(_locations(file)))
    except OSError as error:
        raise BundleError(f"{onnx} cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise BundleError(f"{onnx} is not a readable ONNX model ({error}); make it again") from None
    for location in locations:
        relative = PurePosixPath(location)
        if relative.is_absolute() or ".." in relative.parts:
            raise BundleError(
                f"{onnx} names weights outside of its folder ({location!r}); put them beside it, "
                "and save it with a name relative to itself"
            )
        if not (onnx.parent / location).is_file():
            raise BundleError(
                f"{onnx} keeps weights in {onnx.parent / location}, which does not exist; copy "
                "both files"
            )
    return [onnx.parent / location for location in locations]


def _locations(file: BinaryIO) -> Iterator[str]:
    model = Message.whole(file)
    for number, part in model.fields():
        if isinstance(part, Message):
            if number == _GRAPH:
                yield from _of_graph(part, 0)
            elif number == _FUNCTION:
                for node in part.parts(_FUNCTION_NODE):
                    yield from _of_node(node, 0)


def _of_graph(graph: Message, depth: int) -> Iterator[str]:
    if depth > _MOST_DEPTH:
        raise ValueError(f"it has more than {_MOST_DEPTH} graphs within each other")
    for number, part in graph.fields():
        if isinstance(part, Message):
            if number == _NODE:
                yield from _of_node(part, depth)
            elif number == _INITIALIZER:
                yield from _of_tensor(part)
            elif number == _SPARSE:
                yield from _of_sparse(part)


def _of_node(node: Message, depth: int) -> Iterator[str]:
    for attribute in node.parts(_ATTRIBUTE):
        for number, part in attribute.fields():
            if isinstance(part, Message):
                if number in _TENSORS:
                    yield from _of_tensor(part)
                elif number in _GRAPHS:
                    yield from _of_graph(part, depth + 1)
                elif number in _SPARSES:
                    yield from _of_sparse(part)


def _of_sparse(sparse: Message) -> Iterator[str]:
    for number in _SPARSE_TENSORS:
        for tensor in sparse.parts(number):
            yield from _of_tensor(tensor)


def _of_tensor(tensor: Message) -> Iterator[str]:
    for entry in tensor.parts(_EXTERNAL_DATA):
        texts = {number: value for number, value in entry.fields() if isinstance(value, Message)}
        if _KEY in texts and _VALUE in texts and texts[_KEY].text() == "location":
            yield texts[_VALUE].text()
