# SPDX-License-Identifier: Apache-2.0
"""Triton's ONNX Runtime back end in Python, since no package brings the one in C++.

Triton runs it for every model with `backend: "onnxruntime"`; all else of the model's config
(batching, warm-up, labels, types and shapes) is the server's own work.
"""

import json
from pathlib import Path

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    """A model of that back end."""

    @staticmethod
    def auto_complete_config(config):
        """Say nothing that the config does not."""
        return config

    def initialize(self, args):
        """Load the ONNX file."""
        config = json.loads(args["model_config"])
        folder = Path(args["model_repository"], args["model_version"])
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        threads = config["parameters"].get("intra_op_thread_count")
        if threads is not None:
            options.intra_op_num_threads = int(threads["string_value"])
        self.session = onnxruntime.InferenceSession(
            folder / config["default_model_filename"], options, ["CPUExecutionProvider"]
        )

    def execute(self, requests):
        """Answer each request by itself."""
        return [self._answer(request) for request in requests]

    def _answer(self, request):
        feed = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        names = list(request.requested_output_names())
        values = self.session.run(names, feed)
        tensors = [triton.Tensor(*pair) for pair in zip(names, values, strict=True)]
        return triton.InferenceResponse(tensors)
