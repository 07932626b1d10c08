# SPDX-License-Identifier: Apache-2.0
"""What `folder.py` measures: each case has its own process, which runs this module."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy.bundle.model_bundle import open_bundle
from hgdeploy.bundle.names import PADDLE_PROGRAMS
from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import classify_files, folder_options
from hgdeploy.classify.settings import ClassifierSettings, StageTimes
from hgdeploy.classify.summary import Summary
from hgdeploy.engines import load_engine
from hgdeploy.engines.mnn.options import MnnOptions
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import EngineError
from hgdeploy.images.find import find_images
from hgdeploy.images.reader import ImageReader, ReadImage
from hgdeploy.results.writers import LineWriter
from hgdeploy.system.machine import child_processes, peak_memory_mb
from hgdeploy.system.messages import Message, serve
from hgdeploy.transforms.operators import Op
from hgdeploy.transforms.operators_config import imagenet_ops

BATCH = 8  # the batch size of the reference
ENGINE_SECONDS = 2.0


@dataclass(frozen=True)
class FolderCase:
    """What one process measures.

    Attributes:
        name: the case's name in the results.
        bundle: the model's folder.
        photos: the folder of images.
        engine: `reference` for PaddleClas's loop, else an engine's name.
        precision: the engine's precision.
        fast_decode: whether to decode JPEG files at a reduced scale.
        winograd_level: the tiles that MNN may use, see `MnnOptions`.
        division: (threads of one inference, inferences at once); None for HGDeploy's own choice.
    """

    name: str
    bundle: str
    photos: str
    engine: str
    precision: str = "fp32"
    fast_decode: bool = False
    winograd_level: int = 1
    division: tuple[int, int] | None = None


class Reference:
    """PaddleClas's loop, one step after the other."""

    def __init__(self, case: FolderCase) -> None:
        bundle = open_bundle(case.bundle)
        self._engine = load_engine("paddle", bundle.find(PADDLE_PROGRAMS), EngineOptions())
        self._files = [file.path for file in find_images(case.photos)]
        self._mean = np.array([0.485, 0.456, 0.406], np.float32)
        self._std = np.array([0.229, 0.224, 0.225], np.float32)

    def run(self) -> dict[str, Any]:
        """Classify the folder once."""
        start = time.perf_counter()
        batch: list[Any] = []
        with open(os.devnull, "w", encoding="utf-8") as out:  # noqa: PTH123 (no file)
            for number, path in enumerate(self._files, 1):
                batch.append(self._read(path))
                if len(batch) == BATCH or number == len(self._files):
                    feeds = {self._engine.inputs[0].name: np.stack(batch)}
                    (rows,) = self._engine.infer(feeds).values()
                    for row in rows:
                        best = row.argsort()[-5:][::-1]
                        out.write(f"{path.name}: {best.tolist()} {row[best].tolist()}\n")
                    batch = []
        return {"seconds": time.perf_counter() - start, "images": len(self._files)}

    def _read(self, path: Path) -> Any:
        import cv2

        image: Any = cv2.imread(str(path))
        image = image[:, :, ::-1]
        height, width = image.shape[:2]
        scale = 256 / min(height, width)
        image = cv2.resize(image, (round(width * scale), round(height * scale)))
        top, left = (image.shape[0] - 224) // 2, (image.shape[1] - 224) // 2
        image = image[top : top + 224, left : left + 224]
        image = (image.astype(np.float32) * np.float32(1 / 255) - self._mean) / self._std
        return image.transpose(2, 0, 1)


class TimedReader(ImageReader):
    """The pipeline's reader; it records the CPU time that each file takes."""

    def __init__(self, ops: Sequence[Op], fast_decode: bool) -> None:
        super().__init__(ops, fast_decode)
        self.cpu: list[float] = []

    def read_file(self, path: Path, out: Any = None) -> ReadImage:
        """Read a file."""
        start = time.thread_time()
        read = super().read_file(path, out)
        self.cpu.append(time.thread_time() - start)
        return read


