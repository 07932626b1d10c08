# SPDX-License-Identifier: Apache-2.0
"""The public door to result files that can be resumed; the code is in `hgdeploy.results`."""

from hgdeploy.results.file import OnChange, Plan, ResultsFile

__all__ = ["OnChange", "Plan", "ResultsFile"]
