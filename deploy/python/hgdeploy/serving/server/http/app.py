# SPDX-License-Identifier: Apache-2.0
"""The addresses of the server. The event loop only moves bytes; threads decode, infer and parse."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from hgdeploy.errors import HGDeployError, one_line
from hgdeploy.serving.server.answers import model_metadata, server_metadata
from hgdeploy.serving.server.described import index_entry, model_config, statistics
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.http.asking import Asking
from hgdeploy.serving.server.http.body import Bodies, BodyLimits
from hgdeploy.serving.server.http.page import page
from hgdeploy.serving.server.http.replies import GONE, broken, no_address, refusal
from hgdeploy.serving.server.metrics import metrics_text
from hgdeploy.serving.server.model import ServedModel
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.protocol import read_control
from hgdeploy.serving.server.refusals import RefusedError, Why

Handler = Callable[[Request], Awaitable[Response]]
_NAMED = "/v2/models/{name}"
_REPOSITORY = "/v2/repository"
# Extensions of the protocol that are refused by name, by how their addresses begin.
_NOT_SERVED = {
    "/v2/systemsharedmemory": "shared memory",
    "/v2/cudasharedmemory": "CUDA's shared memory",
    "/v2/trace": "the trace extension",
    "/v2/logging": "the logging extension",
}


class Api:
    """The addresses of a server.

    Args:
        models: what it serves.
        limits: what clients may send.
        doors: who may ask for what.
    """

    def __init__(self, models: Models, limits: BodyLimits, doors: DoorOptions) -> None:
        self._models, self._doors = models, doors
        self._bodies = Bodies(limits)
        self._asking = Asking(models, self._bodies)

    def app(self) -> Starlette:
        """Return the application."""
        both = (_NAMED, _NAMED + "/versions/{version}")
        gets: list[tuple[str, Handler]] = [
            ("/v2", self._server),
            ("/v2/models/stats", self._statistics),
            *((path, self._model) for path in both),
            *((path + "/ready", self._model_ready) for path in both),
            *((path + "/config", self._config) for path in both),
            *((path + "/stats", self._statistics) for path in both),
            ("/metrics", self._metrics),
        ]
        posts: list[tuple[str, Handler]] = [
            ("/predict", self._asking.predict),
            *((path + "/infer", self._asking.infer) for path in both),
            (_REPOSITORY + "/index", self._index),
            (_REPOSITORY + "/models/{name}/load", self._control(self._models.load_again)),
            (_REPOSITORY + "/models/{name}/unload", self._control(self._models.unload)),
        ]
        if self._doors.paddle_serving:
            posts.append(("/imagenet/prediction", self._asking.paddle))
        open_to_all: list[tuple[str, Handler]] = [
            ("/", self._page),
            ("/v2/health/live", self._live),
            ("/v2/health/ready", self._ready),
        ]
        routes = [
            # First what is asked most: each route that does not match costs time.
            *(self._route(path, run, "POST") for path, run in posts),
            *(self._route(path, run, "GET", is_open=True) for path, run in open_to_all),
            *(self._route(path, run, "GET") for path, run in gets),
            *(
                self._route(start + "{rest:path}", _not_served(text), "GET", "POST")
                for start, text in _NOT_SERVED.items()
            ),
        ]
        handlers: Any = {404: no_address, 405: no_address, Exception: broken}
        app = Starlette(routes=routes, exception_handlers=handlers)
        app.router.redirect_slashes = False
        return app

    def _route(self, path: str, run: Handler, *methods: str, is_open: bool = False) -> Route:
        """Return a route whose errors are answers, and that is logged."""

        async def handler(request: Request) -> Response:
            start = time.perf_counter()
            try:
                if not is_open:
                    self._doors.check_key(request.headers.get("authorization", ""))
                response = await run(request)
            except RefusedError as error:
                response = refusal(error)
            except asyncio.CancelledError:  # the server ends, and has waited long enough
                text = "the server ends, and the request took longer than it waits for; try again"
                response = refusal(RefusedError(Why.CLOSING, text))
            except ClientDisconnect:
                response = Response(status_code=GONE)
            except HGDeployError as error:
                response = JSONResponse({"error": one_line(error)}, 500)
            client = request.client.host if request.client else None
            asked, took = f"{request.method} {request['path']}", time.perf_counter() - start
            self._doors.tell(client, asked, response.status_code, took)
            return response

        return Route(path, handler, methods=list(methods))

    async def _page(self, _: Request) -> Response:
        return HTMLResponse(page(self._models, needs_key=self._doors.key is not None))

    async def _live(self, _: Request) -> Response:
        return Response()

    async def _ready(self, _: Request) -> Response:
        return Response(status_code=200 if self._models.ready else 503)

    async def _server(self, _: Request) -> Response:
        return JSONResponse(server_metadata())

    async def _model(self, request: Request) -> Response:
        return JSONResponse(model_metadata(self._models, self._asked(request)))

    async def _model_ready(self, request: Request) -> Response:
        self._asked(request)
        return Response()

    async def _config(self, request: Request) -> Response:
        return JSONResponse(model_config(self._models, self._asked(request)))

    async def _statistics(self, request: Request) -> Response:
        path = request.path_params
        return JSONResponse(statistics(self._models, path.get("name"), path.get("version")))

    async def _metrics(self, _: Request) -> Response:
        text = metrics_text(self._models)
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def _index(self, request: Request) -> Response:
        async with self._bodies.read(request) as body:
            asked = read_control(body)
        ready_only = asked.get("ready", False)
        listed = [one for one in self._models.index() if one.ready or not ready_only]
        return JSONResponse([index_entry(one) for one in listed])

    def _control(self, run: Callable[[str], None]) -> Handler:
        """Return a handler that loads or unloads a model."""

        async def handler(request: Request) -> Response:
            self._doors.check_control()
            if "origin" in request.headers:  # any page could have a browser here send it
                text = "models are not loaded and unloaded by web pages"
                raise RefusedError(Why.UNSUPPORTED, text)
            async with self._bodies.read(request) as body:
                read_control(body)
            await asyncio.wrap_future(_in_thread(run, request.path_params["name"]))
            return Response()

        return handler

    def _asked(self, request: Request) -> ServedModel:
        path = request.path_params
        return self._models.find(path["name"], path.get("version"))[1]


def _not_served(what: str) -> Handler:
    async def handler(_: Request) -> Response:
        raise RefusedError(Why.UNSUPPORTED, f"{what} is not served here")

    return handler


def _in_thread(run: Callable[[str], None], name: str) -> Future[None]:
    """Run what may take minutes in a thread that the end of the server does not wait for."""
    done: Future[None] = Future()
    done.set_running_or_notify_cancel()  # nobody can stop it

    def work() -> None:
        try:
            run(name)
        except BaseException as error:  # it belongs to who waits
            done.set_exception(error)
        else:
            done.set_result(None)

    threading.Thread(target=work, name="load", daemon=True).start()
    return done
