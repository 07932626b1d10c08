# SPDX-License-Identifier: Apache-2.0
"""The addresses of the server. The event loop only moves bytes; threads decode, infer and parse."""

from __future__ import annotations

import asyncio
import hmac
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hgdeploy.classify.batch import Answer, Image
from hgdeploy.errors import HGDeployError, one_line
from hgdeploy.serving.server.answers import answer_of, model_metadata, server_metadata
from hgdeploy.serving.server.counts import Counting
from hgdeploy.serving.server.http.body import Bodies, BodyLimits, files_of_form
from hgdeploy.serving.server.http.page import page
from hgdeploy.serving.server.metrics import metrics_text
from hgdeploy.serving.server.model import Models, ServedModel
from hgdeploy.serving.server.protocol import InferRequest, read_infer
from hgdeploy.serving.server.refusals import RefusedError, Why, WrongError
from hgdeploy.system.progress import OnLine
from hgdeploy.transforms.prediction import Prediction

Handler = Callable[[Request], Awaitable[Response]]
_STATUS = {
    Why.WRONG: 400,
    Why.UNSUPPORTED: 400,
    Why.UNAUTHORIZED: 401,
    Why.UNKNOWN: 404,
    Why.TOO_SLOW: 408,
    Why.TOO_LARGE: 413,
    Why.BUSY: 503,
    Why.CLOSING: 503,
    Why.LATE: 504,
}
_HEADER_SIZE = "Inference-Header-Content-Length"
# A client that is gone reads no answer; the log has this status, as nginx's does.
_GONE = 499


