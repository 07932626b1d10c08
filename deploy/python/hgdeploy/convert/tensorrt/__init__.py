# SPDX-License-Identifier: Apache-2.0
"""TensorRT engines."""
