# SPDX-License-Identifier: Apache-2.0
"""The Ray actor that classifies one piece of the files after another."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import (
    Classified,
    classify_in_order,
    worker_tuner,
)
from hgdeploy.classify.settings import ClassifierSettings, StageTimes
from hgdeploy.errors import EngineError, kind_and_message
from hgdeploy.images.find import ImageFile


def comparable(classifier: Classifier) -> dict[str, str]:
    """Return what must be the same for all workers; the model is told by its files' hash."""
    return {name: value for name, value in classifier.fingerprint().items() if name != "model"}


class Worker:
    """A Ray actor: one loaded model. It raises nothing; what went wrong is part of the result."""

    def __init__(
        self, bundle: str, settings: ClassifierSettings, fingerprint: Mapping[str, str]
    ) -> None:
        self._error: tuple[str, str] | None = None
        try:
            self._classifier = Classifier.from_settings(Path(bundle), settings)
            self._check(fingerprint)
        except Exception as error:
            self._error = kind_and_message(error)
        else:
            # A worker sees many pieces, so its threads are not limited by the size of one.
            self._tuner = worker_tuner(self._classifier, 10 * self._classifier.cpus)

    def _check(self, expected: Mapping[str, str]) -> None:
        """Refuse to make rows that are not those of the other workers."""
        own = comparable(self._classifier)
        for name, value in expected.items():
            if own.get(name) != value:
                raise EngineError(
                    f"its {name} is {own.get(name)}, but {value} where the run was started; all "
                    "machines of a cluster must have the same"
                )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Classify one piece."""
        piece = json.loads(batch["piece"][0])
        result: dict[str, Any] = {"number": piece["number"], "host": socket.gethostname()}
        if self._error is None:
            try:
                result |= self._classified([ImageFile(p, n) for p, n in piece["files"]])
            except Exception as error:
                self._error = kind_and_message(error)
        return {"result": [json.dumps(result | {"error": self._error})]}

    def _classified(self, files: Sequence[ImageFile]) -> dict[str, Any]:
        done: Classified = []
        classify_in_order(self._classifier, files, self._tuner, done.extend)
        rows = [
            (p.class_ids, p.scores, p.labels, p.error, facts.size, facts.mtime_ns)
            for p, facts in done
        ]
        times, self._classifier.times = self._classifier.times, StageTimes()
        return {
            "rows": rows,
            "times": dataclasses.asdict(times),
            "threads": self._tuner.workers,
            "warnings": list(self._classifier.warnings),
        }
