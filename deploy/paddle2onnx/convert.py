# SPDX-License-Identifier: Apache-2.0
"""Convert a Paddle model to ONNX with paddle2onnx's flags; runs from any directory, uninstalled.

python deploy/paddle2onnx/convert.py --model_dir MODEL --save_file MODEL/inference.onnx
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python"))

try:
    from hgdeploy.cli.main import paddle2onnx
except ModuleNotFoundError as error:
    sys.exit(
        f"hgdeploy: error: {error.name} is not installed; "
        "run pip install -e '.[cpu,convert]' in HGDeploy's folder"
    )

if __name__ == "__main__":
    sys.exit(paddle2onnx())
