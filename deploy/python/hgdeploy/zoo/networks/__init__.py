# SPDX-License-Identifier: Apache-2.0
"""The networks in paddle.nn."""
