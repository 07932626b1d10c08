# SPDX-License-Identifier: Apache-2.0
"""The calls of the protocol, each in a thread that waits for its answer, and the server."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import hmac
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc

from hgdeploy.classify.batch import Answer
from hgdeploy.errors import ConfigError, HGDeployError, one_line
from hgdeploy.serving.server.answers import answer_document, model_metadata, server_metadata
from hgdeploy.serving.server.counts import Counting
from hgdeploy.serving.server.grpc.messages import document_of, metadata_of, response_of
from hgdeploy.serving.server.model import Models, ServedModel
from hgdeploy.serving.server.protocol import InferRequest, infer_of
from hgdeploy.serving.server.refusals import RefusedError, Why
from hgdeploy.system.kinds import WEEK_SECONDS

# Calls at once; each waits in a thread of its own.
_MOST_CALLS = 256
_CODES = {
    Why.WRONG: grpc.StatusCode.INVALID_ARGUMENT,
    Why.UNSUPPORTED: grpc.StatusCode.UNIMPLEMENTED,
    Why.UNAUTHORIZED: grpc.StatusCode.UNAUTHENTICATED,
    Why.UNKNOWN: grpc.StatusCode.NOT_FOUND,
    Why.TOO_SLOW: grpc.StatusCode.DEADLINE_EXCEEDED,
    Why.TOO_LARGE: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Why.BUSY: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Why.CLOSING: grpc.StatusCode.UNAVAILABLE,
    Why.LATE: grpc.StatusCode.DEADLINE_EXCEEDED,
}


def _guarded(call: Callable[[Any, Any, Any], Any]) -> Callable[[Any, Any, Any], Any]:
    """Return a call that asks for the key, and whose errors are codes."""

    @functools.wraps(call)
    def guarded(self: Service, request: Any, context: Any) -> Any:
        try:
            self.check_key(context)
            return call(self, request, context)
        except RefusedError as error:
            context.abort(_CODES[error.why], one_line(error))
        except HGDeployError as error:
            context.abort(grpc.StatusCode.INTERNAL, one_line(error))

    return guarded


class Service(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The calls; those that are not here are answered with UNIMPLEMENTED.

    Args:
        models: what is served.
        key: what every call but those for health has to bring; None for no key.
    """

    def __init__(self, models: Models, key: str | None) -> None:
        self._models, self._key = models, key

    def check_key(self, context: Any) -> None:
        """Refuse a call without the key.

        Raises:
            RefusedError: it is missing or wrong.
        """
        if self._key is None:
            return
        given = dict(context.invocation_metadata()).get("authorization", "")
        if not hmac.compare_digest(given.encode(), f"Bearer {self._key}".encode()):
            text = "the API key is missing or wrong; send it as authorization: Bearer KEY"
            raise RefusedError(Why.UNAUTHORIZED, text)

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say that the server runs."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say whether the models have answered once."""
        return pb.ServerReadyResponse(ready=self._models.ready)

    @_guarded
    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say what the server is."""
        return pb.ServerMetadataResponse(**server_metadata())

    @_guarded
    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say whether a model is served."""
        try:
            self._models.find(request.name, request.version or None)
        except RefusedError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    @_guarded
    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say what a model is."""
        _, model = self._models.find(request.name, request.version or None)
        return metadata_of(model_metadata(self._models, model))

    @_guarded
    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer a request."""
        version, model = self._models.find(request.model_name, request.model_version or None)
        with Counting(self._models.counts, model.name, version) as counting:
            asked = infer_of(model, *document_of(request))
            outputs = [dataclasses.replace(one, binary=True) for one in asked.outputs]
            asked = dataclasses.replace(asked, outputs=outputs)
            answers = _answers(model, asked, context)
            response = response_of(*answer_document(model, version, asked, answers))
            counting.failed = False
        return response


def _answers(model: ServedModel, asked: InferRequest, context: Any) -> list[Answer]:
    """Wait for the answers; drop the work where the client goes, or its time is over.

    Raises:
        RefusedError: there is no room, or the deadline has passed.
    """
    # A call without a deadline has one after thousands of years, or None.
    limits = [asked.timeout, context.time_remaining()]
    seconds = min([one for one in limits if one is not None and one < WEEK_SECONDS], default=None)
    due = None if seconds is None else time.monotonic() + seconds
    futures = model.submit(asked.images, due)

    def drop() -> None:
        for future in futures:
            future.cancel()

    if not context.add_callback(drop):  # the call is over already
        drop()
    try:
        return [_answer(future, due) for future in futures]
    finally:
        drop()


def _answer(future: Future[Answer], due: float | None) -> Answer:
    try:
        return future.result(None if due is None else max(0.0, due - time.monotonic()))
    except concurrent.futures.CancelledError:
        raise RefusedError(Why.LATE, "the call was cancelled") from None
    except concurrent.futures.TimeoutError:
        text = "the timeout has passed before the answer was there"
        raise RefusedError(Why.LATE, text) from None


class GrpcServer:
    """A server at one address; it listens from `start` on.

    Args:
        models: what it serves.
        where: host and port to listen at; port 0 for any that is free.
        max_body_mb: the largest message, in MB (2**20 bytes).
        key: what calls have to bring; None for no key.

    Attributes:
        address: where it listens.

    Raises:
        ConfigError: it cannot listen there.
    """

    def __init__(
        self, models: Models, where: tuple[str, int], max_body_mb: float, key: str | None
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", int(max_body_mb * (1 << 20))),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else two servers would share a port, and its requests
        ]
        self._server = grpc.server(
            ThreadPoolExecutor(_MOST_CALLS, "grpc"),
            options=options,
            maximum_concurrent_rpcs=_MOST_CALLS,
        )
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(
            Service(models, key), self._server
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        host, port = where
        shown = f"[{host}]" if ":" in host else host
        try:
            port = self._server.add_insecure_port(f"{shown}:{port}")
        except RuntimeError:
            port = 0
        if not port:
            text = f"cannot listen at {shown}:{where[1]} for gRPC; choose another address"
            raise ConfigError(text)
        self.address = f"{shown}:{port}"

    def start(self) -> None:
        """Answer calls, in threads of its own."""
        for service in ("", "inference.GRPCInferenceService"):
            self._health.set(service, health_pb2.HealthCheckResponse.SERVING)
        self._server.start()

    def stop(self, seconds: float) -> None:
        """Take no more calls, and answer those that have begun, within so many seconds."""
        self._health.enter_graceful_shutdown()
        self._server.stop(seconds).wait()
