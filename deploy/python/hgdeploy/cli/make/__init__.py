# SPDX-License-Identifier: Apache-2.0
"""Verbs that make one artifact from another."""
