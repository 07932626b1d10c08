# SPDX-License-Identifier: Apache-2.0
"""Measure a suite as `hgdeploy benchmark` does; runs from any folder, without installation.

python benchmarks/run.py --suite benchmarks/suites/v100_table.yaml --engine onnxruntime \\
    --output results.json
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "deploy" / "python"))

try:
    from hgdeploy.cli import main
except ModuleNotFoundError as error:
    sys.exit(
        f"hgdeploy: error: {error.name} is not installed; "
        "run pip install -e '.[cpu,convert]' in HGDeploy's folder"
    )

if __name__ == "__main__":
    sys.exit(main(["benchmark", *sys.argv[1:]]))
