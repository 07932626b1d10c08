# SPDX-License-Identifier: Apache-2.0
"""From Paddle to ONNX."""
