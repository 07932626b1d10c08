# SPDX-License-Identifier: Apache-2.0
"""Whether two runs of one model agree, and where they differ."""
