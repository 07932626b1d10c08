# SPDX-License-Identifier: Apache-2.0
"""Models whose weights exceed 2 GB, too much for a protobuf message and so for paddle2onnx.

paddle2onnx converts the program alone, where the parameters are only names. The weights are copied
from the `.pdiparams` into a file beside the ONNX file, which ONNX calls external data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from hgdeploy.bundle.model_files import model_files
from hgdeploy.bundle.paddle_params import StoredTensor
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.graph_parts import tensors_used
from hgdeploy.errors import BundleError
from hgdeploy.system.libraries import import_library

# Below protobuf's 2 GiB, with room for the graph and for what folding keeps twice.
LARGE_BYTES = 2_000_000_000
UNFOLDED = "the weights exceed 2 GB and lie in another file, which onnxslim does not fold"
_FLOAT32 = 5
# Readers map the file into memory, by pages.
_PAGE = 4096
_CHUNK = 1 << 24


def is_large(tensors: Sequence[StoredTensor]) -> bool:
    """Return whether weights need a file of their own."""
    return sum(tensor.length for tensor in tensors) > LARGE_BYTES


def check_not_large(source: Path, what: str) -> None:
    """Refuse a model whose weights exceed 2 GB.

    Args:
        source: the ONNX file.
        what: what there is for such a model, for the error.

    Raises:
        BundleError: they do.
    """
    if sum(path.stat().st_size for path in model_files(source)) > LARGE_BYTES:
        raise BundleError(f"{source} has weights that exceed 2 GB; {what} for such a model")


@dataclass(frozen=True)
class LargeWeights:
    """Weights on their way from Paddle's file to ONNX's.

    Attributes:
        params: the `.pdiparams` file.
        tensors: the tensors in it.
        file: name of the file they go to, beside the ONNX file.
    """

    params: Path
    tensors: Sequence[StoredTensor]
    file: str

    def attach(self, graph: OnnxGraph) -> None:
        """Add the parameters that a converted program names as weights that are in `file`.

        Raises:
            BundleError: the program names more or fewer parameters, or one is not fp32.
        """
        onnx = import_library("onnx", "convert")
        known = {value.name for value in graph.model.graph.input}
        known = known.union(*(node.output for node in graph.nodes))
        names = sorted(name for name in tensors_used(graph.nodes) - known if name)
        if len(names) != len(self.tensors):
            raise BundleError(
                f"{self.params} holds {len(self.tensors)} parameters, but the program uses "
                f"{len(names)}; check that both come from one export"
            )
        for name, tensor, place in zip(names, self.tensors, self._places(), strict=True):
            if tensor.dtype != _FLOAT32:
                raise BundleError(f"{self.params}: {name} is not float32; export it in fp32")
            weight = graph.model.graph.initializer.add(
                name=name,
                data_type=onnx.TensorProto.FLOAT,
                dims=tensor.shape,
                data_location=onnx.TensorProto.EXTERNAL,
            )
            place_of = {"location": self.file, "offset": place, "length": tensor.length}
            for key, value in place_of.items():
                weight.external_data.add(key=key, value=str(value))

    def write(self, folder: Path) -> None:
        """Write `file` into `folder`.

        Raises:
            BundleError: a weight is NaN.
            OSError: the file cannot be written.
        """
        with self.params.open("rb") as source, (folder / self.file).open("wb") as target:
            for tensor, place in zip(self.tensors, self._places(), strict=True):
                source.seek(tensor.offset)
                target.seek(place)
                self._copy(source, target, tensor.length)

    def _copy(self, source: BinaryIO, target: BinaryIO, length: int) -> None:
        while length:
            data = source.read(min(length, _CHUNK))
            if np.isnan(np.frombuffer(data, "<f4")).any():
                raise BundleError(f"{self.params} has weights that are NaN")
            target.write(data)
            length -= len(data)

    def _places(self) -> list[int]:
        """Return where in `file` each tensor starts."""
        places, end = [], 0
        for tensor in self.tensors:
            start = -(-end // _PAGE) * _PAGE
            places.append(start)
            end = start + tensor.length
        return places
