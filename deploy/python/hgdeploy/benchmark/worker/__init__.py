# SPDX-License-Identifier: Apache-2.0
"""The process that measures one case, and what it needs before it can start."""
