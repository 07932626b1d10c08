# SPDX-License-Identifier: Apache-2.0
"""The server: every call of the protocol is answered, or refused by name."""

from __future__ import annotations

import logging
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from google.protobuf import message_factory
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from tritonclient.grpc import service_pb2 as pb

from hgdeploy.errors import ConfigError, HGDeployError, one_line
from hgdeploy.serving.server.doors import DoorOptions, Tls
from hgdeploy.serving.server.grpc.calls import Calls
from hgdeploy.serving.server.grpc.infer import Messages
from hgdeploy.serving.server.grpc.watch import Watch
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.refusals import RefusedError, Why, WrongError

# Calls at once; each waits in a thread of its own.
_MOST_CALLS = 256
# A call whose message has not come within so many seconds is cancelled.
_MESSAGE_SECONDS = 30.0
_SERVICE = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"]
_OPEN_TO_ALL = ("ServerLive", "ServerReady")
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


class _Door:
    """Guards calls: asks for the key, makes codes of errors, and logs.

    Args:
        doors: who may ask for what.
        watch: ends calls whose message does not come.
    """

    def __init__(self, doors: DoorOptions, watch: Watch) -> None:
        self._doors, self._watch = doors, watch

    def unary(self, name: str, run: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Return a call of one message; gRPC hands it over as a stream, so that it can be awaited.

        Args:
            name: what it is called.
            run: answers the message.
        """

        def call(requests: Iterator[Any], context: Any) -> Any:
            def answer() -> Any:
                with self._watch.limited(context, _MESSAGE_SECONDS):
                    request = next(requests, None)
                if request is None:
                    raise WrongError("the call has no message")
                return run(request, context)

            return self._guarded(name, context, answer)

        return call

    def stream(
        self, name: str, run: Callable[[Any, Any], Iterator[Any]]
    ) -> Callable[[Any, Any], Iterator[Any]]:
        """Return a call of many messages, each of which has its own answer."""

        def call(requests: Iterator[Any], context: Any) -> Iterator[Any]:
            answers = run(requests, context)
            nothing = object()
            while (one := self._guarded(name, context, lambda: next(answers, nothing))) != nothing:
                yield one

        return call

    def _guarded(self, name: str, context: Any, answer: Callable[[], Any]) -> Any:
        start, code, reason, response = time.perf_counter(), grpc.StatusCode.CANCELLED, "", None
        try:
            if name not in _OPEN_TO_ALL:
                metadata = dict(context.invocation_metadata())
                self._doors.check_key(metadata.get("authorization", ""))
            response, code = answer(), grpc.StatusCode.OK
        except RefusedError as error:
            code, reason = _CODES[error.why], one_line(error)
        except grpc.RpcError:  # the call is over
            raise
        except Exception as error:
            code, reason = grpc.StatusCode.INTERNAL, one_line(error)
            if not isinstance(error, HGDeployError):  # which nobody foresaw
                logging.getLogger("hgdeploy.serving").exception("%s failed", name)
                reason = f"the server failed: {type(error).__name__}"
        finally:
            asked = f"gRPC /{_SERVICE.full_name}/{name}"
            client, took = _host(context.peer()), time.perf_counter() - start
            self._doors.tell(client, asked, code.name, took)
        if code is not grpc.StatusCode.OK:
            context.abort(code, reason)
        return response


def _host(peer: str) -> str:
    """Return the host of gRPC's name of a client, such as `ipv4:127.0.0.1:4711`."""
    _, _, address = urllib.parse.unquote(peer).partition(":")
    return address.rpartition(":")[0].strip("[]")


def _refuse(name: str) -> Callable[[Any, Any], Any]:
    def call(request: Any, context: Any) -> Any:  # noqa: ARG001
        raise RefusedError(Why.UNSUPPORTED, f"{name} is not served here")

    return call


def _handlers(calls: Calls, door: _Door) -> dict[str, Any]:
    """Return what answers each call of the protocol."""
    handlers = {}
    for method in _SERVICE.methods:
        run, kind = getattr(calls, method.name, None), grpc.stream_unary_rpc_method_handler
        guarded: Callable[..., Any] = door.unary(method.name, run or _refuse(method.name))
        if method.name == "ModelStreamInfer":
            kind = grpc.stream_stream_rpc_method_handler
            guarded = door.stream(method.name, calls.ModelStreamInfer)
        message = message_factory.GetMessageClass(method.input_type)
        handlers[method.name] = kind(
            guarded, message.FromString, lambda response: response.SerializeToString()
        )
    return handlers


class GrpcServer:
    """A server at one address; it listens from `start` on.

    Args:
        models: what it serves.
        where: host and port to listen at; port 0 for any that is free.
        max_body_mb: the largest message, in MB (2**20 bytes).
        doors: who may ask for what.

    Attributes:
        address: where it listens.

    Raises:
        ConfigError: it cannot listen there, or the certificate cannot be used.
    """

    def __init__(
        self, models: Models, where: tuple[str, int], max_body_mb: float, doors: DoorOptions
    ) -> None:
        options = [
            ("grpc.max_receive_message_length", int(max_body_mb * (1 << 20))),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # else two servers would share a port, and its requests
            ("grpc.server_handshake_timeout_ms", 10_000),
            ("grpc.max_connection_idle_ms", 600_000),
        ]
        self._models, self._watch = models, Watch()
        self._server = grpc.server(
            ThreadPoolExecutor(_MOST_CALLS, "grpc"),
            options=options,
            maximum_concurrent_rpcs=_MOST_CALLS,
        )
        calls = Calls(models, doors, Messages(max_body_mb), self._watch)
        handlers = _handlers(calls, _Door(doors, self._watch))
        generic = grpc.method_handlers_generic_handler(_SERVICE.full_name, handlers)
        self._server.add_generic_rpc_handlers((generic,))
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        host, port = where
        shown = f"[{host}]" if ":" in host else host
        self.address = f"{shown}:{self._listen(f'{shown}:{port}', doors.tls)}"

    def start(self) -> None:
        """Answer calls, in threads of its own."""
        self._set_health()
        self._watch.start()
        self._server.start()

    def ready(self) -> None:
        """Say from now on that the models are ready."""
        self._set_health()

    def check(self) -> None:
        """Do nothing: it does not end by itself."""

    def stop(self, seconds: float) -> Callable[[], bool]:
        """Take no more calls, and give those that have begun so many seconds.

        Returns:
            A function that waits for them, and returns whether all were answered.
        """
        until = time.monotonic() + seconds
        self._health.enter_graceful_shutdown()
        stopped = self._server.stop(seconds)

        def wait() -> bool:
            stopped.wait()
            self._watch.stop()
            return time.monotonic() < until or not seconds

        return wait

    def _set_health(self) -> None:
        states = health_pb2.HealthCheckResponse
        state = states.SERVING if self._models.ready else states.NOT_SERVING
        for service in ("", _SERVICE.full_name):
            self._health.set(service, state)

    def _listen(self, where: str, tls: Tls | None) -> int:
        try:
            if tls is None:
                port: int = self._server.add_insecure_port(where)
            else:
                tls.check()
                pair = (tls.key.read_bytes(), tls.certificate.read_bytes())
                credentials = grpc.ssl_server_credentials([pair])
                port = self._server.add_secure_port(where, credentials)
        except RuntimeError:
            port = 0
        if not port:
            raise ConfigError(f"cannot listen at {where} for gRPC; choose another address")
        return port
