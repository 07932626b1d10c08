# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's random operators: on an image, and on a batch."""
