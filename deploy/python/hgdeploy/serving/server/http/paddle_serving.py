# SPDX-License-Identifier: Apache-2.0
"""Requests and answers of PaddleClas's old service, `deploy/paddleserving` on Paddle Serving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hgdeploy.classify.batch import Answer, Image
from hgdeploy.errors import one_line
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.refusals import RefusedError, Why, WrongError
from hgdeploy.serving.server.tensors import texts_of_json
from hgdeploy.system.checks import check
from hgdeploy.system.documents import parse_json
from hgdeploy.system.kinds import anything, list_of, mapping_of, text

# `CustomExceptionCode` of Paddle Serving's python/pipeline/error_catch.py.
_CODES = {Why.LATE: 6000, Why.CLOSING: 3001, Why.WRONG: 5000}
_OTHER = 10000


def images_of_paddle(model: ServedModel, body: bytes) -> list[Image]:
    """Return the images of a request: `{"key": ["image"], "value": ["<base64>"]}`.

    Raises:
        WrongError: it is no such request.
    """
    try:
        document = parse_json(body)
    except ValueError as error:
        raise WrongError(f"the request is not JSON: {error}") from None
    fields = check("the request", document, mapping_of(anything), error=WrongError)
    keys = check("key", fields.get("key"), list_of(text), error=WrongError)
    values = check("value", fields.get("value"), list_of(text), error=WrongError)
    if not keys or len(values) != len(keys):
        raise WrongError(
            f"the request has {len(keys)} in key and {len(values)} in value, expected one of both "
            "for each image"
        )
    files = texts_of_json(list(values), len(keys), "value")
    return [model.image(data, name) for name, data in zip(keys, files, strict=True)]


def answer_to_paddle(model: ServedModel, answers: Sequence[Answer]) -> dict[str, Any]:
    """Return the answer: the best class of each image and its score, as texts of Python's lists.

    Raises:
        WrongError: an image failed.
    """
    names: list[str] = []
    scores: list[float] = []
    for place, answer in enumerate(answers):
        if answer.row is None:
            raise WrongError(f"image {place}: {answer.prediction.error}")
        best = int(np.argmax(answer.row))
        names.append(model.labels.get(best, str(best)).strip().replace(",", ""))
        scores.append(float(answer.row[best]))
    return _document(0, "", {"label": str(names), "prob": str(scores)})


def refusal_to_paddle(error: RefusedError) -> dict[str, Any]:
    """Return the answer to a request that is refused."""
    return _document(_CODES.get(error.why, _OTHER), one_line(error), {})


def _document(code: int, message: str, values: dict[str, str]) -> dict[str, Any]:
    return {
        "err_no": code,
        "err_msg": message,
        "key": list(values),
        "value": list(values.values()),
        "tensors": [],
    }
