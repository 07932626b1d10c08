# SPDX-License-Identifier: Apache-2.0
"""Labelled images in batches, as PaddleClas's `DataLoader` section describes them."""
