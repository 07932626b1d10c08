# SPDX-License-Identifier: Apache-2.0
"""Weights from files, read safely."""