class Api:
    """The addresses of a server.

    Args:
        models: what it serves.
        limits: what clients may send.
        key: what every request but those for health has to bring; None for no key.
        on_access: called with a line of JSON for each request.
    """

    def __init__(
        self, models: Models, limits: BodyLimits, key: str | None, on_access: OnLine | None
    ) -> None:
        self._models, self._key, self._on_access = models, key, on_access
        self._bodies = Bodies(limits)

    def app(self) -> Starlette:
        """Return the application."""
        named = "/v2/models/{name}"
        both = (named, named + "/versions/{version}")
        gets: list[tuple[str, Handler]] = [
            ("/v2", self._server),
            *((path, self._model) for path in both),
            *((path + "/ready", self._model_ready) for path in both),
            ("/metrics", self._metrics),
        ]
        posts: list[tuple[str, Handler]] = [
            *((path + "/infer", self._infer) for path in both),
            ("/predict", self._predict),
        ]
        open_to_all: list[tuple[str, Handler]] = [
            ("/", self._page),
            ("/v2/health/live", self._live),
            ("/v2/health/ready", self._ready),
        ]
        routes = [
            *(Route(path, self._guarded(run, None), methods=["GET"]) for path, run in open_to_all),
            *(Route(path, self._guarded(run, self._key), methods=["GET"]) for path, run in gets),
            *(Route(path, self._guarded(run, self._key), methods=["POST"]) for path, run in posts),
        ]
        handlers: Any = {404: _no_address, 405: _no_address, Exception: _broken}
        return Starlette(routes=routes, exception_handlers=handlers)

    def _guarded(self, run: Handler, key: str | None) -> Handler:
        """Return a handler whose errors are answers, and that is logged."""

        async def handler(request: Request) -> Response:
            start = time.perf_counter()
            try:
                if key is not None:
                    _check_key(request, key)
                response = await run(request)
            except RefusedError as error:
                response = _refused(error)
            except ClientDisconnect:
                response = Response(status_code=_GONE)
            except HGDeployError as error:
                response = JSONResponse({"error": one_line(error)}, 500)
            if self._on_access is not None:
                self._on_access(_access_line(request, response, time.perf_counter() - start))
            return response

        return handler

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(page(self._models, needs_key=self._key is not None))

    async def _live(self, _: Request) -> Response:
        return Response()

    async def _ready(self, _: Request) -> Response:
        return Response(status_code=200 if self._models.ready else 503)

    async def _server(self, _: Request) -> Response:
        return JSONResponse(server_metadata())

    async def _model(self, request: Request) -> Response:
        _, model = self._asked(request)
        return JSONResponse(model_metadata(self._models, model))

    async def _model_ready(self, request: Request) -> Response:
        self._asked(request)
        return Response()

    async def _metrics(self, _: Request) -> Response:
        text = metrics_text(self._models)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _infer(self, request: Request) -> Response:
        version, model = self._asked(request)
        with Counting(self._models.counts, model.name, version) as counting:
            async with self._bodies.read(request) as body:
                size = _json_size(request)
                asked = await asyncio.to_thread(read_infer, model, body, size)
                answers = await self._answers(request, model, asked)
            head, rest = await asyncio.to_thread(answer_of, model, version, asked, answers)
            counting.failed = False
        if not rest:
            return Response(head, media_type="application/json")
        headers = {_HEADER_SIZE: str(len(head))}
        return Response(head + rest, media_type="application/octet-stream", headers=headers)

    async def _predict(self, request: Request) -> Response:
        query = request.query_params
        version, model = self._models.find(query.get("model"), query.get("version"))
        with Counting(self._models.counts, model.name, version) as counting:
            async with self._bodies.read(request) as body:
                form = request.headers.get("content-type", "").startswith("multipart/form-data")
                files = await files_of_form(request, body) if form else [("image", body)]
                images = [model.image(data, name) for name, data in files]
                answers = await self._answers(request, model, InferRequest(images, ()))
            found = [answer.prediction for answer in answers]
            counting.failed = all(one.error for one in found)
        document = {
            "model": model.name,
            "version": version,
            "predictions": [_described(one) for one in found],
            "ms": round(1000 * counting.seconds, 2),
        }
        return JSONResponse(document, 400 if counting.failed else 200)

    async def _answers(
        self, request: Request, model: ServedModel, asked: InferRequest
    ) -> Sequence[Answer]:
        """Wait for the answers; drop the work where the client goes, or its time is over.

        Raises:
            RefusedError: there is no room, or the deadline has passed.
            ClientDisconnect: the client is gone.
        """
        timeout = asked.timeout
        images: Sequence[Image] = asked.images
        due = None if timeout is None else time.monotonic() + timeout
        futures = [asyncio.wrap_future(one) for one in model.submit(images, due)]
        answers: asyncio.Future[list[Answer]] = asyncio.gather(*futures)
        gone: asyncio.Future[Any] = asyncio.ensure_future(_until_gone(request))
        try:
            await asyncio.wait(
                {answers, gone}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
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

    def _asked(self, request: Request) -> tuple[str, ServedModel]:
        path = request.path_params
        return self._models.find(path["name"], path.get("version"))


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _no_address(request: Request, error: Any) -> Response:
    text = f"{request.method} {request.url.path[:200]}: there is no such address"
    return JSONResponse({"error": text}, error.status_code, error.headers)


async def _broken(request: Request, error: Exception) -> Response:  # noqa: ARG001
    """Answer what nobody foresaw; the server's log has the traceback."""
    return JSONResponse({"error": f"the server failed: {type(error).__name__}"}, 500)


def _refused(error: RefusedError) -> Response:
    headers = {"Retry-After": "1"} if error.why in (Why.BUSY, Why.CLOSING) else {}
    if error.why in (Why.TOO_LARGE, Why.TOO_SLOW):
        headers["Connection"] = "close"  # what is left of the body is not read
    return JSONResponse({"error": one_line(error)}, _STATUS[error.why], headers)


def _check_key(request: Request, key: str) -> None:
    given = request.headers.get("authorization", "")
    if not hmac.compare_digest(given.encode(), f"Bearer {key}".encode()):
        text = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
        raise RefusedError(Why.UNAUTHORIZED, text)


def _json_size(request: Request) -> int | None:
    """Return how many bytes of a body are JSON; None for all, 0 for an image file alone."""
    size = request.headers.get(_HEADER_SIZE)
    if size is None:
        kind = request.headers.get("content-type", "")
        return 0 if kind.startswith(("image/", "application/octet-stream")) else None
    if not (size.isascii() and size.isdecimal() and len(size) < 12):
        raise WrongError(f"{_HEADER_SIZE} is {size[:40]!r}, expected a number of bytes")
    return int(size)


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


def _access_line(request: Request, response: Response, seconds: float) -> str:
    client = request.client.host if request.client else None
    return json.dumps(
        {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "client": client,
            "method": request.method,
            "path": request.url.path,
            "status": response.status_code,
            "ms": round(1000 * seconds, 2),
        }
    )
