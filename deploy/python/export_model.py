# SPDX-License-Identifier: Apache-2.0
"""Export a model as PaddleClas's tools/export_model.py does; runs from any directory, uninstalled.

    python deploy/python/export_model.py -c PPHGNet_small.yaml -o Global.pretrained_model=WEIGHTS \\
        -o Global.save_inference_dir=MODEL
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
    sys.exit(tool("export_model.py"))
