# SPDX-License-Identifier: Apache-2.0
"""Do two runs of one model agree, and where not?"""
