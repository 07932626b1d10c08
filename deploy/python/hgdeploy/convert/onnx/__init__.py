# SPDX-License-Identifier: Apache-2.0
"""Paddle to ONNX."""
