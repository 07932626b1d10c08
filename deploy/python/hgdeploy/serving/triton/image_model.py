# SPDX-License-Identifier: Apache-2.0
"""The model of Triton's Python back end that takes image files, as our own server does.

It runs in Triton's Python (https://github.com/triton-inference-server/python_backend). The back
end's own module, `triton_python_backend_utils`, exists nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from hgdeploy._version import __version__
from hgdeploy.classify.batch import Answer
from hgdeploy.engines.options import EngineOptions
from hgdeploy.errors import HGDeployError, one_line
from hgdeploy.serving.server.protocol import ERROR_OUTPUT, IMAGE_INPUT
from hgdeploy.serving.triton.files import FACTS, open_images_model
from hgdeploy.system.documents import parse_json
from hgdeploy.transforms.operators_config import parse_ops

MODEL_FILE = "model.py"
MODEL_TEXT = '''\
"""Takes image files; needs HGDeploy in the Python that Triton's Python back end runs."""

from hgdeploy.triton import ImageModel as TritonPythonModel

__all__ = ["TritonPythonModel"]
'''
"""What Triton loads."""


class ImageModel:
    """One instance of the model; Triton calls its methods, one at a time."""

    def initialize(self, args: Mapping[str, str]) -> None:
        """Load the model.

        Args:
            args: Triton's description of the model and of this instance.

        Raises:
            TritonModelException: it cannot be loaded; the message says why.
        """
        import triton_python_backend_utils as triton

        config = parse_json(args["model_config"])
        facts = _facts(config)
        if facts["version"] != __version__:
            triton.Logger.log_warn(
                f"{args['model_name']} was written by HGDeploy {facts['version']}, and this is "
                f"{__version__}; write it again with hgdeploy build --triton"
            )
        try:
            self._model = open_images_model(
                Path(args["model_repository"], args["model_version"]),
                parse_ops(facts["preprocess"], "preprocess"),
                *_options(config, args),
            )
        except HGDeployError as error:
            raise triton.TritonModelException(one_line(error)) from None

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests, whose images are worked off together.

        An image that fails has a reason in the output `error`, and NaN for its scores; a request
        that does not ask for this output is refused with the first reason.
        """
        import triton_python_backend_utils as triton

        waiting = []
        for request in requests:
            files = triton.get_input_tensor_by_name(request, IMAGE_INPUT).as_numpy()
            images = [self._model.image(_file(data)) for data in files.ravel()]
            waiting.append(self._model.submit(images))
        return [
            self._response(request.requested_output_names(), futures)
            for request, futures in zip(requests, waiting, strict=True)
        ]

    def finalize(self) -> None:
        """Free the engine."""
        self._model.close()

    def _response(self, names: Sequence[str], futures: Sequence[Future[Answer]]) -> Any:
        import triton_python_backend_utils as triton

        try:
            answers = [future.result() for future in futures]
        except HGDeployError as error:
            return _refused(one_line(error), triton.TritonError.INTERNAL)
        reasons = [one.prediction.error or "" for one in answers]
        if any(reasons) and ERROR_OUTPUT not in names:
            first = next(i for i, reason in enumerate(reasons) if reason)
            return _refused(f"image {first}: {reasons[first]}", triton.TritonError.INVALID_ARG)
        none = np.full(self._model.classes, np.nan, np.float32)
        rows = [none if one.row is None else one.row for one in answers]
        values = {
            self._model.output.name: np.stack(rows).astype(np.float32, copy=False),
            ERROR_OUTPUT: np.array([[reason.encode()] for reason in reasons], np.object_),
        }
        return triton.InferenceResponse([triton.Tensor(name, values[name]) for name in names])


def _file(data: bytes) -> bytes:
    """Return an image file: in JSON, which has no bytes, it is base64, as no image file can be."""
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error:
        return data


def _refused(reason: str, code: int) -> Any:
    import triton_python_backend_utils as triton

    return triton.InferenceResponse(error=triton.TritonError(reason, code))


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    return dict(parse_json(config["parameters"][FACTS]["string_value"]))


def _options(config: Mapping[str, Any], args: Mapping[str, str]) -> tuple[EngineOptions, int]:
    """Return how ONNX Runtime is loaded, and the most images of one inference.

    On a CPU one inference has one image: larger batches are no faster there. The instances share
    the CPUs.
    """
    options = EngineOptions(precision=_facts(config)["precision"])
    if args["model_instance_kind"] == "GPU":
        device, batch = f"gpu:{args['model_instance_device_id']}", int(config["max_batch_size"])
        return dataclasses.replace(options, device=device, max_batch=batch), batch
    threads = config["parameters"].get("threads")
    if threads is not None:
        return dataclasses.replace(options, threads=int(threads["string_value"])), 1
    instances = sum(int(group["count"]) for group in config["instance_group"])
    return dataclasses.replace(options, threads=max(1, options.cpu_threads // instances)), 1
