# SPDX-License-Identifier: Apache-2.0
"""The Ray actor that classifies pieces of the files, one after another."""

from __future__ import annotations

import dataclasses
import json
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hgdeploy.classify.classifier import Classifier
from hgdeploy.classify.folder import Classified, classify_in_order, worker_tuner
from hgdeploy.classify.settings import ClassifierSettings, StageTimes
from hgdeploy.errors import EngineError, kind_and_message
from hgdeploy.images.find import ImageFile
from hgdeploy.system.documents import parse_json


def shared_fingerprint(classifier: Classifier) -> dict[str, str]:
    """Return what must be the same on all workers: all but the model's name, for it has a hash."""
    return {name: value for name, value in classifier.fingerprint().items() if name != "model"}


class Worker:
    """A Ray actor with one loaded model. It raises nothing: an error is part of the result."""

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
            # A worker gets many pieces, so the size of one does not limit its threads.
            self._tuner = worker_tuner(self._classifier, 10 * self._classifier.cpus)

    def _check(self, expected: Mapping[str, str]) -> None:
        """Refuse to make other rows than the run that started this worker would."""
        own = shared_fingerprint(self._classifier)
        for name, value in expected.items():
            if own.get(name) != value:
                raise EngineError(
                    f"its {name} is {own.get(name)}, but {value} where the run was started; it "
                    "must be the same on all machines of a cluster"
                )

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        """Classify one piece."""
        piece = parse_json(batch["piece"][0])
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
            (
                (p.class_ids, p.scores, p.labels, p.error, p.attributes, p.output),
                (facts.size, facts.mtime_ns),
            )
            for p, facts in done
        ]
        times, self._classifier.times = self._classifier.times, StageTimes()
        return {
            "rows": rows,
            "times": dataclasses.asdict(times),
            "threads": self._tuner.workers,
            "warnings": list(self._classifier.warnings),
        }
