# SPDX-License-Identifier: Apache-2.0
"""The public door to classifying many files; the code is in `hgdeploy.classify`."""

from hgdeploy.classify.folder import classify_files, folder_options
from hgdeploy.classify.summary import Summary

__all__ = ["Summary", "classify_files", "folder_options"]
