# SPDX-License-Identifier: Apache-2.0
"""Paddle to ONNX: converted by paddle2onnx, folded, named, checked, compared, then published."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import ONNX_FILE, PADDLE_PROGRAMS
from hgdeploy.bundle.paddle_params import read_params
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert import graph
from hgdeploy.convert.artifact import converter_versions, source_digests, write_artifact
from hgdeploy.convert.onnx.large import UNFOLDED, LargeWeights, is_large
from hgdeploy.convert.onnx.paddle2onnx_process import run_paddle2onnx
from hgdeploy.errors import BundleError, ConfigError, OutputError
from hgdeploy.system.libraries import import_library
from hgdeploy.transforms.operators_config import ops_to_config

Verify = Callable[[Path, Path], Mapping[str, Any]]


"""Compares the source model's file with the artifact's and returns the sidecar's verdict; raises
BundleError where they differ by more than they may."""


OPSETS = range(7, 22)
_LIBRARIES = ("paddle2onnx", "onnx", "onnxslim", "paddlepaddle", "paddlepaddle-gpu")
# A softmax's row misses 1 by rounding only.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OnnxOptions:
    """How to convert.

    Attributes:
        opset: the ONNX opset, 7 to 21; paddle2onnx raises it where the model needs more.
        exact_opset: fail instead of raising the opset.
        batch: images of an inference; None leaves the batch dynamic.
        dynamic_size: leave height and width dynamic too.
    """

    opset: int = 17
    exact_opset: bool = False
    batch: int | None = None
    dynamic_size: bool = False

    def __post_init__(self) -> None:
        if self.opset not in OPSETS:
            raise ConfigError(
                f"opset {self.opset} is not available, expected {OPSETS[0]} to {OPSETS[-1]}"
            )
        if self.batch is not None and self.batch < 1:
            raise ConfigError(f"batch {self.batch} is not possible, expected at least 1")


def onnx_from_paddle(
    bundle: ModelBundle,
    options: OnnxOptions | None = None,
    output: Path | None = None,
    *,
    verify: Verify | None,
) -> Path:
    """Convert a bundle's Paddle model to ONNX, in fp32.

    The input is called `x`, the output `probabilities` (after a softmax), `scores` (a sigmoid) or
    `logits`, the batch dimension `batch`. The file carries what is needed to use it alone, under
    `hgdeploy.` in its metadata; the sidecar tells how it was made.

    Args:
        bundle: has `inference.json` or `inference.pdmodel`, and `inference.pdiparams`.
        options: how to convert; None for the defaults.
        output: the ONNX file; None for `inference.onnx` in the bundle.
        verify: compares the two models before the file appears; None publishes it uncompared, and
            the sidecar's verdict is null.

    Returns:
        The ONNX file.

    Raises:
        BundleError: the model is damaged, cannot be converted, or the result differs from it.
        EngineError: paddle2onnx or another library of the extra `convert` is missing.
        OutputError: the file cannot be written.
    """
    options = options or OnnxOptions()
    source = bundle.find(PADDLE_PROGRAMS)
    params = source.with_suffix(".pdiparams")
    tensors = read_params(params)
    for library in ("onnx", "onnxslim"):
        import_library(library, "convert")
    target = output or bundle.root / ONNX_FILE
    large = LargeWeights(params, tensors, f"{target.name}.data") if is_large(tensors) else None
    model = _converted(source, params, options, large)
    _set_shapes(model, options, source)
    model, folded, folding = (model, False, UNFOLDED) if large else graph.fold(model)
    kind = graph.output_kind(model)
    for value, name in ((model.graph.input[0], graph.INPUT_NAME), (model.graph.output[0], kind)):
        graph.rename_tensor(model.graph, value.name, name)
    model = graph.infer_shapes(model, source)
    facts: dict[str, Any] = {
        "source": source_digests((source, params)),
        "converter": converter_versions(*_LIBRARIES),
        "precision": "fp32",
        "opset": graph.opset(model),
        "opset_requested": options.opset,
        "folded": folded,
        "folding": folding,
        "inputs": [describe(model.graph.input[0])],
        "outputs": [describe(model.graph.output[0])],
        "output_is_probabilities": kind == "probabilities",
        "verdict": None,
    }
    _write_metadata(model, bundle, facts)

    def write(aside: Path) -> None:
        aside.write_bytes(model.SerializeToString(deterministic=True))
        if large is not None:
            large.write(aside.parent)
        graph.check_model(model if large is None else str(aside), source)
        if verify is not None:
            facts["verdict"] = verdict = dict(verify(source, aside))
            _check_kind(kind, verdict, source)

    return write_artifact(target, write, facts)


def onnx_notes(artifact: Path) -> list[str]:
    """Return what the user should know of a conversion, one line each, from its sidecar."""
    facts = read_sidecar(artifact) or {}
    notes = []
    asked, got = facts.get("opset_requested"), facts.get("opset")
    if asked != got:
        notes.append(f"{artifact} has opset {got}: the model needs more than the {asked} asked for")
    if not facts.get("folded", True):
        notes.append(f"{artifact} is not folded, so slower in some engines: {facts['folding']}")
    if facts.get("output_is_probabilities") is False:
        name = facts["outputs"][0]["name"]
        notes.append(f"{artifact} gives {name}, not probabilities: the model ends in no softmax")
    if facts.get("verdict", True) is None:
        notes.append(f"{artifact} was not compared with the Paddle model")
    return notes


def describe(value: Any) -> dict[str, Any]:
    """Return the sidecar's description of an ONNX input or output; -1 stands for dynamic."""
    onnx = import_library("onnx", "convert")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    shape = [size if isinstance(size, int) else -1 for size in graph.dims_of(value)]
    return {"name": value.name, "dtype": str(dtype), "shape": shape}


