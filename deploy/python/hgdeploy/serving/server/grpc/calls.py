# SPDX-License-Identifier: Apache-2.0
"""The calls of the protocol, each in a thread that waits for its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc import service_pb2 as pb

from hgdeploy.serving.server.answers import model_metadata, server_metadata
from hgdeploy.serving.server.described import index_entry, model_config, statistics
from hgdeploy.serving.server.doors import DoorOptions
from hgdeploy.serving.server.grpc.infer import Begun, Messages, seconds_left
from hgdeploy.serving.server.grpc.messages import metadata_of, values_of
from hgdeploy.serving.server.grpc.stream import Stream
from hgdeploy.serving.server.grpc.watch import Watch
from hgdeploy.serving.server.models import Models
from hgdeploy.serving.server.protocol import check_control
from hgdeploy.serving.server.refusals import RefusedError, Why

# Streams at once; each takes the place of a call for as long as it is open.
_MOST_STREAMS = 64


class Calls:
    """What each call answers: a method takes its message and gRPC's context of the call.

    Args:
        models: what is served.
        doors: who may ask for what.
        messages: those that are held.
        watch: ends streams whose client keeps them waiting.
    """

    def __init__(
        self, models: Models, doors: DoorOptions, messages: Messages, watch: Watch
    ) -> None:
        self._models, self._doors, self._messages, self._watch = models, doors, messages, watch
        self._streams = threading.BoundedSemaphore(_MOST_STREAMS)

    def ServerLive(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say that the server runs."""
        return pb.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say whether the models have answered once."""
        return pb.ServerReadyResponse(ready=self._models.ready)

    def ServerMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say what the server is."""
        return pb.ServerMetadataResponse(**server_metadata())

    def ModelReady(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say whether a model is served."""
        try:
            self._models.find(request.name, request.version or None)
        except RefusedError:
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say what a model is."""
        _, model = self._models.find(request.name, request.version or None)
        return metadata_of(model_metadata(self._models, model))

    def ModelConfig(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say how a model is served."""
        _, model = self._models.find(request.name, request.version or None)
        config = model_config(self._models, model)
        return json_format.ParseDict({"config": config}, pb.ModelConfigResponse())

    def ModelStatistics(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Say what models have done."""
        found = statistics(self._models, request.name or None, request.version or None)
        return json_format.ParseDict(found, pb.ModelStatisticsResponse())

    def RepositoryIndex(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """List the models."""
        _check_repository(request)
        listed = [one for one in self._models.index() if one.ready or not request.ready]
        models = [index_entry(one) for one in listed]
        return json_format.ParseDict({"models": models}, pb.RepositoryIndexResponse())

    def RepositoryModelLoad(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Load a model again."""
        self._control(request, self._models.load_again)
        return pb.RepositoryModelLoadResponse()

    def RepositoryModelUnload(self, request: Any, context: Any) -> Any:  # noqa: N802, ARG002
        """Unload a model."""
        self._control(request, self._models.unload)
        return pb.RepositoryModelUnloadResponse()

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer a request."""
        begun = self._begin(request, context)
        if not context.add_callback(begun.cancel):  # the call is over already
            begun.cancel()
        return begun.answer()

    def ModelStreamInfer(self, requests: Iterator[Any], context: Any) -> Iterator[Any]:  # noqa: N802
        """Answer the requests of a stream, in their order, while it brings others.

        Raises:
            RefusedError: there are too many streams.
        """
        if not self._streams.acquire(blocking=False):
            text = f"{_MOST_STREAMS} streams are open already; close one, or use ModelInfer"
            raise RefusedError(Why.BUSY, text)
        try:
            yield from Stream(requests, context, self._begin, self._watch).answers()
        finally:
            self._streams.release()

    def _begin(self, request: Any, context: Any) -> Begun:
        return Begun(self._models, self._messages, request, seconds_left(context))

    def _control(self, request: Any, run: Callable[[str], None]) -> None:
        self._doors.check_control()
        _check_repository(request)
        check_control(values_of(request.parameters))
        run(request.model_name)


def _check_repository(request: Any) -> None:
    if request.repository_name:
        text = "the server has one repository, without a name; leave repository_name out"
        raise RefusedError(Why.UNSUPPORTED, text)
