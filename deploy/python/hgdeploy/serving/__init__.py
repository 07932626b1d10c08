# SPDX-License-Identifier: Apache-2.0
"""Prepare models for servers."""
