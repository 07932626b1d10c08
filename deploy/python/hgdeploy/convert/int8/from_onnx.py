# SPDX-License-Identifier: Apache-2.0
"""Write the int8 variant of an fp32 ONNX model, calibrated on real images, measured on others.

One calibration run keeps a histogram of each tensor; every recipe takes its ranges from these.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hgdeploy.convert.artifact import converter_versions, source_facts, write_artifact
from hgdeploy.convert.graph import OnnxGraph
from hgdeploy.convert.int8 import qdq
from hgdeploy.convert.int8.options import ACTIVATIONS, QuantizeOptions, QuantizeReport, Try
from hgdeploy.convert.int8.selection import split_images
from hgdeploy.convert.int8.trial import RECIPES, Trial
from hgdeploy.engines.fit import check_feed
from hgdeploy.errors import BundleError
from hgdeploy.images.find import ImageFile
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.preprocess import Preprocessor

_MAX_FP32_SHARE = 0.25  # with more layers in fp32 there is little left to gain
_LIBRARIES = ("onnx", "onnxruntime", "onnxruntime-gpu")


def int8_from_onnx(
    source: Path,
    target: Path,
    images: Sequence[ImageFile],
    preprocess: Preprocessor,
    options: QuantizeOptions,
    on_progress: OnLine,
) -> QuantizeReport:
    """Write the int8 variant of an fp32 ONNX model, by the first recipe that agrees well enough.

    Weights are int8 per channel, symmetric, in 8 or 7 bits. Images are read one at a time, as in
    prediction, so memory does not grow with their number.

    Args:
        source: the fp32 model, with its batch normalisations folded.
        target: where the variant goes, such as `inference.int8.onnx`.
        images: real images like those to be classified; unreadable ones are reported and skipped.
        preprocess: the model's own preprocessing.
        options: how to quantize.
        on_progress: called with one line at a time.

    Returns:
        The report; the sidecar holds the same.

    Raises:
        BundleError: the source is not a folded fp32 classifier, does not take the images, or no
            recipe reaches `min_agreement`. Nothing is written then.
        InputError: fewer than 10 images can be used, or all are alike.
        EngineError: onnx or onnxruntime is missing.
        OutputError: the file cannot be written.
    """
    graph = qdq.load_folded(source)
    taken = graph.image_input()
    check_feed(taken, source, preprocess)
    split = split_images(images, preprocess, options, on_progress, taken)
    trial = Trial(graph, split, preprocess, options, on_progress)
    tries = list(_tries(trial))
    best = max(tries, key=lambda one: (one.result.top1_agreement, -one.result.mean_abs))
    where = f"on {len(split.held_out)} held-out images"
    if not best.agrees(options.min_agreement):
        raise BundleError(
            f"{source}: no recipe reaches min_agreement {options.min_agreement} with fp32 {where}, "
            f"with 95 % confidence; the best was {best}; give more images like those to be "
            "classified, or ask for less with min_agreement"
        )
    undecided = best.undecided(options)
    if undecided is not None:
        on_progress(f"warning: {undecided}")
    quantized = trial.quantized(best.recipe, best.fp32_layers)
    facts = _facts(source, quantized, trial, best, tries)
    _set_metadata(quantized, facts)
    quantized.check()
    data = quantized.to_bytes()

    def write(aside: Path) -> None:
        aside.write_bytes(data)

    write_artifact(target, write, facts)
    on_progress(f"{target}: {best}, {where}; {ACTIVATIONS[options.activations]}")
    sizes = len(split.calibration), len(split.held_out)
    return QuantizeReport(target, best, tuple(tries), *sizes, split.skipped)


def _tries(trial: Trial) -> Iterator[Try]:
    """Measure recipes until one agrees: all ranges first, then more and more layers in fp32."""
    trial.calibrate()
    best: Try | None = None
    for recipe in RECIPES:
        if trial.options.method not in ("auto", recipe.split()[0]):
            continue
        one = trial.measure(recipe, ())
        yield one
        if one.result.top1_agreement >= trial.options.min_agreement:
            return
        if best is None or one.result.mean_abs < best.result.mean_abs:
            best = one
    order = trial.layers_by_sensitivity(best.recipe) if best else []
    count = 1
    while best and count <= len(order) * _MAX_FP32_SHARE:
        one = trial.measure(best.recipe, tuple(order[:count]))
        yield one
        if one.result.top1_agreement >= trial.options.min_agreement:
            return
        count *= 2


def _facts(
    source: Path, graph: OnnxGraph, trial: Trial, best: Try, tries: Sequence[Try]
) -> dict[str, Any]:
    """Return the sidecar's content."""
    images, options = trial.images, trial.options
    return {
        **source_facts(source),
        "converter": converter_versions(*_LIBRARIES),
        "precision": "int8",
        "weight_bits": options.weight_bits,
        "activations": options.activations,
        **graph.facts(),
        "fp32_layers": list(best.fp32_layers),
        **({"fp16_overflows": trial.fp16_overflows()} if options.activations == "int8" else {}),
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


def _set_metadata(graph: OnnxGraph, facts: Mapping[str, Any]) -> None:
    """Keep the metadata of the source's file, and replace what has changed."""
    content = graph.metadata()
    content["hgdeploy.precision"] = "int8"
    content["hgdeploy.source_sha256"] = json.dumps(facts["source"], sort_keys=True)
    content["hgdeploy.versions"] = json.dumps(facts["converter"], sort_keys=True)
    graph.set_metadata(content)
