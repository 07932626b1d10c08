# SPDX-License-Identifier: Apache-2.0
"""Tables, figures and comparisons: pure functions of result files."""