def _converted(source: Path, params: Path, options: OnnxOptions, large: LargeWeights | None) -> Any:
    """What paddle2onnx makes of the model, loaded, and one graph by the standard's rules."""
    onnx = import_library("onnx", "convert")
    try:
        with tempfile.TemporaryDirectory(prefix="hgdeploy-convert-") as name:
            file = run_paddle2onnx(
                source,
                None if large else params,
                options.opset,
                Path(name),
                exact_opset=options.exact_opset,
            )
            model = onnx.load(str(file))
    except OSError as error:
        raise OutputError(
            f"cannot write temporary files in {tempfile.gettempdir()}: {error.strerror or error}"
        ) from error
    if large is not None:
        large.attach(model)
    model = graph.repair(model)
    if large is None:
        _check_converted(model, source, params)
    graph.check_weights(model, source)
    actual = graph.opset(model)
    if options.exact_opset and actual != options.opset:
        raise BundleError(
            f"{source} needs opset {actual}, and exactly {options.opset} was asked for; "
            f"ask for {actual}"
        )
    return model


def _check_converted(model: Any, source: Path, params: Path) -> None:
    # paddle2onnx's own graphs may break a rule of shapes that the folded ones keep.
    try:
        graph.check_model(model, source, full=False)
    except BundleError as error:
        raise BundleError(
            f"{error}; check that it and {params.name} come from one export and are complete"
        ) from None


def _set_shapes(model: Any, options: OnnxOptions, source: Path) -> None:
    """Give input and output the shapes that were asked for, with one name for the batch."""
    graph.require_classifier(model, source)
    x, output = model.graph.input[0], model.graph.output[0]
    dims = graph.dims_of(x)
    if len(dims) != 4:
        raise BundleError(f"{source} is no image classifier: expected one NCHW input, got {dims}")
    batch, channels, *size = dims
    if options.batch is not None and isinstance(batch, int) and batch != options.batch:
        raise BundleError(
            f"{source} has a fixed batch of {batch}, and {options.batch} was asked for; "
            "export the Paddle model with a dynamic batch"
        )
    batch = options.batch or (batch if isinstance(batch, int) else graph.BATCH)
    named: graph.Dims = ["height", "width"]
    fixed: graph.Dims = [n if isinstance(s, str) else s for n, s in zip(named, size, strict=True)]
    graph.set_dims(x, [batch, channels, *(named if options.dynamic_size else fixed)])
    graph.set_dims(output, [batch, *graph.dims_of(output)[1:]])
    if options.dynamic_size:
        _check_other_size(model, fixed, source)


def _check_other_size(model: Any, size: graph.Dims, source: Path) -> None:
    """Refuse dynamic sizes where the graph only fits the size it was exported for.

    Shapes are inferred for an image 64 pixels larger each way; a dense layer that counts on the
    size of its feature map then contradicts its weights.
    """
    other = type(model)()
    other.CopyFrom(model)
    larger: graph.Dims = [s + 64 if isinstance(s, int) else 320 for s in size]
    x, output = other.graph.input[0], other.graph.output[0]
    batch, channels, *_ = graph.dims_of(x)
    # Inference computes reshapes only where every size is a number.
    batch = batch if isinstance(batch, int) else 2
    graph.set_dims(x, [batch, channels, *larger])
    graph.set_dims(output, [batch, *graph.dims_of(output)[1:]])
    try:
        graph.infer_shapes(other, source)
    except BundleError as error:
        raise BundleError(f"dynamic height and width are not possible: {error}") from None


def _write_metadata(model: Any, bundle: ModelBundle, facts: Mapping[str, Any]) -> None:
    """Put into the ONNX file what is needed to feed it and to know where it comes from."""
    onnx = import_library("onnx", "convert")
    content = {
        "precision": facts["precision"],
        "source_sha256": json.dumps(facts["source"], sort_keys=True),
        "versions": json.dumps(facts["converter"], sort_keys=True),
    }
    if bundle.model_name is not None:
        content["model_name"] = bundle.model_name
    if bundle.preprocess is not None:
        content["preprocess"] = json.dumps(ops_to_config(bundle.preprocess))
    labels = bundle.postprocess.output.labels if bundle.postprocess is not None else None
    if labels is not None:
        content["labels"] = json.dumps([labels[i] for i in sorted(labels)], ensure_ascii=False)
    onnx.helper.set_model_props(model, {f"hgdeploy.{key}": content[key] for key in sorted(content)})


def _check_kind(kind: str, verdict: Mapping[str, Any], source: Path) -> None:
    """Refuse probabilities that were measured not to sum to 1."""
    error = verdict.get("max_sum_error")
    # Written so that NaN fails too.
    if kind == "probabilities" and error is not None and not error <= _SUM_TOLERANCE:
        raise BundleError(
            f"{source} ends in a softmax, but a row of its output misses a sum of 1 by {error:.1e}"
        )
