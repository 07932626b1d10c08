# SPDX-License-Identifier: Apache-2.0
"""Classify images with a bundle: one by one, in folders, on a cluster."""
