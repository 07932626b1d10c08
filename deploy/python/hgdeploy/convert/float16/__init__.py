# SPDX-License-Identifier: Apache-2.0
"""ONNX to its fp16 and bf16 variants."""
