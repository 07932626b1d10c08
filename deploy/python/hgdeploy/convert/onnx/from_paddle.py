# SPDX-License-Identifier: Apache-2.0
"""Convert Paddle to ONNX with paddle2onnx; fold, name, check and compare; then publish."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy.bundle.description import recorded_description
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import ONNX_FILE, PADDLE_PROGRAMS
from hgdeploy.bundle.paddle_params import checked_params
from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert.artifact import converter_versions, source_facts, write_artifact
from hgdeploy.convert.graph import BATCH, INPUT_NAME, PROBABILITIES, OnnxGraph
from hgdeploy.convert.graph_parts import Dims, dims_of, set_dims
from hgdeploy.convert.onnx.large import UNFOLDED, LargeWeights, is_large
from hgdeploy.convert.onnx.paddle2onnx_process import run_paddle2onnx
from hgdeploy.engines.fit import channels_last
from hgdeploy.errors import BundleError, ConfigError, OutputError
from hgdeploy.system.checks import check_fields
from hgdeploy.system.kinds import BATCH_SIZE, flag, optional, whole
from hgdeploy.system.libraries import import_library
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.transforms.operators_config import ops_to_config

Verify = Callable[[Path, Path], Mapping[str, Any]]
"""Compares the source model's file with the artifact's and returns the sidecar's verdict; raises
BundleError where they differ by more than is allowed."""

OPSETS = range(7, 22)
_LIBRARIES = ("paddle2onnx", "onnx", "onnxslim", "paddlepaddle", "paddlepaddle-gpu")
# The sum of a softmax's row differs from 1 by rounding only.
_SUM_TOLERANCE = 1e-3


@dataclass(frozen=True)
class OnnxOptions:
    """How to convert.

    Attributes:
        opset: the ONNX opset, 7 to 21; paddle2onnx raises it where the model needs more.
        exact_opset: fail instead of raising the opset.
        batch: images of an inference; None leaves the batch dynamic.
        dynamic_size: also leave height and width dynamic.
    """

    opset: int = 17
    exact_opset: bool = False
    batch: int | None = None
    dynamic_size: bool = False

    def __post_init__(self) -> None:
        opset = whole(OPSETS[0], OPSETS[-1])
        check_fields(self, opset=opset, exact_opset=flag, batch=optional(BATCH_SIZE))


def onnx_from_paddle(
    bundle: ModelBundle,
    options: OnnxOptions | None = None,
    output: Path | None = None,
    *,
    verify: Verify | None,
    on_progress: OnLine = nothing,
) -> Path:
    """Convert a bundle's Paddle model to ONNX, in fp32.

    The input is called `x`, the output `probabilities` (after a softmax), `scores` (a sigmoid),
    `logits` or, after anything else, `values`, the batch dimension `batch`; of several outputs,
    only the bundle's is kept, by its own name. All that is needed to use the file alone is in its
    metadata, under `hgdeploy.`; the sidecar says how it was made.

    Args:
        bundle: a bundle with `inference.json` or `inference.pdmodel`, and `inference.pdiparams`.
        options: how to convert; None for the defaults.
        output: the ONNX file; None for `inference.onnx` in the bundle.
        verify: compares the two models before the file is published; None publishes it without
            comparing, and the sidecar's verdict is null.
        on_progress: called with a line at the start of each long step.

    Returns:
        The ONNX file.

    Raises:
        BundleError: the model is damaged, cannot be converted, or the result differs from it.
        EngineError: paddle2onnx or another library of the extra `convert` is missing.
        OutputError: the file cannot be written.
    """
    options = options or OnnxOptions()
    source = _program(bundle)
    params = source.with_suffix(".pdiparams")
    tensors = checked_params(source)
    for library in ("onnx", "onnxslim"):
        import_library(library, "convert")
    target = output or bundle.root / ONNX_FILE
    large = LargeWeights(params, tensors, f"{target.name}.data") if is_large(tensors) else None
    on_progress(f"converting {source} with paddle2onnx")
    graph = _run_and_check(source, params, options, large)
    graph.keep_output(bundle.output_name)
    _set_shapes(graph, options)
    on_progress("folding its graph")
    graph, folded, folding = (graph, False, UNFOLDED) if large else graph.folded()
    kind = graph.output_kind()
    graph.rename(graph.input.name, INPUT_NAME)
    if bundle.output_name is None:  # one that was chosen by its name keeps it
        graph.rename(graph.output.name, kind)
    graph = graph.with_inferred_shapes()
    facts: dict[str, Any] = {
        **source_facts(source),
        "converter": converter_versions(*_LIBRARIES),
        "precision": "fp32",
        **graph.facts(),
        "opset_requested": options.opset,
        "options": dataclasses.asdict(options),
        "folded": folded,
        "folding": folding,
        "description": recorded_description(bundle.preprocess, bundle.labels),
        "verdict": None,
    }
    graph.set_metadata(_metadata(bundle, facts))

    def write(aside: Path) -> None:
        aside.write_bytes(graph.to_bytes())
        if large is not None:
            large.write(aside.parent)
        graph.check(file=None if large is None else aside)
        if verify is not None:
            on_progress(f"comparing {target.name} with {source.name}")
            facts["verdict"] = verdict = dict(verify(source, aside))
            _check_kind(kind, verdict, source)

    return write_artifact(target, write, facts)


def recorded_options(artifact: Path) -> OnnxOptions:
    """Return the options that an ONNX file was made with, from its sidecar; else the defaults."""
    options = (read_sidecar(artifact) or {}).get("options")
    try:
        return OnnxOptions(**options) if isinstance(options, dict) else OnnxOptions()
    except (ConfigError, TypeError):
        return OnnxOptions()


def onnx_notes(artifact: Path) -> list[str]:
    """Return what the user should know about a conversion, one line each, from its sidecar."""
    facts = read_sidecar(artifact) or {}
    notes = []
    asked, got = facts.get("opset_requested"), facts.get("opset")
    if asked != got:
        notes.append(f"{artifact} has opset {got}: the model needs more than the {asked} asked for")
    if not facts.get("folded", True):
        reason = facts["folding"]
        notes.append(f"{artifact} is not folded, so it is slower in some engines: {reason}")
    ending = facts.get("ending")
    if ending is not None and ending[:1] != ["softmax"]:
        name = facts["outputs"][0]["name"]
        notes.append(f"{artifact} gives {name}, not probabilities: the model has no final softmax")
    if facts.get("verdict", True) is None:
        notes.append(f"{artifact} was not compared with the Paddle model")
    return notes


def _program(bundle: ModelBundle) -> Path:
    """Return a bundle's Paddle program; the ONNX file of a bundle without any is its model."""
    try:
        return bundle.find(PADDLE_PROGRAMS)
    except BundleError as error:
        alone = not any((bundle.root / name).is_file() for name in PADDLE_PROGRAMS)
        if alone and (bundle.root / ONNX_FILE).is_file():
            raise BundleError(
                f"{error}; {ONNX_FILE} is the model then, with the opset, batch and sizes that it "
                "has: convert --precision fp16, quantize and build start from it"
            ) from None
        raise


