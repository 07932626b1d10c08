# SPDX-License-Identifier: Apache-2.0
"""The YAML files in deploy/configs agree with the zoo."""

from __future__ import annotations

import pytest

from conftest import REPO
from hgdeploy import zoo
from hgdeploy.paddleclas.config import load_config
from hgdeploy.transforms.difference import ops_difference
from hgdeploy.transforms.postprocess import Topk

CONFIGS = REPO / "deploy" / "configs"


@pytest.mark.parametrize("name", zoo.names())
def test_each_model_has_a_config_with_its_own_preprocessing(name: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(CONFIGS / f"{name}.yaml")
    assert ops_difference(config.preprocess, zoo.info(name).preprocess) == []
    assert config.bundle.name == f"{name}_infer"
    assert isinstance(config.postprocess.output, Topk)
    assert len(config.postprocess.output.labels) == 1000


def test_there_is_no_config_without_a_model():
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names == {"inference_cls", *zoo.names()}
