# SPDX-License-Identifier: Apache-2.0
"""Model repositories for NVIDIA's Triton Inference Server."""
