# SPDX-License-Identifier: Apache-2.0
"""`Classifier`: a bundle loaded into an engine, with its own pre- and postprocessing around it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle import ModelBundle, open_bundle
from hgdeploy.config import EngineOptions
from hgdeploy.engines import Engine, engine_module, image_input, infer_rows, load_engine
from hgdeploy.errors import BundleError, ConfigError, ImageError, InputError
from hgdeploy.images import ImageFile, decode_image, find_images, read_image
from hgdeploy.postprocess import Postprocess, Prediction, Topk
from hgdeploy.preprocess import Op, Preprocessor, ops_difference

# How far a row of probabilities may sum from one; bf16 and int8 softmax stay well inside.
_SUM_TOLERANCE = 0.02

Source = str | Path | bytes | NDArray[Any] | Iterable[Any]


@dataclass(frozen=True)
class ClassifierSettings:
    """How to load and drive a bundle.

    Attributes:
        engine: the engine's name.
        batch_size: images an inference takes.
        options: what is asked of the engine.
        preprocess: transform ops instead of the bundle's own.
        postprocess: postprocessing instead of the bundle's own.
        topk: how many classes to give, instead of what the postprocessing says.
    """

    engine: str = "paddle"
    batch_size: int = 1
    options: EngineOptions = field(default_factory=EngineOptions)
    preprocess: tuple[Op, ...] | None = None
    postprocess: Postprocess | None = None
    topk: int | None = None


@dataclass
class StageTimes:
    """Seconds spent in each stage, summed over all images, and how many images that were."""

    images: int = 0
    decode: float = 0.0
    preprocess: float = 0.0
    infer: float = 0.0
    postprocess: float = 0.0


@dataclass(frozen=True)
class _Item:
    """One image on its way: its name, and its tensor or the reason why there is none."""

    path: str
    tensor: NDArray[Any] | None
    error: str | None = None


class Classifier:
    """Classifies images with a bundle.

    Args:
        bundle: the model's folder.
        engine: `paddle`, `onnxruntime` or `openvino`.
        precision: `fp32`, `fp16`, `bf16` or `int8`, as far as the engine and the bundle have it.
        device: `cpu` or `gpu:N`.
        batch_size: images an inference takes.
        topk: how many classes to give; None for what the bundle says.

    Raises:
        BundleError: model files are missing or do not fit each other.
        ConfigError: an argument is wrong, or the bundle does not say how to feed its model.
        EngineError: the engine, device or precision is not available here.
    """

    def __init__(
        self,
        bundle: str | Path,
        engine: str = "paddle",
        *,
        precision: str = "fp32",
        device: str = "cpu",
        batch_size: int = 1,
        topk: int | None = None,
    ) -> None:
        options = EngineOptions(device=device, precision=precision, max_batch=batch_size)
        settings = ClassifierSettings(engine, batch_size, options, topk=topk)
        self._set_up(open_bundle(bundle), settings)

    @classmethod
    def from_settings(cls, bundle: str | Path, settings: ClassifierSettings) -> Classifier:
        """Load `bundle` as `settings` say; raises what the constructor raises."""
        classifier = cls.__new__(cls)
        classifier._set_up(open_bundle(bundle), settings)
        return classifier

    def _set_up(self, bundle: ModelBundle, settings: ClassifierSettings) -> None:
        ops = settings.preprocess if settings.preprocess is not None else bundle.preprocess
        if ops is None:
            raise ConfigError(
                f"nothing says how to preprocess for {bundle.root}: it has no inference.yml; "
                "give a config with -c, such as deploy/configs/inference_cls.yaml"
            )
        self.bundle = bundle
        self.times = StageTimes()
        self.warnings: list[str] = _preprocess_warnings(settings.preprocess, bundle)
        self._preprocessor = Preprocessor(ops)
        self._batch_size = settings.batch_size
        options = dataclasses.replace(settings.options, max_batch=settings.batch_size)
        names = engine_module(settings.engine).artifact_names(options.precision)
        source = bundle.find(names)
        self._postprocess = _postprocess(settings, bundle)
        self.engine: Engine = load_engine(settings.engine, source, options)
        try:
            _check_fit(source, self.engine, self._preprocessor, settings.batch_size)
            self._postprocess.check_classes(self.engine.outputs[0].shape[-1], source)
        except Exception:
            self.engine.close()
            raise
        self._probabilities_checked = not self._postprocess.output.probabilities

    @property
    def postprocess(self) -> Postprocess:
        """The postprocessing in force."""
        return self._postprocess

    def predict(self, source: Source) -> Iterator[Prediction]:
        """Classify images, lazily and in order; an image that fails keeps its place.

        Args:
            source: a file, folder, glob or text list; the bytes of an image file; a decoded image
                as uint8 RGB of shape (height, width, 3); or an iterable of any of these.

        Yields:
            One `Prediction` an image. One that cannot be read carries its reason in `error`.

        Raises:
            InputError: a named file, folder or glob holds no images.
            EngineError: the engine failed.
        """
        return self._predict_items(self._items(source))

    def predict_files(self, files: Iterable[ImageFile]) -> Iterator[Prediction]:
        """Classify image files that were found before; see `predict`."""
        return self._predict_items(self._file_item(file) for file in files)

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        self.engine.close()

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _items(self, source: Source, index: int = 0) -> Iterator[_Item]:
        """Turn a source into items; `index` names images that have no file name."""
        if isinstance(source, str | Path):
            yield from (self._file_item(file) for file in find_images(source))
        elif isinstance(source, bytes | bytearray | memoryview):
            data = bytes(source)
            yield self._item(f"<bytes {index}>", lambda: decode_image(data))
        elif isinstance(source, np.ndarray) and source.ndim != 4:
            yield self._item(f"<array {index}>", lambda: source)
        elif isinstance(source, Iterable):
            for i, part in enumerate(source):
                yield from self._items(part, i)
        else:
            raise InputError(
                f"cannot classify a {type(source).__name__}, expected a path, bytes, an RGB array "
                "or an iterable of these"
            )

    def _file_item(self, file: ImageFile) -> _Item:
        return self._item(file.name, lambda: read_image(file.path))

    def _item(self, path: str, read: Any) -> _Item:
        start = time.perf_counter()
        try:
            image = read()
            decoded = time.perf_counter()
            tensor = self._preprocessor(image)
        except ImageError as error:
            return _Item(path, None, str(error))
        finally:
            self.times.images += 1
        self.times.decode += decoded - start
        self.times.preprocess += time.perf_counter() - decoded
        return _Item(path, tensor)

    def _predict_items(self, items: Iterable[_Item]) -> Iterator[Prediction]:
        """Gather batches of equal shape; failures wait in line so that the order holds."""
        waiting: list[_Item] = []
        tensors: list[NDArray[Any]] = []
        for item in items:
            if item.tensor is not None:
                if tensors and item.tensor.shape != tensors[0].shape:
                    yield from self._flush(waiting, tensors)
                    waiting, tensors = [], []
                tensors.append(item.tensor)
            waiting.append(item)
            if len(tensors) == self._batch_size or not tensors:
                yield from self._flush(waiting, tensors)
                waiting, tensors = [], []
        yield from self._flush(waiting, tensors)

    def _flush(self, waiting: list[_Item], tensors: list[NDArray[Any]]) -> Iterator[Prediction]:
        rows = iter(self._infer(tensors)) if tensors else iter(())
        for item in waiting:
            if item.tensor is None:
                yield Prediction.failed(item.path, item.error or "")
                continue
            start = time.perf_counter()
            prediction = self._prediction(item.path, next(rows))
            self.times.postprocess += time.perf_counter() - start
            yield prediction

    def _infer(self, tensors: list[NDArray[Any]]) -> NDArray[Any]:
        """Run one batch."""
        start = time.perf_counter()
        output = infer_rows(self.engine, np.stack(tensors))
        self.times.infer += time.perf_counter() - start
        return output

    def _prediction(self, path: str, scores: NDArray[Any]) -> Prediction:
        if not np.isfinite(scores).all():
            return Prediction.failed(path, "the model's output is not finite (NaN or infinity)")
        if not self._probabilities_checked:
            self._probabilities_checked = True
            total = float(scores.sum(dtype=np.float64))
            if scores.min() < 0 or not math.isclose(total, 1.0, abs_tol=_SUM_TOLERANCE):
                self.warnings.append(
                    f"the model's scores sum to {total:.3g}, not to 1: they are no probabilities; "
                    "export the model with a softmax at its end"
                )
        return self._postprocess.output(path, scores)


def _preprocess_warnings(given: tuple[Op, ...] | None, bundle: ModelBundle) -> list[str]:
    """Name the keys in which a config's preprocessing differs from the model's own."""
    if given is None or bundle.preprocess is None:
        return []
    differences = ops_difference(given, bundle.preprocess)
    if not differences:
        return []
    return [
        f"the config's preprocessing differs from the bundle's own ({bundle.root}) and wins: "
        f"{'; '.join(differences)}; leave PreProcess out of the config to use the bundle's own"
    ]


def _postprocess(settings: ClassifierSettings, bundle: ModelBundle) -> Postprocess:
    """Return the config's postprocessing, else the bundle's, else Top-5 without names."""
    chosen = settings.postprocess or bundle.postprocess or Postprocess(Topk(5), None, False)
    own = bundle.postprocess.output.labels if bundle.postprocess is not None else None
    if not chosen.labels_given and own is not None:
        chosen = chosen.with_labels(own)
    return chosen if settings.topk is None else chosen.with_topk(settings.topk)


def _check_fit(source: Path, engine: Engine, preprocessor: Preprocessor, batch_size: int) -> None:
    """Refuse a model that could not take what the preprocessing makes.

    Raises:
        BundleError: the two sizes, types or batches, and how to make them fit.
    """
    spec = image_input(engine, source)
    batch, _, height, width = spec.shape
    if batch not in (-1, batch_size):
        raise BundleError(
            f"{source} has a fixed batch of {batch}, but the batch size is {batch_size}; "
            f"use batch size {batch}, or export the model with a dynamic batch"
        )
    size = preprocessor.output_size
    if size is not None and (height not in (-1, size[0]) or width not in (-1, size[1])):
        raise BundleError(
            f"{source} takes images of {width}x{height}, but the preprocessing makes "
            f"{size[1]}x{size[0]} (width x height); correct ResizeImage or CropImage"
        )
    if preprocessor.dtype.name != spec.dtype:
        raise BundleError(
            f"{source} takes {spec.dtype}, but the preprocessing makes {preprocessor.dtype.name}; "
            "correct NormalizeImage (output_fp16)"
        )
