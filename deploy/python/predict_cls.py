# SPDX-License-Identifier: Apache-2.0
"""Classify images as PaddleClas's script of this name does; runs from any directory, uninstalled.

    python deploy/python/predict_cls.py -c deploy/configs/inference_cls.yaml \\
        -o Global.inference_model_dir=MODEL -o Global.infer_imgs=IMAGES -o Global.use_gpu=False
"""

from __future__ import annotations

import sys

try:
    from hgdeploy.cli.main import predict_cls
except ModuleNotFoundError as error:
    sys.exit(
        f"hgdeploy: error: {error.name} is not installed; "
        "run pip install -e '.[cpu]' in HGDeploy's folder"
    )

if __name__ == "__main__":
    sys.exit(predict_cls())
