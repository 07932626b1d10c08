# SPDX-License-Identifier: Apache-2.0
"""The golden set: what preprocessing makes of stored pictures, in every bit."""

from __future__ import annotations

import json

import numpy as np
from golden_set import FOLDER, cases, digest

from hgdeploy.images.decode import decode_image
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.preprocess import Preprocessor

ROWS = json.loads((FOLDER / "cases.json").read_text(encoding="utf-8"))


def test_python_makes_the_golden_tensors() -> None:
    for row in ROWS:
        image = decode_image((FOLDER / row["file"]).read_bytes())
        tensor = Preprocessor(parse_ops(row["ops"], "ops"))(image)
        assert (str(tensor.dtype), list(tensor.shape)) == (row["dtype"], row["shape"]), row
        assert digest(tensor) == row["sha256"], row


def test_the_whole_tensors_are_those_of_the_digests() -> None:
    kept = [row for row in ROWS if "tensor" in row]
    assert kept
    assert all(digest(np.load(FOLDER / row["tensor"])) == row["sha256"] for row in kept)


def test_the_set_has_every_case_of_its_maker() -> None:
    made = json.loads(json.dumps([[name, ops] for name, ops in cases()]))
    assert [[row["file"], row["ops"]] for row in ROWS] == made
