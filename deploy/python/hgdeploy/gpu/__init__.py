# SPDX-License-Identifier: Apache-2.0
"""NVIDIA GPUs: the driver, and memory, streams and events through one of two libraries."""
