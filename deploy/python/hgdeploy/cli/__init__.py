# SPDX-License-Identifier: Apache-2.0
"""The command lines, with one module for each verb."""

from hgdeploy.cli.main import main

__all__ = ["main"]
