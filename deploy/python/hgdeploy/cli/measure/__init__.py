# SPDX-License-Identifier: Apache-2.0
"""Verbs that compare, measure and choose."""
