# SPDX-License-Identifier: Apache-2.0
"""The models that PaddleClas's package knows: their facts, their downloads, its cache."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from paddleclas_cache import MODEL
from web import QuietHandler, archive_model, serving

from hgdeploy.errors import ConfigError, DownloadError
from hgdeploy.paddleclas.names import fetched_image, fetched_model, known_name, pulc, series
from hgdeploy.transforms.attributes import VehicleAttribute
from hgdeploy.transforms.families import published_feed
from hgdeploy.transforms.operators import ResizeImage
from hgdeploy.transforms.operators_config import parse_ops
from hgdeploy.transforms.postprocess import ThreshOutput, Topk
from hgdeploy.transforms.postprocess_config import parse_postprocess


def test_all_232_imagenet_models_are_known_and_how_each_is_fed():
    models = [model for models in series().values() for model in models]
    assert (len(series()), len(models), len(set(models))) == (43, 232, 232)
    assert [name for name in models if published_feed(name) is None] == []
    assert all(known_name(name) == name for name in models)


def test_all_12_pulc_models_have_their_own_feed_and_output():
    assert len(pulc()) == 12
    outputs = {}
    for name, sections in pulc().items():
        assert known_name(name) == name
        assert parse_ops(sections["PreProcess"]["transform_ops"], name)
        outputs[name] = parse_postprocess(sections["PostProcess"], name).output
    assert outputs["person_exists"] == ThreshOutput(0.5, label_0="nobody", label_1="someone")
    assert outputs["vehicle_attribute"] == VehicleAttribute(0.5, 0.5)
    orientation = outputs["text_image_orientation"]
    assert isinstance(orientation, Topk)
    assert (orientation.topk, repr(orientation.labels)) == (
        2,
        "{0: '0', 1: '90', 2: '180', 3: '270'}",
    )
    signs = outputs["traffic_sign"]
    assert isinstance(signs, Topk)
    assert (signs.topk, len(signs.labels or ()), (signs.labels or {})[3]) == (5, 232, "ph4.2")
    line = parse_ops(pulc()["textline_orientation"]["PreProcess"]["transform_ops"], "")
    assert line[0] == ResizeImage(size=(160, 80))


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("resnet50", "ResNet50"),
        ("PPHGNet_smal", "PPHGNet_small"),
        ("person-exists", "person_exists"),
    ],
)
def test_an_unknown_name_lists_the_five_nearest(name: str, first: str):
    with pytest.raises(ConfigError, match="unknown model_name") as error:
        known_name(name)
    near = str(error.value).split("names: ")[1].split("; for")[0].split(", ")
    assert near[0] == first
    assert len(near) == 5


@pytest.mark.parametrize("name", ["PP-ShiTuV2", "PP-ShiTu"])
def test_pp_shitu_is_refused_by_name(name: str):
    with pytest.raises(ConfigError, match=r"PP-ShiTu.* does not do"):
        known_name(name)


@pytest.mark.parametrize(
    ("name", "path", "kind"),
    [
        ("PPHGNet_small", "inference", "IMN"),
        ("AlexNet", "inference", "IMN"),
        ("PPHGNetV2_B0", "inference", "IMN"),  # its archive is called ..._ssld
        ("person_exists", "models/PULC/inference", "PULC"),
    ],
)
def test_a_model_is_downloaded_once_into_the_cache_of_paddleclas(
    name: str, path: str, kind: str, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    archive = f"{name}{'_ssld' if 'V2' in name else ''}_infer.tar"
    archive_model(tmp_path / "web" / path / archive, MODEL)
    lines: list[str] = []
    with serving(tmp_path / "web") as url:
        monkeypatch.setenv("HGDEPLOY_MODELS_URL", f"{url}/")
        threads = [
            threading.Thread(target=fetched_model, args=(name, lines.append)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        folder = fetched_model(name)
    assert folder == home / ".paddleclas" / "inference_model" / kind / name
    assert sorted(file.name for file in folder.iterdir()) == sorted(file.name for file in MODEL)
    assert QuietHandler.requests == 1
    assert lines == [f"download {url}/{path}/{archive} to {folder / name}_infer.tar"]


def test_a_cache_that_is_there_is_used_as_it_is(cached: Callable[[str], Path]):
    folder = cached("PULC/car_exists")
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert fetched_model("car_exists") == folder
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_an_archive_that_is_none_is_not_kept(
    tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "web" / "inference").mkdir(parents=True)
    (tmp_path / "web" / "inference" / "VGG11_infer.tar").write_bytes(b"<html>")
    with serving(tmp_path / "web") as url:
        monkeypatch.setenv("HGDEPLOY_MODELS_URL", url)
        with pytest.raises(DownloadError, match="tar file"):
            fetched_model("VGG11")
    assert not [path for path in home.rglob("*") if path.is_file()]


def test_the_same_address_may_be_fetched_by_many_at_once(tmp_path: Path, home: Path):
    (tmp_path / "a.PNG").write_bytes(b"one")
    found: set[str] = set()
    with serving(tmp_path) as url:
        threads = [
            threading.Thread(target=lambda: found.add(fetched_image(f"{url}/a.PNG?x=/.y")))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    (image,) = map(Path, found)
    assert (image.parent, image.suffix) == (home / ".paddleclas" / "images", ".PNG")
    assert image.read_bytes() == b"one"
    assert list(image.parent.iterdir()) == [image]
