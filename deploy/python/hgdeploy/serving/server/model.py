# SPDX-License-Identifier: Apache-2.0
"""A model that is served: a loaded bundle, and its queue."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hgdeploy.bundle.model_bundle import ModelBundle, open_bundle
from hgdeploy.classify.batch import Answer, Image
from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.settings import ClassifierSettings, StageTimes
from hgdeploy.engines.base import TensorSpec
from hgdeploy.errors import EngineError
from hgdeploy.images.decode import MAX_PIXELS
from hgdeploy.images.reader import ReadImage, use_one_opencv_thread
from hgdeploy.serving.server.counts import Counts
from hgdeploy.serving.server.scheduler import LONGEST_DELAY_MS, QueueOptions, Scheduler
from hgdeploy.system.checks import Given, check_fields
from hgdeploy.system.kinds import MANY, THREADS, number, optional, whole

# As long as a camera's largest pictures (8192x8192), yet 0.2 GB a thread once decoded.
_MAX_PIXELS = 1 << 26
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def _name(given: Given) -> str:
    """Is the kind of names that stand in addresses."""
    if not isinstance(given.value, str) or _ODD.search(given.value) or not given.value:
        raise given.refused("letters, digits, ., _ and -")
    return given.value


@dataclass(frozen=True)
class ServedOptions:
    """How a model is served.

    Attributes:
        name: what requests call it; None for the name that its bundle has.
        max_queue: the most images that may wait.
        max_delay_ms: how long an image may wait for others to share its inference.
        workers: threads that read, infer and make answers; None for one for each CPU in use, or
            for each inference that may run at once, where these are more.
        max_pixels: a picture of more pixels is refused before it is decoded.
    """

    name: str | None = None
    max_queue: int = 128
    max_delay_ms: float = 0.0
    workers: int | None = None
    max_pixels: int = _MAX_PIXELS

    def __post_init__(self) -> None:
        check_fields(
            self,
            name=optional(_name),
            max_queue=whole(1, MANY),
            max_delay_ms=number(0, LONGEST_DELAY_MS),
            workers=optional(THREADS),
            max_pixels=whole(1, MAX_PIXELS),
        )


class ServedModel:
    """A bundle that is loaded and has answered once; safe to call from many threads at once.

    Args:
        bundle: the model's folder, or the bundle that was opened there.
        settings: how to load it; its batch size is the most images of one inference.
        options: how it is served.

    Attributes:
        name: the model's name in requests.
        classifier: the loaded model.
        scheduler: its queue.
        counts: its requests.

    Raises:
        HGDeployError: what `Classifier` raises, or the first inference failed.
    """

    def __init__(
        self, bundle: str | Path | ModelBundle, settings: ClassifierSettings, options: ServedOptions
    ) -> None:
        opened = bundle if isinstance(bundle, ModelBundle) else open_bundle(bundle)
        self.name = options.name or _name_of(opened)
        self.classifier = classifier = Classifier.from_settings(opened, settings)
        try:
            classifier.reader.max_pixels = options.max_pixels
            use_one_opencv_thread()
            self._warm_up()
            classifier.times = StageTimes()  # of requests alone, which the metrics tell
            workers = options.workers or max(classifier.engine.concurrency, classifier.cpus)
            queue = QueueOptions(
                workers, classifier.batch_size, options.max_delay_ms, options.max_queue
            )
        except BaseException:
            classifier.close()
            raise
        self.scheduler = Scheduler(classifier.answers, queue)
        self.counts = Counts()
        self._users = 0
        self._left = threading.Condition()

    @property
    def input(self) -> TensorSpec:
        """The tensor that the model takes, with a dynamic batch."""
        spec, made = self.classifier.engine.inputs[0], self.classifier.reader.preprocessor
        return TensorSpec(spec.name, spec.dtype, (-1, *(made.output_shape or spec.shape[1:])))

    @property
    def output(self) -> TensorSpec:
        """The scores that the model gives: (images, classes)."""
        spec = self.classifier.engine.outputs[0]
        return TensorSpec(spec.name, "float32", (-1, self.classes))

    @property
    def labels(self) -> Mapping[int, str]:
        """The names of the classes by id; empty without a label file."""
        return self.classifier.postprocess.output.labels or {}

    def image(self, data: bytes, name: str = "image") -> Image:
        """Return an image to classify, from the contents of its file."""
        return Image(name, lambda out: self.classifier.reader.read_bytes(data, out))

    def tensor(self, values: NDArray[Any], name: str = "tensor") -> Image:
        """Return an image that is preprocessed already, of the shape of `input` without batch."""

        def read(out: NDArray[Any] | None) -> ReadImage:
            if out is None:
                return ReadImage(values, 0.0, 0.0)
            out[...] = values
            return ReadImage(out, 0.0, 0.0)

        return Image(name, read)

    def submit(self, images: Sequence[Image], due: float | None = None) -> list[Future[Answer]]:
        """Queue the images of one request; see `Scheduler.submit`."""
        return self.scheduler.submit(images, due)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep the model open for a request that has begun, until the `with` block ends."""
        with self._left:
            self._users += 1
        try:
            yield
        finally:
            with self._left:
                self._users -= 1
                self._left.notify_all()

    def close(self, seconds: float = 30.0) -> bool:
        """Answer the requests that have begun, within so many seconds, then free the engine.

        Returns:
            Whether all was answered. If not, the engine stays loaded: a thread is inside it.
        """
        until = time.monotonic() + seconds
        with self._left:
            self._left.wait_for(lambda: not self._users, seconds)
        ended = self.scheduler.close(max(0.0, until - time.monotonic()))
        if ended:
            self.classifier.close()
        return ended

    def _warm_up(self) -> None:
        """Answer a gray picture, in a batch of each size that may come first.

        Raises:
            EngineError: the model does not answer.
        """
        reader, shape = self.classifier.reader, (256, 256, 3)
        gray = Image("warm-up", lambda out: reader.read_array(np.full(shape, 128, np.uint8), out))
        for size in sorted({1, self.classifier.batch_size}):
            answer = self.classifier.answers([gray] * size)[0]
            if answer.row is None:
                reason = answer.prediction.error
                raise EngineError(
                    f"{self.name}: the model does not answer a gray picture: {reason}"
                )
        self.classes = len(answer.row) if answer.row is not None else -1


def _name_of(bundle: ModelBundle) -> str:
    """Return a model's name as it is written in addresses."""
    name = _ODD.sub("_", bundle.model_name or bundle.root.name).strip("._-")
    return name or "model"
