# SPDX-License-Identifier: Apache-2.0
"""PaddleClas's training config, as its `infer.py`, `eval.py` and `export_model.py` read it."""
