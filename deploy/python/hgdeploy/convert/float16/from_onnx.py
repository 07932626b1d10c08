# SPDX-License-Identifier: Apache-2.0
"""Write the fp16 and bf16 variants of an fp32 ONNX model.

A variant stays in fp32 at its input, its output and its softmax, and so do the layers whose values
fp16 cannot hold. These are found by running the fp32 model on images.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert.artifact import converter_versions, source_facts, write_artifact
from hgdeploy.convert.float16.mixed import fp32_nodes, fp32_twin, to_16_bits
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import dims_of, require_pixels
from hgdeploy.convert.onnx import large
from hgdeploy.convert.onnx.from_paddle import Verify
from hgdeploy.errors import BundleError, EngineError, one_line
from hgdeploy.system.libraries import import_library
from hgdeploy.validation.inputs import random_rows

Batch = NDArray[np.float32]
# fp16 ends at 65504; half of it leaves room for images that were not among those scanned.
FP16_LIMIT = 65504 / 2
_SEED, _RANDOM_IMAGES = 0, 4
_LIBRARIES = ("onnx", "onnxruntime", "onnxruntime-gpu")


def fp16_from_onnx(
    source: Path, target: Path, images: Iterable[Batch] | None, *, verify: Verify | None
) -> Path:
    """Write the fp16 variant of an fp32 ONNX model.

    Args:
        source: the fp32 model.
        target: where the variant goes, such as `inference.fp16.onnx`.
        images: preprocessed real images, float32 (N, C, H, W) each. The layers that must stay in
            fp32 on them are listed in the sidecar's `fp32_layers`. None for seeded random images.
        verify: compares the fp32 model with the variant before it is published; None skips that.

    Returns:
        `target`.

    Raises:
        BundleError: the source is not an fp32 classifier, or the variant overflows or differs.
        EngineError: onnx or onnxruntime is missing.
        OutputError: the file cannot be written.
    """
    return _convert(source, target, "fp16", images, verify)


def bf16_from_onnx(
    source: Path, target: Path, images: Iterable[Batch] | None, *, verify: Verify | None
) -> Path:
    """Write the bf16 variant of an fp32 ONNX model, for engines that run the types in the file.

    ONNX Runtime has no bf16 kernels on a CPU. So `verify` gets an fp32 twin of the variant, which
    rounds every weight and every operator's result to bf16; the sidecar's verdict says so.

    Arguments, result and errors are those of `fp16_from_onnx`. bf16 has the range of fp32, so no
    layer has to stay in fp32.
    """
    return _convert(source, target, "bf16", images, verify)


def _convert(
    source: Path,
    target: Path,
    precision: str,
    images: Iterable[Batch] | None,
    verify: Verify | None,
) -> Path:
    graph = _load(source)
    batches = list(scan_batches(graph, images))
    overflows = overflowing_tensors(graph, batches) if precision == "fp16" else []
    variant = to_16_bits(graph, precision, overflows)
    names = [node.name or node.output[0] for node in graph.nodes]
    kept = sorted(fp32_nodes(graph, overflows) - fp32_nodes(graph, ()))
    facts: dict[str, Any] = {
        **source_facts(source),
        "converter": converter_versions(*_LIBRARIES),
        "precision": precision,
        **variant.facts(),
        "fp32_layers": [names[i] for i in kept],
        "scanned_images": {
            "count": sum(len(batch) for batch in batches),
            "origin": "random" if images is None else "given",
        },
        "verdict": None,
    }
    content = variant.metadata()
    content["hgdeploy.precision"] = precision
    content["hgdeploy.versions"] = json.dumps(facts["converter"], sort_keys=True)
    variant.set_metadata(content)
    variant.check()

    def write(aside: Path) -> None:
        aside.write_bytes(variant.to_bytes())
        twin = fp32_twin(variant, precision)
        check_finite(twin, batches, precision)
        if verify is None:
            return
        if precision == "fp16":
            facts["verdict"] = {**verify(source, aside), "compared": "the file itself"}
            return
        with tempfile.TemporaryDirectory(dir=aside.parent) as folder:
            file = Path(folder) / "twin.onnx"
            file.write_bytes(twin.to_bytes())
            compared = "an fp32 twin that rounds every weight and result to bf16"
            facts["verdict"] = {**verify(source, file), "compared": compared}

    return write_artifact(target, write, facts)


def _load(source: Path) -> OnnxGraph:
    """Read an fp32 classifier with the types of its inner tensors.

    Raises:
        BundleError: it is missing, unreadable, not a classifier, or not fp32.
    """
    large.check_not_large(source, "only fp32 is available")
    graph = OnnxGraph.read(source, external_data=True)
    sidecar = read_sidecar(source) or {}
    if sidecar.get("precision", "fp32") != "fp32" or graph.is_quantized:
        raise BundleError(f"{source} is not an fp32 model; start from inference.onnx")
    require_pixels(graph.image_input(), source, "converted to 16 bits")
    graph.check_weights()
    return graph.with_inferred_shapes()


def scan_batches(graph: OnnxGraph, images: Iterable[Batch] | None) -> Iterator[Batch]:
    """Cut images, or random ones, into batches: of 1, or of the size that the model fixes."""
    batch = dims_of(graph.input)[0]
    if images is None:
        images = [random_rows(graph.image_input(), None, _RANDOM_IMAGES, _SEED)]
    rows = batch if isinstance(batch, int) else 1
    for group in images:
        for start in range(0, len(group), rows):
            chunk = group[start : start + rows]
            missing = rows - len(chunk)
            yield np.concatenate([chunk, *[chunk[-1:]] * missing]) if missing else chunk


def overflowing_tensors(graph: OnnxGraph, batches: Sequence[Batch]) -> list[str]:
    """Return the float tensors, weights included, with values near the limit of fp16."""
    onnx = import_library("onnx", "convert")
    probe = graph.copy()
    known = {graph.output.name}
    inner = [
        value
        for value in graph.model.graph.value_info
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT and value.name not in known
    ]
    probe.model.graph.output.extend(inner)
    names = [value.name for value in probe.model.graph.output]
    largest = dict.fromkeys(names, 0.0)
    for arrays in _run(probe, batches, names):
        for name, array in zip(names, arrays, strict=True):
            largest[name] = max(largest[name], _largest(array))
    for tensor in graph.model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            largest[tensor.name] = _largest(onnx.numpy_helper.to_array(tensor))
    return [name for name, value in largest.items() if value > FP16_LIMIT]


def _largest(array: NDArray[Any]) -> float:
    """Return the largest magnitude; infinity where there is NaN."""
    value = float(np.abs(array).max(initial=0.0))
    return value if np.isfinite(value) else float("inf")


def _run(graph: OnnxGraph, batches: Sequence[Batch], names: Sequence[str]) -> Iterator[list[Any]]:
    """Run a graph on each batch, without any optimisation."""
    ort = import_library("onnxruntime", "cpu")
    settings = ort.SessionOptions()
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    settings.log_severity_level = 4
    try:
        session = ort.InferenceSession(
            graph.to_bytes(), settings, providers=["CPUExecutionProvider"]
        )
        for batch in batches:
            yield session.run(names, {graph.input.name: batch})
    except Exception as error:  # ONNX Runtime's exceptions share no public base class
        raise EngineError(f"ONNX Runtime cannot run the model: {one_line(error)}") from None


def check_finite(twin: OnnxGraph, batches: Sequence[Batch], precision: str) -> None:
    for (array,) in _run(twin, batches, [twin.output.name]):
        if not np.isfinite(array).all():
            raise BundleError(
                f"{twin.source} in {precision} gives NaN or infinity on {len(batches)} batches of "
                "images; use bf16 or fp32"
            )
