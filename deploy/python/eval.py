# SPDX-License-Identifier: Apache-2.0
"""Measure accuracy as PaddleClas's tools/eval.py does; runs from any directory, uninstalled.

    python deploy/python/eval.py -c PPHGNet_small.yaml \\
        -o Global.pretrained_model=output/PPHGNet_small/best_model
"""

from __future__ import annotations

import sys

try:
    from hgdeploy.cli.main import tool
except ModuleNotFoundError as error:
    sys.exit(
        f"hgdeploy: error: {error.name} is not installed; "
        "run pip install -e '.[cpu]' in HGDeploy's folder"
    )

if __name__ == "__main__":
    sys.exit(tool("eval.py"))
