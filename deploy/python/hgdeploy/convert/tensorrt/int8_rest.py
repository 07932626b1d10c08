# SPDX-License-Identifier: Apache-2.0
"""What TensorRT builds of an int8 file: with everything else in fp16, unless fp32 is asked for."""

from __future__ import annotations

from pathlib import Path

from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert.float16.from_onnx import check_finite, overflowing_tensors, scan_batches
from hgdeploy.convert.float16.mixed import fp32_twin
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8.fp16_rest import with_fp16_rest
from hgdeploy.system.progress import OnLine

OVERFLOWS = "fp16_overflows"


def fp16_rest_of(onnx: Path, on_progress: OnLine) -> bytes:
    """Return an int8 ONNX model with everything else in fp16.

    The sidecar of `hgdeploy quantize` says which tensors fp16 cannot hold on real images. Of
    another file, random images decide that.

    Args:
        onnx: the int8 file.
        on_progress: called with one line where random images have decided.

    Raises:
        BundleError: the file is unreadable, or gives NaN or infinity then.
        EngineError: onnx or onnxruntime is missing.
    """
    graph = OnnxGraph.read(onnx, external_data=True).with_inferred_shapes()
    if not graph.is_quantized:
        return graph.to_bytes()  # it is refused where its layers are counted
    batches = list(scan_batches(graph, None))
    known = (read_sidecar(onnx) or {}).get(OVERFLOWS)
    if not isinstance(known, list):
        known = overflowing_tensors(graph, batches)
        on_progress(
            f"{onnx} does not say which of its values fp16 cannot hold, so random images decide; "
            "hgdeploy quantize finds out on real ones, and --int8-rest fp32 needs none"
        )
    rest = with_fp16_rest(graph, [str(name) for name in known])
    rest.check()
    check_finite(fp32_twin(rest, "fp16"), batches, "int8 and fp16")
    return rest.to_bytes()
