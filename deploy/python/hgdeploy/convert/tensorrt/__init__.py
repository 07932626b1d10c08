# SPDX-License-Identifier: Apache-2.0
"""ONNX to TensorRT engines."""
