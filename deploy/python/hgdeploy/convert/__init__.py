# SPDX-License-Identifier: Apache-2.0
"""Converters: one artifact made from another, each with a sidecar that says how."""
