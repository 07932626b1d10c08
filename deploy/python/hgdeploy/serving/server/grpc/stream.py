# SPDX-License-Identifier: Apache-2.0
"""A stream of requests: one thread reads them, another answers them in their order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import grpc
from tritonclient.grpc import service_pb2 as pb

from hgdeploy.errors import HGDeployError, one_line
from hgdeploy.serving.server.grpc.infer import Begun
from hgdeploy.serving.server.grpc.watch import Watch

# Requests of one stream that may wait for their answers.
_IN_FLIGHT = 32
# A stream that brings nothing for so long is cancelled, and one whose answer is not taken.
_IDLE_SECONDS = 300.0
_ANSWER_SECONDS = 30.0
_FINAL = "triton_final_response"

_Refused: TypeAlias = tuple[str, HGDeployError]


class Stream:
    """The requests of one call and their answers.

    Args:
        requests: yields the messages.
        context: gRPC's, of the call.
        begin: begins a request.
        watch: ends the call where its client keeps it waiting.
    """

    def __init__(
        self,
        requests: Iterator[Any],
        context: Any,
        begin: Callable[[Any, Any], Begun],
        watch: Watch,
    ) -> None:
        self._requests, self._context = requests, context
        self._begin, self._watch = begin, watch
        self._waiting: queue.Queue[Begun | _Refused | None] = queue.Queue(_IN_FLIGHT)
        self._begun: set[Begun] = set()

    def answers(self) -> Iterator[Any]:
        """Yield a `ModelStreamInferResponse` for each request; one that fails says why."""
        self._context.add_callback(self._cancel)
        threading.Thread(target=self._read, name="grpc-stream", daemon=True).start()
        more = True
        try:
            while (one := self._waiting.get()) is not None:
                response = self._answer(one)
                with self._watch.limited(self._context, _ANSWER_SECONDS):
                    yield response
            more = False
        finally:  # perhaps amid the stream, whose client has gone
            while more and (left := self._waiting.get()) is not None:
                if isinstance(left, Begun):
                    left.drop()

    def _answer(self, one: Begun | _Refused) -> Any:
        if not isinstance(one, Begun):
            return _failed(*one)
        try:
            answer = pb.ModelStreamInferResponse(infer_response=one.answer())
        except HGDeployError as error:
            return _failed(one.name, error)
        finally:
            self._begun.discard(one)
        # Clients that take several answers to a request look for the last one by this.
        answer.infer_response.parameters[_FINAL].bool_param = True
        return answer

    def _read(self) -> None:
        try:
            while True:
                with self._watch.limited(self._context, _IDLE_SECONDS):
                    request = next(self._requests)
                self._waiting.put(self._begin_one(request))
        except (StopIteration, grpc.RpcError):  # no more come, or the call is over
            pass
        finally:
            self._waiting.put(None)

    def _begin_one(self, request: Any) -> Begun | _Refused:
        try:
            begun = self._begin(request, self._context)
        except HGDeployError as error:
            return request.id, error
        self._begun.add(begun)
        return begun

    def _cancel(self) -> None:
        for one in list(self._begun):
            one.cancel()


def _failed(name: str, error: HGDeployError) -> Any:
    response = pb.ModelInferResponse(id=name)
    return pb.ModelStreamInferResponse(error_message=one_line(error), infer_response=response)
