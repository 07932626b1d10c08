# SPDX-License-Identifier: Apache-2.0
"""An INT8 variant of an fp32 ONNX model, calibrated on real images and measured on others.

One calibration run keeps a histogram of each tensor; every recipe takes its ranges from these.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.sidecar import read_sidecar
from hgdeploy.convert import graph as graphs
from hgdeploy.convert import qdq
from hgdeploy.convert.artifact import (
    converter_versions,
    source_digests,
    write_artifact,
)
from hgdeploy.convert.histogram import Histogram
from hgdeploy.convert.onnx import describe
from hgdeploy.errors import BundleError, ConfigError, ImageError, InputError, nearest
from hgdeploy.images.decode import read_image
from hgdeploy.images.find import ImageFile
from hgdeploy.system.libraries import import_library
from hgdeploy.system.machine import int8_saturates
from hgdeploy.transforms.preprocess import Preprocessor
from hgdeploy.validation.compare import Comparison, compare, top_classes

Progress = Callable[[str], None]

MIN_IMAGES = 10
METHODS = ("auto", "minmax", "percentile", "entropy")
ACTIVATIONS = {
    "int8": "ONNX Runtime, OpenVINO and TensorRT read it; ONNX Runtime on a CPU runs it slower "
    "than fp32",
    "uint8": "fast in ONNX Runtime and OpenVINO on a CPU; TensorRT cannot read it",
}
# From the mildest to the one that clips most: recipe, and how it takes a range.
_RECIPES: dict[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": Histogram.extremes,
    "percentile 99.99": lambda histogram: histogram.percentile(99.99),
    "percentile 99.9": lambda histogram: histogram.percentile(99.9),
    "entropy": Histogram.entropy,
}
_PROBES = 16  # images that rank the layers by sensitivity
_MAX_FP32_SHARE = 0.25  # with more layers in fp32 there is little left to gain
_PER_LINE = 32  # images between two lines of progress
_LIBRARIES = ("onnx", "onnxruntime", "onnxruntime-gpu")


@dataclass(frozen=True)
class QuantizeOptions:
    """How to quantize.

    Attributes:
        images: how many images to use at most, those for calibration and the held-out ones.
        method: how ranges are taken: `minmax`, `percentile`, `entropy`, or `auto` for each in turn.
        min_agreement: share of held-out images whose best class must be that of fp32, 0 to 1.
        held_out: share of the images that is kept from calibration, to measure on.
        seed: decides which images are used, and which of them are held out.
        activations: `int8` (symmetric, zero point 0) or `uint8`; see `ACTIVATIONS`.
        weight_bits: 8, or 7 for a model that every CPU computes rightly; by default 8 where this
            CPU does.
    """

    images: int = 256
    method: str = "auto"
    min_agreement: float = 0.99
    held_out: float = 0.25
    seed: int = 0
    activations: str = "int8"
    weight_bits: int = field(default_factory=lambda: 7 if int8_saturates() else 8)

    def __post_init__(self) -> None:
        for name, allowed in (("method", METHODS), ("activations", tuple(ACTIVATIONS))):
            if getattr(self, name) not in allowed:
                value = getattr(self, name)
                raise ConfigError(f"unknown {name} {value!r}, {nearest(value, allowed)}")
        if self.weight_bits not in (7, 8):
            raise ConfigError(f"weight_bits is {self.weight_bits}, expected 7 or 8")
        if self.weight_bits == 8 and int8_saturates():
            raise ConfigError(
                "weight_bits is 8, and int8 sums of such weights overflow on this CPU, which lacks "
                "VNNI, so that the model cannot be measured here; use 7"
            )
        if self.images < MIN_IMAGES:
            raise ConfigError(f"images is {self.images}, expected at least {MIN_IMAGES}")
        if not 0 < self.held_out < 1:
            raise ConfigError(f"held_out is {self.held_out}, expected more than 0 and less than 1")


@dataclass(frozen=True)
class Try:
    """One recipe and what it gave on the held-out images.

    Attributes:
        recipe: how the ranges were taken.
        fp32_layers: names of the layers left in fp32, the most sensitive first.
        result: int8 against fp32.
        flip_margin: by how much probability fp32 preferred its own best class, in the clearest of
            the images on which int8 chose another one; 0 where there is none.
    """

    recipe: str
    fp32_layers: tuple[str, ...]
    result: Comparison
    flip_margin: float

    def __str__(self) -> str:
        kept = f" + {len(self.fp32_layers)} layers in fp32" if self.fp32_layers else ""
        flips = f", clearest flip {self.flip_margin:.3f}" if self.flip_margin else ""
        return (
            f"{self.recipe}{kept}: top-1 agreement {self.result.top1_agreement:.4f}, "
            f"top-{self.result.topk} {self.result.topk_agreement:.4f}, largest difference "
            f"{self.result.max_abs:.3f}{flips}"
        )


@dataclass(frozen=True)
class QuantizeReport:
    """What was written, and what it gives on images that calibration did not see.

    Attributes:
        path: the int8 model.
        chosen: the recipe that was written.
        tries: every recipe that was measured, in order; the last is `chosen`.
        calibration_images: how many images the ranges come from.
        held_out_images: how many images the agreement was measured on.
        skipped: `NAME: reason` of each image that could not be used.
    """

    path: Path
    chosen: Try
    tries: tuple[Try, ...]
    calibration_images: int
    held_out_images: int
    skipped: tuple[str, ...]


def int8_from_onnx(
    source: Path,
    target: Path,
    images: Sequence[ImageFile],
    preprocess: Preprocessor,
    options: QuantizeOptions,
    progress: Progress,
) -> QuantizeReport:
    """Write the int8 variant of an fp32 ONNX model, by the first recipe that agrees enough.

    Weights are int8 per channel, symmetric, in 8 or 7 bits. Images are read one at a time, as
    prediction does; the memory does not grow with their number.

    Args:
        source: the fp32 model, its batch normalisation folded.
        target: where the variant goes, such as `inference.int8.onnx`.
        images: real images like those to be classified; unreadable ones are told and skipped.
        preprocess: the model's own preprocessing.
        options: how to quantize.
        progress: takes one line at a time.

    Returns:
        The report; the sidecar holds the same.

    Raises:
        BundleError: the source is no folded fp32 classifier, does not take the images, or no
            recipe reaches `min_agreement`. Nothing is written then.
        InputError: fewer than 10 images can be read.
        EngineError: onnx or onnxruntime is missing.
        OutputError: the file cannot be written.
    """
    model = qdq.load_folded(source)
    chosen = _choose(images, preprocess, options, progress)
    trial = _Trial(source, model, chosen, preprocess, options, progress)
    tries = list(_tries(trial))
    best = max(tries, key=lambda one: (one.result.top1_agreement, -one.result.mean_abs))
    told = f"on {len(chosen.held_out)} held-out images"
    if not best.result.top1_agreement >= options.min_agreement:
        raise BundleError(
            f"{source}: no recipe agrees with fp32 {told} as asked ({options.min_agreement}); the "
            f"best was {best}; give more images like those to be classified, or accept less with "
            "min_agreement"
        )
    quantized = trial.quantized(best.recipe, best.fp32_layers)
    facts = _facts(source, quantized, trial, best, tries)
    _set_metadata(quantized, facts)
    graphs.check_model(quantized, source)
    data = quantized.SerializeToString(deterministic=True)

    def write(aside: Path) -> None:
        aside.write_bytes(data)

    write_artifact(target, write, facts)
    progress(f"{target}: {best}, {told}; {ACTIVATIONS[options.activations]}")
    sizes = len(chosen.calibration), len(chosen.held_out)
    return QuantizeReport(target, best, tuple(tries), *sizes, chosen.skipped)


@dataclass(frozen=True)
class _Images:
    """Images that can be read, split in two; `digest` is over the bytes of those to calibrate."""

    calibration: tuple[ImageFile, ...]
    held_out: tuple[ImageFile, ...]
    skipped: tuple[str, ...]
    digest: str


def _choose(
    images: Sequence[ImageFile],
    preprocess: Preprocessor,
    options: QuantizeOptions,
    progress: Progress,
) -> _Images:
    """Draw images, pass over those that cannot be used, and split the others."""
    good: list[int] = []
    skipped: list[str] = []
    for index in np.random.default_rng(options.seed).permutation(len(images)).tolist():
        if len(good) == options.images:
            break
        try:
            preprocess(read_image(images[index].path))
            good.append(index)
        except ImageError as error:
            skipped.append(f"{images[index].name}: {error}")
            progress(f"skipped {skipped[-1]}")
    if len(good) < MIN_IMAGES:
        first = f"; the first that cannot: {skipped[0]}" if skipped else ""
        raise InputError(
            f"{len(good)} of {len(images)} images can be used to quantize, expected at least "
            f"{MIN_IMAGES}{first}"
        )
    count = min(max(1, round(len(good) * options.held_out)), len(good) - 1)
    held_out = tuple(images[index] for index in sorted(good[:count]))
    calibration = tuple(images[index] for index in sorted(good[count:]))
    digest = hashlib.sha256()
    for image in calibration:
        digest.update(hashlib.sha256(image.path.read_bytes()).digest())
    told = f", {len(skipped)} skipped" if skipped else ""
    progress(f"{len(calibration)} images to calibrate, {len(held_out)} held out{told}")
    return _Images(calibration, held_out, tuple(skipped), digest.hexdigest())


def _tries(trial: _Trial) -> Iterator[Try]:
    """Measure recipes until one agrees enough: ranges first, then more and more fp32 layers."""
    trial.calibrate()
    best: Try | None = None
    for recipe in _RECIPES:
        if trial.options.method not in ("auto", recipe.split()[0]):
            continue
        one = trial.measured(recipe, ())
        yield one
        if one.result.top1_agreement >= trial.options.min_agreement:
            return
        if best is None or one.result.mean_abs < best.result.mean_abs:
            best = one
    order = trial.by_sensitivity(best.recipe) if best else []
    count = 1
    while best and count <= len(order) * _MAX_FP32_SHARE:
        one = trial.measured(best.recipe, tuple(order[:count]))
        yield one
        if one.result.top1_agreement >= trial.options.min_agreement:
            return
        count *= 2


@dataclass
class _Trial:
    """A model, its images, and what is known of its tensors: everything a recipe needs."""

    source: Path
    model: Any
    images: _Images
    preprocess: Preprocessor
    options: QuantizeOptions
    progress: Progress
    histograms: dict[str, Histogram] = field(default_factory=dict)
    reference: NDArray[Any] | None = None

    def quantized(self, recipe: str, fp32_layers: Collection[str]) -> Any:
        """Return the model quantized by a recipe, but for some layers."""
        nodes = [name for name in qdq.node_names(self.model) if name not in fp32_layers]
        return self.with_pairs(self.ranges(recipe), nodes)

    def ranges(self, recipe: str) -> qdq.Ranges:
        return {name: _RECIPES[recipe](one) for name, one in self.histograms.items()}

    def with_pairs(self, ranges: qdq.Ranges, nodes: Iterable[str]) -> Any:
        symmetric = self.options.activations == "int8"
        bits = self.options.weight_bits
        return qdq.quantized(self.model, ranges, nodes, symmetric=symmetric, weight_bits=bits)

    def calibrate(self) -> None:
        """Collect the histogram of every tensor that may be quantized."""
        names = qdq.activations(self.model)
        session = qdq.session_of(self.model, self.source, names)
        self.histograms = {name: Histogram() for name in names}
        total = len(self.images.calibration)
        for count, image in enumerate(self.images.calibration, 1):
            values = qdq.run(session, self.prepared(image), self.source)
            for name, value in zip(names, values, strict=True):
                if not np.isfinite(value).all():
                    raise BundleError(f"{self.source}: {name} is not finite for {image.name}")
                self.histograms[name].add(value)
            if count % _PER_LINE == 0 or count == total:
                self.progress(f"calibrated on {count} of {total} images")

    def measured(self, recipe: str, fp32_layers: tuple[str, ...]) -> Try:
        """Compare one recipe with fp32 on the held-out images."""
        if self.reference is None:
            self.reference = self.outputs(self.model, self.images.held_out)
        found = self.outputs(self.quantized(recipe, fp32_layers), self.images.held_out)
        result = compare(self.reference, found)
        one = Try(recipe, fp32_layers, result, _flip_margin(self.reference, found))
        self.progress(str(one))
        return one

    def by_sensitivity(self, recipe: str) -> list[str]:
        """Name the layers, those first that alone, quantized, change the output most.

        Measured on calibration images, so that the held-out ones stay a fair judge. What layers do
        alone nearly adds up to what they do together.
        """
        layers = qdq.layer_names(self.model)
        self.progress(f"looking for the most sensitive of {len(layers)} layers")
        probes = self.images.calibration[:_PROBES]
        reference, ranges = self.outputs(self.model, probes), self.ranges(recipe)
        changes = {}
        for layer in layers:
            found = self.outputs(self.with_pairs(ranges, [layer]), probes)
            changes[layer] = compare(reference, found).mean_abs
        return sorted(layers, key=lambda layer: changes[layer], reverse=True)

    def outputs(self, model: Any, images: Iterable[ImageFile]) -> NDArray[Any]:
        """Run a model on images; returns float32 (N, C)."""
        session = qdq.session_of(model, self.source)
        return np.concatenate(
            [qdq.run(session, self.prepared(image), self.source)[0] for image in images]
        )

    def prepared(self, image: ImageFile) -> NDArray[Any]:
        """Return one image as the model takes it: (1, C, H, W)."""
        try:
            return self.preprocess(read_image(image.path))[np.newaxis]
        except ImageError as error:  # it could be read a moment ago
            raise InputError(f"{image.name} changed while quantizing: {error}") from None


def _flip_margin(reference: NDArray[Any], found: NDArray[Any]) -> float:
    """By how much the reference preferred its best class to the one found, at most."""
    rows = np.arange(len(reference))
    first, other = top_classes(reference, 1)[:, 0], top_classes(found, 1)[:, 0]
    return float((reference[rows, first] - reference[rows, other]).max())


def _facts(
    source: Path, model: Any, trial: _Trial, best: Try, tries: Sequence[Try]
) -> dict[str, Any]:
    """The sidecar's content."""
    images, options = trial.images, trial.options
    known = read_sidecar(source) or {}
    return {
        "source": source_digests((source,)),
        "converter": converter_versions(*_LIBRARIES),
        "precision": "int8",
        "weight_bits": options.weight_bits,
        "activations": options.activations,
        "opset": graphs.opset(model),
        "inputs": [describe(model.graph.input[0])],
        "outputs": [describe(model.graph.output[0])],
        "output_is_probabilities": known.get(
            "output_is_probabilities", graphs.output_kind(model) == "probabilities"
        ),
        "fp32_layers": list(best.fp32_layers),
        "quantization": {
            "options": asdict(options),
            "recipe": best.recipe,
            "weights": "int8, symmetric, per channel",
            "activations": f"{options.activations}: {ACTIVATIONS[options.activations]}",
            "calibration_images": len(images.calibration),
            "calibration_sha256": images.digest,
            "skipped_images": list(images.skipped),
            "tries": [asdict(one) for one in tries],
        },
        "verdict": {
            "against": source.name,
            "engine": "onnxruntime",
            "held_out_images": len(images.held_out),
            "min_agreement": options.min_agreement,
            "passed": True,
            "flip_margin": best.flip_margin,
            **asdict(best.result),
        },
    }


def _set_metadata(model: Any, facts: Mapping[str, Any]) -> None:
    """Keep what the source's file says of itself, but for what is new."""
    content = {item.key: item.value for item in model.metadata_props}
    content["hgdeploy.precision"] = "int8"
    content["hgdeploy.source_sha256"] = json.dumps(facts["source"], sort_keys=True)
    content["hgdeploy.versions"] = json.dumps(facts["converter"], sort_keys=True)
    import_library("onnx", "convert").helper.set_model_props(model, content)
