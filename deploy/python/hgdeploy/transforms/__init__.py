# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's preprocessing and postprocessing, as computed there."""
