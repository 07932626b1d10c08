# SPDX-License-Identifier: Apache-2.0
"""ONNX to its int8 variant."""