def _run_and_check(
    source: Path, params: Path, options: OnnxOptions, large: LargeWeights | None
) -> OnnxGraph:
    """Return what paddle2onnx makes of the model, repaired where it breaks ONNX's rules."""
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
            graph = OnnxGraph(onnx.load(str(file)), source)
    except OSError as error:
        raise OutputError(
            f"cannot write temporary files in {tempfile.gettempdir()}: {error.strerror or error}"
        ) from error
    if large is not None:
        large.attach(graph)
    graph.repair()
    if large is None:
        _check_converted(graph)
    graph.check_weights()
    if options.exact_opset and graph.opset != options.opset:
        raise BundleError(
            f"{source} needs opset {graph.opset}, but exactly {options.opset} was asked for; ask "
            f"for {graph.opset}"
        )
    return graph


def _check_converted(graph: OnnxGraph) -> None:
    # Not in full: paddle2onnx's graphs may break rules about shapes that folded ones keep.
    try:
        graph.check(full=False)
    except BundleError as error:
        raise BundleError(
            f"{error}; paddle2onnx does not convert this model rightly; run it with --engine paddle"
        ) from None


def _set_shapes(graph: OnnxGraph, options: OnnxOptions) -> None:
    """Give input and output the shapes that were asked for, and the batch the same name in both."""
    graph.image_input()
    dims = dims_of(graph.input)
    if options.dynamic_size and channels_last(dims):
        raise BundleError(
            f"{graph.source} takes NHWC {dims} (channels last), but --dynamic-size needs NCHW; "
            "export the model with channels first, or leave it out"
        )
    batch, channels, *size = dims
    if options.batch is not None and isinstance(batch, int) and batch != options.batch:
        raise BundleError(
            f"{graph.source} has a fixed batch of {batch}, but {options.batch} was asked for; "
            "export the Paddle model with a dynamic batch"
        )
    batch = options.batch or (batch if isinstance(batch, int) else BATCH)
    named: Dims = ["height", "width"]
    fixed: Dims = [n if isinstance(s, str) else s for n, s in zip(named, size, strict=True)]
    set_dims(graph.input, [batch, channels, *(named if options.dynamic_size else fixed)])
    set_dims(graph.output, [batch, *dims_of(graph.output)[1:]])
    if options.dynamic_size:
        _check_other_size(graph, fixed)


def _check_other_size(graph: OnnxGraph, size: Dims) -> None:
    """Refuse dynamic sizes where the graph only takes the size it was exported for.

    Shapes are inferred for an image 64 pixels larger each way. The shapes of a dense layer that
    relies on the size of its feature map then contradict its weights.
    """
    other = graph.copy()
    larger: Dims = [s + 64 if isinstance(s, int) else 320 for s in size]
    batch, channels, *_ = dims_of(other.input)
    # Shape inference follows reshapes only where every size is a number.
    batch = batch if isinstance(batch, int) else 2
    set_dims(other.input, [batch, channels, *larger])
    set_dims(other.output, [batch, *dims_of(other.output)[1:]])
    try:
        other.with_inferred_shapes()
    except BundleError as error:
        raise BundleError(f"dynamic height and width are not possible: {error}") from None


def _metadata(bundle: ModelBundle, facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the metadata of the ONNX file: how to feed it, and where it comes from."""
    content = {
        "precision": facts["precision"],
        "source_sha256": json.dumps(facts["source"], sort_keys=True),
        "versions": json.dumps(facts["converter"], sort_keys=True),
    }
    if bundle.model_name is not None:
        content["model_name"] = bundle.model_name
    if bundle.preprocess is not None:
        content["preprocess"] = json.dumps(ops_to_config(bundle.preprocess))
    labels = bundle.labels
    if labels is not None:
        content["labels"] = json.dumps([labels[i] for i in sorted(labels)], ensure_ascii=False)
    return {f"hgdeploy.{key}": content[key] for key in sorted(content)}


def _check_kind(kind: str, verdict: Mapping[str, Any], source: Path) -> None:
    """Refuse probabilities whose measured sum is not 1."""
    error = verdict.get("max_sum_error")
    # Written so that NaN fails too.
    if kind == PROBABILITIES and error is not None and not error <= _SUM_TOLERANCE:
        raise BundleError(
            f"{source} ends in a softmax, but the sum of a row of its output differs from 1 by "
            f"{error:.1e}"
        )
