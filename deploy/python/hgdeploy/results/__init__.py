# SPDX-License-Identifier: Apache-2.0
"""Results on disk: rows, tables, the resumable file, writers and the page."""
