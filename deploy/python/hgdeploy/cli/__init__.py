# SPDX-License-Identifier: Apache-2.0
"""The command lines: one file a verb."""

from hgdeploy.cli.main import main

__all__ = ["main"]
