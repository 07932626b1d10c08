# SPDX-License-Identifier: Apache-2.0
"""Place QDQ pairs in an ONNX graph, with ONNX Runtime's quantizer, where all engines can use them.

A pair of QuantizeLinear and DequantizeLinear stands only where an operator that runs in int8 reads:
after an activation rather than before it, so that an engine fuses convolution and activation, and
never before a layer that stays in fp32 (between two pairs, ONNX Runtime would quantize that layer's
weights by itself, per tensor). What follows the last layer with weights stays in fp32. uint8 pairs,
which only CPUs read, stand before every operator that has an int8 kernel there; int8 pairs stand
where `edges` says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import replace_items, require_pixels, tensors_used
from hgdeploy.convert.int8.edges import WEIGHTED, FusingEdges
from hgdeploy.convert.int8.norms import fold_dense_norms
from hgdeploy.errors import BundleError, one_line
from hgdeploy.system.libraries import import_library

Ranges = Mapping[str, tuple[float, float]]
_QUANTIZED = (*WEIGHTED, "Add", "Mul", "Concat", "MaxPool", "AveragePool", "GlobalAveragePool")


def load_folded(source: Path) -> OnnxGraph:
    """Read an fp32 classifier, fold what can be folded, and give every node a name.

    Raises:
        BundleError: it is missing, or is something else.
    """
    graph = OnnxGraph.read(source, external_data=True)
    graph.check_weights()
    if any(node.op_type == "BatchNormalization" for node in graph.nodes):
        # Of a bundle that came as an ONNX file alone. Those that follow no layer with weights stay,
        # and run in fp32.
        graph = graph.folded()[0]
        fold_dense_norms(graph)
    kinds = [node.op_type for node in graph.nodes]
    if graph.is_quantized:
        raise BundleError(f"{source} is quantized already; start from inference.onnx")
    require_pixels(graph.image_input(), source, "quantized")
    if graph.opset < 13:
        raise BundleError(
            f"{source} has opset {graph.opset}, and int8 weights per channel need 13; "
            "convert the bundle again with opset 17"
        )
    if not any(kind in WEIGHTED for kind in kinds):
        raise BundleError(f"{source} has no layer to quantize ({', '.join(WEIGHTED)})")
    for index, node in enumerate(graph.nodes):
        node.name = node.name or f"{node.op_type}_{index}"
    return graph.with_inferred_shapes()


def node_names(graph: OnnxGraph) -> list[str]:
    """Return the names of all quantizable nodes, in order."""
    return [node.name for node in _quantizable(graph)]


def layer_names(graph: OnnxGraph) -> list[str]:
    """Return the names of the quantizable nodes that have weights, in order."""
    return [node.name for node in _quantizable(graph) if node.op_type in WEIGHTED]


def activation_names(graph: OnnxGraph) -> list[str]:
    """Return the names of the tensors that may get a pair, those that depend on the image."""
    constant = {tensor.name for tensor in graph.model.graph.initializer}
    constant.update(n.output[0] for n in graph.nodes if n.op_type == "Constant")
    nodes = _quantizable(graph)
    read = {name for node in nodes for name in node.input if name}
    products = {node.output[0] for node in nodes if node.op_type == "MatMul"}
    return sorted((read | products) - constant)


def quantized_graph(
    graph: OnnxGraph, ranges: Ranges, nodes: Iterable[str], *, symmetric: bool, weight_bits: int
) -> OnnxGraph:
    """Return a copy of a graph in which some nodes read QDQ pairs.

    Args:
        graph: an fp32 graph from `load_folded`.
        ranges: least and greatest value of each tensor in `activation_names(graph)`.
        nodes: names of the nodes, among `node_names(graph)`.
        symmetric: int8 activations with zero point 0 and fp32 biases, which is all that TensorRT
            reads; else uint8 activations and int32 biases, for which CPUs have kernels.
        weight_bits: 8, or 7 for values from -64 to 64.
    """
    library = import_library("onnxruntime.quantization", "cpu")
    fusing = FusingEdges(graph, frozenset(nodes))
    wanted = fusing.nodes if symmetric else frozenset(nodes)
    limits = {name: tuple(np.float32(v) for v in pair) for name, pair in ranges.items()}
    for node in graph.nodes:
        if symmetric and node.op_type == "MaxPool" and node.input[0] in limits:
            limits[node.output[0]] = limits[node.input[0]]  # then it only moves int8 values
    int8, uint8 = library.QuantType.QInt8, library.QuantType.QUInt8
    quantizer = library.QDQQuantizer(
        graph.copy().model,
        True,  # weights per channel
        weight_bits == 7,
        int8,
        int8 if symmetric else uint8,
        library.TensorsData(library.CalibrationMethod.MinMax, limits),
        sorted(wanted),
        [],
        list(_QUANTIZED),
        {
            "ActivationSymmetric": symmetric,
            "QuantizeBias": not symmetric,
            # A CPU has a fast kernel for a matrix product only with a pair after it too.
            "OpTypesToExcludeOutputQuantization": [
                kind for kind in _QUANTIZED if symmetric or kind != "MatMul"
            ],
            # Else pooling gets no pair, and the convolution before it runs in fp32.
            "ForceQuantizeNoInputCheck": True,
        },
    )
    quantizer.quantize_model()
    result = OnnxGraph(quantizer.model.model, graph.source)
    if symmetric:
        edges = fusing.edges()
        _detach(result, lambda node, name: (node.name, name) not in edges)
    else:
        _detach(result, lambda node, _: node.op_type in WEIGHTED and node.name not in wanted)
    quantizer.model.topological_sort()
    return result


def _detach(graph: OnnxGraph, is_plain: Callable[[Any, str], bool]) -> None:
    """Let nodes read a tensor itself where the quantizer lets all read its pair.

    Args:
        graph: a quantized graph; pairs that nobody reads any more are removed.
        is_plain: tells of a node and the name of a tensor that it should read itself.
    """
    makers = {name: node for node in graph.nodes for name in node.output}
    for node in graph.nodes:
        for index, name in enumerate(node.input):
            pair = makers.get(name)
            if pair is None or pair.op_type != "DequantizeLinear" or pair.input[0] not in makers:
                continue  # not a pair, or that of a weight
            tensor = makers[pair.input[0]].input[0]
            if is_plain(node, tensor):
                node.input[index] = tensor
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        used = tensors_used(graph.nodes) | {graph.output.name}
        kept = [n for n in graph.nodes if n.op_type != kind or n.output[0] in used]
        replace_items(graph.nodes, kept)
    used = tensors_used(graph.nodes)
    weights = graph.model.graph.initializer
    replace_items(weights, [tensor for tensor in weights if tensor.name in used])


class Session:
    """A graph loaded in ONNX Runtime, on the CPU.

    Args:
        graph: what to load.
        outputs: inner tensors to return instead of the graph's own output.

    Raises:
        BundleError: it does not load.
    """

    def __init__(self, graph: OnnxGraph, outputs: Sequence[str] = ()) -> None:
        onnxruntime = import_library("onnxruntime", "cpu")
        self._source = graph.source
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # users need no notes about nodes that cannot be fused
        try:
            self._session = onnxruntime.InferenceSession(
                _with_outputs(graph, outputs).to_bytes(),
                options,
                providers=["CPUExecutionProvider"],
            )
        # ONNX Runtime has an exception class for every status code.
        except Exception as error:
            raise BundleError(
                f"{self._source} does not load in ONNX Runtime: {one_line(error)}"
            ) from error

    def run(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        """Run one preprocessed image (1, C, H, W) and return all outputs.

        A model of a larger fixed batch gets the image as often as it takes.

        Raises:
            BundleError: the model does not take it.
        """
        taken = self._session.get_inputs()[0]
        if isinstance(taken.shape[0], int):
            x = np.repeat(x, taken.shape[0], axis=0)
        try:
            values: list[NDArray[Any]] = self._session.run(None, {taken.name: x})
        except Exception as error:
            raise BundleError(
                f"{self._source} does not take one preprocessed image of {x.dtype} {x.shape}: "
                f"{one_line(error)}"
            ) from error
        return values


def _with_outputs(graph: OnnxGraph, outputs: Sequence[str]) -> OnnxGraph:
    """Return the graph with inner tensors as its outputs; unchanged where none are named."""
    if not outputs:
        return graph
    onnx = import_library("onnx", "convert")
    probe = graph.copy()
    values = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs
    ]
    del probe.model.graph.output[:]
    probe.model.graph.output.extend(values)
    return probe


def _quantizable(graph: OnnxGraph) -> list[Any]:
    """Return the nodes that gain from int8, up to the last layer with weights.

    Those that compute shapes, in whole numbers, are none of them.
    """
    floats = graph.tensors_of("float32")
    nodes = list(graph.nodes)
    last = max(index for index, node in enumerate(nodes) if node.op_type in WEIGHTED)
    return [
        node
        for node in nodes[: last + 1]
        if node.op_type in _QUANTIZED and all(name in floats for name in node.input if name)
    ]
