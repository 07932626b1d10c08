# SPDX-License-Identifier: Apache-2.0
"""The verbs that compare, measure and recommend."""
