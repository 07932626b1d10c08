# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's configs and command lines."""
