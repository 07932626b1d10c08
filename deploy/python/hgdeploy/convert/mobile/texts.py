# SPDX-License-Identifier: Apache-2.0
"""The texts of an export for phones: `model.h`, the README, and the files of the sample."""

from __future__ import annotations

import importlib.resources
import string
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hgdeploy._version import __version__
from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.convert.mobile.feed import Feed, feed_constants, steps_in_words
from hgdeploy.engines.scores import class_count
from hgdeploy.errors import BundleError
from hgdeploy.transforms.postprocess import Output, Topk
from hgdeploy.validation.accuracy import share_interval
from hgdeploy.validation.compare import AGREEMENT

_NAMES = {"ncnn": "ncnn", "mnn": "MNN", "paddle-lite": "Paddle-Lite"}
_TOPK = 5


@dataclass(frozen=True)
class Exported:
    """A model that was written for phones.

    Attributes:
        bundle: what it was made from.
        feed: how it is fed.
        target: its format.
        precision: what its weights are stored in.
        facts: what a sidecar would say about it; its verdict is added when it has been compared.
    """

    bundle: ModelBundle
    feed: Feed
    target: str
    precision: str
    facts: dict[str, Any]

    @property
    def classes(self) -> int:
        """How many scores it gives."""
        return class_count(self.facts["outputs"][0]["shape"]) or 0

    @property
    def name(self) -> str:
        """What the model is called."""
        return self.bundle.model_name or self.bundle.place.name


def model_header(model: Exported) -> str:
    """Return `model.h`: the constants of a model.

    Raises:
        BundleError: it does not take three channels.
    """
    taken, given = model.facts["inputs"][0], model.facts["outputs"][0]
    channels, height, width = taken["shape"][1:]
    if channels != 3:
        raise BundleError(
            f"{model.bundle.place} takes {channels} channels, and the sample has three"
        )
    output = _output(model)
    topk = output.topk if isinstance(output, Topk) else _TOPK
    return _filled(
        "model.h",
        name=_quoted(model.name),
        width=width,
        height=height,
        classes=model.classes,
        topk=topk,
        fp16=str(model.precision == "fp16").lower(),
        input=_quoted(taken["name"]),
        output=_quoted(given["name"]),
        feed="\n".join(feed_constants(model.feed)),
    )


def readme(model: Exported, folder: Path) -> str:
    """Return the README.

    Args:
        model: the model.
        folder: the folder with all other files.
    """
    sizes = sorted((path.name, path.stat().st_size) for path in folder.iterdir())
    made_with = ", ".join(f"{k} {v}" for k, v in model.facts["converter"].items())
    return _filled(
        "README.md",
        model=model.name,
        target=_NAMES[model.target],
        files="\n".join(f"| {name} | {size:,} |" for name, size in sizes),
        labels=_labels_in_words(model),
        precision=model.precision,
        agreement=_agreement(model),
        steps="\n".join(f"{i}. {step}" for i, step in enumerate(steps_in_words(model.feed), 1)),
        output=_output_in_words(model),
        use=sample_file(f"use_{model.target}.md"),
        version=__version__,
        made_with=made_with,
        sources="\n".join(f"- {n}: {digest}" for n, digest in model.facts["source"].items()),
    )


def _agreement(model: Exported) -> str:
    """Return what the comparison with the bundle found, in sentences."""
    found = model.facts["verdict"]
    if found is None:
        return (
            "Not measured: this file is for the CPUs of phones, and was not run where it was made. "
            "Compare it with `hgdeploy predict` on your own images before you ship it."
        )
    rows, against = found["rows"], found["against"]
    differences = (
        f"The largest difference of a score is {found['max_abs']:.2g}, and of a log-probability "
        f"{found['max_log']:.2g}."
    )
    if found["inputs"] == "random":
        return (
            f"Compared with the bundle's inference.onnx in {against}, on {rows} random inputs, on "
            f"the CPU where it was made (`--images` measures it on real ones). {differences}"
        )
    share = found["top1_agreement"]
    least = share_interval(share, rows)[0]
    return (
        f"Compared with the bundle's inference.onnx in {against}, on {rows} images, on the CPU "
        f"where it was made: {AGREEMENT[found['agreement_by']]} {share:.4f} (at least {least:.3f} "
        f"with 95 % confidence). {differences}"
    )


def _output_in_words(model: Exported) -> str:
    ending = model.facts["ending"] or []
    scores = {"softmax": "probabilities", "sigmoid": "independent scores, each from 0 to 1"}
    kind = scores.get(ending[-1] if ending else "", "scores as the network gives them")
    text = f"{model.classes} values: {kind}."
    output = _output(model)
    if output is not None and not isinstance(output, Topk):
        text += (
            f" The bundle's own postprocessing is {type(output).__name__}, which the sample does "
            "not do: it lists the highest scores."
        )
    return text


def _labels_in_words(model: Exported) -> str:
    output = _output(model)
    if output is None or output.labels is None:
        return "The bundle names no classes, so there is no labels.txt."
    return "labels.txt names the classes: its line N, counted from 0, is class N."


def _output(model: Exported) -> Output | None:
    postprocess = model.bundle.postprocess
    return None if postprocess is None else postprocess.output


def sample_file(name: str) -> str:
    """Return a file of `sample/`."""
    folder = importlib.resources.files("hgdeploy.convert.mobile") / "sample"
    return (folder / name).read_text(encoding="utf-8")


def _filled(file: str, /, **values: object) -> str:
    return string.Template(sample_file(file)).substitute(values)


def _quoted(text: str) -> str:
    """Return a text as C++ writes one."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'
