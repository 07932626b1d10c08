# SPDX-License-Identifier: Apache-2.0
"""Train a network as PaddleClas's tools/train.py does; runs from any directory, uninstalled.

python deploy/python/train.py -c PPHGNet_small.yaml -o Global.device=cpu
python -m paddle.distributed.launch --gpus 0,1 deploy/python/train.py -c PPHGNet_small.yaml
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
    sys.exit(tool("train.py"))
