# SPDX-License-Identifier: Apache-2.0
"""Triton's `model.py` as one writes it by hand: each request in turn, by `Classifier.predict`.

`serving.py --triton` copies it into a repository, with the bundle's folder beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from hgdeploy import Classifier

BUNDLE = "bundle.txt"


class TritonPythonModel:
    """Answers with the scores of the best classes, and zeros for the others."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the bundle: one inference at a time has all CPUs."""
        output = json.loads(args["model_config"])["output"][0]
        self._name, self._classes = output["name"], int(output["dims"][-1])
        bundle = Path(__file__).with_name(BUNDLE).read_text(encoding="utf-8")
        self._classifier = Classifier(bundle, "onnxruntime")

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer the requests one after the other."""
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        files = triton.get_input_tensor_by_name(request, "image").as_numpy().ravel()
        scores = np.zeros((len(files), self._classes), np.float32)
        for row, data in zip(scores, files, strict=True):
            for found in self._classifier.predict(data):
                row[list(found.class_ids or ())] = found.scores
        return triton.InferenceResponse([triton.Tensor(self._name, scores)])
