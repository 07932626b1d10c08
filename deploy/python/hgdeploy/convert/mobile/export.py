# SPDX-License-Identifier: Apache-2.0
"""Write a folder that a developer of a phone's app can take over: model, constants and sample."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle
from hgdeploy.bundle.names import mnn_name, ncnn_name
from hgdeploy.convert.artifact import described, source_facts
from hgdeploy.convert.int8.options import MIN_IMAGES, QuantizeOptions
from hgdeploy.convert.mobile.feed import sample_feed
from hgdeploy.convert.mobile.from_onnx import check_converter, mobile_facts, write_mobile
from hgdeploy.convert.mobile.paddle_lite import (
    LITE_FILE,
    check_paddle_lite,
    paddle_lite_source,
    write_paddle_lite,
)
from hgdeploy.convert.mobile.texts import Exported, model_header, readme, sample_file
from hgdeploy.convert.variants import ensure_fp32_onnx, preprocessed_images
from hgdeploy.errors import BundleError, ConfigError, OutputError
from hgdeploy.images.find import ImageFile
from hgdeploy.system.checks import check_fields
from hgdeploy.system.files import updating_folder, write_text, writing
from hgdeploy.system.kinds import exactly
from hgdeploy.system.progress import OnLine, nothing
from hgdeploy.validation.accuracy import share_interval
from hgdeploy.validation.compare import AGREEMENT
from hgdeploy.validation.verify import verify_engine

PADDLE_LITE = "paddle-lite"
PRECISIONS = {"ncnn": ("fp16", "fp32"), "mnn": ("fp16", "fp32", "int8"), PADDLE_LITE: ("fp32",)}
"""What each format can store the weights in here, the default first."""

_MOST_IMAGES = 256  # 150 MB of tensors of 224 x 224


@dataclass(frozen=True)
class MobileOptions:
    """What to write for phones.

    Attributes:
        target: `ncnn`, `mnn` or `paddle-lite`.
        precision: what the weights are stored in; None for the target's default.
        images: real images to measure the agreement on; without any, random inputs are used.
    """

    target: str
    precision: str | None = None
    images: Sequence[ImageFile] = ()

    def __post_init__(self) -> None:
        check_fields(self, target=exactly(*PRECISIONS))
        available = PRECISIONS[self.target]
        if self.precision not in (None, *available):
            raise ConfigError(
                f"--precision {self.precision} is not possible with --to {self.target}, expected "
                f"{' or '.join(available)}; docs/mobile.md says why"
            )
        if self.precision == "int8" and len(self.images) < MIN_IMAGES:
            raise ConfigError(
                f"--precision int8 needs at least {MIN_IMAGES} real images, which show whether it "
                "agrees; give them with --images"
            )

    @property
    def stored(self) -> str:
        """What the weights are stored in."""
        return self.precision or PRECISIONS[self.target][0]


def export_mobile(
    bundle: ModelBundle,
    folder: Path,
    options: MobileOptions,
    on_warning: OnLine,
    on_progress: OnLine = nothing,
) -> Path:
    """Write a folder for phones: model, labels, constants of the preprocessing, sample, README.

    Args:
        bundle: the bundle; `inference.onnx` is made in it where it is missing.
        folder: the folder to make; it may exist if it is empty.
        options: what to write.
        on_warning: called with each thing the user should know about the result.
        on_progress: called with a line at the start of each long step.

    Returns:
        `folder`, complete; after an error it is as it was.

    Raises:
        BundleError: the model cannot be converted, or the sample cannot feed it exactly.
        ConfigError: the bundle does not say how to preprocess.
        EngineError: a converter is missing.
        ValidationError: the result does not agree with the bundle.
        OutputError: the folder cannot be written, or has something in it.
    """
    with writing(folder):
        if folder.is_dir() and any(folder.iterdir()):
            raise OutputError(f"{folder} is not empty; name a new folder, or empty this one")
    feed = sample_feed(bundle.own_preprocess(), bundle.place)
    program = paddle_lite_source(bundle) if options.target == PADDLE_LITE else None
    if program is None:
        check_converter(options.target)
    else:
        check_paddle_lite(program)
    source = ensure_fp32_onnx(bundle, on_progress, on_warning)
    facts = mobile_facts(options.target, source, options.stored)
    model = Exported(bundle, feed, options.target, options.stored, facts)
    texts = {"model.h": model_header(model), **_labels(model)}
    with updating_folder(folder) as aside:
        if program is None:
            rows = preprocessed_images(bundle, source, options.images, on_warning, _MOST_IMAGES)
            _write_and_compare(model, source, rows, aside, on_progress)
            if model.precision == "int8":
                _check_int8(model, on_warning)
        else:
            on_progress(f"converting {program} for {PADDLE_LITE}")
            write_paddle_lite(program, aside / LITE_FILE)
            facts |= source_facts(program)
        for name, text in (texts | _sample(model)).items():
            write_text(aside / name, text)
        write_text(aside / "README.md", readme(model, aside))
    if program is not None:
        on_warning(f"{LITE_FILE} is for the CPUs of phones: its agreement is not measured here")
    elif not options.images:
        on_warning("the agreement is measured on random inputs; give real images with --images")
    return folder


def _write_and_compare(
    model: Exported,
    source: Path,
    rows: Sequence[NDArray[Any]],
    folder: Path,
    on_progress: OnLine,
) -> None:
    """Write MNN's or ncnn's files, and add to the facts how they agree with the ONNX file."""
    engine, facts = model.target, model.facts

    def write(target: Path, precision: str, rows: Sequence[NDArray[Any]]) -> dict[str, Any]:
        on_progress(f"converting {source} for {engine}, in {precision}")
        write_mobile(engine, source, target, precision)
        on_progress(f"comparing {target.name} with {source.name}")
        verify = verify_engine(engine, model.bundle.output_name, precision, rows)
        with described(target, facts):
            return verify(source, target)

    name = {"mnn": mnn_name, "ncnn": ncnn_name}[engine]("fp32")
    if model.precision != "fp32":
        # What a converter loses shows in fp32 only, whose tolerance is narrow.
        with tempfile.TemporaryDirectory(prefix="hgdeploy-mobile-") as scratch:
            write(Path(scratch) / name, "fp32", ())
    facts["verdict"] = write(folder / name, model.precision, rows)


def _check_int8(model: Exported, on_warning: OnLine) -> None:
    """Refuse weights in int8 by the rule of `hgdeploy quantize`.

    Raises:
        BundleError: the images show that too few of them agree.
    """
    found, least = model.facts["verdict"], QuantizeOptions.min_agreement
    low, high = share_interval(found["top1_agreement"], found["rows"])
    seen = (
        f"{found['rows']} images show {AGREEMENT[found['agreement_by']]} from {low:.3f} to "
        f"{high:.3f} with 95 % confidence"
    )
    if high < least:
        raise BundleError(
            f"{model.bundle.place}: int8 weights do not agree: {seen}, below {least}; use "
            "--precision fp16"
        )
    if low < least:
        on_warning(f"{seen}, which does not tell whether it reaches {least}; more would")


def _labels(model: Exported) -> dict[str, str]:
    """Return `labels.txt`, where the bundle names its classes: line N is the name of class N."""
    postprocess = model.bundle.own_postprocess()
    if postprocess is None or postprocess.output.labels is None:
        return {}
    postprocess.check_classes(model.classes, model.bundle.place)
    names = postprocess.output.labels
    lines = [" ".join(names[i].split()) for i in range(model.classes)]
    return {"labels.txt": "".join(f"{line}\n" for line in lines)}


def _sample(model: Exported) -> dict[str, str]:
    """Return the files of the sample; for Paddle-Lite, those that feed a model."""
    resize = {"cv2": "resize_opencv.h", "pil": "resize_pillow.h"}[model.feed.backend]
    files = {"preprocess.h": "preprocess.h", "resize.h": resize}
    if model.target != PADDLE_LITE:
        files |= {
            "classify.cpp": "classify.cpp",
            "engine.h": f"engine_{model.target}.h",
            "CMakeLists.txt": f"CMakeLists_{model.target}.txt",
        }
    return {name: sample_file(ours) for name, ours in files.items()}