class Pipeline:
    """HGDeploy's folder pipeline, loaded once."""

    def __init__(self, case: FolderCase) -> None:
        self._files = find_images(case.photos)
        own = (MnnOptions(case.winograd_level),)
        options = EngineOptions(precision=case.precision, own=own)
        if case.division is not None:
            threads, streams = case.division
            options = dataclasses.replace(options, threads=threads, streams=streams)
        options = folder_options(options, len(self._files))
        settings = ClassifierSettings(
            case.engine,
            options=options,
            preprocess=imagenet_ops(256, 224),  # as in the reference, whatever the model's own is
            fast_decode=case.fast_decode,
        )
        self._classifier = Classifier.from_settings(case.bundle, settings)
        self._reader = TimedReader(self._classifier.reader.preprocessor.ops, case.fast_decode)
        self._classifier.reader = self._reader

    def run(self) -> dict[str, Any]:
        """Classify the folder once."""
        self._classifier.times = StageTimes()
        self._reader.cpu.clear()
        summary = Summary(found=len(self._files))
        with open(os.devnull, "w", encoding="utf-8") as out:  # noqa: PTH123 (no file)
            cpu = time.process_time()
            classify_files(self._classifier, self._files, [LineWriter(out)], print, summary)
            cpu = time.process_time() - cpu
        if summary.failed:
            raise SystemExit(f"{summary.failed} images failed: {summary.reasons}")
        return {
            "seconds": summary.seconds,
            "images": summary.done,
            "cpu_seconds": cpu,
            "read_cpu_seconds": sum(self._reader.cpu),
            "workers": summary.workers,
            "shares": {name: round(share, 4) for name, share in summary.shares().items()},
            "peak_mb": _peak_mb(),
            "processes": [_memory_of(pid) for pid in (os.getpid(), *child_processes())],
        }

    def alone(self) -> dict[str, Any]:
        """Run the engine on a ready tensor from as many threads as it can use."""
        engine, spec = self._classifier.engine, self._classifier.engine.inputs[0]
        ready = self._reader.read_file(self._files[0].path).tensor[None]
        counts: list[int] = []
        end = time.perf_counter() + ENGINE_SECONDS

        def work() -> None:
            count = 0
            while time.perf_counter() < end:
                engine.infer({spec.name: ready})
                count += 1
            counts.append(count)

        threads = [threading.Thread(target=work) for _ in range(engine.concurrency)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"engine_rate": sum(counts) / (time.perf_counter() - start)}


def _peak_mb() -> float:
    """Return the peak memory of this process and its children, which share some of it, in MB."""
    sizes = [peak_memory_mb(), *map(peak_memory_mb, child_processes())]
    return sum(size for size in sizes if size is not None)


def _memory_of(pid: int) -> dict[str, float]:
    """Return a process's memory in MB: all (`rss`), and its part of what it shares too (`pss`)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
    except OSError:  # no Linux
        return {}
    kb = {name.lower(): int(size.split()[0]) for name, _, size in (x.partition(":") for x in lines)}
    return {name: round(kb[name] / 1024, 1) for name in ("rss", "pss", "private_dirty")}


class FolderCaseServer:
    """Answers the requests to a case's process: to load the case, and to measure it."""

    case: Reference | Pipeline

    def load(self, request: Message) -> Message:
        """Load the case in the request."""
        case = FolderCase(**request.values["case"])
        self.case = Reference(case) if case.engine == "reference" else Pipeline(case)
        return Message({})

    def run(self, _: Message) -> Message:
        """Classify the folder once."""
        return Message(self.case.run())

    def alone(self, _: Message) -> Message:
        """Run the engine alone, without reading images."""
        if isinstance(self.case, Reference):
            raise EngineError("the engine of the reference is not measured alone")
        return Message(self.case.alone())


if __name__ == "__main__":
    server = FolderCaseServer()
    serve({"load": server.load, "run": server.run, "alone": server.alone})
