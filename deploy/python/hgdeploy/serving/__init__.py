# SPDX-License-Identifier: Apache-2.0
"""Serving: a server of our own, and files for other inference servers."""
