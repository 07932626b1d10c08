# SPDX-License-Identifier: Apache-2.0
"""The YAML files in deploy/configs agree with the zoo."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import REPO
from hgdeploy import zoo
from hgdeploy.paddleclas.config import load_config
from hgdeploy.paddleclas.training.config import load_training_config
from hgdeploy.paddleclas.training.recipe import read_recipe
from hgdeploy.paddleclas.training.tasks import read_transforms
from hgdeploy.training.data.section import read_section
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


@pytest.mark.parametrize("path", sorted((CONFIGS / "train").glob("*.yaml")), ids=lambda p: p.stem)
def test_each_training_config_is_served_whole(path: Path):
    """All but the teacher's weights, which have no default place."""
    told: list[str] = []
    given = ["Global.device=cpu"]
    if "ssld" in path.stem:
        given.append("Arch.models.0.Teacher.pretrained=teacher.pdparams")
    config = load_training_config(path, given)
    recipe = read_recipe(config, told.append)
    assert told == ["AMP has no effect on a CPU, where Paddle trains in float32"]
    assert config.warnings == ()
    train, held_out = (
        read_section(section, training=training)
        for section, training in ((recipe.train, True), (recipe.evaluate, False))
    )
    assert (train.shuffle, held_out.shuffle) == (True, False)
    assert recipe.arch.startswith("PPHGNet_")
    assert ops_difference(read_transforms(config), zoo.info(recipe.arch).preprocess) == []
