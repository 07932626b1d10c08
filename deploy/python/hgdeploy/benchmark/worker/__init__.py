# SPDX-License-Identifier: Apache-2.0
"""The process that measures one case."""
