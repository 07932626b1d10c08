# SPDX-License-Identifier: Apache-2.0
"""Classify images as PaddleClas's tools/infer.py does; runs from any directory, uninstalled.

    python deploy/python/infer.py -c PPHGNet_small.yaml \\
        -o Global.pretrained_model=output/PPHGNet_small/best_model -o Infer.infer_imgs=IMAGES
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
    sys.exit(tool("infer.py"))
