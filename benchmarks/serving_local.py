# SPDX-License-Identifier: Apache-2.0
"""What `serving.py` compares a server with: the same work without one, in a process of its own."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import classify_files, folder_options
from hgdeploy.classify.settings import ClassifierSettings
from hgdeploy.classify.summary import Summary
from hgdeploy.engines.options import EngineOptions
from hgdeploy.images.find import find_images
from hgdeploy.results.writers import LineWriter
from hgdeploy.serving.server.model import ServedOptions
from hgdeploy.system.messages import Message, serve


@dataclass(frozen=True)
class Local:
    """What is done without a server.

    Attributes:
        bundle: the model's folder.
        engine: the engine's name.
        precision: its precision.
        photos: the folder of images.
        samples: a folder of images, and of files that are none.
        apart: a second engine that gives all CPUs to one inference, as `Classifier` by itself does.
    """

    bundle: str
    engine: str
    precision: str
    photos: str
    samples: str
    apart: bool = True


class LocalServer:
    """Answers the requests to the process of what is done without a server."""

    def load(self, request: Message) -> Message:
        """Load the model, as `hgdeploy predict` does for a folder."""
        case = Local(**request.values["case"])
        options = EngineOptions(precision=case.precision)
        self._photos = find_images(case.photos)
        self._samples = [path.read_bytes() for path in sorted(Path(case.samples).iterdir())]
        shared = folder_options(options, len(self._photos))
        self._many = Classifier(case.bundle, settings=ClassifierSettings(case.engine, 1, shared))
        self._many.reader.max_pixels = ServedOptions().max_pixels
        single = ClassifierSettings(case.engine, 1, options)
        self._one = Classifier(case.bundle, settings=single) if case.apart else self._many
        runtime = self._many.engine.runtime
        return Message(
            {
                "library": f"{runtime.library} {runtime.version}",
                "threads": [one.engine.runtime.threads for one in (self._many, self._one)],
                "streams": shared.streams,
            }
        )

    def expected(self, _: Message) -> Message:
        """Return what is found in each sample."""
        found = [one for data in self._samples for one in self._many.predict(data)]
        ids = [one.class_ids and list(one.class_ids) for one in found]
        return Message(
            {
                "answers": [
                    {"ids": classes, "scores": list(one.scores), "error": one.error}
                    for one, classes in zip(found, ids, strict=True)
                ]
            }
        )

    def folder(self, _: Message) -> Message:
        """Classify the folder once."""
        summary = Summary(found=len(self._photos))
        cpu = time.process_time()
        with open(os.devnull, "w", encoding="utf-8") as out:  # noqa: PTH123 (no file)
            classify_files(self._many, self._photos, [LineWriter(out)], print, summary)
        cpu = time.process_time() - cpu
        if summary.failed:
            raise SystemExit(f"{summary.failed} images failed: {summary.reasons}")
        return Message({"images": summary.done, "seconds": summary.seconds, "cpu_seconds": cpu})

    def predict(self, request: Message) -> Message:
        """Call `predict` for one image after the other; the milliseconds of each call."""
        classifier = self._one if request.values["all_cpus"] else self._many
        end = time.perf_counter() + request.values["seconds"]
        images = self._samples[: request.values["images"]]
        times: list[float] = []
        while time.perf_counter() < end or not times:
            start = time.perf_counter()
            list(classifier.predict(images[len(times) % len(images)]))
            times.append(1000 * (time.perf_counter() - start))
        return Message({"ms": times})


if __name__ == "__main__":
    local = LocalServer()
    serve(
        {
            "load": local.load,
            "expected": local.expected,
            "folder": local.folder,
            "predict": local.predict,
        }
    )
