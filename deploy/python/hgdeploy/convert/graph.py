# SPDX-License-Identifier: Apache-2.0
"""An ONNX classifier: facts about it, the edits that conversions make, and checks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.convert.graph_parts import (
    describe,
    rename_in,
    replace_items,
    specs_of,
    tensor_names,
)
from hgdeploy.engines.base import TensorSpec
from hgdeploy.engines.ending import Ending, onnx_chain, onnx_ending
from hgdeploy.engines.fit import image_input
from hgdeploy.engines.scores import score_output
from hgdeploy.errors import BundleError, one_line
from hgdeploy.system.libraries import import_library, installed_version

INPUT_NAME = "x"
BATCH = "batch"
# What a classifier's output is called, by its activation.
PROBABILITIES = "probabilities"
LOGITS = "logits"
_OUTPUT_NAMES = {"softmax": PROBABILITIES, "sigmoid": "scores", None: LOGITS}
VALUES = "values"
_EXTERNAL = 1  # TensorProto.EXTERNAL


class OnnxGraph:
    """An ONNX model, and the file it comes from.

    Args:
        model: an `onnx.ModelProto`; editing methods change it in place.
        source: the file that the model was read or made from; errors name it.
    """

    def __init__(self, model: Any, source: Path | str) -> None:
        self.model = model
        self.source = source

    @classmethod
    def read(cls, path: Path, *, external_data: bool = False) -> OnnxGraph:
        """Read a bundle's ONNX file; of several outputs, only the one that has the scores is kept.

        Args:
            path: the file.
            external_data: also read the weights that are kept in another file.

        Raises:
            BundleError: it is missing, unreadable, or not an image classifier.
        """
        onnx = import_library("onnx", "convert")
        if not path.is_file():
            raise BundleError(f"{path} does not exist; convert the bundle to ONNX first")
        try:
            graph = cls(onnx.load(str(path), load_external_data=external_data), path)
        # protobuf's DecodeError is not a public class of onnx, and onnx adds others.
        except Exception as error:
            raise BundleError(f"{path} is not a readable ONNX model: {one_line(error)}") from None
        graph.image_input()
        graph.keep_output(open_bundle(path.parent).output_name)
        return graph

    def copy(self) -> OnnxGraph:
        """Return a graph that can be edited without changing this one."""
        model = type(self.model)()
        model.CopyFrom(self.model)
        return OnnxGraph(model, self.source)

    @property
    def nodes(self) -> Any:
        """The operators, in order: a repeated field of `NodeProto`."""
        return self.model.graph.node

    @property
    def input(self) -> Any:
        """The first input, a `ValueInfoProto`."""
        return self.model.graph.input[0]

    @property
    def output(self) -> Any:
        """The first output, a `ValueInfoProto`."""
        return self.model.graph.output[0]

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators that the model uses."""
        imports = self.model.opset_import
        return next(int(item.version) for item in imports if item.domain in ("", "ai.onnx"))

    @property
    def is_quantized(self) -> bool:
        """Whether an operator quantizes or dequantizes."""
        return any("QuantizeLinear" in node.op_type for node in self.nodes)

    def ending(self) -> Ending | None:
        """Return the activations at the graph's end; None for an end of no known kind."""
        return onnx_ending(self.model, self.output.name)

    def activations(self) -> list[str] | None:
        """Return the same, ready for a sidecar."""
        ending = self.ending()
        return None if ending is None else list(ending.activations)

    def output_kind(self) -> str:
        """Return `probabilities` after a softmax, `scores` after a sigmoid, `logits`, or `values`.

        Values are what a graph of no known end gives, such as the mean of several softmaxes.
        """
        ending = self.ending()
        return VALUES if ending is None else _OUTPUT_NAMES[ending.activation]

    def output_chain(self) -> list[Any]:
        """Return the operators from the output back to the one that computes it, which is last."""
        return list(onnx_chain(self.model, self.output.name))

    def facts(self) -> dict[str, Any]:
        """Return what a sidecar says about the graph: opset, inputs, outputs, ending."""
        return {
            "opset": self.opset,
            "inputs": [describe(self.input)],
            "outputs": [describe(self.output)],
            "ending": self.activations(),
        }

    def tensors_of(self, dtype: str) -> set[str]:
        """Return the names of the tensors of a type, as far as shape inference finds it."""
        onnx = import_library("onnx", "convert")
        wanted = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        graph = self.model.graph
        known = (*graph.input, *graph.output, *graph.value_info)
        found = {value.name for value in known if value.type.tensor_type.elem_type == wanted}
        found |= {weights.name for weights in graph.initializer if weights.data_type == wanted}
        return found | {
            node.output[0]
            for node in self.nodes
            for attribute in node.attribute
            if node.op_type == "Constant" and attribute.t.data_type == wanted
        }

    def metadata(self) -> dict[str, str]:
        """Return the metadata in the file, by key."""
        return {item.key: item.value for item in self.model.metadata_props}

    def to_bytes(self) -> bytes:
        """Return the file's content; equal graphs give equal bytes."""
        return bytes(self.model.SerializeToString(deterministic=True))

    def set_metadata(self, content: Mapping[str, str]) -> None:
        """Replace the metadata in the file."""
        import_library("onnx", "convert").helper.set_model_props(self.model, dict(content))

    def rename(self, old: str, new: str) -> None:
        """Rename a tensor everywhere, in subgraphs too.

        Another tensor that has the new name already gets the suffix `.inner`.
        """
        if old == new:
            return
        if new in tensor_names(self.model.graph):
            rename_in(self.model.graph, new, f"{new}.inner")
        rename_in(self.model.graph, old, new)

    def keep_output(self, name: str | None) -> None:
        """Drop all outputs but the one that has the scores; see `score_output`.

        Raises:
            BundleError: there are several and none was chosen, or none of that name.
        """
        outputs = self.model.graph.output
        kept = score_output(specs_of(outputs), Path(self.source), name)
        replace_items(outputs, [value for value in outputs if value.name == kept.name])

    def repair(self) -> None:
        """Mend what paddle2onnx 2.1.0 is known to write against the rules of ONNX.

        It joins scalars, such as the sizes of `reshape(x, [x.shape[0], -1])`, with a Concat, which
        takes vectors; each becomes a vector of one. Weights outside the inputs need IR version 4.
        """
        onnx = import_library("onnx", "convert")
        self.model.ir_version = max(self.model.ir_version, 4)
        inferred = onnx.shape_inference.infer_shapes(self.model).graph
        scalars = {
            value.name
            for value in inferred.value_info
            if value.type.tensor_type.HasField("shape") and not value.type.tensor_type.shape.dim
        }
        nodes, one = [], "hgdeploy.one"
        for node in self.nodes:
            for i, name in enumerate(node.input):
                if node.op_type == "Concat" and name in scalars:
                    node.input[i] = f"{node.output[0]}.part{i}"
                    nodes.append(onnx.helper.make_node("Reshape", [name, one], [node.input[i]]))
            nodes.append(node)
        if len(nodes) > len(self.nodes):
            replace_items(self.nodes, nodes)
            shape = onnx.numpy_helper.from_array(np.array([1], np.int64), one)
            self.model.graph.initializer.append(shape)

    def with_inferred_shapes(self) -> OnnxGraph:
        """Return the graph with newly inferred shapes of its inner tensors.

        Raises:
            BundleError: they contradict each other or the declared output.
        """
        onnx = import_library("onnx", "convert")
        del self.model.graph.value_info[:]
        try:
            model = onnx.shape_inference.infer_shapes(self.model, strict_mode=True, data_prop=True)
        except onnx.shape_inference.InferenceError as error:
            raise BundleError(
                f"{self.source}: its shapes contradict each other: {one_line(error)}"
            ) from None
        return OnnxGraph(model, self.source)

    def folded(self) -> tuple[OnnxGraph, bool, str]:
        """Fold batch normalisation into convolutions, and constants, with onnxslim.

        Returns:
            The graph, whether it is fully folded, and what was done or why it could not be.
        """
        onnxslim = import_library("onnxslim", "convert")
        name = f"onnxslim {installed_version('onnxslim')}"
        try:
            folded = OnnxGraph(onnxslim.slim(self.copy().model), self.source)
        # onnxslim fails on some graphs (Swin's) with errors of all kinds; they run unfolded.
        except Exception as error:
            return self, False, f"{name} cannot fold this graph: {one_line(error)}"
        left = folded._foldable_batch_norms()
        done = f"{name}: {len(self.nodes)} nodes became {len(folded.nodes)}"
        if left:
            return folded, False, f"{done}; {left} BatchNormalization stayed after a Conv"
        return folded, True, done

    def _foldable_batch_norms(self) -> int:
        """Count the batch normalisations that are the only reader of a convolution."""
        makers = {name: node.op_type for node in self.nodes for name in node.output}
        uses = [name for node in self.nodes for name in node.input]
        norms = [node.input[0] for node in self.nodes if node.op_type == "BatchNormalization"]
        return sum(makers.get(name) == "Conv" and uses.count(name) == 1 for name in norms)

    def image_input(self) -> TensorSpec:
        """Return the only input, NCHW or NHWC, as an engine describes it.

        Raises:
            BundleError: the inputs are not those of an image classifier.
        """
        return image_input(specs_of(self.model.graph.input), Path(self.source))

    def check(self, *, full: bool = True, file: Path | None = None) -> None:
        """Check the graph by the rules of the ONNX standard.

        Args:
            full: also check the shapes of all tensors.
            file: check this file instead, whose weights are in another one.

        Raises:
            BundleError: it breaks a rule.
        """
        onnx = import_library("onnx", "convert")
        try:
            onnx.checker.check_model(self.model if file is None else str(file), full_check=full)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise BundleError(
                f"{self.source} was converted to an invalid ONNX model: {one_line(error)}"
            ) from None

    def check_weights(self) -> None:
        """Refuse weights that are NaN or have 16 bits.

        Raises:
            BundleError: there are such weights.
        """
        onnx = import_library("onnx", "convert")
        values = [attribute.t for node in self.nodes for attribute in node.attribute]
        for tensor in (*self.model.graph.initializer, *values):
            if tensor.data_location == _EXTERNAL:
                continue  # checked where they were written
            if tensor.data_type in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
                raise BundleError(f"{self.source} has 16-bit weights; export the model in fp32")
            if (
                tensor.data_type == onnx.TensorProto.FLOAT
                and np.isnan(onnx.numpy_helper.to_array(tensor)).any()
            ):
                raise BundleError(f"{self.source} has weights that are NaN ({tensor.name})")
