# SPDX-License-Identifier: Apache-2.0
"""`Classifier`: a bundle loaded into an engine, with the bundle's own pre- and postprocessing."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy._version import __version__
from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.bundle.model_files import model_digest
from hgdeploy.bundle.paddle_program import reading_once
from hgdeploy.classify import choice
from hgdeploy.classify.batch import Answer, Image, rows_of
from hgdeploy.classify.scores import Scores
from hgdeploy.classify.settings import ClassifierSettings, StageTimes
from hgdeploy.classify.source import Found, Source, each_image
from hgdeploy.engines import Engine
from hgdeploy.engines.ending import read_ending
from hgdeploy.engines.fit import batch_that_fits
from hgdeploy.engines.options import EngineOptions
from hgdeploy.engines.run import Run, open_run
from hgdeploy.engines.scores import class_count
from hgdeploy.errors import ConfigError, ImageError
from hgdeploy.images.find import ImageFile
from hgdeploy.images.isolated_reader import IsolatedReader
from hgdeploy.images.reader import ImageReader
from hgdeploy.transforms.attributes import Attributes
from hgdeploy.transforms.operators_config import ops_to_config
from hgdeploy.transforms.postprocess import Postprocess
from hgdeploy.transforms.prediction import Prediction


class Classifier:
    """Classifies images with a bundle.

    Args:
        bundle: the model's folder, or the bundle that was opened there.
        engine: `paddle`, `onnxruntime`, `openvino`, `tensorrt`, `mnn` or `ncnn`; None for Paddle,
            or ONNX Runtime where the bundle has nothing for Paddle to run; `auto` for the choice
            that `hgdeploy tune` saved, with its precision, device, threads and streams.
        precision: `fp32`, `tf32`, `fp16`, `bf16` or `int8`, if the engine and the bundle have it;
            None for fp32, or PaddleSlim's int8 where Paddle runs and its `inference_int8.*` is
            there.
        device: `cpu` or `gpu:N`.
        batch_size: images per inference.
        topk: how many classes to give; None for the bundle's own number.
        settings: all of these and more in one; the other arguments must then be left out.

    Raises:
        BundleError: model files are missing or do not fit each other.
        ConfigError: an argument is wrong, or the bundle does not say how to feed its model.
        EngineError: the engine, device or precision is not available here.
    """

    def __init__(
        self,
        bundle: str | Path | ModelBundle,
        engine: str | None = None,
        *,
        precision: str | None = None,
        device: str = "cpu",
        batch_size: int = 1,
        topk: int | None = None,
        settings: ClassifierSettings | None = None,
    ) -> None:
        others = (engine, precision, device, batch_size, topk)
        if settings is not None and others != (None, None, "cpu", 1, None):
            raise ConfigError("settings were given with other arguments; put all into settings")
        if settings is None:
            options = EngineOptions(device=device, precision=precision or "fp32")
            settings = ClassifierSettings(engine, batch_size, options, topk=topk)
        else:
            precision = choice.asked_precision(settings)
        opened = bundle if isinstance(bundle, ModelBundle) else open_bundle(bundle)
        self.warnings = [*opened.notes]
        self._set_up(opened, *choice.chosen_run(settings, precision, opened, self.warnings.append))

    @classmethod
    def from_settings(
        cls, bundle: str | Path | ModelBundle, settings: ClassifierSettings
    ) -> Classifier:
        """Load `bundle` with these settings; raises what the constructor raises."""
        return cls(bundle, settings=settings)

    @reading_once()
    def _set_up(self, bundle: ModelBundle, settings: ClassifierSettings, run: Run) -> None:
        options = settings.options
        ops = choice.chosen_ops(settings, bundle)
        self.bundle = bundle
        self.times = StageTimes()
        self._times_lock = threading.Lock()
        self.warnings += choice.choice_warnings(settings, bundle)
        self.reader = ImageReader(ops, settings.fast_decode)
        self._settings = settings
        self._isolated: IsolatedReader | None = None
        if settings.image_timeout is not None:
            self.read_apart(settings.image_timeout)
        self.cpus = settings.options.cpu_threads * settings.options.streams
        self._postprocess = choice.chosen_postprocess(settings, bundle)
        opened = open_run(bundle, run, options, self.reader.preprocessor)
        self.engine: Engine = opened.engine
        self.warnings += self.engine.warnings
        self._source = source = opened.source
        try:
            spec = self.engine.inputs[0]
            self.batch_size = batch_that_fits(
                spec, source, settings.batch_size, self.warnings.append
            )
            classes = class_count(self.engine.outputs[0].shape) or -1
            self._postprocess = self._postprocess.fitted(classes, source, self.warnings.append)
            self._scores = Scores(
                source,
                read_ending(source, self.engine.outputs[0].name),
                self._postprocess.output,
                softmax=settings.softmax,
                on_warning=self.warnings.append,
            )
        except Exception:
            self.engine.close()
            raise

    @property
    def settings(self) -> ClassifierSettings:
        """The settings with which it was loaded."""
        return self._settings

    @property
    def postprocess(self) -> Postprocess:
        """The postprocessing that is used: of the settings, the bundle, or the default."""
        return self._postprocess

    def predict(self, source: Source) -> Iterator[Prediction]:
        """Classify images lazily and in order, one batch after the other.

        An image that fails keeps its place. For many files, `hgdeploy.folder` is faster.

        Args:
            source: a file, folder, glob or text list, or an `ImageFile`; the bytes of an image
                file, or a file open for reading bytes (from where it stands); a decoded image as
                uint8 RGB of shape (height, width, 3); or an iterable of any of these.

        Yields:
            One `Prediction` per image. If it cannot be read, `error` says why.

        Raises:
            InputError: a named file, folder or glob holds no images; or there is no image in what
                was given.
            EngineError: the engine failed.
        """
        found = each_image(source, self.warnings.append)
        images = (self._image(name, one) for name, one in found)
        while batch := list(itertools.islice(images, self.batch_size)):
            yield from self._classify(batch)

    def classify(self, files: Sequence[ImageFile]) -> list[Prediction]:
        """Classify at most one batch of image files; safe to call from many threads at once.

        Args:
            files: as `find_images` returns them.

        Returns:
            One `Prediction` per file, in order. If it cannot be read, `error` says why.

        Raises:
            EngineError: the engine failed.
        """
        return self._classify([self._file(file) for file in files])

    def read_apart(self, seconds: float) -> None:
        """Read image files in processes of their own from now on, as `image_timeout` does.

        Args:
            seconds: how long one file may take.

        Raises:
            ConfigError: that is not a time that can be waited.
        """
        ops = self.reader.preprocessor.ops
        self._isolated = IsolatedReader(ops, self._settings.fast_decode, seconds)

    def close(self) -> None:
        """Free the engine; a second call does nothing."""
        if self._isolated is not None:
            self._isolated.close()
        self.engine.close()

    def failed(self, path: str, reason: str) -> Prediction:
        """Return the prediction of an image that this model could not classify."""
        output = self._postprocess.output
        return Prediction.failed(path, reason, of_attributes=isinstance(output, Attributes))

    def fingerprint(self) -> dict[str, str]:
        """Return what predictions depend on, by name: the model's files, the engine, the settings.

        Raises:
            BundleError: a model file can no longer be read.
        """
        runtime, name = self.engine.runtime, self.bundle.model_name
        return {
            "model": name or str(self.bundle.root),
            "model file": self._source.name,
            "model hash": model_digest(self._source),
            "engine": f"{runtime.engine} ({runtime.library} {runtime.version})",
            "back end": runtime.providers[0],
            "device": runtime.device,
            "precision": runtime.precision,
            "output": self.engine.outputs[0].name,
            "preprocessing": json.dumps(ops_to_config(self.reader.preprocessor.ops)),
            "postprocessing": hashlib.sha256(repr(self._postprocess).encode()).hexdigest(),
            "fast decode": str(self._settings.fast_decode),
            "softmax": str(self._settings.softmax),
            "hgdeploy": __version__,
        }

    def __enter__(self) -> Classifier:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def answers(self, images: Sequence[Image]) -> list[Answer]:
        """Classify at most one batch; safe to call from many threads at once.

        Args:
            images: any that make tensors of this model's.

        Returns:
            One `Answer` per image, in order.

        Raises:
            EngineError: the engine failed.
        """
        times = StageTimes(images=len(images))
        rows = rows_of(images, self.engine, self.reader.preprocessor, times, self.batch_size)
        start = time.perf_counter()
        pairs = zip(images, rows, strict=True)
        answers = [self._answer(image.name, row) for image, row in pairs]
        times.postprocess += time.perf_counter() - start
        with self._times_lock:
            self.times.add(times)
        return answers

    def _image(self, name: str, found: Found) -> Image:
        if isinstance(found, ImageFile):
            return self._file(found)
        if isinstance(found, bytes):
            return Image(name, lambda out: self.reader.read_bytes(found, out))
        return Image(name, lambda out: self.reader.read_array(found, out))

    def _file(self, file: ImageFile) -> Image:
        read = (self._isolated or self.reader).read_file
        return Image(file.name, lambda out: read(file.path, out))

    def _classify(self, images: Sequence[Image]) -> list[Prediction]:
        """Classify a batch; an image that fails keeps its place."""
        return [answer.prediction for answer in self.answers(images)]

    def _answer(self, path: str, row: NDArray[Any] | ImageError) -> Answer:
        if isinstance(row, ImageError):
            return Answer(self.failed(path, str(row)), None)
        if not np.isfinite(row).all():
            reason = "the model's output is not finite (NaN or infinity)"
            return Answer(self.failed(path, reason), None)
        return Answer(self._postprocess.output(path, self._scores(row)), row)
