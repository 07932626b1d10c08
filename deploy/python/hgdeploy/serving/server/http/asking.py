# SPDX-License-Identifier: Apache-2.0
"""The addresses that classify: each reads its request, waits for the answers and writes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from hgdeploy.classify.batch import Answer, Image
from hgdeploy.serving.server.answers import answer_of
from hgdeploy.serving.server.counts import Counting
from hgdeploy.serving.server.http.body import Bodies, files_of_form
from hgdeploy.serving.server.http.paddle_serving import (
    answer_to_paddle,
    images_of_paddle,
    refusal_to_paddle,
)
from hgdeploy.serving.server.http.replies import refusal
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.protocol import read_infer
from hgdeploy.serving.server.refusals import RefusedError, Why, WrongError
from hgdeploy.transforms.prediction import Prediction

_HEADER_SIZE = "Inference-Header-Content-Length"
# What is quicker to read or to write, in less than a millisecond, than to give to another thread.
_MOST_JSON_BYTES = 1 << 14
_MOST_BYTES = 1 << 20
_MOST_SCORES = 2000

P = ParamSpec("P")
T = TypeVar("T")


class Asking:
    """The addresses that classify.

    Args:
        models: what the server has.
        bodies: reads the requests' bodies.
    """

    def __init__(self, models: Models, bodies: Bodies) -> None:
        self._models, self._bodies = models, bodies

    async def infer(self, request: Request) -> Response:
        """Answer a request of the protocol."""
        path = request.path_params
        with (
            self._models.using(path["name"], path.get("version")) as (version, model),
            Counting(model.counts) as counting,
        ):
            async with self._bodies.read(request) as body:
                size = _json_size(request)
                json_size = len(body) if size is None else size
                is_long = json_size > _MOST_JSON_BYTES or len(body) > _MOST_BYTES
                asked = await _made(is_long, read_infer, model, body, size)
                answers = await _answers(request, model, asked.images, asked.timeout)
            is_long = len(answers) * model.classes > _MOST_SCORES
            head, rest = await _made(is_long, answer_of, model, version, asked, answers)
            counting.failed = False
        if not rest:
            return Response(head, media_type="application/json")
        headers = {_HEADER_SIZE: str(len(head))}
        return Response(head + rest, media_type="application/octet-stream", headers=headers)

    async def predict(self, request: Request) -> Response:
        """Answer people: an image file, or a form with files, becomes its best classes."""
        query = request.query_params
        with (
            self._models.using(query.get("model"), query.get("version")) as (version, model),
            Counting(model.counts) as counting,
        ):
            async with self._bodies.read(request) as body:
                form = _kind(request).startswith("multipart/form-data")
                files = await files_of_form(request, body) if form else [("image", body)]
                images = [model.image(data, name) for name, data in files]
                answers = await _answers(request, model, images)
            found = [answer.prediction for answer in answers]
            counting.failed = all(one.error for one in found)
        document = {
            "model": model.name,
            "version": version,
            "predictions": [_described(one) for one in found],
            "ms": round(1000 * counting.seconds, 2),
        }
        return JSONResponse(document, 400 if counting.failed else 200)

    async def paddle(self, request: Request) -> Response:
        """Answer as PaddleClas's old service did."""
        query = request.query_params
        try:
            with (
                self._models.using(query.get("model"), query.get("version")) as (_, model),
                Counting(model.counts) as counting,
            ):
                async with self._bodies.read(request) as body:
                    images = await asyncio.to_thread(images_of_paddle, model, body)
                    answers = await _answers(request, model, images)
                document = answer_to_paddle(model, answers)
                counting.failed = False
        except RefusedError as error:
            return refusal(error, refusal_to_paddle(error))
        return JSONResponse(document)


async def _made(is_long: bool, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `work` makes, in another thread where it takes long, so that others go on."""
    return await asyncio.to_thread(work, *args, **kwargs) if is_long else work(*args, **kwargs)


async def _answers(
    request: Request, model: ServedModel, images: Sequence[Image], timeout: float | None = None
) -> Sequence[Answer]:
    """Wait for the answers; drop the work where the client goes, or its time is over.

    Raises:
        RefusedError: there is no room, or the deadline has passed.
        ClientDisconnect: the client is gone.
    """
    due = None if timeout is None else time.monotonic() + timeout
    futures = [asyncio.wrap_future(one) for one in model.submit(images, due)]
    answers: asyncio.Future[list[Answer]] = asyncio.gather(*futures)
    # Where it is given up below, nobody reads how it ends, of which asyncio would say that.
    answers.add_done_callback(lambda one: one.cancelled() or one.exception())
    gone: asyncio.Future[Any] = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({answers, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
        if answers.done():
            return answers.result()
        if gone.done():
            raise ClientDisconnect
        raise RefusedError(Why.LATE, "the timeout has passed before the answer was there")
    finally:
        gone.cancel()
        answers.cancel()
        for future in futures:
            future.cancel()


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _json_size(request: Request) -> int | None:
    """Return how many bytes of a body are JSON; None for all, 0 for an image file alone."""
    size = request.headers.get(_HEADER_SIZE)
    if size is None:
        is_file = _kind(request).startswith(("image/", "application/octet-stream"))
        return 0 if is_file else None
    if not (size.isascii() and size.isdecimal() and len(size) < 12):
        raise WrongError(f"{_HEADER_SIZE} is {size[:40]!r}, expected a number of bytes")
    return int(size)


def _kind(request: Request) -> str:
    return request.headers.get("content-type", "").lower()


def _described(found: Prediction) -> dict[str, Any]:
    if found.error is not None:
        return {"name": found.path, "error": found.error}
    labels = found.labels or (None,) * len(found.scores)
    if found.attributes is not None:
        answer: dict[str, Any] = {"attributes": found.attributes, "output": found.output}
    elif found.class_ids is None:
        answer = {"scores": found.scores}
    else:
        rows = zip(found.class_ids, found.scores, labels, strict=True)
        answer = {"classes": [{"id": i, "score": score, "label": name} for i, score, name in rows]}
    return {"name": found.path, **answer}
