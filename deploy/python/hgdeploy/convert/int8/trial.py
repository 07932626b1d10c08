# SPDX-License-Identifier: Apache-2.0
"""Quantize one model by different recipes, and measure each on held-out images."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.convert.float16.from_onnx import overflowing_tensors, scan_batches
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8 import qdq
from hgdeploy.convert.int8.histogram import Histogram
from hgdeploy.convert.int8.options import QuantizeOptions, Try
from hgdeploy.convert.int8.selection import SplitImages
from hgdeploy.engines.scores import class_count
from hgdeploy.errors import BundleError, ImageError, InputError
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import ImageFile
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.compare import (
    SEEN_FROM,
    AgreementBy,
    compare,
    kind_of,
    label_flips,
    top_classes,
)

# Each recipe and how it takes a range, from the one that clips least to the one that clips most.
RECIPES: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": Histogram.extremes,
    "percentile 99.99": lambda histogram: histogram.percentile(99.99),
    "percentile 99.9": lambda histogram: histogram.percentile(99.9),
    "entropy": Histogram.entropy,
}
_PROBES = 16  # images that rank the layers by sensitivity, or show what fp16 cannot hold
_PER_LINE = 32  # images between two lines of progress


@dataclass
class Trial:
    """A model, its images, and the histograms of its tensors: everything that a recipe needs."""

    graph: OnnxGraph
    images: SplitImages
    preprocess: Preprocessor
    options: QuantizeOptions
    on_progress: OnLine
    histograms: dict[str, Histogram] = field(default_factory=dict)
    reference: NDArray[Any] | None = None

    def quantized(self, recipe: str, fp32_layers: Collection[str]) -> OnnxGraph:
        """Return the graph quantized by a recipe, except for some layers."""
        nodes = [name for name in qdq.node_names(self.graph) if name not in fp32_layers]
        return self.with_pairs(self.ranges(recipe), nodes)

    def ranges(self, recipe: str) -> qdq.Ranges:
        """Return the range that a recipe takes for each tensor."""
        return {name: RECIPES[recipe](values) for name, values in self.histograms.items()}

    def with_pairs(self, ranges: qdq.Ranges, nodes: Iterable[str]) -> OnnxGraph:
        """Return the graph with QDQ pairs of these ranges before these nodes."""
        symmetric = self.options.activations == "int8"
        bits = self.options.weight_bits
        return qdq.quantized_graph(self.graph, ranges, nodes, symmetric=symmetric, weight_bits=bits)

    def calibrate(self) -> None:
        """Collect the histogram of every tensor that may be quantized."""
        names = qdq.activation_names(self.graph)
        session = qdq.Session(self.graph, names)
        self.histograms = {name: Histogram() for name in names}
        total = len(self.images.calibration)
        for count, image in enumerate(self.images.calibration, 1):
            values = session.run(self.prepared(image))
            for name, value in zip(names, values, strict=True):
                if not np.isfinite(value).all():
                    raise BundleError(f"{self.graph.source}: {name} is not finite for {image.name}")
                self.histograms[name].add(value)
            if count % _PER_LINE == 0 or count == total:
                self.on_progress(f"calibrated on {count} of {total} images")

    def measure(self, recipe: str, fp32_layers: tuple[str, ...]) -> Try:
        """Compare one recipe with fp32 on the held-out images, and report the result."""
        if self.reference is None:
            self.reference = self.outputs(self.graph, self.images.held_out)
        found = self.outputs(self.quantized(recipe, fp32_layers), self.images.held_out)
        kind = kind_of(self.graph.ending(), self.reference)
        result = compare(self.reference, found, kind=kind)
        margin = _flip_margin(self.reference, found, result.agreement_by)
        one = Try(recipe, fp32_layers, result, margin)
        self.on_progress(str(one))
        return one

    def layers_by_sensitivity(self, recipe: str) -> list[str]:
        """Return the layers, first those that change the output most when they alone are quantized.

        They are measured on calibration images, so that the held-out ones stay a fair judge. The
        changes of single layers nearly add up to the change of all together.
        """
        layers = qdq.layer_names(self.graph)
        self.on_progress(f"looking for the most sensitive of {len(layers)} layers")
        probes = self.images.calibration[:_PROBES]
        reference, ranges = self.outputs(self.graph, probes), self.ranges(recipe)
        changes = {}
        for layer in layers:
            found = self.outputs(self.with_pairs(ranges, [layer]), probes)
            changes[layer] = compare(reference, found).mean_abs
        return sorted(layers, key=lambda layer: changes[layer], reverse=True)

    def fp16_overflows(self) -> list[str]:
        """Return the tensors that fp16 cannot hold, for engines that compute the rest in it."""
        probes = [self.prepared(image) for image in self.images.calibration[:_PROBES]]
        return overflowing_tensors(self.graph, list(scan_batches(self.graph, probes)))

    def outputs(self, graph: OnnxGraph, images: Iterable[ImageFile]) -> NDArray[Any]:
        """Run a graph on images; returns float32 (N, C).

        Raises:
            BundleError: an answer is not one row of scores for each image.
        """
        session = qdq.Session(graph)
        rows = []
        for image in images:
            row = session.run(self.prepared(image))[0]
            if class_count(row.shape) is None:
                raise BundleError(
                    f"{self.graph.source} gives an output of shape {list(row.shape)}, expected one "
                    "row of scores for each image"
                )
            rows.append(row[:1].reshape(1, -1))
        return np.concatenate(rows)

    def prepared(self, image: ImageFile) -> NDArray[Any]:
        """Return one image as the model takes it: (1, C, H, W)."""
        try:
            return self.preprocess(read_image(image.path))[np.newaxis]
        except ImageError as error:  # it could be read a moment before
            raise InputError(f"{image.name} changed while quantizing: {error}") from None


def _flip_margin(reference: NDArray[Any], found: NDArray[Any], by: AgreementBy) -> float:
    """Return how sure fp32 was of what int8 decides otherwise; see `Try`."""
    if by == "distance":
        return 0.0
    if by == "labels":
        flips = label_flips(reference, found)
        return float(np.abs(reference[flips] - SEEN_FROM).max(initial=0.0))
    rows = np.arange(len(reference))
    first, other = top_classes(reference, 1)[:, 0], top_classes(found, 1)[:, 0]
    return float((reference[rows, first] - reference[rows, other]).max())
